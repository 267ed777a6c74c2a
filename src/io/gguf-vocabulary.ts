/**
 * The metadata of a tokenizer for a GGUF file, from the files that stand beside a
 * checkpoint (reader: gguf-tokenizer.ts).
 */
import { CHAR_OF_BYTE } from '../base/byte-alphabet.ts';
import { type ModelConfig, paddedVocabSize } from '../models/config.ts';
import { llamaScores, llamaSpace } from './gguf-pieces.ts';
import { BYTES_MARK, CONFIG_MARK, ROLES, TEMPLATE_FILE, TOKEN_TYPES } from './gguf-tokenizer.ts';
import { familyName } from './gguf-words.ts';
import type { GgufField } from './gguf-write.ts';
import { isObject, type Json, type JsonObject, parseJsonObject } from './json.ts';

export interface Vocabulary {
  fields: [string, GgufField][];
  notes: string[];
}

/** llama.cpp wants as many tokens as the embedding has rows; the rest are marked as unused. */
export function vocabularyFields(files: Readonly<Record<string, string>>, config: ModelConfig): Vocabulary {
  const read = (name: string): JsonObject => {
    const text = files[name];
    return text === undefined ? {} : parseJsonObject(text, name);
  };
  const options = { ...read('special_tokens_map.json'), ...read('tokenizer_config.json') };
  const vocabulary = tokensOf(files, options, paddedVocabSize(config));
  const template = files[TEMPLATE_FILE] ?? options.chat_template;
  if (typeof template === 'string') vocabulary.fields.push(['tokenizer.chat_template', string(template)]);
  return vocabulary;
}

function tokensOf(files: Readonly<Record<string, string>>, options: JsonObject, rows: number): Vocabulary {
  if (files['mamba_tokenizer.json'] !== undefined) return bytes(rows);
  const text = files['tokenizer.json'];
  if (text === undefined) {
    const note = 'The model has no tokenizer; the file lists unused tokens, programs must pass token ids.';
    return { fields: placeholders(rows), notes: [note] };
  }
  const fields = jsonTokens(parseJsonObject(text, 'tokenizer.json'), options, rows);
  const note = 'llama.cpp cannot use its tokenizer; it travels along whole, for other readers.';
  const whole: [string, GgufField][] = [
    ['tokenizer.huggingface.json', string(text)],
    [CONFIG_MARK, string(JSON.stringify(options))],
  ];
  return { fields: [...(fields ?? placeholders(rows)), ...whole], notes: fields ? [] : [note] };
}

const string = (value: string): GgufField => ({ type: 'string', value });

/** llama.cpp has a kind of its own for files without a vocabulary, with which programs around it crash. */
function placeholders(rows: number): [string, GgufField][] {
  return tokenFields('gpt2', padded(new Map(), new Map(), rows), false, [
    ['tokenizer.ggml.pre', string('gpt-2')],
    ['tokenizer.ggml.merges', { type: 'strings', value: [] }],
  ]);
}

interface Tokens {
  tokens: readonly string[];
  types: readonly number[];
}

function tokenFields(
  model: 'gpt2' | 'llama',
  { tokens, types }: Tokens,
  addBos: boolean,
  others: readonly [string, GgufField][],
): [string, GgufField][] {
  return [
    ['tokenizer.ggml.model', string(model)],
    ['tokenizer.ggml.tokens', { type: 'strings', value: tokens }],
    ['tokenizer.ggml.token_type', { type: 'i32s', value: types }],
    ['tokenizer.ggml.add_bos_token', { type: 'bool', value: addBos }],
    ...others,
  ];
}

/**
 * The 256 bytes as tokens without merges. llama.cpp takes token 11 for the end of the text if none is named;
 * byte 0, which no text holds, is named instead. Readers that know our mark see no end-of-text token.
 */
function bytes(rows: number): Vocabulary {
  const tokens = padded(new Map(CHAR_OF_BYTE.map((char, byte) => [byte, char])), new Map(), rows);
  const fields = tokenFields('gpt2', tokens, false, [
    ['tokenizer.ggml.pre', string('gpt-2')],
    ['tokenizer.ggml.merges', { type: 'strings', value: [] }],
    ['tokenizer.ggml.bos_token_id', { type: 'u32', value: 0 }],
    ['tokenizer.ggml.eos_token_id', { type: 'u32', value: 0 }],
    [BYTES_MARK, string('bytes')],
  ]);
  return { fields, notes: [] };
}

/** The tokens of a tokenizer.json, or null if llama.cpp could not use them. */
function jsonTokens(json: JsonObject, options: JsonObject, rows: number): [string, GgufField][] | null {
  const model = isObject(json.model) ? json.model : {};
  const vocab = isObject(model.vocab) ? model.vocab : {};
  const byId = new Map<number, string>();
  const types = new Map<number, number>();
  for (const [token, id] of Object.entries(vocab)) {
    if (typeof id !== 'number') continue;
    byId.set(id, token);
    if (model.byte_fallback === true && /^<0x[0-9A-F]{2}>$/.test(token)) types.set(id, TOKEN_TYPES.byte);
  }
  for (const token of Array.isArray(json.added_tokens) ? json.added_tokens : []) {
    if (!isObject(token) || typeof token.id !== 'number' || typeof token.content !== 'string') continue;
    byId.set(token.id, token.content);
    types.set(token.id, token.special !== true ? TOKEN_TYPES.user : TOKEN_TYPES.control);
  }
  if (byId.size === 0 || [...byId.keys()].some((id) => id >= rows)) return null;
  const list = padded(byId, types, rows);
  const merges = Array.isArray(model.merges) ? model.merges.map(mergeText) : [];
  const pre = familyName(json);
  const addsSpace = llamaSpace(json);
  if (pre === null && addsSpace === null) return null;
  const fields =
    pre !== null
      ? tokenFields('gpt2', list, options.add_bos_token === true, [
          ['tokenizer.ggml.pre', string(pre)],
          ['tokenizer.ggml.merges', { type: 'strings', value: merges }],
        ])
      : tokenFields('llama', list, options.add_bos_token === true, [
          ['tokenizer.ggml.scores', { type: 'f32s', value: llamaScores(list.tokens, merges) }],
          ['tokenizer.ggml.add_space_prefix', { type: 'bool', value: addsSpace === true }],
        ]);
  return [...fields, ...roleFields(list.tokens, options)];
}

function roleFields(tokens: readonly string[], options: JsonObject): [string, GgufField][] {
  const idOf = new Map(tokens.map((token, id) => [token, id]));
  return ROLES.flatMap(([field, role]): [string, GgufField][] => {
    const usual = role === 'eos_token' ? USUAL_EOS.find((token) => idOf.has(token)) : undefined;
    const id = idOf.get(contentOf(options[role]) || (usual ?? ''));
    return id === undefined ? [] : [[`tokenizer.ggml.${field}_token_id`, { type: 'u32', value: id }]];
  });
}

/** What ends a text where tokenizer_config.json does not say. */
const USUAL_EOS = ['<|endoftext|>', '</s>'];

/** Newer files write a merge as two strings, older ones as one with a space. */
const mergeText = (merge: Json): string => (Array.isArray(merge) ? merge.join(' ') : String(merge));

function contentOf(token: Json | undefined): string {
  if (typeof token === 'string') return token;
  return isObject(token) && typeof token.content === 'string' ? token.content : '';
}

function padded(
  byId: ReadonlyMap<number, string>,
  typeOf: ReadonlyMap<number, number>,
  rows: number,
): Tokens {
  const tokens = Array.from({ length: rows }, (_, id) => byId.get(id) ?? `[PAD${id}]`);
  const types = tokens.map((_, id) =>
    byId.has(id) ? (typeOf.get(id) ?? TOKEN_TYPES.normal) : TOKEN_TYPES.unused,
  );
  return { tokens, types };
}
