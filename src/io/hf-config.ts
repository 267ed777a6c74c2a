/** A guard of writers that know Mamba-1 only. */
import { UnsupportedError } from '../base/errors.ts';
import type { Mamba1Config, ModelConfig } from '../models/config.ts';

export function onlyMamba1(what: string, config: ModelConfig): Mamba1Config {
  if (config.model_type === 'mamba1' && !config.attn_cfg) return config;
  throw new UnsupportedError(
    `${what}: expected a Mamba-1 model, got ${config.model_type}. Other layouts cannot be written.`,
  );
}

export { toHuggingFaceConfig } from './config-json.ts';
