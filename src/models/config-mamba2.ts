/**
 * The configuration of Mamba-2, under the official names (the constructor of mamba_ssm/modules/mamba2.py).
 */
import { type ConfigCheck, innerWidth } from './config-check.ts';
import type { StackConfig, StackInput } from './config-stack.ts';

export interface Mamba2Config extends StackConfig {
  model_type: 'mamba2';
  /** State size per channel (the n of the paper). */
  d_state: number;
  d_conv: number;
  /** Inner channels; expand * d_model unless given. */
  d_inner: number;
  /**
   * Channels that pass through the recurrence; the other d_inner - d_ssm are a SwiGLU
   * beside it. d_inner unless given.
   */
  d_ssm: number;
  /** Channels per head; d_ssm / headdim heads share one decay each. */
  headdim: number;
  /** Groups of heads that share B and C. */
  ngroups: number;
  /**
   * Channel groups that the gated norm normalises apart: ngroups unless given. 1 is what
   * Hugging Face's Mamba2 computes.
   */
  norm_groups: number;
  /** D per channel instead of per head. */
  D_has_hdim: boolean;
  /** A gated RMS norm before out_proj; false: the gate alone. */
  rmsnorm: boolean;
  /** norm(y) * silu(z) instead of norm(y * silu(z)). */
  norm_before_gate: boolean;
  /** Step sizes at initialisation are log-uniform in [dt_min, dt_max], at least dt_init_floor. */
  dt_min: number;
  dt_max: number;
  dt_init_floor: number;
  /** Step sizes are clamped to this range, after softplus, in training and in decoding. */
  dt_limit: readonly [number, number];
  /** -A is uniform in this range at initialisation. */
  A_init_range: readonly [number, number];
  /** Convolution weights are uniform in +-conv_init at initialisation; null: 1 / sqrt(d_conv). */
  conv_init: number | null;
  /** Bias on in_proj and out_proj. */
  bias: boolean;
  conv_bias: boolean;
  /** Kept for other programs: results do not depend on it, and the kernels choose their own. */
  chunk_size: number;
}

/** `expand` may replace `d_inner`. */
export type Mamba2Input = StackInput &
  Partial<Omit<Mamba2Config, keyof StackConfig>> & { model_type: 'mamba2'; expand?: number };

export function resolveMamba2(input: Mamba2Input, check: ConfigCheck): Omit<Mamba2Config, keyof StackConfig> {
  const d_inner = innerWidth(input, check);
  const { d_ssm = d_inner, ngroups = 1 } = input;
  const config = {
    model_type: 'mamba2',
    d_state: input.d_state ?? 128,
    d_conv: input.d_conv ?? 4,
    d_inner,
    d_ssm,
    headdim: input.headdim ?? 64,
    ngroups,
    norm_groups: input.norm_groups ?? ngroups,
    D_has_hdim: input.D_has_hdim ?? false,
    rmsnorm: input.rmsnorm ?? true,
    norm_before_gate: input.norm_before_gate ?? false,
    dt_min: input.dt_min ?? 1e-3,
    dt_max: input.dt_max ?? 0.1,
    dt_init_floor: input.dt_init_floor ?? 1e-4,
    dt_limit: input.dt_limit ?? [0, Number.POSITIVE_INFINITY],
    A_init_range: input.A_init_range ?? [1, 16],
    conv_init: input.conv_init ?? null,
    bias: input.bias ?? false,
    conv_bias: input.conv_bias ?? true,
    chunk_size: input.chunk_size ?? 256,
  } as const;
  check.positiveIntegers(
    config,
    'd_state',
    'd_conv',
    'd_inner',
    'd_ssm',
    'headdim',
    'ngroups',
    'norm_groups',
    'chunk_size',
  );
  check.positiveNumbers(config, 'dt_min', 'dt_max', 'dt_init_floor');
  check.booleans(config, 'D_has_hdim', 'rmsnorm', 'norm_before_gate', 'bias', 'conv_bias');
  check.range(config, 'dt_limit', 0);
  check.range(config, 'A_init_range', Number.MIN_VALUE);
  if (config.conv_init !== null) check.positiveNumbers(config, 'conv_init');
  if (config.dt_min > config.dt_max)
    check.problems.push(`dt_min ${config.dt_min} is above dt_max ${config.dt_max}`);
  if (d_ssm > d_inner) check.problems.push(`d_ssm ${d_ssm} is above d_inner ${d_inner}`);
  check.divides(config, 'headdim', 'd_ssm', d_ssm);
  check.divides(config, 'norm_groups', 'd_ssm', d_ssm);
  check.divides(config, 'ngroups', 'the heads', d_ssm / config.headdim);
  return config;
}
