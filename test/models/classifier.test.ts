/** Classifiers: the same whole, in pieces and in company, in one direction and two, with every pooling; gradients reach everything. */
import { beforeAll, describe, expect, it } from 'vitest';
import {
  backward,
  Classifier,
  ConfigError,
  crossEntropy,
  noGrad,
  POOLINGS,
  ShapeError,
  Tensor,
  useDevice,
} from '../../src/index.node.ts';
import type { Direction } from '../../src/models/classifier.ts';
import { RunningPool } from '../../src/models/pooling.ts';

const BACKBONE = { d_model: 24, n_layer: 2, vocab_size: 40 };
const text = (length: number, step: number) => Array.from({ length }, (_, t) => (t * step + 3) % 40);
const TEXTS = [text(37, 7), text(5, 3), text(1, 1), text(64, 11)];
/** Products of up to 16 rows sum in another order than longer ones, so only texts of more tokens have the same bits alone. */
const LONG_TEXTS = [text(37, 7), text(19, 3), text(17, 1), text(64, 11)];
const make = (pooling: (typeof POOLINGS)[number], bidirectional: boolean) =>
  new Classifier({ backbone: BACKBONE, labels: ['a', 'b', 'c'], pooling, bidirectional }, { seed: 5 });

async function logitsOf(model: Classifier, rows: readonly number[][], options = {}): Promise<number[][]> {
  const flat = await noGrad(() => model.forward(rows, options)).logits.floats();
  return rows.map((_, i) => [...flat.subarray(3 * i, 3 * i + 3)]);
}

/** The pooled vector of one direction, read in pieces of the given size. */
async function pooledInPieces(model: Classifier, ids: readonly number[], direction: Direction, size: number) {
  const ordered = direction === 'forward' ? [...ids] : [...ids].reverse();
  const pool = new RunningPool(model.config.pooling, model.config.backbone.d_model);
  let state = model.initialState();
  for (let at = 0; at < ordered.length; at += size) {
    const piece = ordered.slice(at, at + size);
    const out = noGrad(() => model.readPiece([piece], state, direction));
    pool.add(await out.pooled.floats(), piece.length);
    state.dispose();
    state = out.state;
  }
  state.dispose();
  return pool.value();
}

beforeAll(async () => {
  await useDevice('native').catch(() => useDevice('wasm'));
});

describe.each(POOLINGS.flatMap((pooling) => [false, true].map((two) => [pooling, two] as const)))(
  '%s pooling, two directions: %s',
  (pooling, bidirectional) => {
    it('gives a text the same bits alone, in company and with padding on either side', async () => {
      const model = make(pooling, bidirectional);
      const alone = [];
      for (const ids of LONG_TEXTS) alone.push((await logitsOf(model, [ids]))[0]);
      expect(await logitsOf(model, LONG_TEXTS)).toEqual(alone);
      expect(await logitsOf(model, [...LONG_TEXTS].reverse())).toEqual([...alone].reverse());
      const left = LONG_TEXTS.map((ids) => [...new Array<number>(70 - ids.length).fill(9), ...ids]);
      const mask = LONG_TEXTS.map((ids) => [
        ...new Array<number>(70 - ids.length).fill(0),
        ...new Array<number>(ids.length).fill(1),
      ]);
      expect(await logitsOf(model, left, { attentionMask: mask })).toEqual(alone);
    });

    it('gives a short text the same logits in company but for the last digit', async () => {
      const model = make(pooling, bidirectional);
      const together = await logitsOf(model, TEXTS);
      for (const [row, ids] of TEXTS.entries()) {
        const [alone] = await logitsOf(model, [ids]);
        for (const [i, value] of alone!.entries())
          expect(Math.abs(together[row]![i]! - value)).toBeLessThan(2e-6);
      }
    });

    it.each([1, 7, 64])('reads pieces of %i tokens to the same features', async (size) => {
      const model = make(pooling, bidirectional);
      for (const ids of TEXTS) {
        const [whole] = await logitsOf(model, [ids]);
        const parts = [];
        for (const direction of model.directions)
          parts.push(...(await pooledInPieces(model, ids, direction, size)));
        const out = await model.classify(Tensor.from(Float32Array.from(parts), [1, parts.length])).floats();
        // Logits of order 1 from 24 or 48 terms; 64 tokens of float32 rounding, 6e-8 each, stay below 1e-5.
        for (const [i, value] of whole!.entries()) expect(Math.abs(out[i]! - value)).toBeLessThan(1e-5);
      }
    });

    it('sends a gradient to every parameter', () => {
      const model = make(pooling, bidirectional);
      const { logits } = model.forward(TEXTS);
      backward(crossEntropy(logits, Tensor.from(Int32Array.from([0, 1, 2, 1]), [4])));
      const without = [...model.namedParameters()].filter(([, tensor]) => !tensor.grad).map(([name]) => name);
      expect(without).toEqual([]);
      model.dispose();
    });
  },
);

describe('initial embeddings', () => {
  it('are as wide as asked, and 0.02 otherwise', async () => {
    const stdOf = async (embeddingStd?: number) => {
      const model = new Classifier(
        { backbone: { ...BACKBONE, vocab_size: 400 }, labels: ['a', 'b'] },
        { embeddingStd },
      );
      const values = await model.backbone.embeddings.weight.floats();
      return Math.sqrt(values.reduce((sum, x) => sum + x * x, 0) / values.length);
    };
    // 9600 normal draws: the relative standard error is 1 / sqrt(2 * 9600) = 0.7 %, four of them 3 %.
    expect(Math.abs((await stdOf()) / 0.02 - 1)).toBeLessThan(0.03);
    expect(Math.abs((await stdOf(0.5)) / 0.5 - 1)).toBeLessThan(0.03);
  });
});

describe('directions', () => {
  it('reads the second from the end: a mirrored text with exchanged stacks has exchanged features', async () => {
    const model = make('mean', true);
    const own = new Map(model.namedParameters());
    for (const [name, tensor] of own) {
      const other = own.get(name.replace('backbone_reverse.', 'backbone.'))!;
      if (other !== tensor) tensor.write(await other.floats());
    }
    const weight = await model.score.weight.floats();
    const d = BACKBONE.d_model;
    model.score.weight.write(weight.map((_, i) => weight[i - (i % (2 * d)) + ((i + d) % (2 * d))]!));
    const exchanged = await logitsOf(model, [[...TEXTS[0]!].reverse()]);
    model.score.weight.write(weight);
    const plain = await logitsOf(model, [TEXTS[0]!]);
    for (const [i, value] of plain[0]!.entries()) expect(exchanged[0]![i]).toBeCloseTo(value, 5);
  });
});

describe('what it refuses', () => {
  it('an empty row', () => {
    expect(() => make('mean', false).forward([[1], []])).toThrow(ShapeError);
    expect(() => make('last', true).forward([[]])).toThrow('got none in row 0');
  });

  it.each([
    [{ labels: ['a'] }, 'got only a'],
    [{ labels: [] }, 'got none'],
    [{ labels: ['a', 'b', 'a'] }, 'got "a" twice'],
    [{ labels: ['a', 'b'], pooling: 'median' as 'mean' }, 'got median'],
    [{ labels: ['a', 'b'], maxTokens: 0 }, 'maxTokens to be a positive integer, got 0'],
    [{ labels: ['a', 'b'], lora: { rank: 0, alpha: 0, targets: [] } }, 'lora.rank'],
  ])('a head of %j', (head, message) => {
    const build = () => new Classifier({ backbone: BACKBONE, ...head });
    expect(build).toThrow(ConfigError);
    expect(build).toThrow(message);
  });
});
