/**
 * Tokenizers from Hugging Face files, run by `@huggingface/tokenizers`. Ours are the checks, decoding, the
 * splitting of long texts and the choice by file name; the vocabulary work is the library's.
 */
import { Tokenizer as HuggingFaceTokenizer } from '@huggingface/tokenizers';
import { ConfigError, FormatError, MambaError, UnsupportedError } from '../base/errors.ts';
import type { StreamDecoder, Tokenizer } from '../base/tokenizer.ts';
import { BYTES_FILE, byteTokenizer } from './bytes.ts';
import { continuationEncoder, withoutPrefix } from './continuation.ts';
import { type JsonObject, jsonForLibrary } from './library-json.ts';
import { llamaEncoder } from './llama-words.ts';
import { findEos, namedTokens, withSpecialTokensMap } from './special-tokens.ts';
import { byteStreamDecoder, pairStreamDecoder, type TokenPiece } from './stream-decoder.ts';
import { type PieceDecoding, pieceDecoding } from './token-pieces.ts';
import { type AddedToken, wordEncoder } from './words.ts';

export interface JsonTokenizer extends Tokenizer {
  readonly kind: 'json';
}

export interface TokenizerOptions {
  /**
   * The model's own end-of-text id (eos_token_id of config.json), used where the tokenizer's files name none.
   */
  eosId?: number | null;
}

/**
 * A tokenizer from the contents of `tokenizer.json` and, if there is one, `tokenizer_config.json`.
 *
 * `decode` keeps special tokens and never tidies spaces, so it undoes `encode` wherever the
 * vocabulary allows it. Ids without a token (rows that pad a vocabulary) decode to nothing. `eosId`
 * is the config's `eos_token`, else `options.eosId`, else `<|endoftext|>` or `</s>` if the file
 * lists one as special, else null.
 *
 * Throws FormatError when the library cannot make sense of the file, ConfigError when `eos_token` is unknown.
 */
export function tokenizerFromJson(
  tokenizerJson: JsonObject,
  tokenizerConfig: JsonObject = {},
  options: TokenizerOptions = {},
): JsonTokenizer {
  const { library, bare, pieces, added, vocabSize } = open(tokenizerJson, tokenizerConfig);
  const tokenOf = (id: number): string | undefined => library.id_to_token(id);
  const isAdded = new Set(added.map(({ id }) => id));

  const decodeAll = (ids: readonly number[]): string => {
    for (const id of ids) checkId(id);
    const known = ids.filter((id) => tokenOf(id) !== undefined);
    if (known.length === 0) return '';
    return library.decode(known, { skip_special_tokens: false, clean_up_tokenization_spaces: false });
  };
  const pieceOf = (id: number): TokenPiece => {
    checkId(id);
    return pieces!.pieceOf(tokenOf(id) ?? '', isAdded.has(id));
  };
  const streamDecoder = ({ isContinuation = false } = {}): StreamDecoder =>
    pieces ? byteStreamDecoder(pieceOf, pieces.dropsSpace && !isContinuation) : pairStreamDecoder(decodeAll);
  const decode = (ids: readonly number[]): string => {
    if (!pieces) return decodeAll(ids);
    const decoder = streamDecoder();
    let text = '';
    for (const id of ids) text += decoder.push(id);
    return text + decoder.flush();
  };

  const encodeWhole = encoderOf(library);
  const encodeBare = bare ? encoderOf(bare) : encodeWhole;
  const byWords = wordEncoder(tokenizerJson, tokenizerConfig, encodeWhole);
  const byLlamaWords = llamaEncoder(tokenizerJson, tokenizerConfig, encodeBare);
  const encode = byWords ?? (byLlamaWords ? (text: string) => byLlamaWords(text, false) : encodeWhole);
  const encodeMarked = withSpecialTokens(encode, encoderOf(library, true));
  const encodeRest = byLlamaWords
    ? (text: string) => byLlamaWords(text, true)
    : bare
      ? continuationEncoder(added, encodeBare, encodeWhole)
      : encode;

  const special = new Set(added.filter((token) => token.special).map(({ content }) => content));
  const ofModel = options.eosId ?? null;
  const specialTokens = namedTokens(tokenizerConfig);
  const eosId = findEos(
    (token) => library.token_to_id(token),
    (token) => special.has(token),
    specialTokens.eos_token,
    ofModel !== null && tokenOf(ofModel) !== undefined ? ofModel : null,
  );
  if (eosId !== null) specialTokens.eos_token = tokenOf(eosId)!;

  return {
    kind: 'json',
    vocabSize,
    eosId,
    specialTokens,
    encode: (text, { addSpecialTokens = false, isContinuation = false } = {}) => {
      if (isContinuation) return encodeRest(text);
      return addSpecialTokens ? encodeMarked(text) : encode(text);
    },
    decode,
    streamDecoder,
    toFiles: () => ({
      'tokenizer.json': JSON.stringify(tokenizerJson),
      'tokenizer_config.json': JSON.stringify(tokenizerConfig),
    }),
  };
}

/**
 * The tokenizer among the files that stand beside a checkpoint, by name: `mamba_tokenizer.json` (bytes) or
 * `tokenizer.json` with `tokenizer_config.json` and `special_tokens_map.json`. Throws ConfigError when there
 * is neither, FormatError for a file that is not JSON or of an unknown type.
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

interface Opened {
  library: HuggingFaceTokenizer;
  /** The same without a space in front of the text; null if there never is one. */
  bare: HuggingFaceTokenizer | null;
  pieces: PieceDecoding | null;
  added: AddedToken[];
  vocabSize: number;
}

/** Opens and tries the tokenizer, so that a file that passes does not fail later. */
function open(tokenizerJson: JsonObject, tokenizerConfig: JsonObject): Opened {
  try {
    const json = jsonForLibrary(tokenizerJson);
    const library = new HuggingFaceTokenizer(json, tokenizerConfig);
    const bare = withoutPrefix(library, json, tokenizerConfig);
    const pieces = pieceDecoding(json.decoder);
    const addedById = library.get_added_tokens_decoder();
    const added = [...addedById.values()];
    const { ids } = library.encode('a b', { add_special_tokens: true });
    if (!ids.every(Number.isInteger)) throw new Error('special tokens without an id');
    if (ids.length > 0) library.decode(ids);
    let vocabSize = (library.model as unknown as { vocab: unknown[] }).vocab.length;
    for (const { id } of added) vocabSize = Math.max(vocabSize, id + 1);
    return { library, bare, pieces, added, vocabSize };
  } catch (cause) {
    if (cause instanceof MambaError) throw cause;
    throw new FormatError(
      `tokenizer: expected the contents of a Hugging Face tokenizer.json, got one the library refuses: ` +
        `${String(cause instanceof Error ? cause.message : cause)}. Download the file again.`,
      { cause },
    );
  }
}

function encoderOf(library: HuggingFaceTokenizer, addSpecialTokens = false): (text: string) => number[] {
  return (text) => {
    try {
      return library.encode(text, { add_special_tokens: addSpecialTokens }).ids;
    } catch (cause) {
      // The library passes the pieces of a Unigram word as arguments, of which there cannot be that many.
      if (!(cause instanceof RangeError)) throw cause;
      throw new UnsupportedError(
        `tokenizer: expected words of some thousand characters, got a text of ${text.length} with a longer one. Encode it in parts.`,
        { cause },
      );
    }
  };
}

/**
 * What the post-processor puts around a text does not depend on it: found once,
 * and the text goes the fast way.
 */
function withSpecialTokens(
  encode: (text: string) => number[],
  encodeMarked: (text: string) => number[],
): (text: string) => number[] {
  const [inner, whole] = [encode('a'), encodeMarked('a')];
  const start = whole.findIndex((_, at) => inner.every((id, i) => whole[at + i] === id));
  if (start < 0 || inner.length === 0) return encodeMarked;
  const [before, after] = [whole.slice(0, start), whole.slice(start + inner.length)];
  return (text) => [...before, ...encode(text), ...after];
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
    const where = cause instanceof Error ? cause.message : 'a syntax error'; // V8's words have the position
    throw new FormatError(`tokenizer: expected JSON in ${name}, got: ${where}. Download the file again.`, {
      cause,
    });
  }
  if (typeof value === 'object' && value !== null && !Array.isArray(value)) return value as JsonObject;
  throw new FormatError(
    `tokenizer: expected an object in ${name}, got ${text.slice(0, 20)}. Download the file again.`,
  );
}
