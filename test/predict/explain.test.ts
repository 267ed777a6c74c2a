/** Explanations: the derivative of the score along each token, in both directions; nothing left behind. */
import { describe, expect, it } from 'vitest';
import { withDevice } from '../../src/backend/backend.ts';
import { createReference } from '../../src/backend/reference/index.ts';
import {
  type Classifier,
  ConfigError,
  crossEntropy,
  type Direction,
  mul,
  noGrad,
  scope,
  Tensor,
} from '../../src/index.ts';
import { gradientTimesInput } from '../../src/predict/explain.ts';
import type { Float64Device } from '../../src/tensor/gradcheck.ts';
import { encodeText } from '../../src/text/piece-encoder.ts';
import { devices } from '../kernels/devices.ts';
import { settle } from '../support/settle.ts';
import { bert, KINDS, LABELS, makeClassifier, textOf } from './support.ts';

const exact = createReference({ storage: 'f64' }) as Float64Device;
const { backend } = devices.at(-1)!;

/** The logit of `target` minus the mean of the others, with the embedded token t larger by the factor 1 + step. */
function score(model: Classifier, ids: Int32Array, target: number, t: number, step: number): number {
  const onEmbedded = (h: Tensor, direction: Direction): Tensor => {
    const factors = new Float64Array(ids.length).fill(1);
    factors[direction === 'forward' ? t : ids.length - 1 - t]! += step;
    return mul(h, Tensor.from(factors, [1, ids.length, 1], { device: model.device }));
  };
  return withDevice(exact, () => {
    const { logits } = noGrad(() => model.forward([ids], { onEmbedded }));
    const values = [...exact.readF64(logits, logits.size)];
    const others = values.filter((_, c) => c !== target);
    return values[target]! - others.reduce((a, b) => a + b) / others.length;
  });
}

describe('gradientTimesInput', () => {
  it.each(KINDS)(
    'is the derivative along each token: $pooling, two directions $bidirectional',
    async (head) => {
      const model = makeClassifier(exact, head, { d: 6 });
      const ids = Int32Array.from(encodeText(model.tokenizer!, 'it was a film', null));
      for (const target of [0, 2]) {
        const { weights } = await withDevice(exact, () =>
          gradientTimesInput(model, ids, target, (pass) => pass()),
        );
        expect(Math.max(...weights.map(Math.abs))).toBeGreaterThan(1e-4);
        for (let t = 0; t < ids.length; t++) {
          const step = 1e-4;
          const numeric =
            (score(model, ids, target, t, step) - score(model, ids, target, t, -step)) / (2 * step);
          // The quotient is off by about step^2 and 1e-16 / step, the weight by its rounding to float32.
          expect(Math.abs(weights[t]! - numeric)).toBeLessThan(1e-8 + 2 ** -23 * Math.abs(numeric));
        }
      }
    },
  );
});

describe('explain', () => {
  it('gives the prediction, and tokens that are the text', async () => {
    const model = makeClassifier(backend, { bidirectional: true });
    const texts = ['A night 中 😀 of films', textOf(300, 2)];
    const explanations = await model.explain(texts);
    const predictions = await model.predict(texts);
    for (const [i, { tokens, explained, label, scores }] of explanations.entries()) {
      expect(tokens.map(({ text }) => text).join('')).toBe(texts[i]);
      expect([label, explained]).toEqual([predictions[i]!.label, label]);
      for (const name of LABELS)
        expect(Math.abs(scores[name]! - predictions[i]!.scores[name]!)).toBeLessThan(1e-5);
    }
  });

  it('names special tokens and cuts where it is told', async () => {
    const model = makeClassifier(backend, {}, { tokenizer: bert() });
    const [whole] = await model.explain(['the night was long']);
    const parts = whole!.tokens.map(({ text }) => text);
    expect([parts[0], parts.at(-1)?.trim()]).toEqual(['[CLS]', '[SEP]']);
    const ids = model.tokenizer!.encode('the night was long', { addSpecialTokens: true });
    expect(parts.join('')).toBe(model.tokenizer!.decode(ids));
    const [cut] = await model.explain(['the night was long'], { maxTokens: 4 });
    expect(cut!.tokens).toHaveLength(4);
    const bytes = makeClassifier(backend, {}, { d: 8 });
    const seen: number[] = [];
    const [long] = await bytes.explain([textOf(3000, 1)], {
      onProgress: (done, total) => seen.push(done, total),
    });
    expect(long!.tokens).toHaveLength(2048);
    expect(seen).toEqual([1, 1]);
  });

  it('speaks for the label it is asked about; two classes mirror each other', async () => {
    const model = makeClassifier(backend, { labels: ['no', 'yes'] });
    const [no] = await model.explain(['a long film'], { label: 'no' });
    const [yes] = await model.explain(['a long film'], { label: 'yes' });
    expect([no!.explained, yes!.explained, no!.label]).toEqual(['no', 'yes', yes!.label]);
    expect(no!.tokens.map(({ weight }) => -weight)).toEqual(yes!.tokens.map(({ weight }) => weight));
    const asked = model.explain(['a'], { label: 'maybe' });
    await expect(asked).rejects.toThrow(ConfigError);
    await expect(asked).rejects.toThrow('explain: expected one of the labels no, yes, got "maybe".');
    await expect(model.explain(['a', ''])).rejects.toThrow('at index 1');
  });

  it('leaves gradients and training as they were, and nothing in memory', async () => {
    const model = makeClassifier(backend, { bidirectional: true });
    const frozen = makeClassifier(backend, { bidirectional: true }).requireGrad(false);
    const texts = ['one text', 'another text'];
    const expected = await model.explain(texts);
    expect(model.parameters().filter(({ grad }) => grad !== null)).toEqual([]);
    expect(await frozen.explain(texts)).toEqual(expected);
    expect(frozen.parameters().some(({ requiresGrad }) => requiresGrad)).toBe(false);
    scope(() => {
      const target = Tensor.from(Int32Array.from([1]), [1], { device: backend });
      crossEntropy(model.forward([[1, 2, 3]]).logits, target).backward();
    });
    const gradient = await model.score.weight.grad!.floats();
    await settle();
    const live = backend.memory.liveBytes;
    expect(await noGrad(() => model.explain(texts))).toEqual(expected);
    expect(backend.memory.liveBytes).toBe(live);
    expect(await model.score.weight.grad!.floats()).toEqual(gradient);
    const controller = new AbortController();
    controller.abort(new Error('enough'));
    await expect(model.explain(texts, { signal: controller.signal })).rejects.toThrow('enough');
  });
});
