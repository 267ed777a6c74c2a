import { beforeAll, describe, expect, expectTypeOf, test } from 'vitest';
import type { Backend } from '../../src/backend/backend.ts';
import { createReference } from '../../src/backend/reference/index.ts';
import type { TrainClassifyResult } from '../../src/index.node.ts';
import type { Classifier } from '../../src/models/classifier.ts';
import { predict } from '../../src/predict/index.ts';
import { renderReport } from '../../src/train/report.ts';
import { scoreClasses } from '../../src/train/scores.ts';
import { classifyReport } from '../../src/train/train-classify-report.ts';
import {
  type AnsweredTexts,
  epochsOf,
  type FinishedClassification,
  summarizeClassification,
  visible,
} from '../../src/train/train-classify-summary.ts';
import { LABELS, makeClassifier, textOf } from '../predict/support.ts';

const entry = (step: number, loss: number, accuracy?: number) => ({
  step,
  loss,
  lr: 1e-3,
  gradNorm: 1,
  tokensPerSecond: 100,
  validation: accuracy === undefined ? null : { loss: 1 - accuracy, accuracy, macroF1: accuracy },
});

test('what trainClassify() gives can be summarized', () => {
  expectTypeOf<TrainClassifyResult>().toExtend<FinishedClassification>();
});

test('epochs have the mean training loss between evaluations', () => {
  const metrics = [entry(4, 2), entry(10, 1, 0.5), entry(15, 0.5), entry(20, 0.3, 0.75), entry(24, 0.2)];
  const epochs = epochsOf(metrics, 8);
  expect(epochs.map(({ epoch, step }) => [epoch, step])).toEqual([
    [1.25, 10],
    [2.5, 20],
  ]);
  expect(epochs[0]!.trainLoss).toBeCloseTo((4 * 2 + 6 * 1) / 10, 12);
  expect(epochs[1]!.trainLoss).toBeCloseTo((5 * 0.5 + 5 * 0.3) / 10, 12);
});

test('tokens without text give their weight to the next one that has some', () => {
  const token = (text: string, weight: number) => ({ text, weight });
  expect(visible([token('', 1), token('', 2), token('é', 4), token('x', 8), token('', 16)])).toEqual([
    token('é', 7),
    token('x', 24),
  ]);
  expect(visible([token('', 1)])).toEqual([]);
});

describe('the summary of a run', () => {
  let device: Backend;
  let model: Classifier;
  let answers: AnsweredTexts;
  let run: FinishedClassification;
  beforeAll(async () => {
    device = createReference();
    model = makeClassifier(device);
    const examples = Array.from({ length: 9 }, (_, i) => ({
      text: textOf(20 + i, i + 1),
      label: LABELS[i % 3]!,
      where: `test.csv:${i + 2}`,
    }));
    const predictions = await predict(
      model,
      examples.map(({ text }) => text),
    );
    const probabilities = predictions.map(({ scores }) => LABELS.map((label) => scores[label]!));
    const truth = examples.map((_, i) => i % 3);
    answers = { examples, probabilities, scores: scoreClasses(LABELS, truth, probabilities) };
    run = {
      settings: { data: ['test.csv'] },
      model,
      parameterCount: model.parameterCount,
      trainedCount: model.parameterCount,
      device: 'reference',
      step: 20,
      tokens: 100,
      elapsedSeconds: 1,
      metrics: [entry(10, 1, 0.5), entry(20, 0.5, 0.75), entry(30, 0.4, 0.75), entry(40, 0.3, 0.7)],
      stepsPerEpoch: 10,
      baselines: [],
      valid: null,
      test: answers,
    };
  });

  test('errors are wrong, sorted and explained for what was predicted', async () => {
    const summary = await summarizeClassification(run, { errors: 4 });
    expect(summary.errors.length).toBeGreaterThan(1);
    for (const { label, prediction, tokens, text, where } of summary.errors) {
      expect(label).not.toBe(prediction.label);
      expect(tokens!.map((token) => token.text).join('')).toBe(text);
      expect(answers.examples.find((example) => example.where === where)!.text).toBe(text);
    }
    const scores = summary.errors.map(({ prediction }) => prediction.score);
    expect(scores).toEqual([...scores].sort((a, b) => b - a));
  });

  test('examples are right', async () => {
    const { examples } = await summarizeClassification(run, { errors: 0, examples: 2 });
    expect(examples.length).toBeGreaterThan(0);
    for (const { label, prediction, tokens } of examples) {
      expect(label).toBe(prediction.label);
      expect(tokens!.some(({ weight }) => weight !== 0)).toBe(true);
    }
  });

  test('the rest is that of the run, of the test part where there is one', async () => {
    const summary = await summarizeClassification(run, { errors: 0, examples: 0 });
    expect(summary).toMatchObject({ keptStep: 20, validation: null, errors: [], examples: [] });
    expect(summary.test).toBe(answers.scores);
    expect(summary.calibration.reduce((sum, { count }) => sum + count, 0)).toBe(9);
    const held = await summarizeClassification({ ...run, valid: answers, test: null }, { errors: 1 });
    expect(held).toMatchObject({ test: null, validation: answers.scores });
    expect(held.errors).toHaveLength(1);
    expect(renderReport(classifyReport(held), { script: '', style: '' })).toContain('Confusion, validation');
  });

  test('an interrupted run has no answers', async () => {
    const summary = await summarizeClassification({ ...run, test: null, metrics: [entry(3, 1)] });
    expect(summary).toMatchObject({ keptStep: null, history: [], validation: null, test: null, errors: [] });
  });

  test('a signal ends the explanations', async () => {
    const signal = AbortSignal.abort(new Error('enough'));
    await expect(summarizeClassification(run, { signal })).rejects.toThrow('enough');
  });
});
