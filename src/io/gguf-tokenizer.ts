/**
 * The vocabulary inside a GGUF file as the tokenizer files that stand beside a checkpoint (writer:
 * gguf-vocabulary.ts). A whole tokenizer.json in the file (the standard key tokenizer.huggingface.json) comes
 * first; else one is put together from the tokens: byte-level BPE (tokenizer.ggml.model gpt2), pieces with
 * scores (llama), words (bert). Our byte tokenizer is a BPE of 256 bytes without merges, which llama.cpp
 * runs, marked by mamba_ts.tokenizer.
 */
import { FormatError } from '../base/errors.ts';
import type { GgufValue } from './gguf-cursor.ts';
import { BERT_PARTS, bertModel, idsOf, llamaModel, llamaParts, type TokenList } from './gguf-pieces.ts';
import { BYTE_LEVEL, FAMILIES } from './gguf-words.ts';
import { type Json, type JsonObject, parseJsonObject } from './json.ts';

export interface GgufTokenizer {
  /**
   * By file name; without tokenizer.json and mamba_tokenizer.json if this library cannot use the vocabulary.
   */
  readonly files: Readonly<Record<string, string>>;
  readonly eosId: number | null;
  /** Ids in use: the vocabulary without the tokens that only pad it. Null if the file does not tell. */
  readonly vocabSize: number | null;
  /** What the reader should know. */
  readonly notes: readonly string[];
}

export const BYTES_MARK = 'mamba_ts.tokenizer';
/** Our key for tokenizer_config.json, most of which the format has no place for. */
export const CONFIG_MARK = 'mamba_ts.tokenizer_config';
const BYTES_FILE = 'mamba_tokenizer.json';
export const TEMPLATE_FILE = 'chat_template.jinja';
/** tokenizer.ggml.token_type */
export const TOKEN_TYPES = { normal: 1, unknown: 2, control: 3, user: 4, unused: 5, byte: 6 } as const;

/** tokenizer.ggml.X_token_id and the member of tokenizer_config.json. */
export const ROLES: readonly (readonly [field: string, role: string])[] = [
  ['bos', 'bos_token'],
  ['eos', 'eos_token'],
  ['unknown', 'unk_token'],
  ['padding', 'pad_token'],
  ['seperator', 'sep_token'], // so spelt in the format
  ['cls', 'cls_token'],
  ['mask', 'mask_token'],
];

const key = (name: string): string => `tokenizer.ggml.${name}`;

/** The tokenizer files of a GGUF file; `name` is the file for messages. */
export function tokenizerFromGguf(metadata: ReadonlyMap<string, GgufValue>, name: string): GgufTokenizer {
  const tokens = textsOf(metadata, 'tokens');
  const types = metadata.get(key('token_type'));
  const typeOf = (id: number): number =>
    types instanceof Int32Array || types instanceof Uint32Array ? (types[id] ?? 1) : 1;
  // Older converters name the rows that pad the embedding without marking them.
  const isPadding = (id: number): boolean => typeOf(id) === TOKEN_TYPES.unused || tokens[id] === `[PAD${id}]`;
  let used = tokens.length;
  while (used > 0 && isPadding(used - 1)) used--;
  const vocabSize = used > 0 ? used : null;
  const own = metadata.get(CONFIG_MARK);
  const config = typeof own === 'string' ? parseJsonObject(own, `${name}, ${CONFIG_MARK}`) : {};
  let eosId: number | null = null;
  for (const [field, role] of ROLES) {
    const id = metadata.get(key(`${field}_token_id`));
    if (typeof id !== 'number' || !(id < used)) continue;
    config[role] = tokens[id]!;
    if (field === 'eos') eosId = id;
  }
  const template = metadata.get('tokenizer.chat_template');
  const texts: Record<string, string> = typeof template === 'string' ? { [TEMPLATE_FILE]: template } : {};
  const none = (note: string): GgufTokenizer => ({ files: texts, eosId, vocabSize, notes: [note] });

  if (metadata.get(BYTES_MARK) === 'bytes') {
    const files = { ...texts, [BYTES_FILE]: '{"type":"bytes"}\n' };
    return { files, eosId: null, vocabSize, notes: [] };
  }
  const found = (json: string, notes: readonly string[]): GgufTokenizer => ({
    files: { ...texts, 'tokenizer.json': json, 'tokenizer_config.json': JSON.stringify(config) },
    eosId,
    vocabSize,
    notes,
  });
  const whole = metadata.get('tokenizer.huggingface.json');
  if (typeof whole === 'string') return found(whole, []);
  if (used === 0) return none('The file holds no tokenizer.');

  const { unknown, control, user } = TOKEN_TYPES;
  const isSpecial = (id: number): boolean => [unknown, control, user].some((type) => type === typeOf(id));
  const list: TokenList = {
    tokens: [...tokens.slice(0, used).entries()].filter(([id]) => typeOf(id) !== TOKEN_TYPES.unused),
    isSpecial,
    name,
  };
  const notes: string[] = [];
  const parts = partsOf(metadata, list, config, notes);
  if (typeof parts === 'string') return none(parts);
  const added = list.tokens
    .filter(([id]) => isSpecial(id))
    .map(([id, content]): Json => {
      const special = typeOf(id) !== user;
      return { id, content, single_word: false, lstrip: false, rstrip: false, normalized: false, special };
    });
  const json = { version: '1.0', truncation: null, padding: null, added_tokens: added, ...parts };
  return found(JSON.stringify(json), notes);
}

function textsOf(metadata: ReadonlyMap<string, GgufValue>, field: string): string[] {
  const value = metadata.get(key(field));
  return Array.isArray(value) ? value : [];
}

/** The parts of a tokenizer.json that depend on the kind, or why there are none. */
function partsOf(
  metadata: ReadonlyMap<string, GgufValue>,
  list: TokenList,
  config: JsonObject,
  notes: string[],
): JsonObject | string {
  const flag = (field: string, otherwise: boolean): boolean => {
    const value = metadata.get(key(field));
    return typeof value === 'boolean' ? value : otherwise;
  };
  const around = (first: Json | undefined, last: Json | undefined): Json =>
    template(list, typeof first === 'string' ? first : null, typeof last === 'string' ? last : null);
  const { bos_token: bos, eos_token: eos, cls_token: cls, sep_token: sep, unk_token: unk } = config;
  const unkToken = typeof unk === 'string' ? unk : null;
  // What llama.cpp takes for granted when the flags are not there.
  const model = metadata.get(key('model'));
  const isLlama = model === 'llama';
  config.add_bos_token ??= flag('add_bos_token', isLlama);
  config.add_eos_token ??= flag('add_eos_token', false);
  const ends = around(config.add_bos_token ? bos : undefined, config.add_eos_token ? eos : undefined);
  if (isLlama) {
    const scores = metadata.get(key('scores'));
    const values = scores instanceof Float32Array ? scores : new Float32Array(0);
    const parts = llamaParts(flag('add_space_prefix', true));
    return { ...parts, post_processor: ends, model: llamaModel(list, values, unkToken) };
  }
  if (model === 'bert') {
    return {
      ...BERT_PARTS,
      post_processor: around(cls ?? bos, sep ?? eos),
      model: bertModel(list, unkToken),
    };
  }
  if (model !== 'gpt2') {
    return `The file's tokenizer is of kind ${String(model)}; known are gpt2, llama, bert. Put the model's tokenizer.json beside the file.`;
  }
  const pre = metadata.get(key('pre')) ?? 'mpt';
  const family = typeof pre === 'string' ? FAMILIES.get(pre === 'default' ? 'mpt' : pre) : undefined;
  if (!family) {
    return `The file's tokenizer splits words by ${String(pre)}; known are ${[...FAMILIES.keys()].join(', ')}. Put the model's tokenizer.json beside the file.`;
  }
  if (pre === 'default') {
    notes.push("The file does not tell how its tokenizer splits words; GPT-2's rule is used.");
  }
  const { words, ignoresMerges = false } = family;
  return {
    normalizer: null,
    pre_tokenizer: words,
    post_processor: ends,
    decoder: BYTE_LEVEL,
    model: bpeModel(metadata, list, ignoresMerges),
  };
}

function bpeModel(
  metadata: ReadonlyMap<string, GgufValue>,
  list: TokenList,
  ignoresMerges: boolean,
): JsonObject {
  if (!metadata.has(key('merges'))) {
    throw new FormatError(
      `openGguf: expected the merges of the tokenizer in ${list.name}, got none. Convert the file again.`,
    );
  }
  const merges = textsOf(metadata, 'merges');
  for (const merge of merges) {
    if (merge.indexOf(' ', 1) < 0) {
      throw new FormatError(
        `openGguf: expected merges of two tokens in ${list.name}, got ${JSON.stringify(merge)}. Convert the file again.`,
      );
    }
  }
  return {
    type: 'BPE',
    dropout: null,
    unk_token: null,
    continuing_subword_prefix: null,
    end_of_word_suffix: null,
    fuse_unk: false,
    byte_fallback: false,
    ignore_merges: ignoresMerges,
    vocab: Object.fromEntries(idsOf(list, (token) => token)),
    merges,
  };
}

/** The post-processor that puts tokens around a text; null if there are none. */
function template(list: TokenList, first: string | null, last: string | null): Json {
  if (first === null && last === null) return null;
  const idOf = new Map(list.tokens.map(([id, token]) => [token, id]));
  const special = (token: string | null): Json[] =>
    token === null ? [] : [{ SpecialToken: { id: token, type_id: 0 } }];
  const names = [...new Set([first, last])].filter((token) => token !== null);
  const entries = names.map((token): [string, Json] => [
    token,
    { id: token, ids: [idOf.get(token)!], tokens: [token] },
  ]);
  return {
    type: 'TemplateProcessing',
    single: [...special(first), { Sequence: { id: 'A', type_id: 0 } }, ...special(last)],
    pair: [{ Sequence: { id: 'A', type_id: 0 } }, { Sequence: { id: 'B', type_id: 1 } }],
    special_tokens: Object.fromEntries(entries),
  };
}
