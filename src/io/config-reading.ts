/** What the readers and writers of config.json share. */
import { ConfigError, UnsupportedError } from '../base/errors.ts';
import { type ModelConfig, type ModelConfigInput, resolveConfig } from '../models/config.ts';
import type { Json, JsonObject } from './json.ts';
import type { Fields } from './json-fields.ts';
import { listProblems } from './problems.ts';

/** Our block in a config.json, and the model_type of models that other programs would compute wrongly. */
export const OWN_TYPE = 'mamba_ts';

/**
 * What a reader found: the input of resolveConfig, and what is wrong with it. Fields that
 * are not there may be undefined.
 */
export interface ReadConfig {
  input: object;
  problems: string[];
}

/** What a writer says: fields of config.json, and those of our block in it. */
export interface ConfigJson {
  fields: JsonObject;
  own: JsonObject;
}

/**
 * False, although our initial weights are scaled: it is for new models there, but transformers 5.23.0 divides
 * out_proj of models that it loads by sqrt(n_layer) where it is true.
 */
export const RESCALE_PRENORM_RESIDUAL = false;

export function refuse(name: string, field: string, value: Json | undefined, remedy: string): never {
  throw new UnsupportedError(
    `configFromJson: expected ${field} in ${name}, got ${JSON.stringify(value) ?? 'none'}. ${remedy}`,
  );
}

/** Hugging Face names the activation; the gates and convolutions of Mamba have one. */
export function checkActivation({ hidden_act: act }: JsonObject, name: string): void {
  if (act === undefined || act === 'silu' || act === 'swish') return;
  refuse(name, 'hidden_act silu', act, 'Other activations are not part of Mamba.');
}

/** Hugging Face's vocab_size is padded; the real one may stand in our block, `own`. */
export function readVocabulary(
  fields: Fields,
  own: Fields,
): Partial<Pick<ModelConfig, 'vocab_size' | 'pad_vocab_size_multiple'>> {
  const rows = fields.required('vocab_size', 'number');
  const real = own.optional('vocab_size', 'number') ?? rows;
  const multiple = own.optional('pad_vocab_size_multiple', 'number') ?? 1;
  if (real !== undefined && rows !== undefined && Math.ceil(real / multiple) * multiple !== rows) {
    fields.problems.push(
      `vocab_size ${rows} contradicts ${own.prefix}vocab_size ${real} padded to a multiple of ${multiple}`,
    );
  }
  return { vocab_size: real, pad_vocab_size_multiple: multiple };
}

/**
 * Hands over to resolveConfig; absent fields take its defaults, which are the official ones. Throws one
 * ConfigError that lists `problems`, or those that resolveConfig finds.
 */
export function resolveRead({ input, problems }: ReadConfig, name: string): ModelConfig {
  if (problems.length > 0) {
    throw new ConfigError(
      `configFromJson: expected a complete and consistent ${name}, got: ${listProblems(problems)}. Correct these fields.`,
    );
  }
  try {
    return resolveConfig(input as ModelConfigInput);
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error;
    throw new ConfigError(`${error.message} (${name})`, { cause: error });
  }
}
