/** One optimizer step: forward and backward of one or several batches, then the update. */
import type { State } from '../models/state.ts';
import { scope } from '../tensor/scope.ts';
import { backward, noGrad } from '../tensor/tape.ts';
import { Tensor } from '../tensor/tensor.ts';
import type { AdamW } from './adamw.ts';
import type { Task } from './task.ts';

/** The part of a task that a step needs. */
export type Loss<B> = Pick<Task<B, never, never, never>, 'loss' | 'weight' | 'enter'>;

/** The loss of a batch with the weights as they are, from a zero state; nothing is recorded. */
export async function batchLoss<B>(task: Loss<B>, batch: B): Promise<number> {
  const loss = noGrad(() => scope(() => task.loss(batch).loss));
  const value = await loss.item();
  loss.dispose();
  return value;
}

export interface StepOptions<B> {
  task: Loss<B>;
  optimizer: AdamW;
  lr: number;
  /** Recompute each block during the backward pass. */
  checkpointing?: boolean;
  /** The state that rows go on from where the batch does not reset them. Taken over and disposed. */
  state?: State | null;
  /** Hand on the state after the last batch, detached from the graph. */
  carry?: boolean;
  /** Of what is random in the loss; the same for the same step of the same run. */
  seed?: number;
}

export interface StepOutcome {
  /** Mean over all terms of the step, in nats. */
  loss: number;
  /** Before clipping. */
  gradNorm: number;
  /** Null unless `carry`. */
  state: State | null;
}

/**
 * The gradient is that of the mean over the terms of all batches together: each batch weighs as
 * much as it has terms, so splitting a batch changes nothing beyond rounding. The update is
 * done when the promise is made.
 */
export async function trainStep<B>(batches: readonly B[], options: StepOptions<B>): Promise<StepOutcome> {
  const { task, optimizer, lr, checkpointing = false, carry = false, seed } = options;
  const counts = batches.map((batch) => task.weight(batch));
  const total = Math.max(
    1,
    counts.reduce((sum, count) => sum + count, 0),
  );
  let state = options.state ?? null;
  const losses = batches.map((batch, i) => {
    const entering = state && task.enter ? task.enter(state, batch) : state;
    const out = scope(() => {
      const random = seed === undefined ? undefined : seed + i;
      const { loss, state: after } = task.loss(batch, { state: entering, checkpointing, seed: random });
      backward(loss, Tensor.full(loss.shape, counts[i]! / total));
      return { loss: loss.detach(), after: carry && after ? after.detach() : null };
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
