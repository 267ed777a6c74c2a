/**
 * What each token of a tokenizer.json adds to the text, from its decoder: bytes
 * where a token is a string of bytes.
 */

import { BYTE_OF_CHAR } from '../base/byte-alphabet.ts';
import { UnsupportedError } from '../base/errors.ts';
import type { JsonObject } from './library-json.ts';
import type { TokenPiece } from './stream-decoder.ts';

export interface PieceDecoding {
  /** `token` as in the vocabulary; `isAdded`: one of the added tokens, which stand for themselves. */
  pieceOf(token: string, isAdded: boolean): TokenPiece;
  /** Whether a space at the beginning of a text is not part of it. */
  dropsSpace: boolean;
}

/**
 * Null if tokens depend on their neighbours (BERT). Throws UnsupportedError for
 * bytes in a decoder of another kind.
 */
export function pieceDecoding(decoder: unknown): PieceDecoding | null {
  const parts = partsOf(decoder);
  const has = (type: string): boolean => parts.some((part) => part.type === type);
  if (has('ByteLevel')) return { pieceOf: byteLevelPiece, dropsSpace: false };
  if (parts.length > 0 && parts.every(isLlamaPart)) {
    const strips = parts.some(
      ({ type, prepend_scheme: scheme }) => type === 'Strip' || (type === 'Metaspace' && scheme !== 'never'),
    );
    const bytes = has('ByteFallback');
    return { pieceOf: (token) => llamaPiece(token, bytes), dropsSpace: strips };
  }
  if (!has('ByteFallback')) return null;
  throw new UnsupportedError(
    `tokenizer: expected a decoder like Llama's around ByteFallback, got ${parts.map(({ type }) => type).join(', ')}. ` +
      'No Mamba model has this one.',
  );
}

function partsOf(decoder: unknown): JsonObject[] {
  const part = (decoder ?? null) as JsonObject | null;
  if (part === null) return [];
  return part.type === 'Sequence' ? (part.decoders as unknown[]).flatMap(partsOf) : [part];
}

function isLlamaPart(part: JsonObject): boolean {
  switch (part.type) {
    case 'ByteFallback':
    case 'Fuse':
      return true;
    case 'Replace':
      return (part.pattern as JsonObject).String === '▁' && part.content === ' ';
    case 'Metaspace':
      return (part.replacement ?? '▁') === '▁';
    case 'Strip':
      return part.content === ' ' && part.start === 1 && (part.stop ?? 0) === 0;
    default:
      return false;
  }
}

const encoder = new TextEncoder();

function byteLevelPiece(token: string, isAdded: boolean): TokenPiece {
  if (isAdded) return token;
  const bytes = Array.from(token, (char) => BYTE_OF_CHAR.get(char) ?? -1);
  return bytes.includes(-1) ? encoder.encode(token) : Uint8Array.from(bytes);
}

function llamaPiece(token: string, hasBytes: boolean): TokenPiece {
  const byte = hasBytes ? /^<0x([0-9A-Fa-f]{2})>$/.exec(token) : null;
  if (byte) return Uint8Array.of(Number.parseInt(byte[1]!, 16));
  return encoder.encode(token.replaceAll('▁', ' '));
}
