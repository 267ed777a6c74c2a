/**
 * Splitting of text into words as each family's own tokenizer.json has it, by the name that
 * tokenizer.ggml.pre gives the family. The families of published Mamba models and hybrids.
 */
import { isObject, type JsonObject } from './json.ts';

export const BYTE_LEVEL: JsonObject = {
  type: 'ByteLevel',
  add_prefix_space: false,
  trim_offsets: true,
  use_regex: true,
};
const split = (regex: string): JsonObject => ({
  type: 'Split',
  pattern: { Regex: regex },
  behavior: 'Isolated',
  invert: false,
});
const sequence = (...pretokenizers: JsonObject[]): JsonObject => ({ type: 'Sequence', pretokenizers });

const FALCON = sequence(
  { type: 'Punctuation', behavior: 'Contiguous' },
  BYTE_LEVEL,
  { type: 'Digits', individual_digits: false },
  split('[0-9][0-9][0-9]'),
);
const STARCODER = sequence({ type: 'Digits', individual_digits: true }, BYTE_LEVEL);
const LLAMA3 = sequence(
  split(
    "(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+",
  ),
  { ...BYTE_LEVEL, use_regex: false },
);

interface Family {
  words: JsonObject;
  /** Whole words of the vocabulary are tokens whatever the merges say. */
  ignoresMerges?: boolean;
}

/** The first of several names with the same rules is the one that is written. */
export const FAMILIES: ReadonlyMap<string, Family> = new Map([
  ['gpt-2', { words: BYTE_LEVEL }],
  ['mpt', { words: BYTE_LEVEL }], // GPT-NeoX
  ['olmo', { words: BYTE_LEVEL }],
  ['falcon', { words: FALCON }],
  ['starcoder', { words: STARCODER }],
  ['refact', { words: STARCODER }], // Granite 3
  ['llama-bpe', { words: LLAMA3, ignoresMerges: true }],
  ['falcon3', { words: LLAMA3, ignoresMerges: true }],
  ['falcon-h1', { words: LLAMA3, ignoresMerges: true }],
  ['dbrx', { words: LLAMA3 }], // Granite 4
]);

/**
 * The value of tokenizer.ggml.pre for a tokenizer.json; null where llama.cpp has no
 * such tokenizer under these names.
 */
export function familyName(json: JsonObject): string | null {
  const { model, pre_tokenizer: words } = json;
  if (!isObject(model) || model.type !== 'BPE' || !isObject(words)) return null;
  const wanted = rules(words);
  for (const [name, family] of FAMILIES) {
    const isSame = rules(family.words) === wanted;
    if (isSame && (family.ignoresMerges ?? false) === (model.ignore_merges ?? false)) return name;
  }
  return null;
}

/** What of a pre-tokenizer changes ids, as text. */
function rules(part: JsonObject): string {
  const { type, pretokenizers: parts } = part;
  if (type === 'Sequence' && Array.isArray(parts)) {
    return parts.map((one) => (isObject(one) ? rules(one) : 'nothing')).join();
  }
  const byDefault: JsonObject = type === 'ByteLevel' ? { use_regex: true } : {};
  const { trim_offsets: _, ...others } = { ...byDefault, ...part };
  return JSON.stringify(Object.entries(others).sort(([a], [b]) => (a < b ? -1 : 1)));
}
