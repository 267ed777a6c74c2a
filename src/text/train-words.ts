/**
 * Makes a vocabulary of whole words as a Hugging Face `tokenizer.json`: what small classifiers
 * learn fastest from. Words, numbers and punctuation marks are told apart as by BERT (Devlin et al.
 * 2018, its BertNormalizer and BertPreTokenizer); each Chinese character is a word. A text's other
 * words become one unknown token.
 */
import { Tokenizer as HuggingFaceTokenizer } from '@huggingface/tokenizers';
import { ConfigError } from '../base/errors.ts';
import type { JsonObject } from './library-json.ts';

export interface TrainWordsOptions {
  /**
   * Tokens at most: the unknown token and the most frequent words, of equals the first in
   * the order of their characters.
   */
  vocabSize: number;
  /** Words that occur less often are left out. Default 2. */
  leastCount?: number;
  /** Default true. */
  lowercase?: boolean;
}

export interface TrainedWords {
  vocabSize: number;
  tokenizerJson: JsonObject;
  tokenizerConfig: JsonObject;
}

const UNKNOWN = '[UNK]';
/** Longer runs of characters are no words. */
const MAX_CHARS = 100;

/** Throws ConfigError for a vocabulary below 2 and for texts without a word that is frequent enough. */
export function trainWords(texts: Iterable<string>, options: TrainWordsOptions): TrainedWords {
  const { vocabSize, leastCount = 2, lowercase = true } = options;
  if (!Number.isInteger(vocabSize) || vocabSize < 2 || vocabSize > 2 ** 24) {
    throw new ConfigError(
      `trainWords: expected a vocabulary of 2 to 2^24 tokens, got ${vocabSize}. Ask for more words.`,
    );
  }
  const frame = tokenizerJsonOf({ [UNKNOWN]: 0 }, lowercase);
  const { normalizer, pre_tokenizer: split } = new HuggingFaceTokenizer(frame, {});
  const counts = new Map<string, number>();
  for (const text of texts) {
    for (const word of split!.pre_tokenize_text(normalizer!.normalize(text), {}))
      counts.set(word, (counts.get(word) ?? 0) + 1);
  }
  const words = [...counts]
    .filter(([word, count]) => count >= leastCount && word.length <= MAX_CHARS && word !== UNKNOWN)
    .sort(([a, m], [b, n]) => n - m || (a < b ? -1 : 1))
    .slice(0, vocabSize - 1)
    .map(([word]) => word);
  if (words.length === 0) {
    throw new ConfigError(
      `trainWords: expected texts with a word that occurs ${leastCount} times, got none. Give more text or use bpe:SIZE.`,
    );
  }
  const vocab = Object.fromEntries([UNKNOWN, ...words].map((word, id) => [word, id]));
  return {
    vocabSize: words.length + 1,
    tokenizerJson: tokenizerJsonOf(vocab, lowercase),
    tokenizerConfig: {
      tokenizer_class: 'PreTrainedTokenizerFast',
      clean_up_tokenization_spaces: false,
      unk_token: UNKNOWN,
    },
  };
}

function tokenizerJsonOf(vocab: Record<string, number>, lowercase: boolean): JsonObject {
  return {
    version: '1.0',
    truncation: null,
    padding: null,
    added_tokens: [
      {
        id: 0,
        content: UNKNOWN,
        single_word: false,
        lstrip: false,
        rstrip: false,
        normalized: false,
        special: true,
      },
    ],
    normalizer: {
      type: 'BertNormalizer',
      clean_text: true,
      handle_chinese_chars: true,
      strip_accents: false,
      lowercase,
    },
    pre_tokenizer: { type: 'BertPreTokenizer' },
    post_processor: null,
    decoder: { type: 'WordPiece', prefix: '##', cleanup: false },
    model: {
      type: 'WordPiece',
      unk_token: UNKNOWN,
      continuing_subword_prefix: '##',
      max_input_chars_per_word: MAX_CHARS,
      vocab,
    },
  };
}
