/**
 * Counting the weights that are NaN or infinite, in any type: one of them makes every answer of a model NaN.
 */
import { half } from '../base/blocks.ts';
import { bf16ToF32, f16ToF32, type HostArray, LAYOUTS } from '../base/dtype.ts';
import type { WeightDType } from '../base/weight-types.ts';
import { listProblems } from './problems.ts';

/** Elements of a tensor that are not finite. */
export interface NonFinite {
  name: string;
  nan: number;
  infinite: number;
  /** Flat index of the first. */
  first: number;
}

type Count = Omit<NonFinite, 'name'>;

/** `first` is -1 if there are none. The scale of a block counts for each of its elements. */
export function countNonFinite(data: HostArray, dtype: WeightDType): Count {
  if (dtype === 'f32') return countFloats(data as Float32Array);
  if (dtype === 'bf16') return countBits(data as Uint16Array, 0x7f80, bf16ToF32);
  if (dtype === 'f16') return countBits(data as Uint16Array, 0x7c00, f16ToF32);
  return countScales(data as Uint8Array, LAYOUTS[dtype]);
}

// One loop per array type: a loop that sees several is less than half as fast, and a
// model has billions of weights.

function countFloats(values: Float32Array): Count {
  const count = { nan: 0, infinite: 0, first: -1 };
  for (let i = 0; i < values.length; i++) if (!Number.isFinite(values[i]!)) add(count, values[i]!, i, 1);
  return count;
}

/** NaN and infinity are the values with all bits of the exponent. */
function countBits(bits: Uint16Array, exponent: number, widen: (bits: number) => number): Count {
  const count = { nan: 0, infinite: 0, first: -1 };
  if (areFinite(bits, exponent)) return count;
  for (let i = 0; i < bits.length; i++) {
    if ((bits[i]! & exponent) === exponent) add(count, widen(bits[i]!), i, 1);
  }
  return count;
}

/**
 * Two values at a time: adding the lowest bit of the exponent carries into the sign, which was masked out,
 * only where all its bits are set. False when unsure: for an odd address or number of values.
 */
function areFinite({ buffer, byteOffset, length }: Uint16Array, exponent: number): boolean {
  if (byteOffset % 4 !== 0 || length % 2 !== 0) return false;
  const pairs = new Uint32Array(buffer, byteOffset, length / 2);
  const lowest = (0x8000 - exponent) * 0x10001;
  let carried = 0;
  for (let i = 0; i < pairs.length; i++) carried |= (pairs[i]! & 0x7fff7fff) + lowest;
  return (carried & 0x80008000) === 0;
}

function countScales(blocks: Uint8Array, { block, bytes }: { block: number; bytes: number }): Count {
  const count = { nan: 0, infinite: 0, first: -1 };
  for (let i = 0, at = 1; at < blocks.length; i++, at += bytes) {
    if ((blocks[at]! & 0x7c) === 0x7c) add(count, half(blocks, at - 1), i * block, block);
  }
  return count;
}

function add(count: Count, value: number, at: number, elements: number): void {
  if (count.first < 0) count.first = at;
  count[Number.isNaN(value) ? 'nan' : 'infinite'] += elements;
}

/** Counts NaN and infinities; null if there are none. */
export function reportNonFinite(name: string, values: Float32Array): NonFinite | null {
  const count = countNonFinite(values, 'f32');
  return count.first < 0 ? null : { name, ...count };
}

/** The count of a piece that starts at element `at`, added to those before it. */
export function addNonFinite(
  name: string,
  before: NonFinite | null,
  count: Count,
  at: number,
): NonFinite | null {
  if (count.first < 0) return before;
  if (!before) return { name, ...count, first: at + count.first };
  return { ...before, nan: before.nan + count.nan, infinite: before.infinite + count.infinite };
}

/** The reports in a sentence for an error or a warning. */
export function describeNonFinite(reports: readonly NonFinite[]): string {
  return listProblems(
    reports.map(
      ({ name, nan, infinite, first }) => `${name}: ${nan} NaN, ${infinite} infinite, first at ${first}`,
    ),
  );
}
