/**
 * config.json <-> ModelConfig. Read are Hugging Face's `mamba`, `falcon_mamba` and `mamba2`, the original
 * layout of state-spaces/mamba, and our own type; each has a file of its own. Nothing is guessed: a field the
 * layout must have is required, fields that contradict each other are reported, all problems in one error.
 * What Hugging Face has no key for stands under `mamba_ts`.
 */
import { ConfigError, UnsupportedError } from '../base/errors.ts';
import type { ClassifierHead } from '../models/classifier-config.ts';
import type { ModelConfig } from '../models/config.ts';
import { headFromJson, headToJson, loraProblems } from './classifier-config.ts';
import { FALCON_TYPE, readMamba1, writeMamba1 } from './config-huggingface-mamba1.ts';
import { isHuggingFaceMamba2, MAMBA2_TYPE, readMamba2, writeMamba2 } from './config-huggingface-mamba2.ts';
import { readOriginal } from './config-original.ts';
import { ownDifferences, readOwn, writeOwn } from './config-own.ts';
import { type ConfigJson, OWN_TYPE, type ReadConfig, resolveRead } from './config-reading.ts';
import type { JsonObject } from './json.ts';
import { Fields } from './json-fields.ts';

export interface ModelDescription {
  config: ModelConfig;
  /** Null for a language model; of a classifier, `config` is its backbone's. */
  head: ClassifierHead | null;
}

/** The configuration alone: of a language model, or of a classifier's backbone. */
export function configFromJson(json: JsonObject, name = 'config.json'): ModelConfig {
  return modelFromJson(json, name).config;
}

/**
 * Reads a parsed config.json; `name` is the file for messages. Throws ConfigError that lists all that is
 * missing, unknown or contradictory, UnsupportedError for another kind of model.
 */
export function modelFromJson(json: JsonObject, name = 'config.json'): ModelDescription {
  const own = new Fields(json).object(OWN_TYPE);
  const isWhole = json.model_type === OWN_TYPE && 'config' in own;
  const read = isWhole ? readOwn(json) : readLayout(json, name);
  const { head, problems } = headFromJson(json, own);
  const config = resolveRead({ ...read, problems: [...read.problems, ...problems] }, name);
  const late = [...(isWhole ? ownDifferences(json, config) : []), ...loraProblems(head, config)];
  if (late.length > 0) resolveRead({ ...read, problems: late }, name);
  return { config, head };
}

function readLayout(json: JsonObject, name: string): ReadConfig {
  const type = json.model_type;
  if (type === 'mamba' || type === FALCON_TYPE || type === OWN_TYPE) return readMamba1(json, name);
  if (type === MAMBA2_TYPE) return readMamba2(json, name);
  if (type !== undefined) {
    throw new UnsupportedError(
      `configFromJson: expected model_type mamba, ${FALCON_TYPE}, ${MAMBA2_TYPE} or ${OWN_TYPE} in ${name}, got ${JSON.stringify(type)}. Models of other families cannot be loaded.`,
    );
  }
  if (json.d_model !== undefined || json.ssm_cfg !== undefined) return readOriginal(json, name);
  throw new ConfigError(
    `configFromJson: expected model_type "mamba" or the fields d_model, n_layer, vocab_size in ${name}, got neither. Is it the config.json of a model?`,
  );
}

export interface HuggingFaceOptions {
  /**
   * Id of the end-of-text token; null for none. It also fills bos and pad, as in the official checkpoints.
   */
  eosId?: number | null;
  /** Element type of the stored weights. */
  weights?: 'F32' | 'BF16' | 'F16';
  /** Of a classifier, whose backbone the configuration is; default null, a language model. */
  head?: ClassifierHead | null;
}

const TORCH_DTYPES = { F32: 'float32', BF16: 'bfloat16', F16: 'float16' } as const;

/**
 * The config.json of a model folder in the Hugging Face layout: `mamba`, `falcon_mamba` (with
 * `mixer_rms_eps`) or `mamba2` where transformers computes the same. Any other model,
 * classifiers too, gets the model_type `mamba_ts`, which transformers does not know, so that it
 * is refused rather than computed wrongly.
 */
export function toHuggingFaceConfig(config: ModelConfig, options: HuggingFaceOptions = {}): JsonObject {
  const head = options.head ? headToJson(options.head) : null;
  const { fields, own } = writeLayout(config, head !== null);
  const eos = options.eosId ?? null;
  return {
    ...fields,
    bos_token_id: eos,
    eos_token_id: eos,
    pad_token_id: eos,
    torch_dtype: TORCH_DTYPES[options.weights ?? 'F32'],
    ...head?.fields,
    [OWN_TYPE]: { ...own, ...head?.own },
  };
}

function writeLayout(config: ModelConfig, isClassifier: boolean): ConfigJson {
  if (config.model_type === 'mamba1' && !config.attn_cfg) return writeMamba1(config, isClassifier);
  return isHuggingFaceMamba2(config) && !isClassifier ? writeMamba2(config) : writeOwn(config);
}
