/** The classification loss against a plain computation, its batches, and dropout. */
import { beforeAll, describe, expect, it } from 'vitest';
import { Classifier, createReference, Rng, StateError, Tensor, useDevice } from '../../src/index.node.ts';
import { dropout } from '../../src/nn/dropout.ts';
import {
  batchesPerEpoch,
  classification,
  type LabelledText,
  labelledBatches,
} from '../../src/train/index.ts';

const rng = new Rng(2);
const TEXTS: LabelledText[] = Array.from({ length: 53 }, (_, i) => ({
  ids: Int32Array.from({ length: 1 + rng.below(40) }, () => rng.below(30)),
  label: i % 3,
}));
const BATCH = TEXTS.slice(0, 5);
let model: Classifier;
beforeAll(async () => {
  await useDevice(createReference());
  model = new Classifier(
    { backbone: { d_model: 8, n_layer: 1, vocab_size: 30, d_state: 4 }, labels: ['a', 'b', 'c'] },
    { seed: 1 },
  );
});

/** Sum over rows of w * -sum(q log p) / sum of w, in double precision from the model's logits. */
async function plainLoss(weights: readonly number[], smoothing: number): Promise<number> {
  const flat = await model.forward(BATCH.map(({ ids }) => ids)).logits.floats();
  let [loss, total] = [0, 0];
  BATCH.forEach(({ label }, i) => {
    const logits = [...flat.subarray(3 * i, 3 * i + 3)];
    const lse = Math.log(logits.reduce((sum, x) => sum + Math.exp(x), 0));
    const row = logits.reduce(
      (sum, x, k) => sum - (x - lse) * (smoothing / 3 + (k === label ? 1 - smoothing : 0)),
      0,
    );
    loss += weights[label]! * row;
    total += weights[label]!;
  });
  return loss / total;
}

describe('the loss', () => {
  it.each([
    ['plain', [1, 1, 1], 0],
    ['weighted by class', [0.5, 3, 1], 0],
    ['smoothed', [1, 1, 1], 0.2],
    ['weighted and smoothed', [2, 0.25, 1], 0.1],
  ])('%s', async (_, classWeights, labelSmoothing) => {
    const task = classification(model, { classWeights, labelSmoothing });
    const training = await task.loss(BATCH, { seed: 4 }).loss.item();
    // Sums of 15 float32 terms of order 1.
    expect(Math.abs(training - (await plainLoss(classWeights, labelSmoothing)))).toBeLessThan(2e-6);
    const outside = await task.loss(BATCH).loss.item();
    expect(Math.abs(outside - (await plainLoss(classWeights, 0)))).toBeLessThan(2e-6);
    expect(task.weight(BATCH)).toBe(BATCH.reduce((sum, { label }) => sum + classWeights[label]!, 0));
  });

  it('with dropout depends on the seed of the step, and on nothing outside of training', async () => {
    const task = classification(model, { dropout: 0.3, tokenDropout: 0.2 });
    const at = async (seed?: number) => task.loss(BATCH, { seed }).loss.item();
    expect(await at(7)).toBe(await at(7));
    expect(await at(7)).not.toBe(await at(8));
    expect(await at()).toBe(await classification(model).loss(BATCH).loss.item());
  });
});

describe('dropout', () => {
  it('zeroes the share it says and keeps the mean; whole tokens where asked', async () => {
    const x = Tensor.full([40, 50, 20], 1);
    const values = await dropout(x, 0.3, new Rng(1)).floats();
    const zeros = values.filter((value) => value === 0).length / values.length;
    // 40,000 independent draws: six standard deviations are 6 * sqrt(0.3 * 0.7 / 40000) = 0.014.
    expect(Math.abs(zeros - 0.3)).toBeLessThan(0.014);
    expect(new Set(values)).toEqual(new Set([0, Math.fround(1 / 0.7)]));
    const tokens = await dropout(x, 0.5, new Rng(1), [40, 50, 1]).floats();
    for (let at = 0; at < tokens.length; at += 20) expect(new Set(tokens.subarray(at, at + 20)).size).toBe(1);
    expect(dropout(x, 0, new Rng(1))).toBe(x);
  });
});

describe('batches', () => {
  const open = (options = {}) => labelledBatches({ texts: TEXTS, batch: 4, seed: 3, ...options });

  it('give each text once per epoch, in another order each time, those of similar length together', async () => {
    const stream = open();
    const epochs: LabelledText[][][] = [];
    for (let epoch = 0; epoch < 2; epoch++) {
      const batches = [];
      for (let i = 0; i < batchesPerEpoch(TEXTS.length, 4); i++) batches.push(await stream.next());
      expect(new Set(batches.flat())).toEqual(new Set(TEXTS));
      expect(batches.flat()).toHaveLength(TEXTS.length);
      const padded = batches.reduce(
        (n, rows) => n + rows.length * Math.max(...rows.map((r) => r.ids.length)),
        0,
      );
      const real = TEXTS.reduce((n, { ids }) => n + ids.length, 0);
      expect(padded / real).toBeLessThan(1.25);
      epochs.push(batches);
    }
    expect(epochs[0]).not.toEqual(epochs[1]);
  });

  it('go on from any position as if nothing had happened', async () => {
    const whole = open();
    for (let i = 0; i < 19; i++) await whole.next();
    const position = JSON.parse(JSON.stringify(whole.state()));
    const expected = [await whole.next(), await whole.next()];
    const resumed = open();
    resumed.restore(position);
    expect([await resumed.next(), await resumed.next()]).toEqual(expected);
  });

  it('refuse a position in other texts, or with another seed or size', async () => {
    const position = open().state();
    const changed = TEXTS.map((text, i) => (i === 7 ? { ...text, label: 0 } : text));
    for (const other of [{ texts: changed }, { texts: [...TEXTS].reverse() }, { seed: 4 }, { batch: 5 }])
      expect(() => open(other).restore(position)).toThrow(StateError);
  });
});
