/** The metadata of a tokenizer for a GGUF file, from the files that stand beside a checkpoint (reader: gguf-tokenizer.ts). */
import { CHAR_OF_BYTE } from '../base/byte-alphabet.ts';
import { type ModelConfig, paddedVocabSize } from '../models/config.ts';
import { BYTES_MARK, preTokenizerName, TOKEN_TYPES } from './gguf-tokenizer.ts';
import type { GgufField } from './gguf-write.ts';
import { isObject, type Json, type JsonObject, parseJsonObject } from './json.ts';

export interface Vocabulary {
  fields: [string, GgufField][];
  notes: string[];
}

/** llama.cpp wants as many tokens as the embedding has rows; the rest are marked as unused. */
export function vocabularyFields(files: Readonly<Record<string, string>>, config: ModelConfig): Vocabulary {
  const rows = paddedVocabSize(config);
  if (files['mamba_tokenizer.json'] !== undefined) return bytes(rows);
  const text = files['tokenizer.json'];
  if (text === undefined) return none(['The model has no tokenizer; programs must pass token ids.']);
  const json = parseJsonObject(text, 'tokenizer.json');
  const settings = files['tokenizer_config.json'];
  const options = settings === undefined ? {} : parseJsonObject(settings, 'tokenizer_config.json');
  return bpe(json, text, options, rows);
}

const string = (value: string): GgufField => ({ type: 'string', value });

function none(notes: string[]): Vocabulary {
  return { fields: [['tokenizer.ggml.model', string('no_vocab')]], notes };
}

function ggml(
  pre: string,
  tokens: readonly string[],
  types: readonly number[],
  merges: readonly string[],
): [string, GgufField][] {
  return [
    ['tokenizer.ggml.model', string('gpt2')],
    ['tokenizer.ggml.pre', string(pre)],
    ['tokenizer.ggml.tokens', { type: 'strings', value: tokens }],
    ['tokenizer.ggml.token_type', { type: 'i32s', value: types }],
    ['tokenizer.ggml.merges', { type: 'strings', value: merges }],
    ['tokenizer.ggml.add_bos_token', { type: 'bool', value: false }],
  ];
}

/**
 * The 256 bytes as tokens without merges. llama.cpp takes token 11 for the end of the text if none is named; byte 0,
 * which no text holds, is named instead. Readers that know our mark see no end-of-text token.
 */
function bytes(rows: number): Vocabulary {
  const { tokens, types } = padded(new Map(CHAR_OF_BYTE.map((char, byte) => [byte, char])), new Map(), rows);
  return {
    fields: [
      ...ggml('gpt-2', tokens, types, []),
      ['tokenizer.ggml.bos_token_id', { type: 'u32', value: 0 }],
      ['tokenizer.ggml.eos_token_id', { type: 'u32', value: 0 }],
      [BYTES_MARK, string('bytes')],
    ],
    notes: [],
  };
}

function bpe(json: JsonObject, text: string, options: JsonObject, rows: number): Vocabulary {
  const whole: [string, GgufField] = ['tokenizer.huggingface.json', string(text)];
  const pre = preTokenizerName(json);
  const vocab = isObject(json.model) && isObject(json.model.vocab) ? json.model.vocab : {};
  const byId = new Map(
    Object.entries(vocab).flatMap(([token, id]): [number, string][] =>
      typeof id === 'number' ? [[id, token]] : [],
    ),
  );
  const types = new Map<number, number>();
  for (const token of Array.isArray(json.added_tokens) ? json.added_tokens : []) {
    if (!isObject(token) || typeof token.id !== 'number' || typeof token.content !== 'string') continue;
    byId.set(token.id, token.content);
    types.set(token.id, token.special === true ? TOKEN_TYPES.control : TOKEN_TYPES.user);
  }
  const merges = isObject(json.model) && Array.isArray(json.model.merges) ? json.model.merges : [];
  if (pre === null || byId.size === 0 || [...byId.keys()].some((id) => id >= rows)) {
    const reason = 'llama.cpp cannot use its tokenizer; it travels along whole, for other readers.';
    return { fields: [...none([]).fields, whole], notes: [reason] };
  }
  const list = padded(byId, types, rows);
  const fields = [...ggml(pre, list.tokens, list.types, merges.map(mergeText)), whole];
  const idOf = new Map(list.tokens.map((token, id) => [token, id]));
  for (const [role, field] of [
    ['bos_token', 'bos'],
    ['eos_token', 'eos'],
    ['unk_token', 'unknown'],
    ['pad_token', 'padding'],
  ] as const) {
    const usual = role === 'eos_token' ? USUAL_EOS.find((token) => idOf.has(token)) : undefined;
    const id = idOf.get(contentOf(options[role]) || (usual ?? ''));
    if (id !== undefined) fields.push([`tokenizer.ggml.${field}_token_id`, { type: 'u32', value: id }]);
  }
  const template = options.chat_template;
  if (typeof template === 'string') fields.push(['tokenizer.chat_template', string(template)]);
  return { fields, notes: [] };
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
): { tokens: string[]; types: number[] } {
  const tokens = Array.from({ length: rows }, (_, id) => byId.get(id) ?? `[PAD${id}]`);
  const types = tokens.map((_, id) =>
    byId.has(id) ? (typeOf.get(id) ?? TOKEN_TYPES.normal) : TOKEN_TYPES.unused,
  );
  return { tokens, types };
}
