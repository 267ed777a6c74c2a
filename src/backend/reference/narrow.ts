/** Narrow storage: conversion to and from it, and products and table rows that widen weights as they are read. */
import { BLOCK, decodeQ4, decodeQ8 } from '../../base/blocks.ts';
import { bf16ToF32, f16ToF32, f32ToBf16, f32ToF16, LAYOUTS } from '../../base/dtype.ts';
import type { BufferRef, Kernels } from '../backend.ts';
import { NARROW } from '../kernels.ts';
import { bits, bytes, type Floats, ids, input, optionalInput, output } from './storage.ts';

/** Writes `count` elements to `y`, beginning with element `from` of `x`; both whole blocks where the format has blocks. */
type Widen = (from: number, count: number, y: Floats) => void;

function widener(x: BufferRef, format: number): Widen {
  const dtype = NARROW[format]!;
  if (dtype === 'bf16' || dtype === 'f16') {
    const units = bits(x);
    const convert = dtype === 'bf16' ? bf16ToF32 : f16ToF32;
    return (from, count, y) => {
      for (let i = 0; i < count; i++) y[i] = convert(units[from + i]!);
    };
  }
  const blocks = bytes(x);
  const decode = dtype === 'q8' ? decodeQ8 : decodeQ4;
  return (from, count, y) => {
    for (let i = 0; i < count; i += BLOCK) {
      decode(blocks, ((from + i) / BLOCK) * LAYOUTS[dtype].bytes, y, i);
    }
  };
}

export const narrow = {
  widen({ format, count, ...refs }) {
    widener(refs.x, format)(0, count, output(refs.y));
  },

  narrow({ format, count, ...refs }) {
    const x = input(refs.x);
    const y = bits(refs.y);
    const convert = NARROW[format] === 'bf16' ? f32ToBf16 : f32ToF16;
    for (let i = 0; i < count; i++) y[i] = convert(x[i]!);
  },

  linearNarrow({ m, n, k, format, row, ...refs }) {
    const a = input(refs.a);
    const bias = optionalInput(refs.bias);
    const c = output(refs.c);
    const widen = widener(refs.w, format);
    const w = new Float64Array(k);
    for (let j = 0; j < n; j++) {
      widen((row + j) * k, k, w);
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
    for (let i = 0; i < count; i++) widen(row[i]! * d, d, y.subarray(i * d));
  },
} satisfies Partial<Kernels>;
