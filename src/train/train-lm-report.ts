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

/** `extra` results come first. */
export function lmReport(
  run: LmRunSummary,
  extra: { title?: string; results?: ReportData['results']; sample?: ReportData['sample'] } = {},
): ReportData {
  const { settings, config, validation } = run;
  const speed = run.elapsedSeconds > 0 ? run.tokens / run.elapsedSeconds : 0;
  return {
    title: extra.title ?? `Training on ${settings.data.join(', ')}`,
    results: [
      ...(extra.results ?? []),
      ...(validation ? validationLines(validation) : []),
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

function validationLines({ bitsPerByte, bitsPerToken, perplexity, tokens }: Evaluation): [string, string][] {
  const perByte: [string, string][] =
    bitsPerByte === null ? [] : [['held-out bits per byte', bitsPerByte.toFixed(3)]];
  return [
    ...perByte,
    ['held-out bits per token', bitsPerToken.toFixed(3)],
    ['held-out perplexity per token', perplexity.toFixed(2)],
    ['held-out tokens', formatCount(tokens)],
  ];
}
