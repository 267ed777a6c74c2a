/** Predictions: the same bits alone, in any company and order; as the whole text at once; what cannot be read is named. */
import { describe, expect, it } from 'vitest';
import { SSD_CHUNK } from '../../src/backend/kernels.ts';
import {
  type Classifier,
  ConfigError,
  noGrad,
  type Prediction,
  predictIds,
  ShapeError,
} from '../../src/index.ts';
import { PIECE } from '../../src/predict/reading.ts';
import { encodeText } from '../../src/text/piece-encoder.ts';
import { devices } from '../kernels/devices.ts';
import { settle } from '../support/settle.ts';
import { bert, KINDS, LABELS, makeClassifier, SHAPES, textOf } from './support.ts';

/** Around every size at which kernels or readings change their way: 1, 16, 17, 128 and its multiples. */
const LENGTHS = [1, 2, 15, 16, 17, 64, 127, 128, 129, 150, 255, 256, 257, 400];
const TEXTS = LENGTHS.map((length, i) => textOf(length, i));
/** The reference adds in float64 and one element after the other, whatever the sizes: its bits need no sweep. */
const compiled = devices.filter(({ backend }) => backend.name !== 'reference');
const fast = compiled.at(-1) ?? devices[0]!;

describe.each(compiled)('company on $label', ({ backend }) => {
  it.each(KINDS)('changes no bit: $pooling, two directions $bidirectional', async (head) => {
    const model = makeClassifier(backend, head);
    const alone: Prediction[] = [];
    for (const text of TEXTS) alone.push(...(await model.predict([text])));
    expect(await model.predict(TEXTS)).toEqual(alone);
    expect(await model.predict([...TEXTS].reverse())).toEqual([...alone].reverse());
    for (const batchSize of [1, 3, 100]) expect(await model.predict(TEXTS, { batchSize })).toEqual(alone);
    const many = Array.from({ length: 40 }, (_, i) => TEXTS[(i * 5) % TEXTS.length]!);
    const expected = many.map((text) => alone[TEXTS.indexOf(text)]);
    expect(await model.predict(many, { batchSize: 40 })).toEqual(expected);
    model.dispose();
  });
});

describe.each(compiled)('company on $label', ({ backend }) => {
  it.each(Object.entries(SHAPES))('changes no bit of %s', async (_, shape) => {
    for (const head of [{ pooling: 'mean', bidirectional: true }, { pooling: 'last' }] as const) {
      const model = makeClassifier(backend, head, { shape });
      const alone: Prediction[] = [];
      for (const text of TEXTS) alone.push(...(await model.predict([text])));
      expect(await model.predict([...TEXTS].reverse())).toEqual([...alone].reverse());
      for (const batchSize of [3, 100]) expect(await model.predict(TEXTS, { batchSize })).toEqual(alone);
      model.dispose();
    }
  });
});

it('reads pieces of whole chunks, so that a cut moves no border of a sum', () => {
  expect(PIECE % SSD_CHUNK).toBe(0);
});

describe('predict', () => {
  const { backend } = fast;

  it.each(KINDS)(
    'agrees with the text read at once: $pooling, two directions $bidirectional',
    async (head) => {
      await expectAsAtOnce(makeClassifier(backend, head));
    },
  );

  it.each(Object.entries(SHAPES))('agrees with the text read at once: %s', async (_, shape) => {
    await expectAsAtOnce(makeClassifier(backend, { pooling: 'mean-max', bidirectional: true }, { shape }));
  });

  async function expectAsAtOnce(model: Classifier): Promise<void> {
    const texts = [...TEXTS, textOf(3000, 3)];
    const predictions = await model.predict(texts);
    for (const [i, text] of texts.entries()) {
      const { logits } = noGrad(() => model.forward([encodeText(model.tokenizer!, text)]));
      const values = [...(await logits.floats())].map(Math.exp);
      const sum = values.reduce((a, b) => a + b);
      const { label, score, scores } = predictions[i]!;
      expect(Object.keys(scores)).toEqual(LABELS);
      expect(Object.values(scores).reduce((a, b) => a + b)).toBeCloseTo(1, 12);
      expect(scores[label]).toBe(score);
      expect(score).toBe(Math.max(...Object.values(scores)));
      // The bound for streamed, chunked and whole.
      for (const [c, name] of LABELS.entries())
        expect(Math.abs(scores[name]! - values[c]! / sum)).toBeLessThan(1e-5);
    }
    model.dispose();
  }

  it('tells texts and labels apart', async () => {
    const model = makeClassifier(backend);
    const [a, b] = await model.predict([TEXTS[5]!, TEXTS[8]!]);
    expect(a).not.toEqual(b);
    const odd = makeClassifier(backend, { labels: ['__proto__', '2', 'constructor'] });
    const [prediction] = await odd.predict(['text']);
    expect(Object.keys(prediction!.scores).sort()).toEqual(['2', '__proto__', 'constructor']);
  });

  it('cuts texts as the classifier was trained, or as asked', async () => {
    const model = makeClassifier(backend, { maxTokens: 20 });
    const text = textOf(300, 1);
    const [cut] = await model.predict([text.slice(0, 20)]);
    expect(await model.predict([text])).toEqual([cut]);
    expect(await model.predict([text], { maxTokens: null })).not.toEqual([cut]);
    expect(await model.predict([text.slice(0, 50)], { maxTokens: null })).toEqual(
      await model.predict([text], { maxTokens: 50 }),
    );
    const words = makeClassifier(backend, {}, { tokenizer: bert() });
    const ids = encodeText(words.tokenizer!, text, 8);
    expect([ids.length, ids[0], ids.at(-1)]).toEqual([8, 101, 102]);
    expect(await words.predict([text], { maxTokens: 8 })).not.toEqual(await words.predict([text]));
  });

  it('tells how far it is, between texts of any length, and stops when asked', async () => {
    const model = makeClassifier(backend);
    const seen: number[] = [];
    const texts = [textOf(20, 1), textOf(30_000, 2), textOf(10, 3)];
    await settle();
    const live = backend.memory.liveBytes;
    await model.predict(texts, { batchSize: 1, onProgress: (done, total) => seen.push(done, total) });
    expect(seen).toEqual([1, 3, 2, 3, 3, 3]);
    expect(backend.memory.liveBytes).toBe(live);
    const controller = new AbortController();
    setImmediate(() => controller.abort(new Error('enough')));
    await expect(model.predict(texts, { signal: controller.signal })).rejects.toThrow('enough');
    expect(backend.memory.liveBytes).toBe(live);
    expect(await model.predict([])).toEqual([]);
  });

  it.each([
    ['', 'predict: expected texts with words, got an empty one at index 1. Leave it out.'],
    [' \n\u00a0', 'predict: expected texts with words, got one without anything to read at index 1.'],
    [7 as unknown as string, 'predict: expected texts, got number at index 1.'],
  ])('refuses the text %j', async (text, message) => {
    const model = makeClassifier(backend, {}, { tokenizer: bert() });
    await expect(model.predict(['fine', text])).rejects.toThrow(ConfigError);
    await expect(model.predict(['fine', text])).rejects.toThrow(message);
  });

  it('refuses options and classifiers that cannot be', async () => {
    const model = makeClassifier(backend);
    await expect(model.predict('text' as unknown as string[])).rejects.toThrow('Write [text].');
    await expect(model.predict(['text'], { batchSize: 0 })).rejects.toThrow('batchSize an integer >= 1');
    await expect(model.predict(['text'], { maxTokens: 0 })).rejects.toThrow('maxTokens');
    const rows = [Int32Array.of(1), new Int32Array(0)];
    await expect(predictIds(model, rows)).rejects.toThrow('got none in row 1');
    await expect(predictIds(model, [Int32Array.of(256)])).rejects.toThrow(ShapeError);
    model.tokenizer = null;
    await expect(model.predict(['text'])).rejects.toThrow('predict: expected a classifier with a tokenizer');
    expect(() => model.open()).toThrow(ConfigError);
    await expect(model.explain(['text'])).rejects.toThrow(ConfigError);
  });
});
