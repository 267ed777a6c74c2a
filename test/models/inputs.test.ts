/** Masks, lengths and document ids that fit together or are refused; what masks compute is in checker.ts. */
import { beforeAll, describe, expect, it } from 'vitest';
import {
  type AttentionMask,
  type Ids,
  LanguageModel,
  type ModelConfigInput,
  ShapeError,
  Tensor,
  useDevice,
} from '../../src/index.node.ts';

const IDS = [
  [0, 1, 2, 3],
  [4, 5, 6, 7],
];
let model: LanguageModel;
const i32 = (rows: readonly number[][]) =>
  Tensor.from(Int32Array.from(rows.flat()), [rows.length, rows[0]!.length]);
const logits = async (ids: Ids, options = {}) => (await model.forward(ids, options).logits.floats()).slice();

beforeAll(async () => {
  await useDevice('reference');
  model = new LanguageModel({ d_model: 8, n_layer: 1, vocab_size: 16 }, { seed: 3 });
});

describe('attention masks', () => {
  it.each<[string, AttentionMask, string]>([
    [
      'a hole',
      [
        [1, 0, 1, 1],
        [1, 1, 1, 1],
      ],
      'got 0 at token 1 in row 0',
    ],
    [
      'nothing but zeros',
      [
        [1, 1, 1, 1],
        [0, 0, 0, 0],
      ],
      'got no 1 in row 1',
    ],
    [
      'another number',
      [
        [0, 1, 1, 2],
        [1, 1, 1, 1],
      ],
      'got 2 at token 3 in row 0',
    ],
    [
      'not a number',
      [
        [1, Number.NaN, 0, 0],
        [1, 1, 1, 1],
      ],
      'got NaN at token 1 in row 0',
    ],
    ['too few rows', [[1, 1, 1, 1]], 'rows of [4, 4], got rows of [4]'],
    [
      'a short row',
      [
        [1, 1, 1],
        [1, 1, 1, 1],
      ],
      'rows of [4, 4], got rows of [3, 4]',
    ],
  ])('%s: refused', (_, attentionMask, message) => {
    expect(() => model.forward(IDS, { attentionMask })).toThrow(ShapeError);
    expect(() => model.encode(IDS, { attentionMask })).toThrow(message);
    expect(() => model.loss(IDS, i32(IDS), { attentionMask })).toThrow(message);
  });

  it('tensors of another type or rank: refused', () => {
    const flat = Tensor.from(Int32Array.of(1, 1, 1, 1, 1, 1, 1, 1), [8]);
    expect(() => model.forward(IDS, { attentionMask: flat })).toThrow(ShapeError);
    expect(() => model.forward(IDS, { attentionMask: Tensor.ones([2, 4]) })).toThrow(ShapeError);
  });

  it('lengths and a mask: one of them', () => {
    const attentionMask = IDS.map((row) => row.map(() => 1));
    expect(() => model.forward(IDS, { attentionMask, lengths: [4, 4] })).toThrow('got both');
  });

  it('ids and mask as tensors, as rows, or mixed: the same bits; all ones: as without a mask', async () => {
    const mask = [
      [0, 0, 1, 1],
      [0, 1, 1, 0],
    ];
    const expected = await logits(IDS, { attentionMask: mask });
    expect(await logits(i32(IDS), { attentionMask: i32(mask) })).toEqual(expected);
    expect(await logits(IDS, { attentionMask: i32(mask) })).toEqual(expected);
    const ones = IDS.map((row) => row.map(() => 1));
    expect(await logits(IDS, { attentionMask: ones })).toEqual(await logits(IDS));
  });

  it('documents move with their tokens', async () => {
    const options = {
      attentionMask: [
        [0, 1, 1, 1],
        [0, 0, 1, 1],
      ],
      sequenceIds: [
        [9, 5, 5, 6],
        [9, 9, 1, 2],
      ],
    };
    for (const sequenceIds of [options.sequenceIds, i32(options.sequenceIds)]) {
      const packed = await logits(IDS, { ...options, sequenceIds });
      expect(packed.slice(3 * 16, 4 * 16)).toEqual(await logits([[3]]));
      expect(packed.slice(7 * 16, 8 * 16)).toEqual(await logits([[7]]));
    }
  });

  it("without a tensor's host copy: a clear error instead of wrong numbers", () => {
    const ids = i32(IDS);
    ids.host = null;
    const attentionMask = [
      [0, 1, 1, 1],
      [1, 1, 1, 1],
    ];
    expect(() => model.forward(ids, { attentionMask })).toThrow('under a mask');
    expect(
      model.forward(ids, {
        attentionMask: [
          [1, 1, 0, 0],
          [1, 1, 1, 1],
        ],
      }).state.tokens,
    ).toEqual([2, 4]);
  });
});

describe('losses', () => {
  it('targets beyond the length of a row do not count', async () => {
    const targets = (beyond: number) =>
      i32([
        [1, 2, 3, 4],
        [5, beyond, beyond, beyond],
      ]);
    const value = (beyond: number) => model.loss([IDS[0]!, [4]], targets(beyond)).loss.item();
    expect(await value(0)).toBe(await value(-100));
  });
});

describe('documents', () => {
  const base = { d_model: 8, n_layer: 1, vocab_size: 16, d_state: 4 };
  const attn_cfg = { num_heads: 2, rotary_emb_dim: 2, d_conv: 4 };
  it.each<[string, ModelConfigInput]>([
    ['Mamba-1', base],
    ['Mamba-2', { ...base, model_type: 'mamba2', headdim: 4 }],
    ['Mamba-3', { ...base, model_type: 'mamba3', headdim: 4 }],
    ['attention', { ...base, attn_layer_idx: [0], attn_cfg }],
  ])('%s: a number that comes again after a short document is another document', async (_, config) => {
    const model = new LanguageModel(config, { seed: 1 });
    const read = async (ids: Ids, options = {}) =>
      (await model.forward(ids, options).logits.floats()).slice();
    const ids = [1, 2, 3, 4, 5, 6, 7];
    const documents = [[1, 1, 2, 2, 1, 1, 1]];
    const alone = [await read([[1, 2]]), await read([[3, 4]]), await read([[5, 6, 7]])];
    for (const sequenceIds of [documents, i32(documents)]) {
      const packed = await read([ids], { sequenceIds });
      expect([packed.slice(0, 32), packed.slice(32, 64), packed.slice(64)]).toEqual(alone);
    }
  });
});

describe('encode', () => {
  it('is forward() without the head', async () => {
    const { logits, hidden } = model.forward(IDS, { hiddenStates: true });
    const encoded = model.encode(IDS, { hiddenStates: true });
    expect(await encoded.hidden.floats()).toEqual(await hidden.at(-1)!.floats());
    expect(encoded.blocks).toHaveLength(1);
    expect(await model.head(encoded.hidden).floats()).toEqual(await logits.floats());
  });
});
