/**
 * A training run of any task: opens or restores it, trains, and leaves a folder with the model, the optimizer
 * and metrics.jsonl. What is particular to a task is its RunSpec. Node only; prints nothing.
 */
import { appendFile } from 'node:fs/promises';
import { join } from 'node:path';
import { ConfigError } from '../base/errors.ts';
import { type Checkpoint, loadCheckpoint } from '../io/checkpoint.node.ts';
import { readTextIfPresent, writeFileAtomic } from '../io/file.ts';
import { AdamW } from './adamw.ts';
import type { BatchStream } from './data-batches.ts';
import { startPosition, type TrainEvent, type TrainResult, train } from './loop.ts';
import { formatMetrics, parseMetrics, type StepMetrics } from './metrics.ts';
import { holdsCheckpoint, restoreRun, saveRun, settingsOf, type Trained } from './run-checkpoint.node.ts';
import { type RunSettings, warmupOf } from './run-settings.ts';
import { makeSchedule } from './schedule.ts';
import type { Figures, Task } from './task.ts';

export const METRICS_FILE = 'metrics.jsonl';

export interface RunOptions<St, Event> {
  /** The folder of the run. */
  out: string;
  /** Of a new run: what the task asks for, and `steps` or `minutes`. Of a resumed one: what should change. */
  settings: Partial<St>;
  /**
   * `new` (default) refuses a folder with a checkpoint, `resume` wants one, `replace` begins anew over one.
   */
  start?: 'new' | 'resume' | 'replace';
  onProgress?: (event: Event) => void;
  /** Finishes the step, saves and returns. */
  signal?: AbortSignal;
  /** A clock in milliseconds, default performance.now. */
  now?: () => number;
}

/** A task with its data and its model, which is new or yet to be filled from the checkpoint. */
export interface OpenRun<B, E, F extends Figures, S extends Figures> extends Trained {
  task: Task<B, E, F, S>;
  batches: BatchStream<B>;
  /** Rows go on from the state of the batch before. */
  carryState?: boolean;
  evaluate(): Promise<E>;
  /** Instead of the settings' steps or minutes, for tasks that count in epochs. */
  steps?: number;
  /** Steps between evaluations, instead of the settings'. */
  evaluateEvery?: number;
  /** Keeps the weights of the best evaluation: they are what the folder holds, and the model in the end. */
  best?: { rank(evaluation: E): number[]; patience: number | null };
  /** Called when everything is restored, before the first step; `metrics` are those of the steps before. */
  begin(step: number, metrics: StepMetrics<F, S>[]): void;
  /** Called when the run has ended by itself, before its files are closed. */
  finish?(): Promise<void>;
}

export interface RunSpec<St extends RunSettings, B, E, F extends Figures, S extends Figures> {
  /** For messages: `train lm`. */
  name: string;
  /** Whether the folder of a run holds a classifier or a language model. */
  makes: 'classifier' | 'language model';
  /** Complete settings of a new run. */
  resolve(given: Partial<St>): St;
  /** The settings of a run that goes on. */
  resume(stored: St, given: Partial<St>): St;
  /** Opens the data and builds the model; what is to be closed at the end goes to `closing`. */
  open(
    settings: St,
    checkpoint: Checkpoint | null,
    closing: (() => Promise<void>)[],
  ): Promise<OpenRun<B, E, F, S>>;
}

export interface RunResult<St, E, F extends Figures, S extends Figures> extends TrainResult<E> {
  out: string;
  settings: St;
  parameterCount: number;
  /** What it ran on. */
  device: string;
  /** All of metrics.jsonl. */
  metrics: StepMetrics<F, S>[];
}

/**
 * Throws ConfigError for wrong settings or a folder that is taken, FileError and FormatError for what cannot
 * be read, DivergenceError when training fails; the last checkpoint stays.
 */
export async function runTraining<St extends RunSettings, B, E, F extends Figures, S extends Figures>(
  spec: RunSpec<St, B, E, F, S>,
  options: RunOptions<St, TrainEvent<F, S>>,
): Promise<RunResult<St, E, F, S>> {
  const { out, start = 'new', onProgress } = options;
  await checkFolder(spec.name, out, start);
  const checkpoint = start === 'resume' ? await loadCheckpoint(out) : null;
  const closing: (() => Promise<void>)[] = [];
  let unread = checkpoint;
  closing.push(async () => unread?.close());
  try {
    if (checkpoint) expectTask(spec, checkpoint, out);
    const settings = checkpoint
      ? spec.resume(settingsOf(checkpoint, out) as St, options.settings)
      : spec.resolve(options.settings);
    const opened = await spec.open(settings, checkpoint, closing);
    const { task, model, batches } = opened;
    const { weightDecay, clip, beta2 } = settings;
    const trained = [...model.namedParameters()].filter(([, tensor]) => tensor.requiresGrad);
    const optimizer = new AdamW(trained, {
      weightDecay,
      maxNorm: clip === 0 ? null : clip,
      betas: [0.9, beta2],
    });
    closing.push(async () => optimizer.dispose());
    const best = new Map<string, Float32Array>();
    const run = { settings, trained: opened, optimizer, best };
    let position = startPosition(batches);
    if (checkpoint) {
      position = await restoreRun(checkpoint, out, run, best);
      batches.restore(position.data);
      unread = null;
      await checkpoint.close(); // saving replaces its files; held open, they would stay on the disk
    } else {
      await saveRun(out, run, position); // tells now whether the folder can be written, and a killed run can be resumed
    }
    const metrics = await openMetrics<StepMetrics<F, S>>(out, position.step);
    const { parameterCount } = model;
    const device = model.parameters()[0]!.device.description;
    const steps = opened.steps ?? settings.steps;
    opened.begin(position.step, [...metrics]);
    const result = await train({
      task,
      optimizer,
      batches,
      position,
      schedule: makeSchedule({
        kind: settings.schedule,
        peak: settings.lr,
        warmup: opened.steps === undefined ? settings.warmup : warmupOf(settings, opened.steps),
        final: settings.finalLr,
      }),
      budget: steps === null ? { minutes: settings.minutes! } : { steps },
      accumulate: settings.accumulate,
      checkpointing: settings.checkpointing,
      carryState: opened.carryState,
      seed: settings.seed,
      logEvery: settings.logEvery,
      evaluateEvery: opened.evaluateEvery ?? (settings.evalEvery || null),
      best: opened.best && {
        ...opened.best,
        keep: async () => {
          for (const [name, tensor] of trained) best.set(name, await tensor.floats());
        },
      },
      saveEvery: settings.saveEvery || null,
      evaluate: () => opened.evaluate(),
      save: (at) => saveRun(out, run, at),
      signal: options.signal,
      now: options.now,
      onProgress: async (event) => {
        if (event.kind === 'metrics') {
          metrics.push(event.metrics);
          await appendFile(join(out, METRICS_FILE), formatMetrics([event.metrics]));
        }
        onProgress?.(event);
      },
    });
    if (result.stopped !== 'interrupted') {
      for (const [name, tensor] of trained) if (best.has(name)) tensor.write(best.get(name)!);
      await opened.finish?.();
    }
    return { ...result, out, settings, parameterCount, device, metrics };
  } finally {
    for (const close of closing.reverse()) await close();
  }
}

async function checkFolder(name: string, out: string, start: 'new' | 'resume' | 'replace'): Promise<void> {
  const isTaken = await holdsCheckpoint(out);
  if (start === 'new' && isTaken) {
    throw new ConfigError(
      `${name}: expected a folder without a checkpoint, got ${out}. Resume it (--resume), replace it (--force) or choose another folder.`,
    );
  }
  if (start === 'resume' && !isTaken) {
    throw new ConfigError(`${name}: expected a checkpoint to resume in ${out}, got none. Start a new run.`);
  }
}

function expectTask(
  { name, makes }: { name: string; makes: string },
  { model }: Checkpoint,
  out: string,
): void {
  const found = model.head ? 'classifier' : 'language model';
  if (found === makes) return;
  throw new ConfigError(
    `${name}: expected the run of a ${makes} to resume in ${out}, got that of a ${found}. Resume it with the command that began it.`,
  );
}

/**
 * The entries up to `step`; the file is cut behind them, so that a resumed run writes
 * what an unbroken one would have.
 */
async function openMetrics<M extends { step: number }>(out: string, step: number): Promise<M[]> {
  const path = join(out, METRICS_FILE);
  const kept = step === 0 ? [] : parseMetrics<M>((await readTextIfPresent(path)) ?? '', step);
  await writeFileAtomic(path, formatMetrics(kept));
  return kept;
}
