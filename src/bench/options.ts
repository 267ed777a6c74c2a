/** What is measured: defaults and ranges. */
import { ConfigError } from '../base/errors.ts';

export interface BenchOptions {
  /** Rows that are read, continued and trained on together. Default 1. */
  batch?: number;
  /** Tokens of each row's prompt, and of a row in training. Default 512. */
  prompt?: number;
  /** Tokens that each row is continued with; 0 leaves decoding out. Default 64. */
  generate?: number;
  /**
   * Measures training steps too (forward, backward, clipping, AdamW); they change the weights. Needs
   * float32 weights. Default false.
   */
  train?: boolean;
  /** Each measures everything once, after a first one that does not count. Default 5. */
  rounds?: number;
  /** Called when a round has ended; 0 is the one that does not count. */
  onRound?: (round: number, rounds: number) => void;
  /** Ends the measurement between two rounds; what was measured is reported, at least one round. */
  signal?: AbortSignal;
}

export type BenchSettings = Required<Omit<BenchOptions, 'onRound' | 'signal'>>;

/** Throws ConfigError that lists every option out of range. */
export function resolveBench(options: BenchOptions): BenchSettings {
  const { batch = 1, prompt = 512, generate = 64, train = false, rounds = 5 } = options;
  const problems: string[] = [];
  const least = { batch: 1, prompt: 1, generate: 0, rounds: 1 };
  for (const [name, value] of Object.entries({ batch, prompt, generate, rounds })) {
    const min = least[name as keyof typeof least];
    if (!Number.isSafeInteger(value) || value < min)
      problems.push(`${name} an integer of at least ${min}, got ${value}`);
  }
  if (problems.length > 0)
    throw new ConfigError(`bench: expected ${problems.join('; ')}. Correct these options.`);
  return { batch, prompt, generate, train, rounds };
}
