/** Sums and maxima along one axis: x (outer, axis, inner) -> y (outer, inner). */
import type { Kernels } from '../backend.ts';
import { idsOutput, input, output } from './storage.ts';

export const reduce = {
  sum({ outer, axis, inner, ...refs }) {
    const x = input(refs.x);
    const y = output(refs.y);
    for (let o = 0; o < outer; o++) {
      for (let i = 0; i < inner; i++) {
        let total = 0;
        for (let j = 0; j < axis; j++) total += x[(o * axis + j) * inner + i]!;
        y[o * inner + i] = total;
      }
    }
  },

  max({ outer, axis, inner, ...refs }) {
    const x = input(refs.x);
    const y = output(refs.y);
    for (let o = 0; o < outer; o++) {
      for (let i = 0; i < inner; i++) {
        let largest = Number.NEGATIVE_INFINITY;
        for (let j = 0; j < axis; j++) largest = Math.max(largest, x[(o * axis + j) * inner + i]!);
        y[o * inner + i] = largest;
      }
    }
  },

  argmax({ outer, axis, inner, ...refs }) {
    const x = input(refs.x);
    const y = idsOutput(refs.y);
    for (let o = 0; o < outer; o++) {
      for (let i = 0; i < inner; i++) {
        let best = 0;
        for (let j = 1; j < axis; j++) {
          if (x[(o * axis + j) * inner + i]! > x[(o * axis + best) * inner + i]!) best = j;
        }
        y[o * inner + i] = best;
      }
    }
  },

  sumSquares({ count, accumulate, ...refs }) {
    const x = input(refs.x);
    const y = output(refs.y);
    let total = accumulate ? y[0]! : 0;
    for (let i = 0; i < count; i++) total += x[i]! * x[i]!;
    y[0] = total;
  },
} satisfies Partial<Kernels>;
