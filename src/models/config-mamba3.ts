/**
 * The configuration of Mamba-3, under the official names (the constructor of mamba_ssm/modules/mamba3.py).
 */
import { type ConfigCheck, innerWidth } from './config-check.ts';
import type { StackConfig, StackInput } from './config-stack.ts';

/**
 * How the projected decay becomes -A. `heavy-tail`: 1 + x above zero, 1 / (1 - x) below, as the published
 * weights want it; `softplus`: as mamba_ssm 2.3.2 had it. Checkpoints do not tell.
 */
export const A_ACTIVATIONS = ['heavy-tail', 'softplus'] as const;
export type AActivation = (typeof A_ACTIVATIONS)[number];

export interface Mamba3Config extends StackConfig {
  model_type: 'mamba3';
  /** State size per channel (the n of the paper). */
  d_state: number;
  /** Inner channels; expand * d_model unless given. */
  d_inner: number;
  /** Channels per head. */
  headdim: number;
  /** Heads of B and C; each is shared by as many heads. */
  ngroups: number;
  /** Share of the state's elements that is rotated: 0.5 or 1. */
  rope_fraction: number;
  /** Step sizes at initialisation are log-uniform in [dt_min, dt_max], at least dt_init_floor. */
  dt_min: number;
  dt_max: number;
  dt_init_floor: number;
  /** -A is at least this. */
  A_floor: number;
  A_activation: AActivation;
  /** An RMS norm per head before the gate. */
  is_outproj_norm: boolean;
  /** Several inputs and outputs per head and token share the state (multi-input, multi-output). */
  is_mimo: boolean;
  /** Inputs and outputs per head; 1 unless is_mimo. */
  mimo_rank: number;
  /** Kept for other programs: results do not depend on it, and the kernels choose their own. */
  chunk_size: number;
}

/** `expand` may replace `d_inner`. */
export type Mamba3Input = StackInput &
  Partial<Omit<Mamba3Config, keyof StackConfig>> & { model_type: 'mamba3'; expand?: number };

export function resolveMamba3(input: Mamba3Input, check: ConfigCheck): Omit<Mamba3Config, keyof StackConfig> {
  const { is_mimo = false } = input;
  const config = {
    model_type: 'mamba3',
    d_state: input.d_state ?? 128,
    d_inner: innerWidth(input, check),
    headdim: input.headdim ?? 64,
    ngroups: input.ngroups ?? 1,
    rope_fraction: input.rope_fraction ?? 0.5,
    dt_min: input.dt_min ?? 1e-3,
    dt_max: input.dt_max ?? 0.1,
    dt_init_floor: input.dt_init_floor ?? 1e-4,
    A_floor: input.A_floor ?? 1e-4,
    A_activation: input.A_activation ?? 'heavy-tail',
    is_outproj_norm: input.is_outproj_norm ?? false,
    is_mimo,
    mimo_rank: is_mimo ? (input.mimo_rank ?? 4) : 1, // upstream, too, ignores a rank without is_mimo
    chunk_size: input.chunk_size ?? 64,
  } as const;
  check.positiveIntegers(config, 'd_state', 'd_inner', 'headdim', 'ngroups', 'mimo_rank', 'chunk_size');
  check.positiveNumbers(config, 'dt_min', 'dt_max', 'dt_init_floor', 'A_floor');
  check.booleans(config, 'is_outproj_norm', 'is_mimo');
  check.oneOf(config, 'rope_fraction', [0.5, 1]);
  check.oneOf(config, 'A_activation', A_ACTIVATIONS);
  if (config.dt_min > config.dt_max)
    check.problems.push(`dt_min ${config.dt_min} is above dt_max ${config.dt_max}`);
  if (config.d_state % 2 !== 0)
    check.problems.push(
      `d_state must be even, because its elements are rotated in pairs, got ${config.d_state}`,
    );
  check.divides(config, 'headdim', 'd_inner', config.d_inner);
  check.divides(config, 'ngroups', 'the heads', config.d_inner / config.headdim);
  return config;
}

/** Pairs of state elements that are rotated: half of d_state * rope_fraction, rounded down. */
export function rotatedPairs({ d_state, rope_fraction }: Mamba3Config): number {
  return Math.floor((d_state * rope_fraction) / 2);
}
