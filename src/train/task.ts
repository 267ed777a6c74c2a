/**
 * What the trainer needs of a task: how a batch becomes a loss, and what is said about it. The loop, the
 * optimizer step, checkpoints and reports know nothing else of language models or classifiers.
 * CONTRIBUTING.md has the checklist.
 */
import type { State } from '../models/state.ts';
import type { Tensor } from '../tensor/tensor.ts';

export interface LossOptions {
  /** Where rows go on from, for tasks that carry a state; null = zeros. It is not changed. */
  state?: State | null;
  /** Recompute each block during the backward pass. */
  checkpointing?: boolean;
  /** Decides what is random in the loss (dropout); absent outside of training, where nothing is. */
  seed?: number;
}

/** Numbers by name, as they stand in metrics.jsonl. */
export type Figures = Record<string, number | null>;

/** `B` is a batch, `E` an evaluation, `F` and `S` what metrics entries say of a loss and of an evaluation. */
export interface Task<B, E, F extends Figures, S extends Figures> {
  /** The mean loss of a batch in nats, and the state after it where the task carries one. */
  loss(batch: B, options?: LossOptions): { loss: Tensor; state: State | null };
  /** Terms the loss is the mean of: batches that share an optimizer step count by it. */
  weight(batch: B): number;
  /** Tokens read, padding included. */
  tokens(batch: B): number;
  /**
   * The state that `batch` starts from, given the one after the batch before, which is taken
   * over. Absent: none is carried.
   */
  enter?(state: State, batch: B): State;
  /** What a metrics entry says beside the mean loss since the last one. */
  figures(loss: number): F;
  /** What a metrics entry keeps of an evaluation. */
  scores(evaluation: E): S;
}
