/** Scores of classifiers: against scikit-learn's numbers, by hand at the edges, and laws. */
import { readFileSync } from 'node:fs';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { ConfigError, ShapeError } from '../../src/base/errors.ts';
import { scoreClasses } from '../../src/train/scores.ts';

const golden = JSON.parse(
  readFileSync(new URL('../fixtures/classification/golden.json', import.meta.url), 'utf8'),
);
const labelsOf = (n: number): string[] => Array.from({ length: n }, (_, k) => `class ${k}`);
const AB = ['a', 'b'];

/** Examples with probabilities in 16ths, so that sums and ties are exact. */
const examples = (classes: number) =>
  fc.array(
    fc.tuple(
      fc.integer({ min: 0, max: classes - 1 }),
      fc
        .array(fc.integer({ min: 0, max: 16 }), { minLength: classes - 1, maxLength: classes - 1 })
        .map((cuts) => {
          const at = [0, ...cuts.sort((a, b) => a - b), 16];
          return at.slice(1).map((cut, k) => (cut - at[k]!) / 16);
        }),
    ),
    { minLength: 1, maxLength: 40 },
  );
const score = (classes: number, rows: readonly (readonly [number, number[]])[]) =>
  scoreClasses(
    labelsOf(classes),
    rows.map(([truth]) => truth),
    rows.map(([, p]) => p),
  );

describe('scikit-learn', () => {
  test.each([0, 1, 2])('case %i', (at) => {
    const { truth, probabilities, ...expected } = golden.scores[at];
    const got = scoreClasses(labelsOf(probabilities[0].length), truth, probabilities);
    for (const name of ['accuracy', 'macroF1', 'auc', 'logLoss'] as const) {
      expect(got[name], name).toBeCloseTo(expected[name], 12);
    }
    expect(got.confusion).toEqual(expected.confusion);
    for (const name of ['precision', 'recall', 'f1', 'count'] as const) {
      got.classes.forEach((of, k) => {
        expect(of[name], `${name} of class ${k}`).toBeCloseTo(expected[name][k], 12);
      });
    }
  });
});

describe('edges', () => {
  test('one example, right and sure', () => {
    const got = scoreClasses(AB, [1], [[0, 1]]);
    expect(got).toEqual({
      examples: 1,
      accuracy: 1,
      macroF1: 0.5,
      auc: null,
      logLoss: -Math.log(1 - Number.EPSILON),
      calibrationError: 0,
      confusion: [
        [0, 0],
        [0, 1],
      ],
      classes: [
        { label: 'a', precision: 0, recall: 0, f1: 0, count: 0 },
        { label: 'b', precision: 1, recall: 1, f1: 1, count: 1 },
      ],
    });
  });

  test('sure and wrong costs 52 bits', () => {
    const got = scoreClasses(AB, [0], [[0, 1]]);
    expect(got.logLoss).toBeCloseTo(52 * Math.LN2, 12);
    expect(got.calibrationError).toBe(1);
  });

  test('ties: the first class is predicted, and half of each pair is won', () => {
    const got = scoreClasses(
      AB,
      [0, 1],
      [
        [0.5, 0.5],
        [0.5, 0.5],
      ],
    );
    expect(got.confusion).toEqual([
      [1, 0],
      [1, 0],
    ]);
    expect(got.auc).toBe(0.5);
  });

  test('bins are closed above: 3/15 and a little more are apart', () => {
    // Five classes; 0.2 falls in bin 3 with gap 1 - 0.2, the larger one in bin 4 with gap 0 - 0.21.
    const rows = [
      [0.2, 0.2, 0.2, 0.2, 0.2],
      [0.21, 0.2, 0.2, 0.2, 0.19],
    ];
    expect(scoreClasses(labelsOf(5), [0, 1], rows).calibrationError).toBeCloseTo((0.8 + 0.21) / 2, 12);
  });

  test('one bin: accuracy against mean confidence', () => {
    const rows = [0.91, 0.92, 0.93].map((p) => [p, 1 - p]);
    expect(scoreClasses(AB, [0, 0, 1], rows).calibrationError).toBeCloseTo(0.92 - 2 / 3, 12);
  });

  test('three classes of which one occurs: no AUC', () => {
    expect(scoreClasses(labelsOf(3), [2], [[0.25, 0.25, 0.5]]).auc).toBeNull();
  });

  test('a float32 softmax over many classes is taken as it is', () => {
    const logits = Array.from({ length: 1000 }, (_, k) => Math.sin(k));
    const sum = logits.reduce((of, x) => Math.fround(of + Math.fround(Math.exp(x))), 0);
    const row = Float32Array.from(logits, (x) => Math.fround(Math.exp(x)) / sum);
    expect(scoreClasses(labelsOf(1000), [2], [row]).examples).toBe(1);
  });
});

test.each([
  ['unequal lengths', AB, [0, 1], [[1, 0]], ShapeError, 'true classes, 2, got 1'],
  ['a short row', AB, [0], [[1]], ShapeError, '2 probabilities per example, got 1'],
  ['no examples', AB, [], [], ConfigError, 'at least one example'],
  ['one label', ['a'], [0], [[1]], ConfigError, 'at least two labels'],
  ['an unknown class', AB, [2], [[1, 0]], ConfigError, 'got 2 for example 0'],
  ['half a class', AB, [0.5], [[1, 0]], ConfigError, 'got 0.5'],
  ['NaN', AB, [0], [[Number.NaN, 1]], ConfigError, 'got NaN'],
  ['infinity', AB, [0], [[Number.POSITIVE_INFINITY, 0]], ConfigError, 'got a sum of Infinity'],
  ['a negative number', AB, [0], [[1.5, -0.5]], ConfigError, 'got -0.5'],
  ['logits', AB, [0], [[0.6, 0.6]], ConfigError, 'a sum of 1.2'],
])('refuses %s', (_, labels, truth, probabilities, kind, message) => {
  const run = () => scoreClasses(labels, truth, probabilities);
  expect(run).toThrow(kind);
  expect(run).toThrow(message);
});

describe('laws', () => {
  test('accuracy is trace / total, rows of the confusion sum to the counts', () => {
    fc.assert(
      fc.property(examples(4), (rows) => {
        const got = score(4, rows);
        const trace = got.confusion.reduce((sum, row, k) => sum + row[k]!, 0);
        expect(got.accuracy).toBe(trace / rows.length);
        got.classes.forEach(({ count }, k) => {
          expect(count).toBe(rows.filter(([truth]) => truth === k).length);
          expect(got.confusion[k]!.reduce((sum, n) => sum + n, 0)).toBe(count);
        });
      }),
    );
  });

  test('the order of the examples changes nothing', () => {
    fc.assert(
      fc.property(examples(3), fc.infiniteStream(fc.nat()), (rows, keys) => {
        const moved = rows
          .map((row) => ({ row, key: keys.next().value as number }))
          .sort((a, b) => a.key - b.key)
          .map(({ row }) => row);
        const { logLoss, ...rest } = score(3, rows);
        const { logLoss: movedLoss, ...movedRest } = score(3, moved);
        expect(movedRest).toEqual(rest); // sums of 16ths are exact
        expect(movedLoss).toBeCloseTo(logLoss, 10);
      }),
    );
  });

  test('AUC: counted pair by pair; the same under a monotone map; 1 - AUC when the classes are renamed', () => {
    fc.assert(
      fc.property(examples(2), (rows) => {
        const auc = score(2, rows).auc;
        let wins = 0;
        let pairs = 0;
        for (const [a, p] of rows) {
          for (const [b, q] of rows) {
            if (a !== 1 || b !== 0) continue;
            pairs++;
            wins += p[1]! > q[1]! ? 1 : p[1] === q[1] ? 0.5 : 0;
          }
        }
        expect(auc).toBe(pairs > 0 ? wins / pairs : null);
        const mapped = rows.map(([truth, p]): [number, number[]] => [truth, [1 - p[1]! ** 2, p[1]! ** 2]]);
        expect(score(2, mapped).auc).toBe(auc);
        const swapped = rows.map(([truth, p]): [number, number[]] => [1 - truth, p.slice().reverse()]);
        if (auc !== null) expect(score(2, swapped).auc).toBeCloseTo(auc, 12);
        const flipped = rows.map(([truth, p]): [number, number[]] => [1 - truth, p]);
        if (auc !== null) expect(score(2, flipped).auc).toBeCloseTo(1 - auc, 12);
      }),
    );
  });
});
