/**
 * The byte tokenizer: the 256 byte values are the ids, so any file is valid text. Text becomes its UTF-8
 * bytes; files are used as they are and never decoded. There is no end-of-text id.
 */
import { ConfigError } from '../base/errors.ts';
import type { Tokenizer } from '../base/tokenizer.ts';
import { byteStreamDecoder } from './stream-decoder.ts';

/** The file that stands beside a checkpoint of a byte model. */
export const BYTES_FILE = 'mamba_tokenizer.json';

/**
 * The tokenizer of byte-level models. Bytes that are not UTF-8 decode to U+FFFD; a lone surrogate encodes as
 * U+FFFD. `toFiles()` gives `mamba_tokenizer.json` with `{"type":"bytes"}`: Hugging Face has no name for this
 * tokenizer, so the file is ours and tells `tokenizerFromFiles` what the ids mean. `decode` throws
 * ConfigError for ids that are not bytes.
 */
export function byteTokenizer(): Tokenizer {
  const encoder = new TextEncoder();
  return {
    kind: 'bytes',
    vocabSize: 256,
    eosId: null,
    specialTokens: {},
    encode: (text) => Array.from(encoder.encode(text)),
    decode: (ids) => {
      const bytes = Uint8Array.from(ids, checkedByte);
      return new TextDecoder('utf-8', { ignoreBOM: true }).decode(bytes);
    },
    streamDecoder: () => byteStreamDecoder((id) => Uint8Array.of(checkedByte(id))),
    toFiles: () => ({ [BYTES_FILE]: '{"type":"bytes"}\n' }),
  };
}

function checkedByte(id: number): number {
  if (Number.isInteger(id) && id >= 0 && id < 256) return id;
  throw new ConfigError(
    `byteTokenizer: expected ids in 0..255, got ${id}. The model and the tokenizer do not belong together.`,
  );
}
