/**
 * Depthwise causal convolution. For one row and channel, let `inputs` be the window (the k inputs before this
 * call, zeros at the start of a text) followed by the tokens of this call. Token t sits at inputs[t + k], and
 *
 *   pre[t] = bias + sum_{j<k} weight[j] * inputs[t + 1 + j],     y[t] = silu(pre[t]) or pre[t],
 *
 * where inputs of another document than token t count as zero. The next call's window is the last k inputs.
 * Backward, with dpre = dy * silu'(pre):
 *
 *   dweight[j] = sum_t dpre[t] inputs[t + 1 + j], dinputs[t + 1 + j] += dpre[t]
 *   weight[j], dbias = sum_t dpre[t].
 */
import type { Kernels } from '../backend.ts';
import { siluGrad, silu as siluOf } from './math.ts';
import { type Floats, input, optionalIds, optionalInput, optionalOutput, output } from './storage.ts';

export const conv = {
  causalConv({ b, l, e, k, silu, cut1, cut2, ...refs }) {
    const [x, weight, bias] = [input(refs.x), input(refs.weight), optionalInput(refs.bias)];
    const window = optionalInput(refs.window);
    const [sequenceIds, lengths] = [optionalIds(refs.sequenceIds), optionalIds(refs.lengths)];
    const [y, windowOut] = [output(refs.y), optionalOutput(refs.windowOut)];

    for (let row = 0; row < b; row++) {
      const length = lengths ? lengths[row]! : l;
      const document = documents(sequenceIds, row, length, l, k);
      for (let c = 0; c < e; c++) {
        const inputs = gatherInputs(x, window, row, c, length, l, e, k);
        const [part, end] = c < cut1 ? [0, cut1] : c < cut2 ? [cut1, cut2] : [cut2, e];
        for (let t = 0; t < l; t++) {
          let pre = bias ? bias[c]! : 0;
          for (let j = 0; j < k && t < length; j++) {
            if (document[t + 1 + j] === document[t + k]) pre += weight[c * k + j]! * inputs[t + 1 + j]!;
          }
          y[b * l * part + (row * l + t) * (end - part) + c - part] =
            t >= length ? 0 : silu ? siluOf(pre) : pre;
        }
        for (let j = 0; j < k && windowOut; j++) {
          const same = document[length + j] === document[length + k - 1];
          windowOut[(row * e + c) * k + j] = same ? inputs[length + j]! : 0;
        }
      }
    }
  },

  causalConvGrad({ b, l, e, k, silu, ...refs }) {
    const [x, weight, bias] = [input(refs.x), input(refs.weight), optionalInput(refs.bias)];
    const [window, dwindowOut] = [optionalInput(refs.window), optionalInput(refs.dwindowOut)];
    const [sequenceIds, lengths] = [optionalIds(refs.sequenceIds), optionalIds(refs.lengths)];
    const dy = input(refs.dy);
    const [dx, dwindow] = [output(refs.dx), optionalOutput(refs.dwindow)];
    const dweight = new Float64Array(e * k);
    const dbias = new Float64Array(e);

    for (let row = 0; row < b; row++) {
      const length = lengths ? lengths[row]! : l;
      const document = documents(sequenceIds, row, length, l, k);
      for (let c = 0; c < e; c++) {
        const inputs = gatherInputs(x, window, row, c, length, l, e, k);
        const dinputs = new Float64Array(k + l);
        for (let t = 0; t < length; t++) {
          let pre = bias ? bias[c]! : 0;
          for (let j = 0; j < k; j++) {
            if (document[t + 1 + j] === document[t + k]) pre += weight[c * k + j]! * inputs[t + 1 + j]!;
          }
          const dpre = dy[(row * l + t) * e + c]! * (silu ? siluGrad(pre) : 1);
          dbias[c]! += dpre;
          for (let j = 0; j < k; j++) {
            if (document[t + 1 + j] !== document[t + k]) continue;
            dweight[c * k + j]! += dpre * inputs[t + 1 + j]!;
            dinputs[t + 1 + j]! += dpre * weight[c * k + j]!;
          }
        }
        for (let j = 0; j < k && dwindowOut; j++) {
          const same = document[length + j] === document[length + k - 1];
          if (same) dinputs[length + j]! += dwindowOut[(row * e + c) * k + j]!;
        }
        for (let j = 0; j < k && dwindow; j++) dwindow[(row * e + c) * k + j] = dinputs[j]!;
        for (let t = 0; t < l; t++) dx[(row * l + t) * e + c] = dinputs[t + k]!;
      }
    }
    output(refs.dweight).set(dweight);
    optionalOutput(refs.dbias)?.set(dbias);
  },
} satisfies Partial<Kernels>;

/** The window and then the tokens of one row and channel, oldest first: (k + length). */
function gatherInputs(
  x: Floats,
  window: Floats | null,
  row: number,
  c: number,
  length: number,
  l: number,
  e: number,
  k: number,
): Float64Array {
  const inputs = new Float64Array(k + length);
  for (let j = 0; j < k && window; j++) inputs[j] = window[(row * e + c) * k + j]!;
  for (let t = 0; t < length; t++) inputs[k + t] = x[(row * l + t) * e + c]!;
  return inputs;
}

/** The document of each of those inputs; the window belongs to that of token 0. */
function documents(ids: Int32Array | null, row: number, length: number, l: number, k: number): Int32Array {
  const document = new Int32Array(k + length);
  if (!ids || length === 0) return document;
  document.fill(ids[row * l]!, 0, k);
  for (let t = 0; t < length; t++) document[k + t] = ids[row * l + t]!;
  return document;
}
