/**
 * Words of byte-level vocabularies. Merges never cross the borders of GPT-2's words, and words repeat, so a
 * corpus is encoded far faster when the ids of each word are remembered.
 */

/**
 * How GPT-2 splits text into words. Source: openai/gpt-2, encoder.py. White space is Unicode's, as there;
 * JavaScript's \s takes U+FEFF for a space and U+0085 for none.
 */
export const WORD_PATTERN =
  /'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\p{White_Space}\p{L}\p{N}]+|\p{White_Space}+(?!\P{White_Space})|\p{White_Space}+/gu;

const MAX_WORDS = 100_000;
const MAX_WORD_CHARS = 64;

export interface AddedToken {
  id: number;
  content: string;
  special?: boolean;
  lstrip?: boolean;
  rstrip?: boolean;
  normalized?: boolean;
}

/** Those with a name; the others do nothing. */
export function addedTokens(tokenizerJson: { [key: string]: unknown }): AddedToken[] {
  return ((tokenizerJson.added_tokens ?? []) as AddedToken[]).filter(({ content }) => content !== '');
}

/**
 * The same ids as `encode`, which it asks for each new word; null where words cannot be told apart this way:
 * other models, other splitting, added tokens that take spaces with them.
 */
export function wordEncoder(
  tokenizerJson: { [key: string]: unknown },
  tokenizerConfig: { [key: string]: unknown },
  encode: (text: string) => number[],
): ((text: string) => number[]) | null {
  const split = (tokenizerJson.pre_tokenizer ?? {}) as { [key: string]: unknown };
  const normalizer = (tokenizerJson.normalizer as { type?: unknown } | null)?.type ?? null;
  const added = addedTokens(tokenizerJson);
  const isGpt2Like =
    (tokenizerJson.model as { type?: unknown }).type === 'BPE' &&
    split.type === 'ByteLevel' &&
    split.use_regex !== false &&
    split.add_prefix_space !== true &&
    (normalizer === null || normalizer === 'NFC') &&
    !tokenizerConfig.remove_space &&
    !tokenizerConfig.do_lowercase_and_remove_accent;
  const isFixed = (token: AddedToken): boolean =>
    !token.lstrip && !token.rstrip && token.content.normalize('NFC') === token.content;
  if (!isGpt2Like || !added.every(isFixed)) return null;

  const idOfAdded = new Map(added.map((token) => [token.content, token.id]));
  // Tokens that ask to be matched after normalisation come second, in what the others leave.
  const isSecond = (token: AddedToken): boolean =>
    normalizer !== null && (token.normalized ?? !token.special);
  const first = anyOf(added.filter((token) => !isSecond(token)).map(({ content }) => content));
  const second = anyOf(added.filter(isSecond).map(({ content }) => content));
  const sectionsOf = (text: string): string[] =>
    splitAt(text, first).flatMap((section) => (idOfAdded.has(section) ? section : splitAt(section, second)));

  const idsOf = remembered(encode);
  return (text) => {
    if (normalizer === 'NFC' && text.normalize('NFC') !== text) return encode(text);
    const out: number[] = [];
    for (const section of sectionsOf(text)) {
      const id = idOfAdded.get(section);
      if (id !== undefined) out.push(id);
      else
        for (const [word] of section.matchAll(WORD_PATTERN)) for (const part of idsOf(word)) out.push(part);
    }
    return out;
  };
}

/** Remembers the ids of short words; all are forgotten when they become too many. */
export function remembered(encode: (word: string) => number[]): (word: string) => readonly number[] {
  const known = new Map<string, readonly number[]>();
  return (word) => {
    const found = known.get(word);
    if (found !== undefined) return found;
    const ids = encode(word);
    if (known.size >= MAX_WORDS) known.clear();
    if (word.length <= MAX_WORD_CHARS) known.set(word, ids);
    return ids;
  };
}

function splitAt(text: string, cut: RegExp | null): string[] {
  return cut === null ? [text] : text.split(cut);
}

/** An expression that finds the longest of `texts` and captures it, for `split`; null if there are none. */
export function anyOf(texts: Iterable<string>): RegExp | null {
  const longestFirst = [...texts].sort((a, b) => b.length - a.length);
  if (longestFirst.length === 0) return null;
  const escaped = longestFirst.map((text) => text.replace(/[\\^$.*+?()[\]{}|]/g, '\\$&'));
  return new RegExp(`(${escaped.join('|')})`, 'u');
}
