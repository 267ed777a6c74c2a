/** What a training run reports about itself, and its form on disk: one JSON object per line. */
import type { Evaluation } from './evaluate.ts';
import type { Figures } from './task.ts';

/** What a language model's entries say beside the loss. */
export type LmFigures = {
  bitsPerToken: number;
  /** Only where a token is a byte; else see `validation`. */
  bitsPerByte: number | null;
};
export type LmScores = Pick<Evaluation, 'loss' | 'perplexity' | 'bitsPerToken' | 'bitsPerByte'>;

export type StepMetrics<F extends Figures = LmFigures, S extends Figures = LmScores> = F & {
  /** Steps done, from 1. */
  step: number;
  /** Tokens read so far. */
  tokens: number;
  /** Mean training loss in nats since the last report. */
  loss: number;
  lr: number;
  /** Of the last step, before clipping. */
  gradNorm: number;
  /** Since the last report. */
  tokensPerSecond: number;
  /** Seconds spent in training steps, evaluation and saving not counted. */
  elapsedSeconds: number;
  /** Where this step was evaluated. */
  validation: S | null;
};

/** The lines of a metrics file up to and including `lastStep`; a line that was cut by a crash ends it. */
export function parseMetrics<M extends { step: number } = StepMetrics>(
  text: string,
  lastStep = Number.POSITIVE_INFINITY,
): M[] {
  const found: M[] = [];
  for (const line of text.split('\n')) {
    if (line === '') continue;
    let metrics: M;
    try {
      metrics = JSON.parse(line) as M;
    } catch {
      break;
    }
    if (metrics.step > lastStep) break;
    found.push(metrics);
  }
  return found;
}

export function formatMetrics(metrics: readonly object[]): string {
  return metrics.map((entry) => `${JSON.stringify(entry)}\n`).join('');
}
