/**
 * What bag-of-words models make of the same texts, computed beside every classifier so that people see when a
 * larger model is not worth it: multinomial naive Bayes over words, and TF-IDF of words and pairs with
 * logistic regression.
 */
import { ConfigError } from '../base/errors.ts';
import { WordNumbers, type WordRows } from './baseline-words.ts';
import { LogisticRegression, outputsOf } from './logistic-regression.ts';
import { fitNaiveBayes } from './naive-bayes.ts';
import { type ClassScores, scoreClasses } from './scores.ts';
import { type SparseRows, TfIdf } from './tf-idf.ts';

/** A text and its class id, the place of its label. */
export interface BaselineText {
  text: string;
  label: number;
}

export interface BaselineOptions {
  train: readonly BaselineText[];
  test: readonly BaselineText[];
  labels: readonly string[];
  /** Stops with the signal's reason. */
  signal?: AbortSignal;
}

export interface BaselineResult {
  name: string;
  /** Size and settings in words, for a report. */
  detail: string;
  /** Of the test texts. */
  scores: ClassScores;
  /** For learning and answering, reading the words included. */
  seconds: number;
}

/**
 * Words and pairs at most, those in the most texts: what is in very few tells
 * little and takes most of the time.
 */
const MAX_FEATURES = 2 ** 18;
/** Weights of the logistic regression at most: the optimiser keeps about 100 bytes for each. */
const MAX_WEIGHTS = 2 ** 22;

/** Each STRIDE-th training text of a class is held out to choose the strength of the penalty. */
const STRIDE = 5;
/** C: from the first up while the held-out log loss falls. */
const STRENGTHS = [0.25, 1, 4, 16, 64, 256, 1024];
/** C where a training set is too small to hold anything out. */
const DEFAULT_STRENGTH = 4;

/**
 * Trains both baselines on `train` and scores them on `test`. Deterministic, and gives way to other work
 * meanwhile. Throws ConfigError when there are no test texts, fewer than two classes among the training
 * texts, or an unknown class id.
 */
export async function runBaselines(options: BaselineOptions): Promise<BaselineResult[]> {
  const { train, test, labels, signal } = options;
  check(options);
  const truth = Int32Array.from(train, ({ label }) => label);
  const testTruth = Int32Array.from(test, ({ label }) => label);
  const textsOf = (texts: readonly BaselineText[]): string[] => texts.map(({ text }) => text);

  const begin = performance.now();
  const numbers = new WordNumbers();
  const words = await numbers.read(textsOf(train), true, signal);
  const testWords = await numbers.read(textsOf(test), false, signal);
  const readingSeconds = secondsSince(begin);
  const data: Data = { words, truth, testWords, wordCount: numbers.size, classes: labels.length, signal };

  const results: BaselineResult[] = [];
  for (const baseline of [naiveBayes, logisticRegression]) {
    const begin = performance.now();
    const { name, detail, probabilities } = await baseline(data);
    const scores = scoreClasses(labels, testTruth, probabilities);
    results.push({ name, detail, scores, seconds: readingSeconds + secondsSince(begin) });
  }
  return results;
}

interface Data {
  words: WordRows;
  truth: Int32Array;
  testWords: WordRows;
  wordCount: number;
  classes: number;
  signal?: AbortSignal;
}

interface Answers {
  name: string;
  detail: string;
  /** By test text. */
  probabilities: Float64Array[];
}

async function naiveBayes({ words, truth, testWords, wordCount, classes }: Data): Promise<Answers> {
  const answer = fitNaiveBayes(words, truth, { wordCount, classes });
  const { ids, starts } = testWords;
  return {
    name: 'naive Bayes',
    detail: `${wordCount} words, counts plus one`,
    probabilities: Array.from({ length: starts.length - 1 }, (_, i) =>
      answer(ids.subarray(starts[i], starts[i + 1])),
    ),
  };
}

async function logisticRegression(data: Data): Promise<Answers> {
  const { words, testWords, wordCount, signal } = data;
  // A class without examples has no finite best intercept: it is left out of the fit and given probability 0.
  const present = [...new Set(data.truth)].sort((a, b) => a - b);
  const truth = data.truth.map((label) => present.indexOf(label));
  const maxFeatures = Math.min(MAX_FEATURES, Math.floor(MAX_WEIGHTS / outputsOf(present.length)));
  const tfIdf = await TfIdf.fit(words, { wordCount, maxFeatures, signal });
  const rows = await tfIdf.transform(words, signal);
  const model = new LogisticRegression(tfIdf.features, present.length);
  const strength = await chooseStrength(model, rows, truth, signal);
  await model.fit(rows, truth, { indices: truth.map((_, i) => i), strength, signal });
  const testRows = await tfIdf.transform(testWords, signal);
  const probabilities = Array.from({ length: testWords.starts.length - 1 }, (_, i) => {
    const all = new Float64Array(data.classes);
    model.probabilities(testRows, i).forEach((p, k) => {
      all[present[k]!] = p;
    });
    return all;
  });
  const detail = `${tfIdf.features} words and pairs of words, C = ${strength} by held-out log loss`;
  return { name: 'TF-IDF + logistic regression', detail, probabilities };
}

/**
 * The C with the lowest log loss on held-out training texts. Leaves weights in the model that are a good
 * start.
 */
async function chooseStrength(
  model: LogisticRegression,
  rows: SparseRows,
  truth: Int32Array,
  signal: AbortSignal | undefined,
): Promise<number> {
  const seen = new Int32Array(model.classes);
  const isHeldOut = truth.map((label) => (++seen[label]! % STRIDE === 0 ? 1 : 0));
  const all = truth.map((_, i) => i);
  const indices = all.filter((i) => isHeldOut[i] === 0);
  const heldOut = all.filter((i) => isHeldOut[i] === 1);
  if (heldOut.length === 0) return DEFAULT_STRENGTH;
  let best = { strength: DEFAULT_STRENGTH, nats: Number.POSITIVE_INFINITY };
  for (const strength of STRENGTHS) {
    await model.fit(rows, truth, { indices, strength, signal });
    let nats = 0;
    for (const i of heldOut) nats -= Math.log(model.probabilities(rows, i)[truth[i]!]!);
    if (nats >= best.nats) break;
    best = { strength, nats };
  }
  return best.strength;
}

function check({ train, test, labels }: BaselineOptions): void {
  for (const [name, texts] of Object.entries({ train, test })) {
    for (const [i, { label }] of texts.entries()) {
      if (labels[label] !== undefined) continue;
      throw new ConfigError(
        `runBaselines: expected labels from 0 to ${labels.length - 1}, got ${label} for text ${i} of ${name}. Number classes by their label's place.`,
      );
    }
  }
  if (test.length === 0) {
    throw new ConfigError('runBaselines: expected at least one test text, got none. Give labelled texts.');
  }
  const classes = new Set(train.map(({ label }) => label)).size;
  if (classes < 2) {
    throw new ConfigError(
      `runBaselines: expected training texts of at least two classes, got ${classes}. Give texts of each class.`,
    );
  }
}

function secondsSince(begin: number): number {
  return (performance.now() - begin) / 1000;
}
