/**
 * The vocabulary inside a GGUF file <-> the tokenizer files that stand beside a checkpoint. Byte-level BPE
 * (tokenizer.ggml.model gpt2) becomes a tokenizer.json; a whole tokenizer.json in the file (the standard key
 * tokenizer.huggingface.json) comes first. Our byte tokenizer is written as a BPE of 256 bytes without merges, which
 * llama.cpp runs, and marked by mamba_ts.tokenizer.
 */
import { FormatError } from '../base/errors.ts';
import type { GgufValue } from './gguf-cursor.ts';
import { isObject, type Json, type JsonObject } from './json.ts';

export interface GgufTokenizer {
  /** By file name; empty if this library cannot use the vocabulary. */
  readonly files: Readonly<Record<string, string>>;
  readonly eosId: number | null;
  /** Ids in use: the vocabulary without the tokens that only pad it. Null if the file does not tell. */
  readonly vocabSize: number | null;
  /** What the reader should know. */
  readonly notes: readonly string[];
}

export const BYTES_MARK = 'mamba_ts.tokenizer';
const BYTES_FILE = 'mamba_tokenizer.json';
/** tokenizer.ggml.token_type */
export const TOKEN_TYPES = { normal: 1, unknown: 2, control: 3, user: 4, unused: 5 } as const;

const BYTE_LEVEL: JsonObject = {
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
/** Splitting of text into words as each family's own tokenizer.json has it; tokenizer.ggml.pre tells the family. */
const FALCON: JsonObject = {
  type: 'Sequence',
  pretokenizers: [
    { type: 'Punctuation', behavior: 'Contiguous' },
    BYTE_LEVEL,
    { type: 'Digits', individual_digits: false },
    split('[0-9][0-9][0-9]'),
  ],
};
const LLAMA3: JsonObject = {
  type: 'Sequence',
  pretokenizers: [
    split(
      "(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+",
    ),
    { ...BYTE_LEVEL, use_regex: false },
  ],
};
const PRE_TOKENIZERS: ReadonlyMap<string, JsonObject> = new Map([
  ['gpt-2', BYTE_LEVEL],
  ['mpt', BYTE_LEVEL], // GPT-NeoX
  ['olmo', BYTE_LEVEL],
  ['falcon', FALCON],
  ['llama-bpe', LLAMA3],
]);

/** tokenizer.ggml.X_token_id and the member of tokenizer_config.json. */
const ROLES: readonly (readonly [field: string, role: string])[] = [
  ['bos', 'bos_token'],
  ['eos', 'eos_token'],
  ['unknown', 'unk_token'],
  ['padding', 'pad_token'],
];

const key = (name: string): string => `tokenizer.ggml.${name}`;

/** The tokenizer files of a GGUF file; `name` is the file for messages. */
export function tokenizerFromGguf(metadata: ReadonlyMap<string, GgufValue>, name: string): GgufTokenizer {
  const texts = (field: string): string[] => {
    const value = metadata.get(key(field));
    return Array.isArray(value) ? value : [];
  };
  const tokens = texts('tokens');
  const types = metadata.get(key('token_type'));
  const typeOf = (id: number): number =>
    types instanceof Int32Array || types instanceof Uint32Array ? (types[id] ?? 1) : 1;
  // Older converters name the rows that pad the embedding without marking them.
  const isPadding = (id: number): boolean => typeOf(id) === TOKEN_TYPES.unused || tokens[id] === `[PAD${id}]`;
  let used = tokens.length;
  while (used > 0 && isPadding(used - 1)) used--;
  const vocabSize = used > 0 ? used : null;
  const idOf = (field: string): number | null => {
    const id = metadata.get(key(`${field}_token_id`));
    return typeof id === 'number' && id < used ? id : null;
  };
  const none = (note: string): GgufTokenizer => ({ files: {}, eosId: idOf('eos'), vocabSize, notes: [note] });

  if (metadata.get(BYTES_MARK) === 'bytes') {
    return { files: { [BYTES_FILE]: '{"type":"bytes"}\n' }, eosId: null, vocabSize, notes: [] };
  }
  const config: JsonObject = {};
  for (const [field, role] of ROLES) {
    const id = idOf(field);
    if (id !== null) config[role] = tokens[id]!;
  }
  const template = metadata.get('tokenizer.chat_template');
  if (typeof template === 'string') config.chat_template = template;
  const found = (json: string, notes: readonly string[]): GgufTokenizer => ({
    files: { 'tokenizer.json': json, 'tokenizer_config.json': JSON.stringify(config) },
    eosId: idOf('eos'),
    vocabSize,
    notes,
  });

  const whole = metadata.get('tokenizer.huggingface.json');
  if (typeof whole === 'string') return found(whole, []);
  const model = metadata.get(key('model'));
  if (model === undefined || model === 'no_vocab' || model === 'none')
    return none('The file holds no tokenizer.');
  if (model !== 'gpt2') {
    return none(
      `The file's tokenizer is of kind ${String(model)}; only byte-level BPE (gpt2) is read. Put the model's tokenizer.json beside the file.`,
    );
  }
  const pre = metadata.get(key('pre')) ?? 'mpt';
  const words = typeof pre === 'string' ? PRE_TOKENIZERS.get(pre === 'default' ? 'mpt' : pre) : undefined;
  if (!words) {
    return none(
      `The file's tokenizer splits words by ${String(pre)}; known are ${[...PRE_TOKENIZERS.keys()].join(', ')}. Put the model's tokenizer.json beside the file.`,
    );
  }
  const notes =
    pre === 'default' ? ["The file does not tell how its tokenizer splits words; GPT-2's rule is used."] : [];
  return found(JSON.stringify(bpeJson(tokens.slice(0, used), typeOf, texts('merges'), words, name)), notes);
}

function bpeJson(
  tokens: readonly string[],
  typeOf: (id: number) => number,
  merges: readonly string[],
  words: JsonObject,
  name: string,
): JsonObject {
  const vocab = new Map<string, Json>();
  const added: Json[] = [];
  const { unknown, control, user, unused } = TOKEN_TYPES;
  for (const [id, content] of tokens.entries()) {
    const type = typeOf(id);
    if (type === unused) continue;
    if (vocab.has(content)) {
      throw new FormatError(
        `openGguf: expected every token of ${name} once, got ${JSON.stringify(content)} again at id ${id}. Convert the file again.`,
      );
    }
    vocab.set(content, id);
    if (type !== unknown && type !== control && type !== user) continue;
    const special = type !== user;
    added.push({ id, content, single_word: false, lstrip: false, rstrip: false, normalized: false, special });
  }
  for (const merge of merges) {
    if (merge.indexOf(' ', 1) < 0) {
      throw new FormatError(
        `openGguf: expected merges of two tokens in ${name}, got ${JSON.stringify(merge)}. Convert the file again.`,
      );
    }
  }
  return {
    version: '1.0',
    truncation: null,
    padding: null,
    added_tokens: added,
    normalizer: null,
    pre_tokenizer: words,
    post_processor: null,
    decoder: BYTE_LEVEL,
    model: {
      type: 'BPE',
      dropout: null,
      unk_token: null,
      continuing_subword_prefix: null,
      end_of_word_suffix: null,
      fuse_unk: false,
      byte_fallback: false,
      ignore_merges: words === LLAMA3,
      vocab: Object.fromEntries(vocab),
      merges: [...merges],
    },
  };
}

/** The value of tokenizer.ggml.pre for a tokenizer.json, null where llama.cpp has no such tokenizer under our names. */
export function preTokenizerName(json: JsonObject): string | null {
  const { model, pre_tokenizer: words } = json;
  if (!isObject(model) || model.type !== 'BPE' || !isObject(words)) return null;
  if (words.type === 'ByteLevel') {
    return words.use_regex !== false && words.add_prefix_space !== true ? 'gpt-2' : null;
  }
  const parts = (sequence: JsonObject): string =>
    Array.isArray(sequence.pretokenizers)
      ? sequence.pretokenizers
          .map((part) => (isObject(part) ? `${part.type}:${JSON.stringify(part.pattern)}` : ''))
          .join()
      : '';
  for (const known of ['falcon', 'llama-bpe']) {
    if (words.type === 'Sequence' && parts(words) === parts(PRE_TOKENIZERS.get(known)!)) return known;
  }
  return null;
}
