/** The settings of a classification run: one flat record. Defaults, recipes by name, and checks. */
import { ConfigError } from '../base/errors.ts';
import { POOLINGS, type Pooling } from '../models/classifier-config.ts';
import type { ModelConfigInput } from '../models/config.ts';
import type { ModelShape } from './model-presets.ts';
import { CHANGEABLE, RUN_DEFAULTS, SettingsCheck, withChanges, withDefaults } from './run-settings.ts';
import { checkShape, SHAPE_DEFAULTS, type ShapedRun, shapeInput } from './shape-settings.ts';

/**
 * What is trained of a pretrained backbone: everything, nothing (only the head), or
 * low-rank adapters beside its matrices.
 */
export const TUNINGS = ['full', 'frozen', 'lora'] as const;
export type Tuning = (typeof TUNINGS)[number];

/** `balanced`: each class weighs the same in all, however many texts it has. */
export const CLASS_WEIGHTS = ['equal', 'balanced'] as const;

/** With `from`, which decides the shape, that of the settings is not looked at. */
export type ClassifySettings = ShapedRun & {
  /** Files, folders, globs, or the one word `imdb`. */
  data: string[];
  /** Held-out texts; empty: `validShare` of `data`, by lot within each class. */
  valid: string[];
  /**
   * Texts that are only measured, after training; empty: those that come with
   * `data` (a folder `test`), else none.
   */
  test: string[];
  validShare: number;
  /** Columns or fields that hold the text, joined by a newline. */
  textFields: string[];
  labelField: string;
  /**
   * `bytes`, `bpe:SIZE` or `words:SIZE` (made from the texts), a folder with tokenizer files, or
   * a hub id. Null: that of `from`.
   */
  tokenizer: string | null;
  /** Of `bpe:SIZE` and `words:SIZE`: everything in lower case. */
  lowercase: boolean;
  /** Texts are cut to this many tokens; null never. */
  maxTokens: number | null;
  preset: ClassifyPreset;
  /** Of the random embeddings a run begins with. */
  embeddingStd: number;
  pooling: Pooling;
  bidirectional: boolean;
  /**
   * A pretrained model that the backbone starts from: a folder, a file, or a hub id. It decides the shape.
   */
  from: string | null;
  tune: Tuning;
  loraRank: number;
  loraAlpha: number;
  /** Null: those of in_proj, x_proj and out_proj that there are. */
  loraTargets: string[] | null;
  /** Exactly one of `epochs`, `steps` and `minutes` is set. */
  epochs: number | null;
  dropout: number;
  tokenDropout: number;
  labelSmoothing: number;
  classWeights: (typeof CLASS_WEIGHTS)[number];
  /** Stops after so many evaluations without a better one; 0 never. */
  patience: number;
};

/** What belongs to no recipe. */
const DEFAULTS = {
  ...RUN_DEFAULTS,
  ...SHAPE_DEFAULTS,
  data: [],
  valid: [],
  test: [],
  validShare: 0.1,
  textFields: ['text'],
  labelField: 'label',
  lowercase: true,
  embeddingStd: 0.02,
  pooling: 'mean',
  bidirectional: false,
  from: null,
  tune: 'full',
  loraRank: 8,
  loraAlpha: 16,
  loraTargets: null,
  epochs: null,
  dropout: 0,
  tokenDropout: 0,
  labelSmoothing: 0,
  classWeights: 'equal',
  patience: 0,
  logEvery: 20,
} satisfies Partial<ClassifySettings>;

type Recipe = Partial<ClassifySettings> &
  Pick<ClassifySettings, 'd_model' | 'n_layer' | 'tokenizer' | 'maxTokens'>;

/**
 * Recipes by name. `text-small` is for a few thousand texts; `fine-tune` starts from a pretrained model
 * (--from); `imdb-tutorial` is the set-up that tutorials on Mamba and IMDb share, to the letter (it needs
 * bert-base-uncased's tokenizer).
 */
export const CLASSIFY_PRESETS = {
  'text-small': {
    tokenizer: 'words:8192',
    maxTokens: 1024,
    d_model: 64,
    n_layer: 1,
    embeddingStd: 0.2,
    pooling: 'mean-max',
    epochs: 6,
    batch: 32,
    lr: 3e-3,
    beta2: 0.99,
    dropout: 0.3,
    tokenDropout: 0.1,
    patience: 3,
  },
  'fine-tune': {
    tokenizer: null,
    maxTokens: 512,
    d_model: null,
    n_layer: null,
    epochs: 4,
    batch: 16,
    lr: 1e-3,
    dropout: 0.1,
    patience: 2,
  },
  'imdb-tutorial': {
    tokenizer: 'google-bert/bert-base-uncased',
    maxTokens: 128,
    d_model: 256,
    n_layer: 1,
    d_state: 16,
    d_conv: 4,
    expand: 2,
    epochs: 3,
    batch: 32,
    lr: 5e-5,
    schedule: 'constant',
    warmup: 0,
    weightDecay: 0.01,
    beta2: 0.999,
    clip: 0,
  },
} as const satisfies Record<string, Recipe>;
export type ClassifyPreset = keyof typeof CLASSIFY_PRESETS;

/** What a new run has where nothing is given, except for its data. */
export const CLASSIFY_DEFAULTS: ClassifySettings = {
  ...DEFAULTS,
  ...CLASSIFY_PRESETS['text-small'],
  preset: 'text-small',
};

/**
 * The settings of a new run. Throws ConfigError that lists everything missing, contradictory or out of range.
 */
export function resolveClassifySettings(given: Partial<ClassifySettings>): ClassifySettings {
  const { preset = given.from ? 'fine-tune' : 'text-small' } = given;
  if (!Object.hasOwn(CLASSIFY_PRESETS, preset)) {
    throw new ConfigError(
      `train: expected preset to be one of ${Object.keys(CLASSIFY_PRESETS).join(', ')}, got ${String(preset)}.`,
    );
  }
  const recipe: Recipe = CLASSIFY_PRESETS[preset];
  const ownBudget = [given.steps, given.minutes].some((value) => value !== undefined && value !== null);
  const defaults: ClassifySettings = { ...DEFAULTS, ...recipe, preset };
  if (ownBudget) defaults.epochs = null;
  return checked(withDefaults(defaults, given));
}

/** The settings of a run that goes on. Throws ConfigError for a change that would make it another run. */
export function resumeClassifySettings(
  stored: ClassifySettings,
  given: Partial<ClassifySettings>,
): ClassifySettings {
  const settings = withChanges({ ...DEFAULTS, ...stored }, stored, given, [
    ...CHANGEABLE,
    'epochs',
    'patience',
  ]);
  const budgets = ['steps', 'minutes', 'epochs'] as const;
  const named = budgets.find((key) => given[key] !== undefined);
  if (named) for (const key of budgets) if (given[key] === undefined) settings[key] = null;
  return checked(settings);
}

function checked(settings: ClassifySettings): ClassifySettings {
  const check = new SettingsCheck(settings, ['epochs', 'steps', 'minutes']);
  const { data, from, tune, preset } = settings;
  if (data.length === 0) check.problems.push('data to name at least one file, got none');
  if (data.length > 1 && data.includes('imdb')) check.problems.push('imdb to stand alone in data, got more');
  if (settings.textFields.length === 0) check.problems.push('text to name at least one column, got none');
  check.oneOf('pooling', POOLINGS);
  check.oneOf('tune', TUNINGS);
  check.oneOf('classWeights', CLASS_WEIGHTS);
  for (const key of ['epochs', 'maxTokens', 'loraRank'] as const) check.integer(key, 1);
  check.integer('patience', 0);
  for (const key of ['dropout', 'tokenDropout', 'labelSmoothing'] as const)
    check.within(key, (x) => x >= 0 && x < 1, 'within [0, 1)');
  check.within('validShare', (x) => x > 0 && x < 1, 'within (0, 1)');
  for (const key of ['embeddingStd', 'loraAlpha'] as const) check.within(key, (x) => x > 0, 'above 0');
  if (from === null) {
    if (preset === 'fine-tune')
      check.problems.push('from to name a pretrained model for fine-tune, got none');
    else if (tune !== 'full')
      check.problems.push(`from to name a pretrained model for tune ${tune}, got none`);
    else if (settings.d_model === null || settings.n_layer === null)
      check.problems.push('d_model and n_layer, got none');
    if (settings.tokenizer === null) check.problems.push('a tokenizer, got none');
    if (preset === 'imdb-tutorial' && settings.arch !== 'mamba1')
      check.problems.push(`arch mamba1 with preset ${preset}, got ${String(settings.arch)}`);
    if (settings.d_model !== null && settings.n_layer !== null)
      checkShape(settings, check, shapeOf(settings));
  }
  check.done();
  return settings;
}

/** The shape of a backbone that is trained from the beginning. */
export function backboneInput(settings: ClassifySettings, vocabSize: number): ModelConfigInput {
  return { ...shapeInput(settings, shapeOf(settings)), vocab_size: vocabSize } as ModelConfigInput;
}

/** What every backbone has that starts from nothing; a recipe names both. */
function shapeOf({ d_model, n_layer }: ClassifySettings): ModelShape {
  return { d_model: d_model!, n_layer: n_layer! };
}
