/**
 * What a classifier is beside its backbone: labels, how tokens become one vector, and where texts are cut.
 */
import { ConfigError } from '../base/errors.ts';
import type { LoraConfig } from '../nn/lora.ts';
import type { ModelConfig } from './config.ts';

/**
 * How the hidden states of a text's tokens become one vector: that of the last, their mean, the largest value
 * per channel, or mean and largest side by side.
 */
export const POOLINGS = ['last', 'mean', 'max', 'mean-max'] as const;
export type Pooling = (typeof POOLINGS)[number];

export type { LoraConfig };

export interface ClassifierHead {
  /** At least two, all different; their order is that of the classes. */
  labels: string[];
  pooling: Pooling;
  /** A second stack reads each text from its end; the two pooled vectors stand side by side. */
  bidirectional: boolean;
  /** Texts are cut to this many tokens, special tokens included; null never. */
  maxTokens: number | null;
  /** Null unless adapters stand beside the weights. */
  lora: LoraConfig | null;
}

export interface ClassifierConfig extends ClassifierHead {
  backbone: ModelConfig;
}

export type ClassifierHeadInput = Pick<ClassifierHead, 'labels'> & Partial<ClassifierHead>;

/**
 * Defaults: mean pooling, one direction, texts of any length, no adapters. Throws
 * ConfigError that lists all problems.
 */
export function resolveHead(input: ClassifierHeadInput): ClassifierHead {
  const { labels, pooling = 'mean', bidirectional = false, maxTokens = null, lora = null } = input;
  const head = { labels: [...labels], pooling, bidirectional, maxTokens, lora };
  const problems = headProblems(head);
  if (problems.length === 0) return head;
  throw new ConfigError(`Classifier: expected ${problems.join('; ')}. Correct the configuration.`);
}

/** What is wrong with it: each `X, got Y`, where X was expected. */
export function headProblems(head: ClassifierHead): string[] {
  const { labels, pooling, bidirectional, maxTokens, lora } = head;
  const problems: string[] = [];
  const count = (name: string, value: number): void => {
    if (!Number.isSafeInteger(value) || value < 1)
      problems.push(`${name} to be a positive integer, got ${value}`);
  };
  if (labels.length < 2)
    problems.push(`at least two labels, got ${labels.length === 0 ? 'none' : `only ${labels[0]}`}`);
  const twice = labels.find((label, i) => labels.indexOf(label) !== i);
  if (twice !== undefined) problems.push(`different labels, got ${JSON.stringify(twice)} twice`);
  if (!POOLINGS.includes(pooling))
    problems.push(`pooling to be one of ${POOLINGS.join(', ')}, got ${String(pooling)}`);
  if (typeof bidirectional !== 'boolean')
    problems.push(`bidirectional to be true or false, got ${String(bidirectional)}`);
  if (maxTokens !== null) count('maxTokens', maxTokens);
  if (lora) {
    count('lora.rank', lora.rank);
    if (!(lora.alpha > 0 && Number.isFinite(lora.alpha)))
      problems.push(`lora.alpha to be a number above 0, got ${lora.alpha}`);
    if (lora.targets.length === 0) problems.push('lora.targets to name at least one linear layer, got none');
  }
  return problems;
}

/**
 * The width of what the linear layer reads: vectors of each direction and each
 * part of the pooling, side by side.
 */
export function featureWidth({ pooling, bidirectional }: ClassifierHead, d: number): number {
  return d * (pooling === 'mean-max' ? 2 : 1) * (bidirectional ? 2 : 1);
}
