/**
 * Streaming decoders: token by token, never half a character, and in total exactly what decoding everything at once
 * gives. Byte-level vocabularies map each token to bytes; the others are decoded in a window of two groups of tokens.
 */
import type { StreamDecoder } from '../base/tokenizer.ts';

/** What one token adds: bytes of the text, or a piece of text of its own (an added token such as `<|endoftext|>`). */
export type TokenPiece = Uint8Array | string;

/** For vocabularies in which a token is a byte string. A piece of text ends the characters before it. */
export function byteStreamDecoder(pieceOf: (id: number) => TokenPiece): StreamDecoder {
  const decoder = new TextDecoder('utf-8', { ignoreBOM: true });
  return {
    push(id) {
      const piece = pieceOf(id);
      return typeof piece === 'string' ? decoder.decode() + piece : decoder.decode(piece, { stream: true });
    },
    flush: () => decoder.decode(),
  };
}

/**
 * For vocabularies whose tokens depend on their neighbours (prefixes that stand for a space, a first token that loses
 * it, runs of `<0xNN>` bytes). `byteOf` gives the value of a `<0xNN>` token, else -1. A group is held back while it
 * ends in an incomplete character; it is decoded behind the group before it, which then drops out.
 */
export function windowStreamDecoder(
  decode: (ids: readonly number[]) => string,
  byteOf: (id: number) => number,
): StreamDecoder {
  let context: number[] = [];
  let held: number[] = [];
  const emit = (): string => {
    const known = decode(context).length;
    const text = decode([...context, ...held]).slice(known);
    context = held;
    held = [];
    return text;
  };
  return {
    push(id) {
      held.push(id);
      return endsInsideCharacter(held.map(byteOf)) ? '' : emit();
    },
    flush: () => (held.length > 0 ? emit() : ''),
  };
}

/** Whether a run of bytes ends in the middle of a UTF-8 character that more bytes could still complete. */
export function endsInsideCharacter(bytes: ArrayLike<number>): boolean {
  const count = bytes.length;
  for (let back = 1; back <= Math.min(3, count); back++) {
    const byte = bytes[count - back]!;
    if (byte < 0x80) return false;
    if (byte >= 0xc0) {
      const wanted = byte >= 0xf5 || byte < 0xc2 ? 1 : byte >= 0xf0 ? 4 : byte >= 0xe0 ? 3 : 2;
      if (wanted <= back) return false;
      return back === 1 || isSecondByte(byte, bytes[count - back + 1]!);
    }
  }
  return false;
}

/** The second byte of three- and four-byte characters is restricted after four of the lead bytes. */
function isSecondByte(lead: number, second: number): boolean {
  if (lead === 0xe0) return second >= 0xa0;
  if (lead === 0xed) return second < 0xa0;
  if (lead === 0xf0) return second >= 0x90;
  if (lead === 0xf4) return second < 0x90;
  return true;
}
