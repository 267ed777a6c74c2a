/**
 * The configuration of Mamba-1, under the official names (the constructor of
 * mamba_ssm/modules/mamba_simple.py).
 */
import { type ConfigCheck, innerWidth } from './config-check.ts';
import type { StackConfig, StackInput } from './config-stack.ts';

export interface Mamba1Config extends StackConfig {
  model_type: 'mamba1';
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
   * Falcon-Mamba: dt (before dt_proj), B and C are RMS-normalised without weights, with this added to the
   * mean square (Hugging Face's name; 1e-6 there). null = plain Mamba-1, no such norms.
   */
  mixer_rms_eps: number | null;
  /** Step sizes at initialisation are log-uniform in [dt_min, dt_max], at least dt_init_floor. */
  dt_min: number;
  dt_max: number;
  dt_init_floor: number;
  dt_init: 'random' | 'constant';
  dt_scale: number;
}

/** `expand` may replace `d_inner`. */
export type Mamba1Input = StackInput &
  Partial<Omit<Mamba1Config, keyof StackConfig | 'dt_rank'>> & { expand?: number; dt_rank?: number | 'auto' };

export function resolveMamba1(input: Mamba1Input, check: ConfigCheck): Omit<Mamba1Config, keyof StackConfig> {
  const { dt_rank = 'auto' } = input;
  const config = {
    model_type: 'mamba1',
    d_state: input.d_state ?? 16,
    d_conv: input.d_conv ?? 4,
    d_inner: innerWidth(input, check),
    dt_rank: dt_rank === 'auto' ? Math.ceil(input.d_model / 16) : dt_rank,
    bias: input.bias ?? false,
    conv_bias: input.conv_bias ?? true,
    mixer_rms_eps: input.mixer_rms_eps ?? null,
    dt_min: input.dt_min ?? 1e-3,
    dt_max: input.dt_max ?? 0.1,
    dt_init_floor: input.dt_init_floor ?? 1e-4,
    dt_init: input.dt_init ?? 'random',
    dt_scale: input.dt_scale ?? 1,
  } as const;
  check.positiveIntegers(config, 'd_state', 'd_conv', 'd_inner', 'dt_rank');
  check.positiveNumbers(config, 'dt_min', 'dt_max', 'dt_init_floor', 'dt_scale');
  if (config.mixer_rms_eps !== null) check.positiveNumbers(config, 'mixer_rms_eps');
  check.booleans(config, 'bias', 'conv_bias');
  check.oneOf(config, 'dt_init', ['random', 'constant']);
  if (config.dt_min > config.dt_max)
    check.problems.push(`dt_min ${config.dt_min} is above dt_max ${config.dt_max}`);
  return config;
}
