/**
 * Labelled texts: their labels in order, a validation part by lot within each
 * class, and the checks between parts.
 */
import { ConfigError } from '../base/errors.ts';
import { Rng } from '../base/rng.ts';

/** A text and its class. */
export interface Example {
  text: string;
  /** Without spaces around it; numbers and booleans as they print. Empty where labels were not asked for. */
  label: string;
  /**
   * `file:line` (of Parquet: `file:row`, of a JSON array: `file[index]`), or the path
   * of a file that is one example.
   */
  where: string;
}

/** The parts of a labelled data set. */
export interface ExampleParts {
  train: Example[];
  valid: Example[];
  /** Empty if there is none. */
  test: Example[];
  /** The classes of `train`, in order: the position of a label is its class id. */
  labels: string[];
}

/**
 * The different labels: numbers by value if all are numbers, else by characters with runs of digits by value
 * (`2` before `10`). The order depends on nothing but the labels. Throws ConfigError for fewer than two.
 */
export function inferLabels(examples: readonly Example[]): string[] {
  const labels = sortLabels(new Set(examples.map(({ label }) => label)));
  if (labels.length >= 2) return labels;
  const got = labels.length === 0 ? 'no examples' : `only ${quote(labels)}`;
  throw new ConfigError(
    `data: expected examples of at least two classes, got ${got}. Check the data and the label column (--label).`,
  );
}

export function sortLabels(labels: Iterable<string>): string[] {
  const all = [...labels];
  const areNumbers = all.every((label) => Number.isFinite(Number(label)));
  const keys = new Map(all.map((label) => [label, areNumbers ? [Number(label)] : naturalKey(label)]));
  return all.sort((a, b) => compareKeys(keys.get(a)!, keys.get(b)!) || compare(a, b));
}

function naturalKey(label: string): (string | number)[] {
  return (label.match(/\d+|\D+/g) ?? []).map((part) => (/^\d/.test(part) ? Number(part) : part));
}

function compareKeys(a: readonly (string | number)[], b: readonly (string | number)[]): number {
  for (let i = 0; i < Math.min(a.length, b.length); i++) {
    const [x, y] = [a[i]!, b[i]!];
    if (typeof x !== typeof y) return typeof x === 'number' ? -1 : 1;
    const order = compare(x, y);
    if (order !== 0) return order;
  }
  return a.length - b.length;
}

function compare<T extends string | number>(x: T, y: T): number {
  return x < y ? -1 : x > y ? 1 : 0;
}

/**
 * Takes `validShare` of each class out of `examples`, by lot: rounded, at least one and never all, so a class
 * of one example stays whole. Both parts keep the order of `examples`. The lot depends on the seed, the label
 * and the size of the class alone. Throws ConfigError if nothing is left to validate on.
 */
export function splitExamples(
  examples: readonly Example[],
  validShare: number,
  seed: number,
): { train: Example[]; valid: Example[] } {
  if (!(validShare > 0 && validShare < 1)) {
    throw new ConfigError(
      `data: expected a validation share between 0 and 1, got ${validShare}. The default is 0.1.`,
    );
  }
  const classes = new Map<string, number[]>();
  for (const [i, { label }] of examples.entries()) {
    const positions = classes.get(label);
    if (positions) positions.push(i);
    else classes.set(label, [i]);
  }
  const isValid = new Uint8Array(examples.length);
  for (const [label, positions] of classes) {
    const rng = new Rng(seed).fork(`valid:${label}`);
    const n = positions.length;
    const count = Math.min(n - 1, Math.max(1, Math.round(n * validShare)));
    for (let i = 0; i < count; i++) {
      const j = i + rng.below(n - i); // the first `count` places of a shuffle
      [positions[i], positions[j]] = [positions[j]!, positions[i]!];
      isValid[positions[i]!] = 1;
    }
  }
  const train = examples.filter((_, i) => isValid[i] === 0);
  const valid = examples.filter((_, i) => isValid[i] === 1);
  if (valid.length > 0) return { train, valid };
  throw new ConfigError(
    'data: expected a class with two examples or more, got one example of each. Name validation data (--valid) or add examples.',
  );
}

/** Labels shown in a message before the rest is counted. */
const SHOWN_LABELS = 10;

function quote(labels: readonly string[]): string {
  const shown = labels.slice(0, SHOWN_LABELS).map((label) => JSON.stringify(label));
  const rest = labels.length - shown.length;
  return shown.join(', ') + (rest > 0 ? ` and ${rest} more` : '');
}

/**
 * Throws ConfigError, listing the labels with where they first stand, if `examples` have labels that are not
 * among `labels`. `part` names the examples in the message: `test data`.
 */
export function checkLabels(part: string, examples: readonly Example[], labels: readonly string[]): void {
  const known = new Set(labels);
  const unknown = new Map<string, string>();
  for (const { label, where } of examples) {
    if (!known.has(label) && !unknown.has(label)) unknown.set(label, where);
  }
  if (unknown.size === 0) return;
  const shown = sortLabels(unknown.keys()).slice(0, SHOWN_LABELS);
  const list = shown.map((label) => `${JSON.stringify(label)} (${unknown.get(label)})`).join(', ');
  const rest = unknown.size > shown.length ? ` and ${unknown.size - shown.length} more` : '';
  throw new ConfigError(
    `data: expected in the ${part} only the labels ${quote(labels)}, got ${list}${rest}. ` +
      'Correct the labels, or train with examples of them.',
  );
}

/** The labels without any example, for a notice: scores of such classes say nothing. */
export function missingLabels(examples: readonly Example[], labels: readonly string[]): string[] {
  const there = new Set(examples.map(({ label }) => label));
  return labels.filter((label) => !there.has(label));
}

/**
 * How many of `examples` have a text that is also among `others`: what is learned by
 * heart says nothing about new texts.
 */
export function countSeen(examples: readonly Example[], others: readonly Example[]): number {
  const texts = new Set(others.map(({ text }) => text));
  return examples.filter(({ text }) => texts.has(text)).length;
}
