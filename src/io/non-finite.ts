/** Counting the weights that are NaN or infinite, in any type: one of them makes every answer of a model NaN. */
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

/** `first` is -1 if there are none. The scale of a block counts for each of its elements. */
export function countNonFinite(data: HostArray, dtype: WeightDType): Omit<NonFinite, 'name'> {
  const count = { nan: 0, infinite: 0, first: -1 };
  const add = (value: number, at: number, elements: number): void => {
    if (count.first < 0) count.first = at;
    count[Number.isNaN(value) ? 'nan' : 'infinite'] += elements;
  };
  if (dtype === 'f32') {
    for (let i = 0; i < data.length; i++) if (!Number.isFinite(data[i]!)) add(data[i]!, i, 1);
  } else if (dtype === 'bf16' || dtype === 'f16') {
    const exponent = dtype === 'bf16' ? 0x7f80 : 0x7c00;
    const value = dtype === 'bf16' ? bf16ToF32 : f16ToF32;
    for (let i = 0; i < data.length; i++) {
      if ((data[i]! & exponent) === exponent) add(value(data[i]!), i, 1);
    }
  } else {
    const { block, bytes } = LAYOUTS[dtype];
    const blocks = data as Uint8Array;
    for (let i = 0, at = 1; at < blocks.length; i++, at += bytes) {
      if ((blocks[at]! & 0x7c) === 0x7c) add(half(blocks, at - 1), i * block, block);
    }
  }
  return count;
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
  count: Omit<NonFinite, 'name'>,
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
