/**
 * Tokenizers from Hugging Face files, run by `@huggingface/tokenizers`. Ours are the checks, the streaming decoder and
 * the choice by file name; the vocabulary work is the library's.
 */
import { Tokenizer as HuggingFaceTokenizer } from '@huggingface/tokenizers';
import { BYTE_OF_CHAR } from '../base/byte-alphabet.ts';
import { ConfigError, FormatError } from '../base/errors.ts';
import type { Tokenizer } from '../base/tokenizer.ts';
import { BYTES_FILE, byteTokenizer } from './bytes.ts';
import { continuationEncoder } from './continuation.ts';
import { findEos, namedTokens, withSpecialTokensMap } from './special-tokens.ts';
import { byteStreamDecoder, type TokenPiece, windowStreamDecoder } from './stream-decoder.ts';
import { wordEncoder } from './words.ts';

/** A parsed `tokenizer.json` or `tokenizer_config.json`. */
export type JsonObject = { [key: string]: unknown };

export interface JsonTokenizer extends Tokenizer {
  readonly kind: 'json';
}

export interface TokenizerOptions {
  /** The model's own end-of-text id (eos_token_id of config.json), used where the tokenizer's files name none. */
  eosId?: number | null;
}

/**
 * A tokenizer from the contents of `tokenizer.json` and, if there is one, `tokenizer_config.json`.
 *
 * `decode` keeps special tokens and never tidies spaces, so it undoes `encode` wherever the vocabulary allows it. Ids
 * without a token (rows that pad a vocabulary) decode to nothing. `eosId` is the config's `eos_token`, else
 * `options.eosId`, else `<|endoftext|>` or `</s>` if the file lists one as special, else null.
 *
 * Throws FormatError when the library cannot make sense of the file, ConfigError when `eos_token` is unknown.
 */
export function tokenizerFromJson(
  tokenizerJson: JsonObject,
  tokenizerConfig: JsonObject = {},
  options: TokenizerOptions = {},
): JsonTokenizer {
  const library = openLibrary(tokenizerJson, tokenizerConfig);
  const idByToken = library.get_vocab(true);
  let vocabSize = 0;
  for (const id of idByToken.values()) vocabSize = Math.max(vocabSize, id + 1);
  const added = library.get_added_tokens_decoder();

  const decode = (ids: readonly number[]): string => {
    for (const id of ids) checkId(id);
    const known = ids.filter((id) => library.id_to_token(id) !== undefined);
    if (known.length === 0) return '';
    return library.decode(known, { skip_special_tokens: false, clean_up_tokenization_spaces: false });
  };

  const pieceOf = (id: number): TokenPiece => {
    checkId(id);
    const token = library.id_to_token(id) ?? '';
    if (added.has(id)) return token;
    return Uint8Array.from([...token], (char) => BYTE_OF_CHAR.get(char) ?? 0);
  };

  const byteOf = (id: number): number => {
    const match = /^<0x([0-9A-Fa-f]{2})>$/.exec(library.id_to_token(id) ?? '');
    return match ? Number.parseInt(match[1]!, 16) : -1;
  };

  const encode = (text: string): number[] => library.encode(text, { add_special_tokens: false }).ids;
  const encodeFast = wordEncoder(tokenizerJson, tokenizerConfig, encode) ?? encode;
  const encodeRest = continuationEncoder(tokenizerJson, tokenizerConfig, library, encode) ?? encodeFast;

  const special = new Set([...added.values()].filter((token) => token.special).map(({ content }) => content));
  const ofModel = options.eosId ?? null;
  const specialTokens = namedTokens(tokenizerConfig);
  const eosId = findEos(
    (token) => idByToken.get(token),
    (token) => special.has(token),
    specialTokens.eos_token,
    ofModel !== null && library.id_to_token(ofModel) !== undefined ? ofModel : null,
  );
  if (eosId !== null) specialTokens.eos_token = library.id_to_token(eosId)!;

  const byteLevel = isByteLevel(tokenizerJson.decoder);
  return {
    kind: 'json',
    vocabSize,
    eosId,
    specialTokens,
    encode: (text, { addSpecialTokens = false, isContinuation = false } = {}) => {
      if (isContinuation) return encodeRest(text);
      return addSpecialTokens ? library.encode(text, { add_special_tokens: true }).ids : encodeFast(text);
    },
    decode,
    streamDecoder: () => (byteLevel ? byteStreamDecoder(pieceOf) : windowStreamDecoder(decode, byteOf)),
    toFiles: () => ({
      'tokenizer.json': JSON.stringify(tokenizerJson),
      'tokenizer_config.json': JSON.stringify(tokenizerConfig),
    }),
  };
}

/**
 * The tokenizer among the files that stand beside a checkpoint, by name: `mamba_tokenizer.json` (bytes) or
 * `tokenizer.json` with `tokenizer_config.json` and `special_tokens_map.json`. Throws ConfigError when there is
 * neither, FormatError for a file that is not JSON or of an unknown type.
 */
export function tokenizerFromFiles(
  files: Readonly<Record<string, string>>,
  options: TokenizerOptions = {},
): Tokenizer {
  const own = files[BYTES_FILE];
  if (own !== undefined) {
    const { type } = parseObject(BYTES_FILE, own);
    if (type === 'bytes') return byteTokenizer();
    throw new FormatError(
      `tokenizer: expected "type": "bytes" in ${BYTES_FILE}, got ${JSON.stringify(type)}. Update mamba-ts or the file.`,
    );
  }
  const json = files['tokenizer.json'];
  if (json === undefined) {
    const got = Object.keys(files).join(', ') || 'no files';
    throw new ConfigError(
      `tokenizer: expected tokenizer.json or ${BYTES_FILE}, got ${got}. Put the tokenizer's files beside the model.`,
    );
  }
  const optional = (name: string): JsonObject =>
    files[name] === undefined ? {} : parseObject(name, files[name]);
  const config = withSpecialTokensMap(optional('tokenizer_config.json'), optional('special_tokens_map.json'));
  return tokenizerFromJson(parseObject('tokenizer.json', json), config, options);
}

function openLibrary(tokenizerJson: JsonObject, tokenizerConfig: JsonObject): HuggingFaceTokenizer {
  try {
    return new HuggingFaceTokenizer(tokenizerJson, tokenizerConfig);
  } catch (cause) {
    throw new FormatError(
      `tokenizer: expected the contents of a Hugging Face tokenizer.json, got one the library refuses: ` +
        `${String(cause instanceof Error ? cause.message : cause)}. Download the file again.`,
      { cause },
    );
  }
}

/** Whether the decoder maps characters to bytes; it may stand in a sequence. */
function isByteLevel(decoder: unknown): boolean {
  const { type, decoders } = (decoder ?? {}) as { type?: unknown; decoders?: unknown };
  return type === 'ByteLevel' || (Array.isArray(decoders) && decoders.some(isByteLevel));
}

function checkId(id: number): void {
  if (Number.isInteger(id) && id >= 0) return;
  throw new ConfigError(`tokenizer: expected ids that are integers >= 0, got ${id}. Pass token ids.`);
}

function parseObject(name: string, text: string): JsonObject {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (cause) {
    throw new FormatError(
      `tokenizer: expected JSON in ${name}, got a syntax error. Download the file again.`,
      {
        cause,
      },
    );
  }
  if (typeof value === 'object' && value !== null && !Array.isArray(value)) return value as JsonObject;
  throw new FormatError(
    `tokenizer: expected an object in ${name}, got ${text.slice(0, 20)}. Download the file again.`,
  );
}
