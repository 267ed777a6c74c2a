/**
 * Weights on their way from a file to a device or to another file: never a whole tensor, but stretches of its
 * elements, each in the type in which they are stored where that is one of ours. So a model can be loaded or
 * converted with one piece beside it.
 */
import type { HostArray } from '../base/dtype.ts';
import { FormatError } from '../base/errors.ts';
import { fromFloats, LARGEST, toFloats, type WeightDType } from '../base/weight-types.ts';
import { countNonFinite } from './non-finite.ts';

/** Elements [at, at + count), row-major. Only until the next piece is asked for. */
export interface WeightPiece {
  readonly at: number;
  readonly count: number;
  readonly data: HostArray;
}

/** A tensor that can be read piece by piece. */
export interface StoredWeight {
  /** Of the pieces: the stored type, or f32 where that is none of ours. */
  readonly dtype: WeightDType;
  /** Elements. */
  readonly size: number;
  /** Where it is stored; other than what the pieces hold where the type is none of ours. */
  readonly storedBytes: number;
  /** In order, without gaps; every piece but the last has PIECE_ELEMENTS. */
  pieces(): AsyncIterable<WeightPiece>;
}

/** Whole blocks of every format. */
export const PIECE_ELEMENTS = 1 << 20;

/** [at, count] of each piece. */
export function* pieceRanges(size: number): Generator<[at: number, count: number]> {
  for (let at = 0; at < size; at += PIECE_ELEMENTS) yield [at, Math.min(PIECE_ELEMENTS, size - at)];
}

/** All values in a fresh array. */
export async function readFloats(weight: StoredWeight): Promise<Float32Array> {
  const out = new Float32Array(weight.size);
  for await (const { at, data } of weight.pieces()) out.set(toFloats(data, weight.dtype), at);
  return out;
}

/**
 * A piece of type `from` in another type; the same type is the same data. FormatError for values that are not
 * finite or that the type cannot hold; `what` names the tensor.
 */
export function convertPiece(
  { at, data }: WeightPiece,
  from: WeightDType,
  to: WeightDType,
  what: string,
): HostArray {
  const limit = LARGEST[to];
  const fail = (element: number, got: string): FormatError =>
    new FormatError(
      `convertWeights: expected magnitudes up to ${limit} for ${to} in ${what}, got ${got} at element ${element}. Keep f32, or repair the weights.`,
    );
  if (from === to && to !== 'f32') {
    const { first, nan } = countNonFinite(data, from);
    if (first >= 0) throw fail(at + first, nan > 0 ? 'NaN' : 'infinity');
    return data;
  }
  const values = toFloats(data, from);
  const bad = values.findIndex((x) => !(Math.abs(x) <= limit));
  if (bad >= 0) throw fail(at + bad, String(values[bad]));
  return fromFloats(values, to);
}

/**
 * All elements in another type, as bytes, piece by piece; use each before asking for
 * the next. Errors: convertPiece.
 */
export async function* weightBytes(
  weight: StoredWeight,
  dtype: WeightDType,
  what: string,
): AsyncGenerator<Uint8Array> {
  for await (const piece of weight.pieces()) {
    const data = convertPiece(piece, weight.dtype, dtype, what);
    yield new Uint8Array(data.buffer, data.byteOffset, data.byteLength);
  }
}
