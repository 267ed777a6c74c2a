/** Narrow storage: conversion to and from it, table rows and products. */
import { BLOCK, type BlockDType, decodeQ4, decodeQ8, half } from '../../base/blocks.ts';
import { bf16ToF32, f16ToF32, f32ToBf16, f32ToF16, LAYOUTS } from '../../base/dtype.ts';
import { packPanels, unpackPanels } from '../../base/panels.ts';
import type { BufferRef, Kernels } from '../backend.ts';
import { NARROW } from '../kernels.ts';
import { roundedToBf16 } from './matmul.ts';
import { bits, bytes, type Floats, ids, input, optionalInput, output } from './storage.ts';

const isBlocks = (format: number): boolean => LAYOUTS[NARROW[format]!].block > 1;

/** The blocks of a row of d elements. */
function blocksOf(panels: Uint8Array, dtype: BlockDType, d: number, row: number): Uint8Array {
  const blocks = new Uint8Array((d / BLOCK) * LAYOUTS[dtype].bytes);
  unpackPanels(dtype, d, (row * d) / BLOCK, panels, blocks);
  return blocks;
}

/** Writes row `row` of d elements to `y`. */
type Widen = (row: number, d: number, y: Floats) => void;

function widener(x: BufferRef, format: number): Widen {
  const dtype = NARROW[format]!;
  if (dtype === 'bf16' || dtype === 'f16') {
    const units = bits(x);
    const convert = dtype === 'bf16' ? bf16ToF32 : f16ToF32;
    return (row, d, y) => {
      for (let i = 0; i < d; i++) y[i] = convert(units[row * d + i]!);
    };
  }
  const panels = bytes(x);
  const decode = dtype === 'q8' ? decodeQ8 : decodeQ4;
  return (row, d, y) => {
    const blocks = blocksOf(panels, dtype, d, row);
    for (let b = 0; b < d / BLOCK; b++) decode(blocks, b * LAYOUTS[dtype].bytes, y, b * BLOCK);
  };
}

/** A row of activations as integers with a scale per block. */
interface QuantisedRow {
  readonly q: Int32Array;
  readonly scales: Float64Array;
}

/** Largest integers of an activation; 32512 = 127 * 256 makes two signed bytes. */
const LEVELS = { int16: 32512, int8: 127 };
/** Blocks of smaller numbers are rounded as if this were their largest, so that no scale is subnormal. */
const LEAST_TOP = 2 ** -110;

/** In float32 at every step, ties to even: the integers are the same on every device. */
function quantiseRow(a: Floats, levels: number): QuantisedRow {
  const q = new Int32Array(a.length);
  const scales = new Float64Array(a.length / BLOCK);
  for (let b = 0; b < scales.length; b++) {
    let top = LEAST_TOP;
    for (let i = 0; i < BLOCK; i++) top = Math.max(top, Math.abs(Math.fround(a[b * BLOCK + i]!)));
    if (!Number.isFinite(top)) {
      scales[b] = Number.NaN;
      continue;
    }
    scales[b] = Math.fround(top / levels);
    const inverse = Math.fround(levels / top);
    for (let i = 0; i < BLOCK; i++) {
      const x = Math.fround(Math.fround(a[b * BLOCK + i]!) * inverse);
      const nearest = Math.round(x); // halves go up
      q[b * BLOCK + i] = nearest - x === 0.5 && nearest % 2 !== 0 ? nearest - 1 : nearest;
    }
  }
  return { q, scales };
}

/** The integers of a row of blocks, and their scales. */
function quantsOf(blocks: Uint8Array, dtype: BlockDType): QuantisedRow {
  const { bytes: size } = LAYOUTS[dtype];
  const count = blocks.length / size;
  const q = new Int32Array(count * BLOCK);
  const scales = new Float64Array(count);
  for (let b = 0; b < count; b++) {
    scales[b] = half(blocks, b * size);
    for (let i = 0; i < BLOCK; i++) {
      const byte = blocks[b * size + 2 + (dtype === 'q8' ? i : i % 16)]!;
      q[b * BLOCK + i] = dtype === 'q8' ? (byte << 24) >> 24 : (i < 16 ? byte & 15 : byte >> 4) - 8;
    }
  }
  return { q, scales };
}

/** Block by block: an exact integer, times both scales. */
function dotOfBlocks(a: QuantisedRow, w: QuantisedRow): number {
  let total = 0;
  for (let b = 0; b < w.scales.length; b++) {
    let sum = 0;
    for (let i = b * BLOCK; i < (b + 1) * BLOCK; i++) sum += a.q[i]! * w.q[i]!;
    total += a.scales[b]! * (w.scales[b]! * sum);
  }
  return total;
}

export const narrow = {
  widen({ format, rows, d, ...refs }) {
    const widen = widener(refs.x, format);
    const y = output(refs.y);
    for (let i = 0; i < rows; i++) widen(i, d, y.subarray(i * d));
  },

  narrow({ format, count, ...refs }) {
    const x = input(refs.x);
    const y = bits(refs.y);
    const convert = NARROW[format] === 'bf16' ? f32ToBf16 : f32ToF16;
    for (let i = 0; i < count; i++) y[i] = convert(x[i]!);
  },

  pack({ format, d, first, count, ...refs }) {
    const dtype = NARROW[format] as BlockDType;
    packPanels(dtype, d, first, bytes(refs.x).subarray(0, count * LAYOUTS[dtype].bytes), bytes(refs.y));
  },

  unpack({ format, d, first, count, ...refs }) {
    const dtype = NARROW[format] as BlockDType;
    unpackPanels(dtype, d, first, bytes(refs.x), bytes(refs.y).subarray(0, count * LAYOUTS[dtype].bytes));
  },

  linearNarrow({ m, n, k, format, row, precision, ...refs }) {
    const operand = (x: Floats) => (precision === 1 && !isBlocks(format) ? roundedToBf16(x) : x);
    const a = operand(input(refs.a));
    const bias = optionalInput(refs.bias);
    const c = output(refs.c);
    if (isBlocks(format)) {
      const levels = precision === 2 ? LEVELS.int8 : LEVELS.int16;
      const rows = Array.from({ length: m }, (_, i) => quantiseRow(a.subarray(i * k, (i + 1) * k), levels));
      const [panels, dtype] = [bytes(refs.w), NARROW[format] as BlockDType];
      for (let j = 0; j < n; j++) {
        const w = quantsOf(blocksOf(panels, dtype, k, row + j), dtype);
        for (let i = 0; i < m; i++) c[i * n + j] = dotOfBlocks(rows[i]!, w) + (bias ? bias[j]! : 0);
      }
      return;
    }
    const widen = widener(refs.w, format);
    const wide = new Float64Array(k);
    for (let j = 0; j < n; j++) {
      widen(row + j, k, wide);
      const w = operand(wide);
      for (let i = 0; i < m; i++) {
        let total = bias ? bias[j]! : 0;
        for (let p = 0; p < k; p++) total += a[i * k + p]! * w[p]!;
        c[i * n + j] = total;
      }
    }
  },

  gatherRowsNarrow({ count, d, format, ...refs }) {
    const widen = widener(refs.table, format);
    const row = ids(refs.ids);
    const y = output(refs.y);
    for (let i = 0; i < count; i++) widen(row[i]!, d, y.subarray(i * d));
  },
} satisfies Partial<Kernels>;
