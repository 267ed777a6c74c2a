/**
 * Trains a byte-level BPE vocabulary and writes it as a Hugging Face `tokenizer.json`, which
 * `tokenizerFromJson`, the Python library and every other reader of that format can run.
 * Source: Sennrich, Haddow, Birch, "Neural Machine Translation of Rare Words with Subword Units" (2016);
 * bytes and the splitting pattern as in GPT-2.
 */

import { CHAR_OF_BYTE } from '../base/byte-alphabet.ts';
import { ConfigError } from '../base/errors.ts';
import type { JsonObject } from './library-json.ts';
import { learnMerges } from './merges.ts';
import { anyOf, WORD_PATTERN } from './words.ts';

export interface TrainBpeOptions {
  /** Tokens wanted in all: special tokens, 256 bytes, merges. */
  vocabSize: number;
  /** Get the ids from 0 on; the first one is the end-of-text token. Default: `['<|endoftext|>']`. */
  specialTokens?: readonly string[];
  /** Learns and encodes everything in lower case, as small classifiers want it. Default false. */
  lowercase?: boolean;
}

export interface TrainedBpe {
  /** Below `options.vocabSize` when the text has no more pairs that occur twice. */
  vocabSize: number;
  tokenizerJson: JsonObject;
  tokenizerConfig: JsonObject;
}

/**
 * Learns merges from texts (given whole or in pieces; a piece ends a word). Ids: special tokens, then the
 * byte values in order, then merges in the order learned. Each step merges the pair with the highest count;
 * equal counts go to the smaller left id, then the smaller right id, so the same text gives the same
 * vocabulary everywhere. Special tokens inside the text are cut out and not learned from. Memory grows with
 * the number of different words, not with the text.
 *
 * Throws ConfigError for a vocabulary below 256 + special tokens, repeated or empty
 * special tokens, and empty text.
 */
export function trainBpe(texts: Iterable<string>, options: TrainBpeOptions): TrainedBpe {
  const { specialTokens = ['<|endoftext|>'], lowercase = false } = options;
  checkOptions(options.vocabSize, specialTokens);
  const counts = countWords(texts, specialTokens, lowercase);
  const encoder = new TextEncoder();
  const words = [...counts].map(([word, count]) => ({ bytes: encoder.encode(word), count }));
  const merges = learnMerges(words, options.vocabSize - 256 - specialTokens.length);

  const strings = [...CHAR_OF_BYTE]; // by symbol: 256 bytes, then merges
  const mergeLines: string[] = [];
  for (const [left, right] of merges) {
    strings.push(strings[left]! + strings[right]!);
    mergeLines.push(`${strings[left]} ${strings[right]}`);
  }
  const vocab = Object.fromEntries([...specialTokens, ...strings].map((token, id) => [token, id]));
  return {
    vocabSize: specialTokens.length + strings.length,
    tokenizerJson: tokenizerJsonOf(vocab, mergeLines, specialTokens, lowercase),
    tokenizerConfig: {
      tokenizer_class: 'PreTrainedTokenizerFast',
      clean_up_tokenization_spaces: false,
      ...(specialTokens.length > 0 ? { eos_token: specialTokens[0] } : {}),
    },
  };
}

function checkOptions(vocabSize: number, specialTokens: readonly string[]): void {
  const least = 256 + specialTokens.length;
  if (!Number.isInteger(vocabSize) || vocabSize < least || vocabSize > 2 ** 24) {
    throw new ConfigError(
      `trainBpe: expected a vocabulary of ${least} (256 bytes, ${specialTokens.length} special tokens) to 2^24, ` +
        `got ${vocabSize}. Ask for more tokens.`,
    );
  }
  const taken = new Set(CHAR_OF_BYTE);
  for (const token of specialTokens) {
    if (token.length === 0 || taken.has(token)) {
      throw new ConfigError(
        `trainBpe: expected special tokens that differ from each other and from single bytes, ` +
          `got ${JSON.stringify(token)}. Rename or remove it.`,
      );
    }
    taken.add(token);
  }
}

function countWords(
  texts: Iterable<string>,
  specialTokens: readonly string[],
  lowercase: boolean,
): Map<string, number> {
  const counts = new Map<string, number>();
  const cut = anyOf(specialTokens);
  for (const text of texts) {
    for (const part of cut === null ? [text] : text.split(cut)) {
      if (specialTokens.includes(part)) continue;
      const words = lowercase ? part.toLowerCase() : part;
      for (const [word] of words.matchAll(WORD_PATTERN)) counts.set(word, (counts.get(word) ?? 0) + 1);
    }
  }
  if (counts.size > 0) return counts;
  throw new ConfigError(
    'trainBpe: expected text to learn from, got none. Check the files and the text field.',
  );
}

function tokenizerJsonOf(
  vocab: Record<string, number>,
  merges: string[],
  specialTokens: readonly string[],
  lowercase: boolean,
): JsonObject {
  const byteLevel = { type: 'ByteLevel', add_prefix_space: false, trim_offsets: true, use_regex: true };
  return {
    version: '1.0',
    truncation: null,
    padding: null,
    added_tokens: specialTokens.map((content, id) => ({
      id,
      content,
      single_word: false,
      lstrip: false,
      rstrip: false,
      normalized: false,
      special: true,
    })),
    normalizer: lowercase ? { type: 'Lowercase' } : null,
    pre_tokenizer: byteLevel,
    post_processor: null,
    decoder: byteLevel,
    model: {
      type: 'BPE',
      dropout: null,
      unk_token: null,
      continuing_subword_prefix: null,
      end_of_word_suffix: null,
      fuse_unk: false,
      byte_fallback: false,
      vocab,
      merges,
    },
  };
}
