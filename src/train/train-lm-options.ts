/** The settings of a language-model run: one flat record. Defaults, shapes by name, and checks. */
import type { ModelConfigInput } from '../models/config.ts';
import {
  CHANGEABLE,
  RUN_DEFAULTS,
  type RunSettings,
  SettingsCheck,
  withChanges,
  withDefaults,
} from './run-settings.ts';

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

export type LmSettings = RunSettings & {
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
  /** Tokens per row. */
  length: number;
  /** `random` windows; `pack`: every window once per epoch; `stream`: in reading order with carried state. */
  sampling: (typeof SAMPLINGS)[number];
  /** Held-out tokens that an evaluation reads, from the beginning. */
  evalTokens: number;
};

const DEFAULTS: LmSettings = {
  ...RUN_DEFAULTS,
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
  length: 256,
  sampling: 'random',
  evalTokens: 1 << 18,
};

/** The settings of a new run. Throws ConfigError that lists everything missing, contradictory or out of range. */
export function resolveSettings(given: Partial<LmSettings>): LmSettings {
  return checked(withDefaults(DEFAULTS, given));
}

/** The settings of a run that goes on. Throws ConfigError for a change that would make it another run. */
export function resumeSettings(stored: LmSettings, given: Partial<LmSettings>): LmSettings {
  return checked(withChanges(DEFAULTS, stored, given, [...CHANGEABLE, 'evalTokens']));
}

function checked(settings: LmSettings): LmSettings {
  const check = new SettingsCheck(settings);
  const { data } = settings;
  if (data.length === 0) check.problems.push('data to name at least one file, got none');
  if (data.length > 1 && data.includes('enwik8'))
    check.problems.push('enwik8 to stand alone in data, got more');
  check.oneOf('preset', Object.keys(PRESETS));
  check.oneOf('sampling', SAMPLINGS);
  for (const key of ['d_model', 'n_layer', 'd_state', 'd_conv', 'length'] as const) check.integer(key, 1);
  check.integer('evalTokens', 2);
  check.within('expand', (x) => x > 0, 'above 0');
  check.done();
  return settings;
}

/** The configuration of the model for a vocabulary. */
export function modelInput(settings: LmSettings, vocabSize: number): ModelConfigInput {
  const { d_model, n_layer, d_state, d_conv, expand } = settings;
  const own = Object.entries({ d_model, n_layer, d_state, d_conv, expand }).filter(
    ([, value]) => value !== null,
  );
  return { ...PRESETS[settings.preset], ...Object.fromEntries(own), vocab_size: vocabSize };
}
