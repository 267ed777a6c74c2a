/** Kernels that move elements: strided copies, table rows. */
import type { Kernels } from '../backend.ts';
import { ids, input, output, words } from './storage.ts';

type Six = readonly [number, number, number, number, number, number];

/** Visits the elements of a 6-D shape in order: `visit(position, index)`, where index counts up from 0. */
function walk(dims: Six, strides: Six, visit: (position: number, index: number) => void): void {
  const [d0, d1, d2, d3, d4, d5] = dims;
  const [s0, s1, s2, s3, s4, s5] = strides;
  let index = 0;
  for (let i0 = 0; i0 < d0; i0++) {
    for (let i1 = 0; i1 < d1; i1++) {
      for (let i2 = 0; i2 < d2; i2++) {
        for (let i3 = 0; i3 < d3; i3++) {
          for (let i4 = 0; i4 < d4; i4++) {
            const row = i0 * s0 + i1 * s1 + i2 * s2 + i3 * s3 + i4 * s4;
            for (let i5 = 0; i5 < d5; i5++) visit(row + i5 * s5, index++);
          }
        }
      }
    }
  }
}

export const copy = {
  copy({ d0, d1, d2, d3, d4, d5, s0, s1, s2, s3, s4, s5, ...refs }) {
    const [x, y] = words(refs.x, refs.y);
    walk([d0, d1, d2, d3, d4, d5], [s0, s1, s2, s3, s4, s5], (position, i) => {
      y[i] = x[position]!;
    });
  },

  scatter({ d0, d1, d2, d3, d4, d5, s0, s1, s2, s3, s4, s5, accumulate, ...refs }) {
    const [x, y] = accumulate ? [input(refs.x), output(refs.y)] : words(refs.x, refs.y);
    walk([d0, d1, d2, d3, d4, d5], [s0, s1, s2, s3, s4, s5], (position, i) => {
      y[position] = accumulate ? y[position]! + x[i]! : x[i]!;
    });
  },

  gatherRows({ count, d, ...refs }) {
    const table = input(refs.table);
    const row = ids(refs.ids);
    const y = output(refs.y);
    for (let i = 0; i < count; i++) {
      for (let j = 0; j < d; j++) y[i * d + j] = table[row[i]! * d + j]!;
    }
  },

  scatterAddRows({ count, d, ...refs }) {
    const x = input(refs.x);
    const row = ids(refs.ids);
    const table = output(refs.table);
    for (let i = 0; i < count; i++) {
      for (let j = 0; j < d; j++) table[row[i]! * d + j]! += x[i * d + j]!;
    }
  },
} satisfies Partial<Kernels>;
