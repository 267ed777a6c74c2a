/** Language models of every architecture: saved and loaded, and what they refuse. Their laws: mamba1.test.ts and its neighbours. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { LanguageModel, loadModel, noGrad, saveModel, useDevice } from '../../src/index.node.ts';
import { CONFIGS } from './configs.ts';

describe('saved and loaded', () => {
  const root = mkdtempSync(join(tmpdir(), 'mamba-ts-model-'));
  afterAll(() => rmSync(root, { recursive: true, force: true }));

  it.each(Object.entries(CONFIGS))('%s: the same bits', async (name, config) => {
    await useDevice('reference');
    const model = new LanguageModel(config, { seed: 2 });
    await saveModel(model, join(root, name));
    const loaded = await loadModel(join(root, name));
    const rows = [[0, 1, 2, 3]];
    const [a, b] = [noGrad(() => model.forward(rows)), noGrad(() => loaded.forward(rows))];
    expect(await b.logits.data()).toEqual(await a.logits.data());
    expect(await b.state.toBytes()).toEqual(await a.state.toBytes());
  });
});

describe('ids', () => {
  const build = async () => {
    await useDevice('reference');
    return new LanguageModel({ d_model: 8, n_layer: 1, vocab_size: 16 }, { seed: 3 });
  };

  it.each([
    ['no rows', [], 'got none'],
    ['a flat list', [1, 2] as unknown as number[][], 'Wrap a single row'],
    ['a fraction', [[1.5]], 'expected integer ids, got 1.5'],
    ['a negative one', [[-1]], 'got -1'],
    ['one beyond the vocabulary', [[16]], 'got 16'],
    ['one whose lowest 32 bits are a good one', [[2 ** 32 + 5]], 'got 4294967301'],
  ])('%s: refused', async (_, ids, message) => {
    const model = await build();
    expect(() => model.forward(ids)).toThrow(message);
  });

  it('sequence ids follow ragged rows', async () => {
    const model = await build();
    const forward = async (ids: number[][], sequenceIds?: number[][]) =>
      (await model.forward(ids, { sequenceIds }).logits.data()) as Float32Array;
    const packed = await forward(
      [
        [1, 2, 3],
        [4, 5],
      ],
      [
        [0, 0, 1],
        [0, 1],
      ],
    );
    expect(packed.slice(2 * 16, 3 * 16)).toEqual(await forward([[3]]));
    expect(packed.slice(3 * 16, 4 * 16)).toEqual(await forward([[4]]));
    expect(packed.slice(4 * 16, 5 * 16)).toEqual(await forward([[5]]));
  });

  it.each([
    ['too few', [[0], [0, 1]]],
    ['shifted between rows', [[0], [0, 0, 1]]],
    ['too few rows', [[0, 1]]],
  ])('sequence ids, %s: refused', async (_, sequenceIds) => {
    const model = await build();
    expect(() =>
      model.forward(
        [
          [1, 2],
          [3, 4],
        ],
        { sequenceIds },
      ),
    ).toThrow('a sequence id for each token of 2 rows');
  });
});
