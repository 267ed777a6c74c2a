/**
 * The configuration of a language model, under the official names (state-spaces/mamba: MambaConfig and the
 * constructor of Mamba). `resolveConfig` fills defaults, checks everything and reports all problems at once.
 */
import { ConfigError } from '../base/errors.ts';

export interface ModelConfig {
  model_type: 'mamba1';
  d_model: number;
  n_layer: number;
  /** Real vocabulary; ids from here to the padded size exist in the embedding but are never sampled. */
  vocab_size: number;
  /** The embedding has ceil(vocab_size / m) * m rows. */
  pad_vocab_size_multiple: number;
  /** State size per channel (the n of the paper). */
  d_state: number;
  d_conv: number;
  /** Inner channels; expand * d_model unless given. */
  d_inner: number;
  /** Rank of the step-size projection; ceil(d_model / 16) unless given. */
  dt_rank: number;
  /** Bias on in_proj and out_proj. */
  bias: boolean;
  conv_bias: boolean;
  /**
   * Falcon-Mamba: dt (before dt_proj), B and C are RMS-normalised without weights, with this added to the mean square
   * (Hugging Face's name; 1e-6 there). null = plain Mamba-1, no such norms.
   */
  mixer_rms_eps: number | null;
  /** Step sizes at initialisation are log-uniform in [dt_min, dt_max], at least dt_init_floor. */
  dt_min: number;
  dt_max: number;
  dt_init_floor: number;
  dt_init: 'random' | 'constant';
  dt_scale: number;
  /** RMSNorm, else LayerNorm with bias. */
  rms_norm: boolean;
  norm_eps: number;
  /** Hidden width of the gated MLP after each mixer; 0 = none. */
  d_intermediate: number;
  tie_embeddings: boolean;
}

/** What a caller must give; the rest has the official defaults. `expand` may replace `d_inner`. */
export type ModelConfigInput = Pick<ModelConfig, 'd_model' | 'n_layer' | 'vocab_size'> &
  Partial<Omit<ModelConfig, 'dt_rank'>> & { expand?: number; dt_rank?: number | 'auto' };

const POSITIVE_INTEGERS = [
  'd_model',
  'n_layer',
  'vocab_size',
  'pad_vocab_size_multiple',
  'd_state',
  'd_conv',
  'd_inner',
  'dt_rank',
] as const; // prettier-ignore
const POSITIVE_NUMBERS = ['dt_min', 'dt_max', 'dt_init_floor', 'dt_scale', 'norm_eps'] as const;
const BOOLEANS = ['bias', 'conv_bias', 'rms_norm', 'tie_embeddings'] as const;

/** Throws ConfigError that lists every missing, contradictory or out-of-range field. */
export function resolveConfig(input: ModelConfigInput): ModelConfig {
  const { expand, dt_rank, ...given } = input;
  const config: ModelConfig = {
    model_type: 'mamba1',
    pad_vocab_size_multiple: 8,
    d_state: 16,
    d_conv: 4,
    d_inner: Math.floor((expand ?? 2) * input.d_model),
    bias: false,
    conv_bias: true,
    mixer_rms_eps: null,
    dt_min: 1e-3,
    dt_max: 0.1,
    dt_init_floor: 1e-4,
    dt_init: 'random',
    dt_scale: 1,
    rms_norm: true,
    norm_eps: 1e-5,
    d_intermediate: 0,
    tie_embeddings: true,
    ...given,
    dt_rank: dt_rank === undefined || dt_rank === 'auto' ? Math.ceil(input.d_model / 16) : dt_rank,
  };
  const problems: string[] = [];
  if (config.model_type !== 'mamba1')
    problems.push(`model_type must be mamba1, got ${String(config.model_type)}`);
  for (const key of POSITIVE_INTEGERS) {
    if (!(Number.isInteger(config[key]) && config[key] > 0)) {
      problems.push(`${key} must be a positive integer, got ${String(config[key])}`);
    }
  }
  for (const key of POSITIVE_NUMBERS) {
    if (!(Number.isFinite(config[key]) && config[key] > 0)) {
      problems.push(`${key} must be a positive number, got ${String(config[key])}`);
    }
  }
  const eps = config.mixer_rms_eps;
  if (eps !== null && !(Number.isFinite(eps) && eps > 0))
    problems.push(`mixer_rms_eps must be a positive number or null, got ${String(eps)}`);
  for (const key of BOOLEANS) {
    if (typeof config[key] !== 'boolean')
      problems.push(`${key} must be true or false, got ${String(config[key])}`);
  }
  if (!(Number.isInteger(config.d_intermediate) && config.d_intermediate >= 0)) {
    problems.push(`d_intermediate must be an integer >= 0, got ${String(config.d_intermediate)}`);
  }
  if (config.dt_min > config.dt_max)
    problems.push(`dt_min ${config.dt_min} is above dt_max ${config.dt_max}`);
  if (config.dt_init !== 'random' && config.dt_init !== 'constant') {
    problems.push(`dt_init must be random or constant, got ${String(config.dt_init)}`);
  }
  if (
    given.d_inner !== undefined &&
    expand !== undefined &&
    given.d_inner !== Math.floor(expand * input.d_model)
  ) {
    problems.push(
      `d_inner ${given.d_inner} contradicts expand ${expand} * d_model ${input.d_model}; give one of them`,
    );
  }
  if (problems.length > 0)
    throw new ConfigError(`config: ${problems.join('; ')}. Correct the model configuration.`);
  return config;
}

/** Rows of the embedding. */
export function paddedVocabSize(config: Pick<ModelConfig, 'vocab_size' | 'pad_vocab_size_multiple'>): number {
  return Math.ceil(config.vocab_size / config.pad_vocab_size_multiple) * config.pad_vocab_size_multiple;
}
