/** Scores as aligned text for a terminal, and what they say beside the baselines. */
import { clip } from './explained-text.ts';
import type { ClassScores } from './scores.ts';

/** A model or a baseline, measured. */
export interface ScoredModel {
  name: string;
  /** Size and settings in words. */
  detail?: string;
  scores: ClassScores;
  /** Of training; of a baseline for reading and answering too. */
  seconds: number;
}

export const SCORE_COLUMNS = ['accuracy', 'macro-F1', 'AUC', 'log loss', 'ECE', 'seconds'] as const;
const NAME_COLUMNS = 40;
const CONFUSION_CLASSES = 12;
const CONFUSION_COLUMNS = 12;

/** The values of SCORE_COLUMNS. */
export function scoreCells({ scores, seconds }: ScoredModel): string[] {
  const { accuracy, macroF1, auc, logLoss, calibrationError } = scores;
  const four = (value: number | null): string => value?.toFixed(4) ?? '-';
  return [accuracy, macroF1, auc, logLoss, calibrationError].map(four).concat(seconds.toFixed(1));
}

/** The best first: by accuracy, then by macro-F1. */
export function byAccuracy(rows: readonly ScoredModel[]): ScoredModel[] {
  return [...rows].sort(({ scores: a }, { scores: b }) => b.accuracy - a.accuracy || b.macroF1 - a.macroF1);
}

/**
 * Models and baselines as a table, the best first; `name` heads the first column. No line feed at the end.
 */
export function scoresTable(rows: readonly ScoredModel[], name = ''): string {
  const cells = byAccuracy(rows).map((row) => [plain(row.name, NAME_COLUMNS), ...scoreCells(row)]);
  return textTable([[name, ...SCORE_COLUMNS], ...cells]);
}

/**
 * Examples by true class (rows) and predicted class (columns); above 12 classes a line that says where to
 * look. Control characters in labels become `?`, long labels are cut.
 */
export function confusionText(labels: readonly string[], confusion: readonly (readonly number[])[]): string {
  if (labels.length > CONFUSION_CLASSES)
    return `confusion matrix: ${labels.length} classes are too many for a terminal; it is in the report`;
  const names = labels.map((label) => plain(label, CONFUSION_COLUMNS));
  const rows = names.map((name, i) => [name, ...confusion[i]!.map(String)]);
  return textTable([['true \\ predicted', ...names], ...rows]);
}

/** What the numbers say of the model beside the baselines, in sentences; empty without baselines. */
export function verdict(model: ClassScores, baselines: readonly ScoredModel[]): string[] {
  const [best] = byAccuracy(baselines);
  if (!best) return [];
  const numbers = ({ scores }: ScoredModel): string =>
    `accuracy ${scores.accuracy.toFixed(4)} to the model's ${model.accuracy.toFixed(4)}`;
  const rivals = byAccuracy(baselines).filter(({ scores }) => scores.accuracy >= model.accuracy);
  if (rivals.length > 0) {
    return rivals.map((row) => {
      const how = row.scores.accuracy > model.accuracy ? 'better' : 'as good';
      return `On this data ${row.name} is ${how} (${numbers(row)}): consider it.`;
    });
  }
  const [low] = accuracyInterval(model);
  const near =
    best.scores.accuracy >= low
      ? ` With ${model.examples} examples the difference may be chance: consider the simpler one.`
      : '';
  return [`The model is ahead of the best baseline, ${best.name} (${numbers(best)}).${near}`];
}

/** The 95 % confidence interval of the accuracy: E. B. Wilson's score interval (1927). */
export function accuracyInterval({ accuracy, examples }: ClassScores): [low: number, high: number] {
  const z = 1.959964;
  const scale = 1 + z ** 2 / examples;
  const center = (accuracy + z ** 2 / (2 * examples)) / scale;
  const half = (z / scale) * Math.sqrt((accuracy * (1 - accuracy)) / examples + (z / (2 * examples)) ** 2);
  return [Math.max(0, center - half), Math.min(1, center + half)];
}

function plain(text: string, columns: number): string {
  const safe = text.replace(/\p{Cc}/gu, '?');
  return safe.length > columns ? `${clip(safe, columns - 1)}…` : safe;
}

/**
 * Cells as lines of aligned columns: the first to the left, the others to the right. No line feed at the end.
 */
export function textTable(rows: readonly (readonly string[])[]): string {
  const widths = rows[0]!.map((_, column) => Math.max(...rows.map((row) => columnsOf(row[column]!))));
  const line = (row: readonly string[]): string =>
    row
      .map((cell, column) => {
        const space = ' '.repeat(widths[column]! - columnsOf(cell));
        return column === 0 ? cell + space : space + cell;
      })
      .join('  ');
  return rows.map((row) => line(row).trimEnd()).join('\n');
}

const WIDE =
  /[\p{sc=Han}\p{sc=Hiragana}\p{sc=Katakana}\p{sc=Hangul}\u3000-\u303f\uff01-\uff60]|\p{Emoji_Presentation}/gu;

/** Columns of a terminal: East Asian characters take two, combining marks none. */
export function columnsOf(text: string): number {
  const wide = text.match(WIDE)?.length ?? 0;
  return [...text.replace(/\p{M}/gu, '')].length + wide;
}
