import { describe, expect, test } from 'vitest';
import { scoreClasses } from '../../src/train/scores.ts';
import { accuracyInterval, confusionText, scoresTable, verdict } from '../../src/train/scores-text.ts';

/** Six of eight are right, but for the accuracy that is given. */
const withAccuracy = (accuracy: number) => ({
  ...scoreClasses(
    ['neg', 'pos'],
    [0, 0, 0, 0, 1, 1, 1, 1],
    [0.1, 0.2, 0.3, 0.9, 0.8, 0.7, 0.95, 0.45].map((p) => [1 - p, p]),
  ),
  accuracy,
});

describe('the verdict', () => {
  const beside = (accuracy: number): string[] =>
    verdict({ ...withAccuracy(0.75), examples: 1000 }, [
      { name: 'linear', scores: withAccuracy(accuracy), seconds: 1 },
      { name: 'weak', scores: withAccuracy(0.1), seconds: 1 },
    ]);

  test.each([
    [0.8, ["On this data linear is better (accuracy 0.8000 to the model's 0.7500): consider it."]],
    [0.75, ["On this data linear is as good (accuracy 0.7500 to the model's 0.7500): consider it."]],
    [0.6, ["The model is ahead of the best baseline, linear (accuracy 0.6000 to the model's 0.7500)."]],
  ])('a baseline at %d', (accuracy, lines) => expect(beside(accuracy)).toEqual(lines));

  test('a small lead may be chance', () => {
    expect(beside(0.74)[0]).toContain('With 1000 examples the difference may be chance');
    expect(beside(0.7)[0]).not.toContain('chance');
  });

  test('the interval is that of Wilson', () => {
    // Newcombe, "Two-sided confidence intervals for the single proportion" (1998), table I, method 3.
    const round = (n: number, r: number): string[] =>
      accuracyInterval({ ...withAccuracy(r / n), examples: n }).map((bound) => bound.toFixed(4));
    expect(round(263, 81)).toEqual(['0.2553', '0.3662']);
    expect(round(148, 15)).toEqual(['0.0624', '0.1605']);
    expect(round(20, 0)).toEqual(['0.0000', '0.1611']);
    expect(round(29, 1)).toEqual(['0.0061', '0.1718']);
  });
});

describe('in a terminal', () => {
  test('model and baselines stand in aligned columns, the best first', () => {
    const rows = [
      { name: 'this model', scores: { ...withAccuracy(0.75), auc: null }, seconds: 377 },
      { name: 'linear', scores: withAccuracy(0.8), seconds: 1.26 },
    ];
    const lines = scoresTable(rows, 'test').split('\n');
    expect(lines[0]).toMatch(/^test +accuracy {2}macro-F1 +AUC {2}log loss +ECE {2}seconds$/);
    expect(lines[1]).toMatch(/^linear +0\.8000 +0\.7500 .* 1\.3$/);
    expect(lines[2]).toMatch(/^this model +0\.7500 +0\.7500 +- .* 377\.0$/);
    expect(new Set(lines.map((line) => line.length)).size).toBe(1);
  });

  test('the confusion, with labels that are long, wide or hostile', () => {
    expect(
      confusionText(
        ['neg', 'pos'],
        [
          [3, 1],
          [10, 40],
        ],
      ),
    ).toBe(
      ['true \\ predicted  neg  pos', 'neg                 3    1', 'pos                10   40'].join('\n'),
    );
    const odd = confusionText(
      ['负面', 'a\u001b[31m', 'abcdefghijklmnop'],
      [
        [1, 2, 3],
        [4, 5, 6],
        [7, 8, 9],
      ],
    );
    expect(odd.split('\n')[0]).toBe('true \\ predicted  负面  a?[31m  abcdefghijk…');
    expect(odd.split('\n')[1]).toBe('负面                 1       2             3');
  });

  test('more classes than a terminal has room for', () => {
    const labels = Array.from({ length: 13 }, (_, i) => `${i}`);
    const text = confusionText(
      labels,
      labels.map(() => labels.map(() => 0)),
    );
    expect(text).toBe('confusion matrix: 13 classes are too many for a terminal; it is in the report');
  });
});
