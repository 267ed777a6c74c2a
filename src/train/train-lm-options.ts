/** The settings of a language-model run: one flat record. Defaults, shapes by name, and checks. */
import type { ModelConfigInput } from '../models/config.ts';
import { PRESETS, type Preset } from './model-presets.ts';
import { CHANGEABLE, RUN_DEFAULTS, SettingsCheck, withChanges, withDefaults } from './run-settings.ts';
import { attends, checkShape, SHAPE_DEFAULTS, type ShapedRun, shapeInput } from './shape-settings.ts';

export const SAMPLINGS = ['random', 'pack', 'stream'] as const;

export type LmSettings = ShapedRun & {
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
  /** Tokens per row. */
  length: number;
  /** `random` windows; `pack`: every window once per epoch; `stream`: in reading order with carried state. */
  sampling: (typeof SAMPLINGS)[number];
  /** Held-out tokens that an evaluation reads, from the beginning. */
  evalTokens: number;
};

const DEFAULTS: LmSettings = {
  ...RUN_DEFAULTS,
  ...SHAPE_DEFAULTS,
  data: [],
  valid: [],
  test: [],
  textField: 'text',
  tokenizer: 'bytes',
  preset: 'small',
  length: 256,
  sampling: 'random',
  evalTokens: 1 << 18,
};

/**
 * The settings of a new run. Throws ConfigError that lists everything missing, contradictory or out of range.
 */
export function resolveSettings(given: Partial<LmSettings>): LmSettings {
  const arch = architectureOf(given.preset ?? DEFAULTS.preset) ?? DEFAULTS.arch;
  return checked(withDefaults({ ...DEFAULTS, arch }, given));
}

/** The settings of a run that goes on. Throws ConfigError for a change that would make it another run. */
export function resumeSettings(stored: LmSettings, given: Partial<LmSettings>): LmSettings {
  return checked(withChanges(DEFAULTS, stored, given, [...CHANGEABLE, 'evalTokens']));
}

function checked(settings: LmSettings): LmSettings {
  const check = new SettingsCheck(settings);
  const { data, preset, arch, sampling } = settings;
  if (data.length === 0) check.problems.push('data to name at least one file, got none');
  if (data.length > 1 && data.includes('enwik8'))
    check.problems.push('enwik8 to stand alone in data, got more');
  check.oneOf('preset', Object.keys(PRESETS));
  check.oneOf('sampling', SAMPLINGS);
  check.integer('length', 1);
  check.integer('evalTokens', 2);
  const official = architectureOf(preset);
  if (official && arch !== official)
    check.problems.push(`arch ${official} with preset ${preset}, got ${String(arch)}`);
  const shape = PRESETS[preset] ?? PRESETS.small; // an unknown name is among the problems
  checkShape(settings, check, shape);
  if (sampling === 'stream' && attends(settings, shape))
    check.problems.push(
      'sampling random or pack with attention layers, whose state grows with the text, got stream',
    );
  check.done();
  return settings;
}

/** Of an official model. */
function architectureOf(preset: Preset): ModelConfigInput['model_type'] {
  const shape: Partial<ModelConfigInput> | undefined = PRESETS[preset];
  return shape?.model_type;
}

/** The configuration of the model for a vocabulary. */
export function modelInput(settings: LmSettings, vocabSize: number): ModelConfigInput {
  return { ...shapeInput(settings, PRESETS[settings.preset]), vocab_size: vocabSize } as ModelConfigInput;
}
