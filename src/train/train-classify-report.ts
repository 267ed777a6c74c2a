/** What a classification run looks like in its report, and the same as JSON. */
import type { ClassifierConfig } from '../models/classifier-config.ts';
import type { CalibrationBin } from './calibration.ts';
import { type ExplainedText, excerpt } from './explained-text.ts';
import { formatCount, formatDuration } from './progress.ts';
import {
  type Chart,
  curves,
  HELD_OUT_COLOR,
  type ReportData,
  type ReportSection,
  runCharts,
  TRAINING_COLOR,
} from './report.ts';
import {
  CLASSES_STYLE,
  confusionMatrix,
  explainedText,
  reliability,
  SHADES_LEGEND,
} from './report-classes.ts';
import { type Html, html, table } from './report-html.ts';
import type { ClassScores } from './scores.ts';
import {
  accuracyInterval,
  byAccuracy,
  SCORE_COLUMNS,
  type ScoredModel,
  scoreCells,
  verdict,
} from './scores-text.ts';

/** What is drawn of an evaluation on the validation part. */
export interface MeasuredScores {
  loss: number;
  accuracy: number;
  macroF1: number;
}

export interface ClassifyEpoch {
  /** Epochs done; a fraction where an evaluation stands between two. */
  epoch: number;
  /** Steps done. */
  step: number;
  /** Mean since the entry before, in nats. */
  trainLoss: number;
  validation: MeasuredScores | null;
}

export interface ClassifyRunSummary {
  settings: Readonly<Record<string, unknown>> & { data: readonly string[] };
  config: ClassifierConfig;
  parameterCount: number;
  /** Those that training changed: fewer with a frozen backbone or adapters. */
  trainedCount: number;
  device: string;
  step: number;
  tokens: number;
  elapsedSeconds: number;
  metrics: readonly {
    step: number;
    loss: number;
    lr: number;
    gradNorm: number;
    tokensPerSecond: number;
    validation: MeasuredScores | null;
  }[];
  history: readonly ClassifyEpoch[];
  /** The step whose model was kept as the best on the validation part; null where the last one is. */
  keptStep: number | null;
  validation: ClassScores | null;
  test: ClassScores | null;
  /** These and the fields below are of the test part, or of the validation part where there is none. */
  baselines: readonly ScoredModel[];
  calibration: readonly CalibrationBin[];
  /** Wrong answers, the most confident first. */
  errors: readonly ExplainedText[];
  /** Texts that show which tokens decide. */
  examples: readonly ExplainedText[];
}

const ACCURACY_COLOR = '#0072b2';
const F1_COLOR = '#a05a9c';

/** `title` defaults to the data's name. */
export function classifyReport(run: ClassifyRunSummary, { title = titleOf(run) } = {}): ReportData {
  const { settings, config, validation, test, errors, examples } = run;
  const { backbone, ...classifier } = config;
  const speed = run.elapsedSeconds > 0 ? run.tokens / run.elapsedSeconds : 0;
  const trained = run.trainedCount;
  const share = (100 * trained) / run.parameterCount;
  const scores = test ?? validation;
  return {
    title,
    results: [
      ...(scores ? [[`${partOf(run)} accuracy`, scores.accuracy.toFixed(4)] as const] : []),
      ['classes', String(config.labels.length)],
      ['parameters', formatCount(run.parameterCount)],
      ...(trained < run.parameterCount
        ? [['of them trained', `${formatCount(trained)} (${share.toFixed(2)} %)`] as const]
        : []),
      ['steps', String(run.step)],
      ['tokens read', formatCount(run.tokens)],
      ['time in training steps', formatDuration(run.elapsedSeconds)],
      ['tokens per second', formatCount(speed)],
      ['device', run.device],
    ],
    sections: [
      ...(scores ? [scoresOf(run)] : []),
      ...(scores && run.baselines.length > 0 ? [comparison(run, scores)] : []),
      curves([...scoreCharts(run), ...runCharts(run.metrics)]),
      ...(run.history.length > 0 ? [epochs(run)] : []),
      ...(scores ? scoreSections(run, scores) : []),
      ...texts('Most confident errors', errors),
      ...texts('Which words decided', examples),
    ],
    configuration: { settings, classifier, backbone: { ...backbone } },
    style: CLASSES_STYLE,
  };
}

/**
 * The run as a plain JSON object. Texts are the excerpts that the page shows;
 * the curves are in metrics.jsonl.
 */
export function classifyReportJson(run: ClassifyRunSummary, { title = titleOf(run) } = {}) {
  const { settings, config, parameterCount, trainedCount, device, step, tokens, elapsedSeconds } = run;
  const { history, keptStep, validation, test, baselines, calibration } = run;
  const scores = test ?? validation;
  return {
    title,
    labels: config.labels,
    settings,
    config,
    parameterCount,
    trainedCount,
    device,
    step,
    tokens,
    elapsedSeconds,
    history,
    keptStep,
    validation,
    test,
    /** What baselines, calibration, errors and examples are of. */
    part: partOf(run),
    baselines,
    verdict: scores ? verdict(scores, baselines) : [],
    calibration,
    errors: run.errors.map(excerpt),
    examples: run.examples.map(excerpt),
  };
}

function titleOf({ settings }: ClassifyRunSummary): string {
  return `Classification of ${settings.data.join(', ')}`;
}

function partOf({ test, validation }: ClassifyRunSummary): 'test' | 'validation' | null {
  return test ? 'test' : validation ? 'validation' : null;
}

function scoresOf({ test, validation }: ClassifyRunSummary): ReportSection {
  const four = (value: number | null): string => value?.toFixed(4) ?? '-';
  const row = (part: string, scores: ClassScores): string[] => {
    const { accuracy, macroF1, auc, logLoss, calibrationError, examples } = scores;
    const [low, high] = accuracyInterval(scores);
    const interval = `${four(low)} to ${four(high)}`;
    return [
      part,
      four(accuracy),
      interval,
      ...[macroF1, auc, logLoss, calibrationError].map(four),
      `${examples}`,
    ];
  };
  const rows = [...(test ? [row('test', test)] : []), ...(validation ? [row('validation', validation)] : [])];
  const head = ['', 'accuracy', '95 % interval', 'macro-F1', 'AUC', 'log loss', 'ECE', 'texts'];
  const body = html`${table(head, rows)}
<p class="note">Macro-F1: the mean of the classes' F1. AUC: area under the ROC curve. Log loss in nats. ECE: expected
calibration error, 0 is best. The interval is Wilson's, for texts like these.</p>`;
  return { title: 'Scores', body };
}

function comparison(run: ClassifyRunSummary, scores: ClassScores): ReportSection {
  const model: ScoredModel = { name: 'this model', scores, seconds: run.elapsedSeconds };
  const rows = byAccuracy([model, ...run.baselines]);
  const body = html`${verdict(scores, run.baselines).map((line) => html`<p class="verdict">${line}</p>\n`)}
${table(
  ['', ...SCORE_COLUMNS],
  rows.map((row) => [named(row), ...scoreCells(row)]),
  (row) => rows[row] === model,
)}
<p class="note">All measured on the same ${scores.examples} texts of the ${partOf(run)} part. Seconds: of
training, for baselines with reading and answering.</p>`;
  return { title: 'Beside simple baselines', body };
}

function named({ name, detail }: ScoredModel): Html {
  return html`${name}${detail ? html`<small>${detail}</small>` : null}`;
}

/** The steps of metrics entries and of epochs are one axis. */
function scoreCharts({ metrics, history }: ClassifyRunSummary): Chart[] {
  const losses = new Map(metrics.map((entry) => [entry.step, entry.loss]));
  if (metrics.length === 0) for (const { step, trainLoss } of history) losses.set(step, trainLoss);
  const measured = new Map<number, MeasuredScores>();
  for (const { step, validation } of [...metrics, ...history]) if (validation) measured.set(step, validation);
  const x = [...new Set([...losses.keys(), ...measured.keys()])].sort((a, b) => a - b);
  const points = (label: string, stroke: string, name: keyof MeasuredScores) => ({
    label,
    stroke,
    digits: 4,
    values: x.map((step) => measured.get(step)?.[name] ?? null),
    points: true,
  });
  const training = x.map((step) => losses.get(step) ?? null);
  return [
    {
      title: 'Loss, nats',
      x,
      lines: [
        { label: 'training', stroke: TRAINING_COLOR, digits: 4, values: training },
        points('validation', HELD_OUT_COLOR, 'loss'),
      ],
    },
    {
      title: 'Validation',
      x,
      lines: [points('accuracy', ACCURACY_COLOR, 'accuracy'), points('macro-F1', F1_COLOR, 'macroF1')],
    },
  ];
}

function epochs({ history, keptStep }: ClassifyRunSummary): ReportSection {
  const four = (value: number | undefined): string => value?.toFixed(4) ?? '-';
  const rows = history.map(({ epoch, step, trainLoss, validation }) => [
    `${Number(epoch.toFixed(2))}${step === keptStep ? ', kept' : ''}`,
    step,
    ...[trainLoss, validation?.loss, validation?.accuracy, validation?.macroF1].map(four),
  ]);
  const head = ['epoch', 'step', 'training loss', 'validation loss', 'accuracy', 'macro-F1'];
  return { title: 'Epochs', body: table(head, rows, (row) => history[row]!.step === keptStep) };
}

function scoreSections(run: ClassifyRunSummary, scores: ClassScores): ReportSection[] {
  const part = partOf(run);
  const classes = scores.classes.map(({ label, count, precision, recall, f1 }) => [
    label,
    count,
    ...[precision, recall, f1].map((value) => value.toFixed(4)),
  ]);
  const filled = run.calibration.some((bin) => bin.count > 0);
  return [
    { title: `Classes, ${part}`, body: table(['class', 'texts', 'precision', 'recall', 'F1'], classes) },
    { title: `Confusion, ${part}`, body: confusionMatrix(run.config.labels, scores.confusion) },
    ...(filled ? [{ title: `Calibration, ${part}`, body: calibrationBody(run.calibration, scores) }] : []),
  ];
}

function calibrationBody(bins: readonly CalibrationBin[], scores: ClassScores): Html {
  const texts = bins.reduce((sum, bin) => sum + bin.count, 0);
  const mean = bins.reduce((sum, bin) => sum + bin.count * (bin.confidence ?? 0), 0) / texts;
  const gap = mean - scores.accuracy;
  const manner =
    Math.abs(gap) < 5e-4 ? 'neither too sure nor too modest' : gap > 0 ? 'too sure' : 'too modest';
  return html`<p class="note">A probability is well calibrated when, of all answers given with 80 %, 80 % are right:
bars then end on the dashed line. Here the mean confidence is ${mean.toFixed(4)} and the accuracy
${scores.accuracy.toFixed(4)}: on the whole the model is ${manner}. Expected calibration error ${scores.calibrationError.toFixed(4)}.</p>
${reliability(bins)}`;
}

function texts(title: string, items: readonly ExplainedText[]): ReportSection[] {
  if (items.length === 0) return [];
  const legend = items.some((item) => item.tokens) ? SHADES_LEGEND : null;
  return [{ title, body: [legend, items.map((item) => explainedText(excerpt(item)))] }];
}
