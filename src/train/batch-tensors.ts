/** A batch of token windows as the model takes it. */
import { Tensor } from '../tensor/tensor.ts';
import { type Batch, IGNORE_INDEX } from './data-batches.ts';

/** A batch on the device, for model.loss(). */
export function batchTensors({ batch, length, inputs, targets, sequenceIds }: Batch) {
  const shape = [batch, length];
  return {
    ids: Tensor.from(inputs, shape),
    targets: Tensor.from(targets, shape),
    sequenceIds: sequenceIds && Tensor.from(sequenceIds, shape),
  };
}

/** Targets that the loss counts. */
export function countTargets({ targets }: Batch): number {
  let count = 0;
  for (const target of targets) if (target !== IGNORE_INDEX) count++;
  return count;
}
