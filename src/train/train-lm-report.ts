/** What a language-model run looks like in its report. */
import type { ModelConfig } from '../models/config.ts';
import type { Evaluation } from './evaluate.ts';
import type { StepMetrics } from './metrics.ts';
import { formatCount, formatDuration } from './progress.ts';
import type { ReportData } from './report.ts';
import type { LmSettings } from './train-lm-options.ts';

export interface LmRunSummary {
  settings: LmSettings;
  config: ModelConfig;
  parameterCount: number;
  device: string;
  step: number;
  tokens: number;
  elapsedSeconds: number;
  validation: Evaluation | null;
  metrics: readonly StepMetrics[];
  bytes: boolean;
}

/** `extra` results come after the held-out ones, for comparison. */
export function lmReport(
  run: LmRunSummary,
  extra: { title?: string; results?: ReportData['results']; sample?: ReportData['sample'] } = {},
): ReportData {
  const { settings, config, validation } = run;
  const speed = run.elapsedSeconds > 0 ? run.tokens / run.elapsedSeconds : 0;
  return {
    title: extra.title ?? `Training on ${settings.data.join(', ')}`,
    results: [
      ...(validation ? validationLines(validation, run.bytes) : []),
      ...(extra.results ?? []),
      ['parameters', formatCount(run.parameterCount)],
      ['steps', String(run.step)],
      ['tokens read', formatCount(run.tokens)],
      ['time in training steps', formatDuration(run.elapsedSeconds)],
      ['tokens per second', formatCount(speed)],
      ['device', run.device],
    ],
    configuration: { settings, model: { ...config } },
    metrics: run.metrics,
    bytes: run.bytes,
    sample: extra.sample,
  };
}

function validationLines(
  { bitsPerByte, bitsPerToken, perplexity, tokens }: Evaluation,
  bytes: boolean,
): [string, string][] {
  const lines: [string, string][] = [['held-out tokens', formatCount(tokens)]];
  if (!bytes) {
    lines.unshift(
      ['held-out bits per token', bitsPerToken.toFixed(3)],
      ['held-out perplexity per token', perplexity.toFixed(2)],
    );
  }
  if (bitsPerByte !== null) lines.unshift(['held-out bits per byte', bitsPerByte.toFixed(3)]);
  return lines;
}
