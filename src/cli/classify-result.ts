/** A classifier's scores in words: what `train classify` and `eval` print, and the reports of a run. */
import { join } from 'node:path';
import { writeFileAtomic, writeReport } from '../index.node.ts';
import {
  accuracyInterval,
  type ClassifyRunSummary,
  type ClassScores,
  classifyReport,
  classifyReportJson,
  confusionText,
  scoresTable,
  textTable,
  verdict,
} from '../train/index.ts';
import { oneLine } from './answer-lines.ts';
import { shellWord } from './run-options.ts';

/** report.html and report.json in the folder of the run. */
export async function writeClassifyReports(folder: string, summary: ClassifyRunSummary) {
  const [report, reportJson] = [join(folder, 'report.html'), join(folder, 'report.json')];
  await writeReport(report, classifyReport(summary));
  await writeFileAtomic(reportJson, `${JSON.stringify(classifyReportJson(summary), null, 2)}\n`);
  return { report, reportJson };
}

/** The report without its texts. */
export function trainingJson(summary: ClassifyRunSummary) {
  const { title, calibration, errors, examples, ...scores } = classifyReportJson(summary);
  return scores;
}

/** What came out of a run. */
export function trainingText(
  out: string,
  stopped: 'finished' | 'early' | 'interrupted',
  summary: ClassifyRunSummary,
): string {
  const { config, settings, validation, test, baselines, elapsedSeconds, keptStep, step } = summary;
  const scores = test ?? validation;
  const lines: string[] = [];
  if (stopped === 'early') lines.push(`stopped: no better evaluation in ${settings.patience}`);
  if (scores) {
    const part = `${test ? 'test' : 'held-out'}, ${scores.examples} texts`;
    const rows = [{ name: 'this model', scores, seconds: elapsedSeconds }, ...baselines];
    lines.push('', scoresTable(rows, part), '', confusionText(config.labels, scores.confusion), '');
    lines.push(...verdict(scores, baselines));
  }
  const kept =
    keptStep === null || keptStep === step ? '' : `, with the weights of step ${keptStep}, the best`;
  lines.push(`saved ${out} after step ${step}${kept}`);
  lines.push(`report: ${join(out, 'report.html')} (the same as data: report.json)`);
  if (scores) lines.push(`ask it: mamba-ts predict --model ${shellWord(out)} "some text"`);
  return `${lines.join('\n')}\n`;
}

/** All scores of a classifier: the few numbers, the classes, the confusion. */
export function scoresText(labels: readonly string[], scores: ClassScores): string {
  const { accuracy, macroF1, auc, logLoss, calibrationError } = scores;
  const four = (value: number | null): string => value?.toFixed(4) ?? '-';
  const [low, high] = accuracyInterval(scores).map(four);
  const classes = scores.classes.map(({ label, count, precision, recall, f1 }) => [
    oneLine(label, 40),
    String(count),
    ...[precision, recall, f1].map(four),
  ]);
  return [
    `accuracy           ${four(accuracy)}  (95 % interval ${low} to ${high})`,
    `macro-F1           ${four(macroF1)}`,
    `AUC                ${four(auc)}`,
    `log loss           ${four(logLoss)}`,
    `calibration error  ${four(calibrationError)}`,
    '',
    textTable([['class', 'texts', 'precision', 'recall', 'F1'], ...classes]),
    '',
    confusionText(labels, scores.confusion),
    '',
  ].join('\n');
}
