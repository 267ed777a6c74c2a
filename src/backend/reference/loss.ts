/** Cross-entropy of next-token prediction, row by row, without a stored softmax. */
import type { Kernels } from '../backend.ts';
import { ids, input, output } from './storage.ts';

export const loss = {
  crossEntropy({ rows, v, ignore, ...refs }) {
    const logits = input(refs.logits);
    const targets = ids(refs.targets);
    const [lossOut, lseOut, validOut] = [output(refs.loss), output(refs.lse), output(refs.valid)];
    for (let row = 0; row < rows; row++) {
      const at = row * v;
      let largest = Number.NEGATIVE_INFINITY;
      for (let j = 0; j < v; j++) largest = Math.max(largest, logits[at + j]!);
      let total = 0;
      for (let j = 0; j < v; j++) total += Math.exp(logits[at + j]! - largest);
      const lse = largest + Math.log(total);
      const target = targets[row]!;
      lseOut[row] = lse;
      lossOut[row] = target === ignore ? 0 : lse - logits[at + target]!;
      validOut[row] = target === ignore ? 0 : 1;
    }
  },

  crossEntropyGrad({ rows, v, ignore, ...refs }) {
    const [logits, lse, dloss] = [input(refs.logits), input(refs.lse), input(refs.dloss)];
    const targets = ids(refs.targets);
    const dlogits = output(refs.dlogits);
    for (let row = 0; row < rows; row++) {
      const target = targets[row]!;
      for (let j = 0; j < v; j++) {
        const probability = Math.exp(logits[row * v + j]! - lse[row]!);
        const onehot = j === target ? 1 : 0;
        dlogits[row * v + j] = target === ignore ? 0 : dloss[row]! * (probability - onehot);
      }
    }
  },
} satisfies Partial<Kernels>;
