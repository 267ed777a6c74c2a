/**
 * Encoding a text that goes on in the middle of another. Llama's vocabularies put a space in front of every
 * text; in front of a continuation it would be one space too many.
 */
import { Tokenizer as HuggingFaceTokenizer } from '@huggingface/tokenizers';
import type { JsonObject } from './library-json.ts';
import { type AddedToken, anyOf } from './words.ts';

/** The tokenizer without the space in front, sharing the vocabulary; null if it adds none. */
export function withoutPrefix(
  library: HuggingFaceTokenizer,
  json: JsonObject,
  config: JsonObject,
): HuggingFaceTokenizer | null {
  const normalizer = bare(json.normalizer);
  const words = bare(json.pre_tokenizer);
  if (normalizer === json.normalizer && words === json.pre_tokenizer) return null;
  const model = { type: 'BPE', vocab: {}, merges: [] };
  const changed = new HuggingFaceTokenizer({ ...json, normalizer, pre_tokenizer: words, model }, config);
  changed.model = library.model;
  return changed;
}

/**
 * Encodes a continuation: up to the first added token by `encodeBare`, the rest as always: behind an added
 * token the space belongs to the ids that the model was trained with.
 */
export function continuationEncoder(
  added: readonly AddedToken[],
  encodeBare: (text: string) => number[],
  encode: (text: string) => number[],
): (text: string) => number[] {
  const cut = anyOf(added.map(({ content }) => content));
  return (text) => {
    const found = cut?.exec(text);
    if (!found) return encodeBare(text);
    const head = text.slice(0, found.index);
    const takesSpace = added.some(({ content, lstrip }) => lstrip && content === found[0]);
    return [...encodeBare(takesSpace ? head.trimEnd() : head), ...encode(text.slice(found.index))];
  };
}

/** A normalizer or pre-tokenizer that adds no space in front; the same object if it never did. */
function bare(part: unknown): unknown {
  if (typeof part !== 'object' || part === null) return part;
  const { type, prepend_scheme: scheme, add_prefix_space: adds } = part as JsonObject;
  if (type === 'Prepend') return null;
  if (type === 'Metaspace' && scheme !== 'never') return { ...part, prepend_scheme: 'never' };
  if (type === 'ByteLevel' && adds === true) return { ...part, add_prefix_space: false };
  for (const list of ['normalizers', 'pretokenizers']) {
    const parts = (part as JsonObject)[list];
    if (type !== 'Sequence' || !Array.isArray(parts)) continue;
    const changed = parts.map(bare);
    if (changed.some((one, i) => one !== parts[i])) {
      return { ...part, [list]: changed.filter((one) => one !== null) };
    }
  }
  return part;
}
