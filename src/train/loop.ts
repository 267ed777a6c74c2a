/**
 * The training loop: batch, step, report, evaluate, save. It prints nothing and touches no file; what happens
 * is told to `onProgress`, and `save` is the caller's. Everything the next step depends on is in
 * LoopPosition, so a run that goes on from one equals the run that never stopped, bit for bit.
 */
import { ConfigError, MambaError } from '../base/errors.ts';
import { turn } from '../base/turn.ts';
import type { State } from '../models/state.ts';
import type { AdamW } from './adamw.ts';
import type { BatchPosition, BatchStream } from './data-batches.ts';
import type { LmFigures, LmScores, StepMetrics } from './metrics.ts';
import { rateAtProgress, rateAtStep, type Schedule } from './schedule.ts';
import { batchLoss, trainStep } from './step.ts';
import type { Figures, Task } from './task.ts';

/** The loss or the gradient is no longer finite; nothing was saved after it. */
export class DivergenceError extends MambaError {
  readonly code = 'ERR_DIVERGED';
}

/** How long to train: a number of optimizer steps, or minutes of training. */
export type Budget = { steps: number } | { minutes: number };

/** Between two steps. */
export interface LoopPosition {
  /** Steps done. */
  step: number;
  tokens: number;
  elapsedSeconds: number;
  data: BatchPosition;
  /** What has gathered since the last report. */
  interval: { loss: number; steps: number; tokens: number; seconds: number };
  /** The best evaluation so far; null without `best` and before the first one. */
  best: BestSoFar | null;
  /** The carried state; null without `carryState` and before the first step. It belongs to the loop. */
  state: State | null;
}

export interface BestSoFar {
  /** After how many steps. */
  step: number;
  rank: number[];
  /** Evaluations since, none of them better. */
  without: number;
}

export type TrainEvent<F extends Figures = LmFigures, S extends Figures = LmScores> =
  /** After every step. `progress` is the share of the budget that is used, 0..1. */
  | { kind: 'step'; step: number; tokens: number; loss: number; progress: number; elapsedSeconds: number }
  /** Every `logEvery` steps, and where a step was evaluated. */
  | { kind: 'metrics'; metrics: StepMetrics<F, S> }
  | { kind: 'saved'; step: number };

export interface TrainOptions<B, E, F extends Figures, S extends Figures> {
  task: Task<B, E, F, S>;
  optimizer: AdamW;
  batches: BatchStream<B>;
  schedule: Schedule;
  budget: Budget;
  /** Batches per optimizer step, default 1. */
  accumulate?: number;
  /** Recompute blocks in the backward pass: less memory, about a third more time. */
  checkpointing?: boolean;
  /** Rows start from the state in which they ended (truncated backpropagation through time). */
  carryState?: boolean;
  /** Steps between reports, default 10. */
  logEvery?: number;
  /** Steps between evaluations, default never; there is always one at the end. */
  evaluateEvery?: number | null;
  evaluate?: () => Promise<E>;
  /** Keeps the weights of the best evaluation, and stops when there has been no better one for long. */
  best?: {
    /** Larger is better; on ties the next number decides. */
    rank(evaluation: E): number[];
    /** Called with the weights of the best evaluation so far in the model. */
    keep(): Promise<void>;
    /** Stops after so many evaluations without a better one; null never. */
    patience: number | null;
  };
  /** Steps between saves, default never; there is always one at the end and after `signal`. */
  saveEvery?: number | null;
  save?: (position: LoopPosition) => Promise<void>;
  onProgress?: (event: TrainEvent<F, S>) => void | Promise<void>;
  /** Of what is random in the loss (dropout), default 0. */
  seed?: number;
  /** Finishes the step, saves and returns. */
  signal?: AbortSignal;
  /** Where to go on; `batches`, `optimizer` and the weights must have been restored to the same point. */
  position?: LoopPosition;
  /** A clock in milliseconds, default performance.now. */
  now?: () => number;
}

export interface TrainResult<E> {
  /** `early`: `best.patience` was at its end before the budget. */
  stopped: 'finished' | 'early' | 'interrupted';
  step: number;
  tokens: number;
  elapsedSeconds: number;
  /** Of the end; null when interrupted or without `evaluate`. */
  validation: E | null;
}

/** Throws DivergenceError when loss or gradient are not finite, ConfigError for options out of range. */
export async function train<B, E, F extends Figures, S extends Figures>(
  options: TrainOptions<B, E, F, S>,
): Promise<TrainResult<E>> {
  const { task, optimizer, batches, evaluate, save, onProgress, signal } = options;
  const { accumulate = 1, logEvery = 10, evaluateEvery = null, saveEvery = null } = options;
  const { now = () => performance.now(), seed = 0 } = options;
  checkOptions(options);
  const at = options.position ?? startPosition(batches);
  let validation: E | null = null;
  let saved = options.position ? at.step : -1;
  let latest: B[] = [];
  const store = async (): Promise<void> => {
    if (!save || saved === at.step) return;
    const probe = latest[0] ? await batchLoss(task, latest[0]) : 0;
    if (!Number.isFinite(probe)) throw diverged(at.step, { loss: probe, gradNorm: Number.NaN });
    at.data = batches.state();
    await save(at);
    saved = at.step;
    await onProgress?.({ kind: 'saved', step: at.step });
  };
  try {
    while (!isOver(options, at) && !signal?.aborted) {
      const begun = now();
      const micro: B[] = [];
      for (let i = 0; i < accumulate; i++) micro.push(await batches.next());
      latest = micro;
      const lr = rateOf(options, at);
      const { checkpointing, carryState: carry } = options;
      const out = await trainStep(micro, {
        task,
        optimizer,
        lr,
        checkpointing,
        carry,
        state: at.state,
        seed: (seed + at.step * accumulate) >>> 0,
      });
      at.state = out.state;
      if (!Number.isFinite(out.loss) || !Number.isFinite(out.gradNorm)) throw diverged(at.step + 1, out);
      const tokens = micro.reduce((sum, batch) => sum + task.tokens(batch), 0);
      advance(at, out.loss, tokens, (now() - begun) / 1000);

      const { step, elapsedSeconds } = at;
      const progress = progressOf(options.budget, at);
      await onProgress?.({ kind: 'step', step, tokens: at.tokens, loss: out.loss, progress, elapsedSeconds });
      const last = progress >= 1;
      validation = evaluate && (last || isDue(evaluateEvery, step)) ? await evaluate() : null;
      if (validation) await compare(options, at, validation);
      if (last || validation || isDue(logEvery, step)) {
        const metrics = report(at, lr, out.gradNorm, task, validation);
        await onProgress?.({ kind: 'metrics', metrics });
      }
      if (isDue(saveEvery, step)) await store();
      await turn();
    }
    if (evaluate && !validation && isOver(options, at)) validation = await evaluate();
    await store();
    const stopped =
      progressOf(options.budget, at) >= 1 ? 'finished' : isOver(options, at) ? 'early' : 'interrupted';
    const { step, tokens, elapsedSeconds } = at;
    return { stopped, step, tokens, elapsedSeconds, validation };
  } finally {
    at.state?.dispose();
  }
}

/** The position of a run that has not begun. */
export function startPosition<B>(batches: BatchStream<B>): LoopPosition {
  return {
    step: 0,
    tokens: 0,
    elapsedSeconds: 0,
    data: batches.state(),
    interval: { loss: 0, steps: 0, tokens: 0, seconds: 0 },
    best: null,
    state: null,
  };
}

type AnyOptions = Omit<
  TrainOptions<never, never, Figures, Figures>,
  'task' | 'batches' | 'onProgress' | 'evaluate'
>;

function checkOptions({ budget, accumulate = 1, ...options }: AnyOptions): void {
  const problems: string[] = [];
  const count = (name: string, value: number | null | undefined): void => {
    if (value === null || value === undefined || (Number.isInteger(value) && value > 0)) return;
    problems.push(`${name} to be a positive integer, got ${value}`);
  };
  count('accumulate', accumulate);
  count('logEvery', options.logEvery);
  count('evaluateEvery', options.evaluateEvery);
  count('best.patience', options.best?.patience);
  count('saveEvery', options.saveEvery);
  if ('steps' in budget) count('steps', budget.steps);
  else if (!(budget.minutes > 0)) problems.push(`minutes to be positive, got ${budget.minutes}`);
  if (problems.length > 0)
    throw new ConfigError(`train: expected ${problems.join('; ')}. Correct the options.`);
}

/** The share of the budget that is used. */
function progressOf(budget: Budget, { step, elapsedSeconds }: LoopPosition): number {
  return Math.min(1, 'steps' in budget ? step / budget.steps : elapsedSeconds / (60 * budget.minutes));
}

function isOver({ budget, best }: AnyOptions, at: LoopPosition): boolean {
  const patience = best?.patience ?? null;
  return progressOf(budget, at) >= 1 || (patience !== null && (at.best?.without ?? 0) >= patience);
}

/** Whether this evaluation is the best so far: then the weights are kept. */
async function compare<E>(
  { best }: Pick<TrainOptions<never, E, Figures, Figures>, 'best'>,
  at: LoopPosition,
  evaluation: E,
): Promise<void> {
  if (!best) return;
  const rank = best.rank(evaluation);
  const before = at.best?.rank ?? [];
  const differs = rank.findIndex((value, i) => value !== before[i]);
  const isBetter = differs >= 0 && !(rank[differs]! < before[differs]!);
  if (!isBetter) {
    at.best!.without++;
    return;
  }
  at.best = { step: at.step, rank, without: 0 };
  await best.keep();
}

function rateOf({ schedule, budget }: AnyOptions, at: LoopPosition): number {
  if ('steps' in budget) return rateAtStep(schedule, at.step, budget.steps);
  return rateAtProgress(schedule, at.step, progressOf(budget, at));
}

function isDue(every: number | null, step: number): boolean {
  return every !== null && step % every === 0;
}

function advance(at: LoopPosition, loss: number, tokens: number, seconds: number): void {
  at.step++;
  at.tokens += tokens;
  at.elapsedSeconds += seconds;
  at.interval.loss += loss;
  at.interval.steps++;
  at.interval.tokens += tokens;
  at.interval.seconds += seconds;
}

/** The metrics since the last report; begins a new interval. */
function report<E, F extends Figures, S extends Figures>(
  at: LoopPosition,
  lr: number,
  gradNorm: number,
  task: Pick<Task<never, E, F, S>, 'figures' | 'scores'>,
  validation: E | null,
): StepMetrics<F, S> {
  const { loss: sum, steps, tokens, seconds } = at.interval;
  at.interval = { loss: 0, steps: 0, tokens: 0, seconds: 0 };
  const loss = sum / steps;
  return {
    step: at.step,
    tokens: at.tokens,
    loss,
    ...task.figures(loss),
    lr,
    gradNorm,
    tokensPerSecond: seconds > 0 ? tokens / seconds : 0,
    elapsedSeconds: at.elapsedSeconds,
    validation: validation && task.scores(validation),
  };
}

/** Finite weights may still compute nothing finite, so a model is asked for one loss before it is saved. */
function diverged(step: number, { loss, gradNorm }: { loss: number; gradNorm: number }): DivergenceError {
  return new DivergenceError(
    `train: expected a finite loss and gradient, got loss ${loss} and gradient norm ${gradNorm} in step ${step}. ` +
      'The last checkpoint is from before. Try a lower learning rate, a longer warm-up or a smaller clip.',
  );
}
