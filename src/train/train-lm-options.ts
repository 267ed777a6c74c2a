/**
 * The settings of a language-model run: one flat record of plain values that is stored with the checkpoint, so that a
 * resumed run needs nothing but the folder. Defaults, shapes by name, and all checks in one place.
 */
import { ConfigError } from '../base/errors.ts';
import type { ModelConfigInput } from '../models/config.ts';
import { SCHEDULES, type ScheduleKind } from './schedule.ts';

/** Model shapes by name; the vocabulary comes from the tokenizer. The `mamba-` ones are those of the official models. */
export const PRESETS = {
  tiny: { d_model: 64, n_layer: 2 },
  small: { d_model: 128, n_layer: 4 },
  medium: { d_model: 256, n_layer: 6 },
  large: { d_model: 512, n_layer: 12 },
  'mamba-130m': { d_model: 768, n_layer: 24 },
  'mamba-370m': { d_model: 1024, n_layer: 48 },
  'mamba-790m': { d_model: 1536, n_layer: 48 },
} as const;
export type Preset = keyof typeof PRESETS;

export const SAMPLINGS = ['random', 'pack', 'stream'] as const;

export type LmSettings = {
  /** Files, folders, globs, or the one word `enwik8`. */
  data: string[];
  /** Held-out text; empty: the last tenth of `data` (enwik8 has its own part). */
  valid: string[];
  /** Text that is only measured, after training; empty: none (enwik8 has its own part). */
  test: string[];
  /** The field of a JSONL line that holds the text. */
  textField: string;
  /** `bytes`, `bpe:SIZE` (trained on the data), or a folder with tokenizer files. */
  tokenizer: string;
  preset: Preset;
  /** These replace the preset's; null leaves it. */
  d_model: number | null;
  n_layer: number | null;
  d_state: number | null;
  d_conv: number | null;
  expand: number | null;
  /** Exactly one of `steps` and `minutes` is set. */
  steps: number | null;
  minutes: number | null;
  /** Rows per batch. */
  batch: number;
  /** Tokens per row. */
  length: number;
  /** Batches per optimizer step. */
  accumulate: number;
  checkpointing: boolean;
  /** `random` windows; `pack`: every window once per epoch; `stream`: in reading order with carried state. */
  sampling: (typeof SAMPLINGS)[number];
  lr: number;
  schedule: ScheduleKind;
  /** Steps. */
  warmup: number;
  /** The last learning rate as a fraction of `lr`. */
  finalLr: number;
  weightDecay: number;
  /** Largest gradient norm; 0 never clips. */
  clip: number;
  seed: number;
  /** Steps between entries of metrics.jsonl. */
  logEvery: number;
  /** Steps between evaluations; 0: only at the end. */
  evalEvery: number;
  /** Held-out tokens that an evaluation reads, from the beginning. */
  evalTokens: number;
  /** Steps between checkpoints; 0: only at the end. */
  saveEvery: number;
};

const DEFAULTS: LmSettings = {
  data: [],
  valid: [],
  test: [],
  textField: 'text',
  tokenizer: 'bytes',
  preset: 'small',
  d_model: null,
  n_layer: null,
  d_state: null,
  d_conv: null,
  expand: null,
  steps: null,
  minutes: null,
  batch: 16,
  length: 256,
  accumulate: 1,
  checkpointing: false,
  sampling: 'random',
  lr: 4e-3,
  schedule: 'cosine',
  warmup: 100,
  finalLr: 0.02,
  weightDecay: 0.1,
  clip: 1,
  seed: 0,
  logEvery: 10,
  evalEvery: 0,
  evalTokens: 1 << 18,
  saveEvery: 500,
};

/** What a resumed run may change: how long it goes on and how often it tells. */
const CHANGEABLE: readonly (keyof LmSettings)[] = [
  'steps',
  'minutes',
  'logEvery',
  'evalEvery',
  'evalTokens',
  'saveEvery',
];

/** The settings of a new run. Throws ConfigError that lists everything missing, contradictory or out of range. */
export function resolveSettings(given: Partial<LmSettings>): LmSettings {
  const known = dropUndefined(given);
  const settings = { ...DEFAULTS, ...known };
  if (known.warmup === undefined && settings.steps !== null)
    settings.warmup = Math.min(DEFAULTS.warmup, Math.floor(settings.steps / 10));
  checkSettings(settings);
  return settings;
}

/** The settings of a run that goes on. Throws ConfigError for a change that would make it another run. */
export function resumeSettings(stored: LmSettings, given: Partial<LmSettings>): LmSettings {
  const known = dropUndefined(given);
  const changed = (Object.keys(known) as (keyof LmSettings)[]).filter(
    (key) => !CHANGEABLE.includes(key) && JSON.stringify(known[key]) !== JSON.stringify(stored[key]),
  );
  if (changed.length > 0) {
    const list = changed.map(
      (key) => `${key} ${JSON.stringify(stored[key])}, got ${JSON.stringify(known[key])}`,
    );
    throw new ConfigError(
      `train lm: expected the first run's ${list.join('; ')}. ` +
        'Leave these options out to resume, or start anew in another folder.',
    );
  }
  const settings = { ...DEFAULTS, ...stored, ...known };
  if (known.steps !== undefined && known.minutes === undefined) settings.minutes = null;
  if (known.minutes !== undefined && known.steps === undefined) settings.steps = null;
  checkSettings(settings);
  return settings;
}

function dropUndefined(given: Partial<LmSettings>): Partial<LmSettings> {
  return Object.fromEntries(Object.entries(given).filter(([, value]) => value !== undefined));
}

function checkSettings(settings: LmSettings): void {
  const problems: string[] = [];
  const integer = (key: keyof LmSettings, min: number): void => {
    const value = settings[key];
    if (value !== null && !(Number.isInteger(value) && (value as number) >= min))
      problems.push(`${key} to be an integer of at least ${min}, got ${String(value)}`);
  };
  const within = (key: keyof LmSettings, isIn: (value: number) => boolean, range: string): void => {
    const value = settings[key] as number | null;
    if (value !== null && !(Number.isFinite(value) && isIn(value)))
      problems.push(`${key} to be ${range}, got ${String(value)}`);
  };
  if (settings.data.length === 0) problems.push('data to name at least one file, got none');
  if (settings.data.length > 1 && settings.data.includes('enwik8'))
    problems.push('enwik8 to stand alone in data, got more');
  if (settings.steps !== null && settings.minutes !== null) problems.push('steps or minutes, got both');
  if (settings.steps === null && settings.minutes === null) problems.push('steps or minutes, got neither');
  if (!(settings.preset in PRESETS))
    problems.push(`preset to be one of ${Object.keys(PRESETS).join(', ')}, got ${String(settings.preset)}`);
  if (!SAMPLINGS.includes(settings.sampling))
    problems.push(`sampling to be one of ${SAMPLINGS.join(', ')}, got ${String(settings.sampling)}`);
  if (!SCHEDULES.includes(settings.schedule))
    problems.push(`schedule to be one of ${SCHEDULES.join(', ')}, got ${String(settings.schedule)}`);
  for (const key of ['d_model', 'n_layer', 'd_state', 'd_conv', 'steps', 'batch', 'length'] as const)
    integer(key, 1);
  for (const key of ['accumulate', 'logEvery'] as const) integer(key, 1);
  integer('evalTokens', 2);
  for (const key of ['warmup', 'seed', 'evalEvery', 'saveEvery'] as const) integer(key, 0);
  for (const key of ['minutes', 'lr', 'expand'] as const) within(key, (x) => x > 0, 'above 0');
  for (const key of ['weightDecay', 'clip'] as const) within(key, (x) => x >= 0, 'at least 0');
  within('finalLr', (x) => x >= 0 && x <= 1, 'within 0..1');
  if (problems.length > 0)
    throw new ConfigError(`train lm: expected ${problems.join('; ')}. Correct the options.`);
}

/** The configuration of the model for a vocabulary. */
export function modelInput(settings: LmSettings, vocabSize: number): ModelConfigInput {
  const { d_model, n_layer, d_state, d_conv, expand } = settings;
  const own = Object.entries({ d_model, n_layer, d_state, d_conv, expand }).filter(
    ([, value]) => value !== null,
  );
  return { ...PRESETS[settings.preset], ...Object.fromEntries(own), vocab_size: vocabSize };
}
