/**
 * A model's precision reaches its projections and its head, through every way in: forward, encode and head, step, loss, pieces of a
 * classifier; recomputed blocks and any number of threads give the same bits with it.
 */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, test } from 'vitest';
import { useDevice, withDevice } from '../../src/backend/backend.ts';
import { isaVariants, openNative } from '../../src/backend/native.ts';
import { createReference } from '../../src/backend/reference/index.ts';
import { ConfigError } from '../../src/base/errors.ts';
import { Rng } from '../../src/base/rng.ts';
import { loadClassifier, saveClassifier } from '../../src/load-classifier.node.ts';
import { loadModel, saveModel } from '../../src/load-model.node.ts';
import { Classifier } from '../../src/models/classifier.ts';
import { LanguageModel } from '../../src/models/language-model.ts';
import { crossEntropy } from '../../src/ops/cross-entropy.ts';
import { currentPrecision, type Precision } from '../../src/tensor/precision.ts';
import { scope } from '../../src/tensor/scope.ts';
import { backward, noGrad } from '../../src/tensor/tape.ts';
import { Tensor } from '../../src/tensor/tensor.ts';
import { devices } from '../kernels/devices.ts';
import { HYBRID_CONFIGS, MAMBA1_CONFIGS, MAMBA2_CONFIGS, MAMBA3_CONFIGS } from './configs.ts';

const configs = {
  mamba1: MAMBA1_CONFIGS.plain!,
  'mamba1, untied, MLP': MAMBA1_CONFIGS['untied, LayerNorm, MLP']!,
  mamba2: Object.values(MAMBA2_CONFIGS)[0]!,
  mamba3: Object.values(MAMBA3_CONFIGS)[0]!,
  hybrid: Object.values(HYBRID_CONFIGS)[0]!,
};
const IDS = [5, 2, 7, 7, 1, 0, 9];

const fast = devices.filter(({ label }, i) => i === 0 || /avx512|neon|wasm/.test(label));

describe.each(fast)('on $label', ({ backend }) => {
  describe.each(Object.entries(configs))('%s', (_, config) => {
    const model = withDevice(backend, () => new LanguageModel(config, { seed: 3 }));
    afterAll(() => model.dispose());
    const inPrecision = async (precision: Precision, fn: () => Tensor): Promise<Float32Array> => {
      model.precision = precision;
      const out = withDevice(backend, () => scope(fn));
      const values = await out.floats();
      out.dispose();
      expect(currentPrecision()).toBe('f32');
      return values;
    };
    const targets = () => Tensor.from(Int32Array.from([...IDS.slice(1), 0]), [1, IDS.length]);

    test('every way in computes the same', async () => {
      const ways: Record<string, () => Tensor> = {
        forward: () => model.forward([IDS]).logits,
        'encode and head': () => model.head(model.encode([IDS]).hidden),
      };
      const plain = await inPrecision('f32', ways.forward!);
      const rounded = await inPrecision('bf16', ways.forward!);
      expect(rounded).not.toEqual(plain);
      expect(await inPrecision('bf16', ways['encode and head']!)).toEqual(rounded);
      expect(await inPrecision('f32', ways.forward!)).toEqual(plain);
      expect(await inPrecision('int8', ways.forward!)).toEqual(plain); // the weights are f32

      const loss = await inPrecision('bf16', () => noGrad(() => model.loss([IDS], targets()).loss));
      const fromLogits = await inPrecision('bf16', () =>
        noGrad(() => crossEntropy(model.forward([IDS]).logits, targets())),
      );
      expect(loss).toEqual(fromLogits);

      const first = (precision: Precision) =>
        inPrecision(precision, () => model.step([IDS[0]!], model.initialState()).logits);
      const v = plain.length / IDS.length;
      expect(await first('bf16')).not.toEqual(await first('f32'));
      expect((await first('bf16')).length).toBe(v);
    });

    test('checkpointing gives the same gradients, bit for bit', async () => {
      const gradients = async (precision: Precision, checkpointing: boolean) => {
        await inPrecision(precision, () => {
          const { loss } = model.loss([IDS], targets(), { checkpointing });
          model.precision = 'f32'; // what was recorded keeps its own
          backward(loss);
          return loss;
        });
        const values: number[][] = [];
        for (const [, tensor] of model.namedParameters()) values.push([...(await tensor.grad!.floats())]);
        model.zeroGrad();
        return values;
      };
      const rounded = await gradients('bf16', false);
      expect(await gradients('bf16', true)).toEqual(rounded);
      expect(rounded).not.toEqual(await gradients('f32', false));
    });
  });

  test('a classifier, whole texts and pieces', async () => {
    const config = { backbone: configs.mamba1, labels: ['a', 'b'], bidirectional: true };
    const classifier = withDevice(backend, () => new Classifier(config, { seed: 2 }));
    const run = (precision: Precision, fn: () => Tensor) => {
      classifier.precision = precision;
      return withDevice(backend, () => scope(fn)).floats();
    };
    const whole = () => classifier.forward([IDS]).logits;
    const piece = () => classifier.readPiece([IDS]).pooled;
    const head = () => classifier.classify(Tensor.full([1, classifier.score.weight.shape[1]!], 0.3));
    for (const way of [whole, piece, head]) expect(await run('bf16', way)).not.toEqual(await run('f32', way));
    classifier.dispose();
  });
});

test.runIf(isaVariants().length > 0)('any number of threads gives the same bits', async () => {
  const results: number[][][] = [];
  for (const threads of [1, 2, 3]) {
    const device = openNative({ threads });
    const values: number[][] = [];
    const model = withDevice(
      device,
      () => new LanguageModel({ ...configs.mamba1, d_model: 70 }, { seed: 1 }),
    );
    model.precision = 'bf16';
    const rng = new Rng(2);
    const ids = Int32Array.from({ length: 3 * 90 }, () => rng.uint32() % 11);
    withDevice(device, () =>
      scope(() => backward(model.loss(Tensor.from(ids, [3, 90]), Tensor.from(ids, [3, 90])).loss)),
    );
    for (const [, tensor] of model.namedParameters()) values.push([...(await tensor.grad!.floats())]);
    results.push(values);
    model.dispose();
  }
  expect(results[1]).toEqual(results[0]);
  expect(results[2]).toEqual(results[0]);
});

test('loaded with a precision, and an unknown one is refused', async () => {
  const folder = await mkdtemp(join(tmpdir(), 'mamba-precision-'));
  await useDevice(createReference());
  const model = new LanguageModel(configs.mamba1, { seed: 1 });
  const classifier = new Classifier({ backbone: configs.mamba1, labels: ['a', 'b'] }, { seed: 1 });
  await saveModel(model, join(folder, 'lm'));
  await saveClassifier(classifier, join(folder, 'classifier'));
  model.dispose();
  classifier.dispose();
  const cases = [
    [loadModel, 'lm'],
    [loadClassifier, 'classifier'],
  ] as const;
  for (const [load, name] of cases) {
    const loaded = await load(join(folder, name), { precision: 'bf16' });
    const plain = await load(join(folder, name));
    expect([loaded.precision, plain.precision]).toEqual(['bf16', 'f32']);
    loaded.dispose();
    plain.dispose();
    const wrong = load(join(folder, name), { precision: 'f16' as Precision });
    await expect(wrong).rejects.toThrow(ConfigError);
    await expect(wrong).rejects.toThrow('expected precision f32, bf16, int8, got f16');
  }
  await rm(folder, { recursive: true, force: true });
});
