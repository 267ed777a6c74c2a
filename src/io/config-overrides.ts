/** The two values that change what a model computes and that no checkpoint of another program records. */
import { ConfigError } from '../base/errors.ts';
import {
  type AActivation,
  type ModelConfig,
  type ModelConfigInput,
  resolveConfig,
} from '../models/config.ts';

export interface ConfigOverrides {
  /**
   * Of a Mamba-2: channel groups that the gated norm normalises apart. Files have none, and it is taken to be
   * ngroups; 1 is what models need that were trained with transformers 4.
   */
  norm_groups?: number;
  /**
   * Of a Mamba-3. Files have none, and it is taken to be `heavy-tail`; mamba_ssm
   * 2.3.2 and older had `softplus`.
   */
  A_activation?: AActivation;
}

/**
 * The configuration with what `overrides` says in its place. Throws ConfigError for other keys, for values
 * out of range, and where the model at `path` has no such thing.
 */
export function overrideConfig(config: ModelConfig, overrides: ConfigOverrides, path: string): ModelConfig {
  const fail = (expected: string, got: string): never => {
    throw new ConfigError(
      `openPretrained: expected ${expected} for config, got ${got} (${path}). Leave it out.`,
    );
  };
  const given = Object.entries(overrides).filter(([, value]) => value !== undefined);
  for (const [key] of given) {
    if (key === 'norm_groups') {
      if (config.model_type !== 'mamba2' || !config.rmsnorm)
        fail('a Mamba-2 with a gated norm beside norm_groups', describe(config));
    } else if (key === 'A_activation') {
      if (config.model_type !== 'mamba3') fail('a Mamba-3 beside A_activation', describe(config));
    } else fail('norm_groups or A_activation', key);
  }
  if (given.length === 0) return config;
  try {
    return resolveConfig({ ...config, ...Object.fromEntries(given) } as ModelConfigInput);
  } catch (error) {
    if (error instanceof ConfigError) error.message += ` (${path})`;
    throw error;
  }
}

function describe(config: ModelConfig): string {
  return config.model_type === 'mamba2' ? 'one without' : config.model_type;
}
