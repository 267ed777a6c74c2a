/** One optimizer step: forward and backward of one or several batches, then the update. */
import type { LanguageModel } from '../models/language-model.ts';
import type { State } from '../models/state.ts';
import { scope } from '../tensor/scope.ts';
import { backward, noGrad } from '../tensor/tape.ts';
import { Tensor } from '../tensor/tensor.ts';
import type { AdamW } from './adamw.ts';
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

/** The loss of a batch with the weights as they are, from a zero state; nothing is recorded. */
export async function batchLoss(model: LanguageModel, batch: Batch): Promise<number> {
  const loss = noGrad(() =>
    scope(() => {
      const { ids, targets, sequenceIds } = batchTensors(batch);
      return model.loss(ids, targets, { sequenceIds }).loss;
    }),
  );
  const value = await loss.item();
  loss.dispose();
  return value;
}

export interface StepOptions {
  model: LanguageModel;
  optimizer: AdamW;
  lr: number;
  /** Recompute each block during the backward pass. */
  checkpointing?: boolean;
  /** The state that rows go on from where the batch does not reset them. Taken over and disposed. */
  state?: State | null;
  /** Hand on the state after the last batch, detached from the graph. */
  carry?: boolean;
}

export interface StepOutcome {
  /** Mean over all targets of the step, in nats. */
  loss: number;
  /** Before clipping. */
  gradNorm: number;
  /** Null unless `carry`. */
  state: State | null;
}

/**
 * The gradient is that of the mean over the targets of all batches together: each batch weighs as much as it has
 * targets, so splitting a batch changes nothing beyond rounding. The update is done when the promise is made.
 */
export async function trainStep(batches: readonly Batch[], options: StepOptions): Promise<StepOutcome> {
  const { model, optimizer, lr, checkpointing = false, carry = false } = options;
  const counts = batches.map(countTargets);
  const total = Math.max(
    1,
    counts.reduce((sum, count) => sum + count, 0),
  );
  let state = options.state ?? null;
  const losses = batches.map((batch, i) => {
    const entering = enterState(model, state, batch.resets);
    const out = scope(() => {
      const { ids, targets, sequenceIds } = batchTensors(batch);
      const { loss, state: after } = model.loss(ids, targets, {
        state: entering,
        sequenceIds,
        checkpointing,
      });
      backward(loss, Tensor.full(loss.shape, counts[i]! / total));
      return { loss: loss.detach(), after: carry ? after.detach() : null };
    });
    entering?.dispose();
    state = out.after;
    return out.loss;
  });
  const norm = optimizer.step(lr);
  let loss = 0;
  for (const [i, tensor] of losses.entries()) {
    loss += (await tensor.item()) * (counts[i]! / total);
    tensor.dispose();
  }
  const gradNorm = await norm.item();
  norm.dispose();
  return { loss, gradNorm, state };
}

/** The state with zeros in the rows that start anew; disposes the one given when it makes another. */
function enterState(
  model: LanguageModel,
  state: State | null,
  resets: readonly boolean[] | undefined,
): State | null {
  if (!state || !resets) return state;
  const rows = resets.flatMap((reset, row) => (reset ? [row] : []));
  if (rows.length === 0) return state;
  const zeros = rows.length < resets.length ? model.initialState(rows.length) : null;
  const mixed = zeros && noGrad(() => state.withRows(rows, zeros));
  zeros?.dispose();
  state.dispose();
  return mixed;
}
