/**
 * The settings that every training run has, whatever its task: plain values, stored with the checkpoint, so
 * that a resumed run needs nothing but the folder.
 */
import { ConfigError } from '../base/errors.ts';
import type { Precision } from '../tensor/precision.ts';
import { SCHEDULES, type ScheduleKind } from './schedule.ts';

/**
 * What training computes the products of projections and head in; weights, moments,
 * gradients and sums are float32 in both.
 */
export const TRAIN_PRECISIONS = ['f32', 'bf16'] as const satisfies readonly Precision[];

export type RunSettings = {
  /** Exactly one of `steps` and `minutes` is set. */
  steps: number | null;
  minutes: number | null;
  /** Rows per batch. */
  batch: number;
  /** Batches per optimizer step. */
  accumulate: number;
  checkpointing: boolean;
  precision: (typeof TRAIN_PRECISIONS)[number];
  lr: number;
  schedule: ScheduleKind;
  /** Steps. */
  warmup: number;
  /** The last learning rate as a fraction of `lr`. */
  finalLr: number;
  weightDecay: number;
  /** Decay rate of AdamW's second moment. */
  beta2: number;
  /** Largest gradient norm; 0 never clips. */
  clip: number;
  seed: number;
  /** Steps between entries of metrics.jsonl. */
  logEvery: number;
  /** Steps between evaluations; 0: only at the end. */
  evalEvery: number;
  /** Steps between checkpoints; 0: only at the end. */
  saveEvery: number;
};

export const RUN_DEFAULTS: RunSettings = {
  steps: null,
  minutes: null,
  batch: 16,
  accumulate: 1,
  checkpointing: false,
  precision: 'f32',
  lr: 4e-3,
  schedule: 'cosine',
  warmup: 100,
  finalLr: 0.02,
  weightDecay: 0.1,
  beta2: 0.95,
  clip: 1,
  seed: 0,
  logEvery: 10,
  evalEvery: 0,
  saveEvery: 500,
};

/** What a resumed run of any task may change: how long it goes on and how often it tells. */
export const CHANGEABLE = ['steps', 'minutes', 'logEvery', 'evalEvery', 'saveEvery'] as const;

/** The defaults with what is given, and a warm-up of at most a tenth of the steps. */
export function withDefaults<S extends RunSettings>(defaults: S, given: Partial<S>): S {
  const known = dropUndefined(given);
  const settings = { ...defaults, ...known };
  if (known.warmup === undefined && settings.steps !== null)
    settings.warmup = warmupOf(defaults, settings.steps);
  return settings;
}

/** At most a tenth of the steps. */
export function warmupOf({ warmup }: Pick<RunSettings, 'warmup'>, steps: number): number {
  return Math.min(warmup, Math.floor(steps / 10));
}

/** The stored settings with the changes. ConfigError for one that is not in `changeable`. */
export function withChanges<S extends RunSettings>(
  defaults: S,
  stored: S,
  given: Partial<S>,
  changeable: readonly (keyof S)[],
): S {
  const known = dropUndefined(given);
  const before = { ...defaults, ...stored }; // what an older run does not name was the default
  const changed = (Object.keys(known) as (keyof S & string)[]).filter(
    (key) => !changeable.includes(key) && JSON.stringify(known[key]) !== JSON.stringify(before[key]),
  );
  if (changed.length > 0) {
    const list = changed.map(
      (key) => `${key} ${JSON.stringify(before[key])}, got ${JSON.stringify(known[key])}`,
    );
    throw new ConfigError(
      `train: expected the first run's ${list.join('; ')}. ` +
        'Leave these options out to resume, or start anew in another folder.',
    );
  }
  const settings = { ...before, ...known };
  if (known.steps !== undefined && known.minutes === undefined) settings.minutes = null;
  if (known.minutes !== undefined && known.steps === undefined) settings.steps = null;
  return settings;
}

function dropUndefined<S extends object>(given: Partial<S>): Partial<S> {
  return Object.fromEntries(Object.entries(given).filter(([, value]) => value !== undefined)) as Partial<S>;
}

/** Gathers what is wrong with settings, to be thrown as one error. */
export class SettingsCheck<S extends RunSettings> {
  readonly problems: string[] = [];
  readonly #settings: S;

  /** Checks what every run has; exactly one of `budgets` must be set. */
  constructor(settings: S, budgets: readonly (keyof S & string)[] = ['steps', 'minutes']) {
    this.#settings = settings;
    const given = budgets.filter((key) => settings[key] !== null);
    if (given.length !== 1)
      this.problems.push(
        `${budgets.join(' or ')}, got ${given.length === 0 ? 'neither' : given.join(' and ')}`,
      );
    this.oneOf('schedule', SCHEDULES);
    this.oneOf('precision', TRAIN_PRECISIONS);
    for (const key of ['steps', 'batch', 'accumulate', 'logEvery'] as const) this.integer(key, 1);
    for (const key of ['warmup', 'seed', 'evalEvery', 'saveEvery'] as const) this.integer(key, 0);
    for (const key of ['minutes', 'lr'] as const) this.within(key, (x) => x > 0, 'above 0');
    for (const key of ['weightDecay', 'clip'] as const) this.within(key, (x) => x >= 0, 'at least 0');
    this.within('finalLr', (x) => x >= 0 && x <= 1, 'within 0..1');
    this.within('beta2', (x) => x >= 0 && x < 1, 'within [0, 1)');
  }

  /** null passes. */
  integer(key: keyof S & string, min: number): void {
    const value = this.#settings[key];
    if (value !== null && !(Number.isInteger(value) && (value as number) >= min))
      this.problems.push(`${key} to be an integer of at least ${min}, got ${String(value)}`);
  }

  /** null passes. */
  within(key: keyof S & string, isIn: (value: number) => boolean, range: string): void {
    const value = this.#settings[key] as number | null;
    if (value !== null && !(Number.isFinite(value) && isIn(value)))
      this.problems.push(`${key} to be ${range}, got ${String(value)}`);
  }

  oneOf(key: keyof S & string, choices: readonly unknown[]): void {
    const value = this.#settings[key];
    if (!choices.includes(value))
      this.problems.push(`${key} to be one of ${choices.join(', ')}, got ${String(value)}`);
  }

  /** Throws ConfigError if anything was wrong. */
  done(): void {
    if (this.problems.length === 0) return;
    throw new ConfigError(`train: expected ${this.problems.join('; ')}. Correct the options.`);
  }
}
