/**
 * Words of vocabularies in the manner of Llama, which split nothing before they merge. Where no merge puts
 * anything in front of a space, merges never cross the place in front of a run of spaces: words there are
 * encoded alone and remembered, a hundred times faster than the text as a whole.
 */
import type { JsonObject } from './library-json.ts';
import { addedTokens, anyOf, remembered } from './words.ts';

/** A space and what stands for one in the vocabulary; both become the latter. */
const WORD = /[ ▁]*[^ ▁]+|[ ▁]+/gu;

/**
 * The same ids as the library; null where words cannot be told apart this way. `encodeBare` encodes a text
 * without a space in front of it. A continuation has no such space before its first added token.
 */
export function llamaEncoder(
  tokenizerJson: JsonObject,
  tokenizerConfig: JsonObject,
  encodeBare: (text: string) => number[],
): ((text: string, isContinuation: boolean) => number[]) | null {
  const { model, normalizer, pre_tokenizer: split } = tokenizerJson;
  const added = addedTokens(tokenizerJson);
  const prefix = prefixOf(normalizer);
  if (
    prefix === null ||
    (split ?? null) !== null ||
    tokenizerConfig.remove_space ||
    tokenizerConfig.do_lowercase_and_remove_accent ||
    !hasWords(model as JsonObject) ||
    added.some(({ lstrip, rstrip, normalized, special }) => lstrip || rstrip || (normalized ?? !special))
  ) {
    return null;
  }
  const cut = anyOf(added.map(({ content }) => content));
  const idOf = new Map(added.map(({ content, id }) => [content, id]));
  const idsOf = remembered(encodeBare);
  return (text, isContinuation) => {
    const out: number[] = [];
    const sections = cut === null ? [text] : text.split(cut);
    for (const [i, section] of sections.entries()) {
      if (section === '') continue;
      const id = i % 2 === 1 ? idOf.get(section) : undefined;
      if (id !== undefined) {
        out.push(id);
        continue;
      }
      const spaced = isContinuation && i === 0 ? section : prefix + section;
      for (const [word] of spaced.matchAll(WORD)) for (const part of idsOf(word)) out.push(part);
    }
    return out;
  };
}

/**
 * A space or nothing: what the normalizer puts in front. Null if it does anything but
 * that and turning spaces into ▁.
 */
function prefixOf(normalizer: unknown): string | null {
  const { type, normalizers } = (normalizer ?? {}) as JsonObject;
  const parts = type === 'Sequence' && Array.isArray(normalizers) ? [...normalizers] : [normalizer];
  const hasPrefix = parts[0]?.type === 'Prepend' && parts.shift().prepend === '▁';
  const [replace, ...others] = parts;
  const isPlain = replace?.type === 'Replace' && replace.pattern?.String === ' ' && replace.content === '▁';
  return isPlain && others.length === 0 ? (hasPrefix ? ' ' : '') : null;
}

/**
 * Every character has tokens (none is unknown, which would join its neighbours),
 * and spaces only begin a merge.
 */
function hasWords({ type, byte_fallback: bytes, vocab, merges }: JsonObject): boolean {
  if (type !== 'BPE' || bytes !== true) return false;
  for (let byte = 0; byte < 256; byte++) {
    const name = `<0x${byte.toString(16).toUpperCase().padStart(2, '0')}>`;
    if (!Object.hasOwn(vocab as JsonObject, name)) return false;
  }
  const tokenOf = (merge: unknown): string =>
    Array.isArray(merge) ? merge.join('') : String(merge).replace(' ', '');
  return !(merges as unknown[]).some((merge) => /[^▁]▁/u.test(tokenOf(merge)));
}
