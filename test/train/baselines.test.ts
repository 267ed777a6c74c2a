/** Bag-of-words baselines: against scikit-learn's numbers, a count by hand, and what a minimum is. */
import { readFileSync } from 'node:fs';
import { describe, expect, test } from 'vitest';
import { ConfigError } from '../../src/base/errors.ts';
import { Rng } from '../../src/base/rng.ts';
import { WordNumbers, words } from '../../src/train/baseline-words.ts';
import { type BaselineText, runBaselines } from '../../src/train/baselines.ts';
import { minimise } from '../../src/train/lbfgs.ts';
import { LogisticRegression } from '../../src/train/logistic-regression.ts';
import { fitNaiveBayes } from '../../src/train/naive-bayes.ts';
import { TfIdf } from '../../src/train/tf-idf.ts';

interface GoldenModels {
  classes: number;
  train: BaselineText[];
  test: BaselineText[];
  features: number;
  values: number[][];
  naiveBayes: number[][];
  strength: number;
  regression: number[][];
}
const golden = JSON.parse(
  readFileSync(new URL('../fixtures/classification/golden.json', import.meta.url), 'utf8'),
) as { models: GoldenModels[] };

const textsOf = (of: readonly BaselineText[]): string[] => of.map(({ text }) => text);
const truthOf = (of: readonly BaselineText[]): Int32Array => Int32Array.from(of, ({ label }) => label);

async function read(train: readonly BaselineText[], test: readonly BaselineText[]) {
  const numbers = new WordNumbers();
  const trainWords = await numbers.read(textsOf(train), true);
  const testWords = await numbers.read(textsOf(test), false);
  return { trainWords, testWords, wordCount: numbers.size };
}

async function vectors(train: readonly BaselineText[], test: readonly BaselineText[], maxFeatures = 1e6) {
  const { trainWords, testWords, wordCount } = await read(train, test);
  const tfIdf = await TfIdf.fit(trainWords, { wordCount, maxFeatures });
  const rows = await tfIdf.transform(trainWords);
  return { tfIdf, rows, testRows: await tfIdf.transform(testWords) };
}

describe('words', () => {
  test.each([
    ["Don't PANIC: it's 10/10!", ['don', 't', 'panic', 'it', 's', '10', '10']],
    ['L’été_2', ['l', 'été_2']],
    ['हिन्दी में', ['हिन्दी', 'में']],
    ['这部电影很好。', ['这部', '部电', '电影', '影很', '很好']],
    ['用iPhone好', ['用', 'iphone', '好']],
    ['!?', []],
    ['', []],
  ])('%s', (text, expected) => {
    expect(words(text)).toEqual(expected);
  });
});

describe.each(golden.models)('scikit-learn, $classes classes', (of) => {
  test('naive Bayes', async () => {
    const { trainWords, testWords, wordCount } = await read(of.train, of.test);
    const answer = fitNaiveBayes(trainWords, truthOf(of.train), { wordCount, classes: of.classes });
    of.naiveBayes.forEach((expected, i) => {
      const got = answer(testWords.ids.subarray(testWords.starts[i], testWords.starts[i + 1]));
      expected.forEach((p, k) => {
        expect(got[k], `text ${i}`).toBeCloseTo(p, 10);
      });
    });
  });

  test('TF-IDF', async () => {
    const { tfIdf, testRows } = await vectors(of.train, of.test);
    expect(tfIdf.features).toBe(of.features);
    of.values.forEach((expected, i) => {
      const got = testRows.values.slice(testRows.starts[i], testRows.starts[i + 1]).sort();
      expect(got).toHaveLength(expected.length);
      // Values are at most 1 and kept in float32, rounded once by each of two operations.
      expected.forEach((value, at) => {
        expect(Math.abs(got[at]! - value)).toBeLessThanOrEqual(2 * 2 ** -24);
      });
    });
  });

  test('logistic regression', async () => {
    const { tfIdf, rows, testRows } = await vectors(of.train, of.test);
    const model = new LogisticRegression(tfIdf.features, of.classes);
    const indices = Int32Array.from(of.train, (_, i) => i);
    await model.fit(rows, truthOf(of.train), { indices, strength: of.strength, tolerance: 1e-14 });
    of.regression.forEach((expected, i) => {
      const got = model.probabilities(testRows, i);
      // Inputs differ by float32's rounding, 6e-8 of each value; weights of some units carry it into the scores.
      expected.forEach((p, k) => {
        expect(got[k], `text ${i}`).toBeCloseTo(p, 5);
      });
    });
  });
});

test('naive Bayes by hand: priors 2/3 and 1/3, counts plus one over words plus vocabulary', async () => {
  const train = [
    { text: 'good good food', label: 0 },
    { text: 'good', label: 0 },
    { text: 'bad food', label: 1 },
  ];
  const test = [{ text: 'good bad unheard', label: 0 }];
  const [bayes] = await runBaselines({ train, test, labels: ['x', 'y'] });
  // Class 0: 4 words, class 1: 2 words, vocabulary of 3. "unheard" says nothing.
  const zero = (2 / 3) * (4 / 7) * (1 / 7);
  const one = (1 / 3) * (1 / 5) * (2 / 5);
  expect(bayes!.name).toBe('naive Bayes');
  expect(bayes!.scores.accuracy).toBe(1);
  expect(bayes!.scores.logLoss).toBeCloseTo(-Math.log(zero / (zero + one)), 12);
});

describe('L-BFGS on a quadratic with its minimum at 0, 1, 2, ...', () => {
  const steepness = Float64Array.from({ length: 30 }, (_, i) => 10 ** (i / 10)); // 1 to 800
  const solve = async (curvature: Float64Array): Promise<number> => {
    const x = new Float64Array(30);
    const objective = (at: Float64Array, gradient: Float64Array): number => {
      let value = 0;
      for (let i = 0; i < 30; i++) {
        gradient[i] = steepness[i]! * (at[i]! - i);
        value += (gradient[i]! * (at[i]! - i)) / 2;
      }
      return value;
    };
    const evaluations = await minimise(objective, x, {
      curvature,
      isDone: (gradient) => Math.hypot(...gradient) < 1e-6,
    });
    // |gradient| < 1e-6 and a steepness of 1 or more: no coordinate is further off.
    x.forEach((value, i) => {
      expect(Math.abs(value - i)).toBeLessThanOrEqual(1e-6);
    });
    return evaluations;
  };

  test('with no idea of the curvature', async () => {
    expect(await solve(new Float64Array(30).fill(1))).toBeGreaterThan(2);
  });

  test('with the true curvature: one step, as Newton', async () => {
    expect(await solve(steepness)).toBe(2);
  });
});

describe('logistic regression', () => {
  const of = golden.models[1]!;

  test('no direction lowers the loss: central differences at the solution are 0', async () => {
    const { tfIdf, rows } = await vectors(of.train, of.test);
    const truth = truthOf(of.train);
    const model = new LogisticRegression(tfIdf.features, 3);
    const indices = truth.map((_, i) => i);
    await model.fit(rows, truth, { indices, strength: 2, tolerance: 1e-12 });
    // The documented objective, written down independently of the class.
    const loss = (weights: Float64Array): number => {
      let sum = 0;
      for (const i of indices) sum -= 2 * Math.log(model.probabilities(rows, i, weights)[truth[i]!]!);
      for (const weight of weights.subarray(0, -3)) sum += weight ** 2 / 2;
      return sum;
    };
    const rng = new Rng(7);
    const step = 1e-4;
    for (let round = 0; round < 5; round++) {
      const direction = Float64Array.from(model.weights, () => rng.normal());
      const length = Math.hypot(...direction);
      const along = (t: number): number =>
        loss(model.weights.map((weight, i) => weight + (t * direction[i]!) / length));
      const [before, here, after] = [along(-step), along(0), along(step)];
      expect(Math.min(before, after)).toBeGreaterThan(here);
      // tolerance 1e-12 with penalty 1 / (2 * 60): |gradient of the sum| < 120 * sqrt(2e-12 / 120) = 1.6e-5.
      expect(Math.abs(after - before) / (2 * step)).toBeLessThan(2e-5);
    }
  });

  test('the fewest-texts rule keeps at most maxFeatures', async () => {
    const { tfIdf } = await vectors(of.train, of.test, 40);
    expect(tfIdf.features).toBeLessThanOrEqual(40);
    expect(tfIdf.features).toBeGreaterThan(0);
  });
});

describe('runBaselines', () => {
  const toy = (from: number, to: number): BaselineText[] =>
    Array.from({ length: to - from }, (_, i) => {
      const n = from + i;
      const kind = ['cats purr', 'dogs bark', 'fish swim'][n % 3]!;
      return { text: `word${n % 7} ${kind} word${n % 5}`, label: n % 3 };
    });

  test('learns what can be told apart, and gives the same numbers again', async () => {
    const options = { train: toy(0, 90), test: toy(90, 120), labels: ['cat', 'dog', 'fish'] };
    const results = await runBaselines(options);
    expect(results.map(({ name }) => name)).toEqual(['naive Bayes', 'TF-IDF + logistic regression']);
    for (const { scores, seconds } of results) {
      expect(scores.accuracy).toBe(1);
      expect(scores.auc).toBe(1);
      expect(seconds).toBeGreaterThanOrEqual(0);
    }
    const again = await runBaselines(options);
    expect(again.map(({ scores }) => scores)).toEqual(results.map(({ scores }) => scores));
  });

  test('word order counts for pairs of words only', async () => {
    const texts = (n: number): BaselineText[] =>
      Array.from({ length: n }, (_, i) => ({
        text: i % 2 ? 'not good at all' : 'all at good not',
        label: i % 2,
      }));
    const [bayes, regression] = await runBaselines({ train: texts(40), test: texts(10), labels: ['a', 'b'] });
    expect(bayes!.scores.auc).toBe(0.5);
    expect(regression!.scores.accuracy).toBe(1);
  });

  test('a label without training texts, a text without words, Chinese', async () => {
    const train = Array.from({ length: 30 }, (_, i) => ({
      text: i % 2 ? '这部电影很好' : '太糟糕了',
      label: i % 2,
    }));
    const test = [
      { text: '这部电影', label: 1 },
      { text: '太糟糕', label: 0 },
      { text: '...', label: 2 },
    ];
    for (const { scores } of await runBaselines({ train, test, labels: ['bad', 'good', 'never seen'] })) {
      expect(scores.accuracy).toBe(2 / 3);
      expect(scores.classes[2]).toMatchObject({ recall: 0, f1: 0, count: 1 });
    }
  });

  test('stops when asked', async () => {
    const stop = new AbortController();
    const run = runBaselines({
      train: toy(0, 90),
      test: toy(0, 3),
      labels: ['a', 'b', 'c'],
      signal: stop.signal,
    });
    setImmediate(() => stop.abort(new Error('enough')));
    await expect(run).rejects.toThrow('enough');
  });

  test.each([
    ['an unknown class', { train: toy(0, 9), test: [{ text: 'x', label: 5 }] }, 'got 5 for text 0 of test'],
    ['no test texts', { train: toy(0, 9), test: [] }, 'at least one test text'],
    ['one class', { train: [{ text: 'x', label: 0 }], test: toy(0, 3) }, 'at least two classes, got 1'],
    ['no training texts', { train: [], test: toy(0, 3) }, 'at least two classes, got 0'],
  ])('refuses %s', async (_, data, message) => {
    const run = runBaselines({ ...data, labels: ['a', 'b', 'c'] });
    await expect(run).rejects.toThrow(ConfigError);
    await expect(run).rejects.toThrow(message);
  });
});
