/**
 * The configuration of a model, under the official names (state-spaces/mamba: MambaConfig and the
 * constructors of the mixers). `resolveConfig` fills defaults, checks everything and reports all problems at
 * once. Each architecture has its own file.
 */
import { ConfigError } from '../base/errors.ts';
import { ConfigCheck } from './config-check.ts';
import { type Mamba1Config, type Mamba1Input, resolveMamba1 } from './config-mamba1.ts';
import { type Mamba2Config, type Mamba2Input, resolveMamba2 } from './config-mamba2.ts';
import { type Mamba3Config, type Mamba3Input, resolveMamba3 } from './config-mamba3.ts';
import { resolveStack } from './config-stack.ts';

export type { Mamba1Config } from './config-mamba1.ts';
export type { Mamba2Config } from './config-mamba2.ts';
export { A_ACTIVATIONS, type AActivation, type Mamba3Config, rotatedPairs } from './config-mamba3.ts';
export type { AttentionConfig, AttentionInput, StackConfig } from './config-stack.ts';

export const ARCHITECTURES = ['mamba1', 'mamba2', 'mamba3'] as const;
export type Architecture = (typeof ARCHITECTURES)[number];

export type ModelConfig = Mamba1Config | Mamba2Config | Mamba3Config;

/**
 * What a caller must give; the rest has the official defaults. model_type is `mamba1` unless given;
 * `expand` may replace `d_inner`.
 */
export type ModelConfigInput = Mamba1Input | Mamba2Input | Mamba3Input;

/** Throws ConfigError that lists every missing, contradictory, unknown or out-of-range field. */
export function resolveConfig(input: ModelConfigInput): ModelConfig {
  const given = Object.fromEntries(
    Object.entries(input).filter(([, value]) => value !== undefined),
  ) as unknown as ModelConfigInput;
  const check = new ConfigCheck();
  const stack = resolveStack(given, check);
  const config: ModelConfig = { ...stack, ...resolveMixer(given, check) };
  check.unknown(given, { ...config, expand: 0 });
  check.done();
  return config;
}

function resolveMixer(given: ModelConfigInput, check: ConfigCheck) {
  switch (given.model_type) {
    case undefined:
    case 'mamba1':
      return resolveMamba1(given, check);
    case 'mamba2':
      return resolveMamba2(given, check);
    case 'mamba3':
      return resolveMamba3(given, check);
    default:
      throw new ConfigError(
        `config: model_type must be ${ARCHITECTURES.join(' or ')}, got ${String((given as { model_type: unknown }).model_type)}. Correct the model configuration.`,
      );
  }
}

/** Rows of the embedding. */
export function paddedVocabSize(config: Pick<ModelConfig, 'vocab_size' | 'pad_vocab_size_multiple'>): number {
  return Math.ceil(config.vocab_size / config.pad_vocab_size_multiple) * config.pad_vocab_size_multiple;
}
