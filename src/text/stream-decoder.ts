/**
 * Streaming decoders: token by token, never half a character, and in total exactly what decoding
 * everything at once gives. Vocabularies of byte strings map each token to bytes; the others are
 * decoded behind the token before.
 */
import type { StreamDecoder } from '../base/tokenizer.ts';

/**
 * What one token adds: bytes of the text, or a piece of text of its own (an added
 * token such as `<|endoftext|>`).
 */
export type TokenPiece = Uint8Array | string;

/**
 * For vocabularies in which a token is a byte string. A piece of text ends the characters before
 * it. `dropSpace` takes the first character away if it is a space: the one that Llama's
 * vocabularies put in front of a text.
 */
export function byteStreamDecoder(pieceOf: (id: number) => TokenPiece, dropSpace = false): StreamDecoder {
  const decoder = new TextDecoder('utf-8', { ignoreBOM: true });
  let atStart = dropSpace;
  const emit = (text: string): string => {
    if (!atStart || text === '') return text;
    atStart = false;
    return text.startsWith(' ') ? text.slice(1) : text;
  };
  return {
    push(id) {
      const piece = pieceOf(id);
      return emit(
        typeof piece === 'string' ? decoder.decode() + piece : decoder.decode(piece, { stream: true }),
      );
    },
    flush: () => emit(decoder.decode()),
  };
}

/**
 * For vocabularies whose tokens depend on the one before, such as BERT's, whose words go apart by themselves.
 */
export function pairStreamDecoder(decode: (ids: readonly number[]) => string): StreamDecoder {
  let before: number[] = [];
  return {
    push(id) {
      const text = decode([...before, id]).slice(decode(before).length);
      if (text !== '') before = [id]; // an id without a token has nothing behind it
      return text;
    },
    flush: () => '',
  };
}
