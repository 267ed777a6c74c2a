/** What a language-model run looks like in its report. */
import type { ModelConfig } from '../models/config.ts';
import type { Evaluation } from './evaluate.ts';
import type { StepMetrics } from './metrics.ts';
import { formatCount, formatDuration } from './progress.ts';
import { type Chart, curves, HELD_OUT_COLOR, type ReportData, runCharts, TRAINING_COLOR } from './report.ts';
import { html } from './report-html.ts';
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
  /** Whether a token is a byte: curves are then in bits per byte, else in bits per token. */
  bytes: boolean;
}

/** Text that the model wrote. */
export interface WrittenSample {
  prompt: string;
  text: string;
}

/** `extra` results come after the held-out ones, for comparison. */
export function lmReport(
  run: LmRunSummary,
  extra: { title?: string; results?: ReportData['results']; sample?: WrittenSample } = {},
): ReportData {
  const { settings, config, validation } = run;
  const { sample } = extra;
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
    sections: [
      curves([lossCurve(run), ...runCharts(run.metrics)]),
      ...(sample ? [{ title: 'Sample', body: html`<pre><b>${sample.prompt}</b>${sample.text}</pre>` }] : []),
    ],
    configuration: { settings, model: { ...config } },
  };
}

function lossCurve({ metrics, bytes }: LmRunSummary): Chart {
  const values = metrics.map((entry) => entry.bitsPerToken);
  const heldOut = metrics.map((entry) => entry.validation?.bitsPerToken ?? null);
  return {
    title: `Loss, ${bytes ? 'bits per byte' : 'bits per token'}`,
    x: metrics.map((entry) => entry.step),
    lines: [
      { label: 'training', stroke: TRAINING_COLOR, digits: 3, values },
      { label: 'held-out', stroke: HELD_OUT_COLOR, digits: 3, values: heldOut, points: true },
    ],
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
