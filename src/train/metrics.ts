/** What a training run reports about itself, and its form on disk: one JSON object per line. */
import type { Evaluation } from './evaluate.ts';

export interface StepMetrics {
  /** Steps done, from 1. */
  step: number;
  /** Tokens read so far. */
  tokens: number;
  /** Mean training loss in nats since the last report. */
  loss: number;
  bitsPerToken: number;
  /** Only where a token is a byte; else see `validation`. */
  bitsPerByte: number | null;
  lr: number;
  /** Of the last step, before clipping. */
  gradNorm: number;
  /** Since the last report. */
  tokensPerSecond: number;
  /** Seconds spent in training steps, evaluation and saving not counted. */
  elapsedSeconds: number;
  /** Where this step was evaluated. */
  validation: Pick<Evaluation, 'loss' | 'perplexity' | 'bitsPerToken' | 'bitsPerByte'> | null;
}

/** The lines of a metrics file up to and including `lastStep`; a line that was cut by a crash ends it. */
export function parseMetrics(text: string, lastStep = Number.POSITIVE_INFINITY): StepMetrics[] {
  const found: StepMetrics[] = [];
  for (const line of text.split('\n')) {
    if (line === '') continue;
    let metrics: StepMetrics;
    try {
      metrics = JSON.parse(line) as StepMetrics;
    } catch {
      break;
    }
    if (metrics.step > lastStep) break;
    found.push(metrics);
  }
  return found;
}

export function formatMetrics(metrics: readonly StepMetrics[]): string {
  return metrics.map((entry) => `${JSON.stringify(entry)}\n`).join('');
}
