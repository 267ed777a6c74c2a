/** A classifier's config.json: there and back, and everything that can be wrong with it. */
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { ConfigError, MambaError } from '../../src/base/errors.ts';
import { configFromJson, modelFromJson, toHuggingFaceConfig } from '../../src/io/config-json.ts';
import { formatJson, type JsonObject, parseJsonObject } from '../../src/io/json.ts';
import { POOLINGS, resolveHead } from '../../src/models/classifier-config.ts';
import { resolveConfig } from '../../src/models/config.ts';

const backbone = resolveConfig({ d_model: 12, n_layer: 2, vocab_size: 30 });
const head = resolveHead({
  labels: ['neg', 'pos', 'so so'],
  pooling: 'max',
  bidirectional: true,
  maxTokens: 128,
  lora: { rank: 4, alpha: 8, targets: ['in_proj', 'out_proj'] },
});
const written = (): JsonObject => toHuggingFaceConfig(backbone, { head });

test('is written the Hugging Face way, ours under mamba_ts', () => {
  expect(written()).toMatchObject({
    architectures: ['MambaForSequenceClassification'],
    model_type: 'mamba_ts', // transformers must not take it for a language model
    num_labels: 3,
    id2label: { 0: 'neg', 1: 'pos', 2: 'so so' },
    label2id: { neg: 0, pos: 1, 'so so': 2 },
    mamba_ts: {
      classifier: {
        pooling: 'max',
        bidirectional: true,
        max_tokens: 128,
        lora: { rank: 4, alpha: 8, targets: ['in_proj', 'out_proj'] },
      },
    },
  });
  const falcon = { ...backbone, mixer_rms_eps: 1e-6 };
  expect(modelFromJson(toHuggingFaceConfig(falcon, { head }))).toEqual({ config: falcon, head });
});

test('a language model has no head, and nothing of one in its file', () => {
  const json = toHuggingFaceConfig(backbone);
  expect(json).toEqual(toHuggingFaceConfig(backbone, { head: null }));
  expect(modelFromJson(json).head).toBeNull();
  expect(Object.keys(json).filter((key) => /label/.test(key))).toEqual([]);
});

test('any head comes back from our config.json', () => {
  const anyHead = fc
    .record({
      // Also numbers, which a JSON object puts in another order, and names that objects have already.
      labels: fc.uniqueArray(fc.oneof(fc.string(), fc.constantFrom('7', '0', '__proto__', 'constructor')), {
        minLength: 2,
        maxLength: 15,
      }),
      pooling: fc.constantFrom(...POOLINGS),
      bidirectional: fc.boolean(),
      maxTokens: fc.option(fc.integer({ min: 1, max: 1e6 })),
      lora: fc.option(
        fc.record({
          rank: fc.integer({ min: 1, max: 64 }),
          alpha: fc.double({ min: 1e-3, max: 128, noNaN: true }),
          targets: fc.subarray(['in_proj', 'x_proj', 'out_proj'], { minLength: 1 }),
        }),
      ),
    })
    .map(resolveHead);
  fc.assert(
    fc.property(anyHead, (drawn) => {
      const text = formatJson(toHuggingFaceConfig(backbone, { head: drawn }));
      expect(modelFromJson(parseJsonObject(text, 'config.json'))).toEqual({ config: backbone, head: drawn });
    }),
  );
});

test('a classifier of any architecture comes back; targets are those of its layers', () => {
  const base = { d_model: 12, n_layer: 2, vocab_size: 30, headdim: 8 };
  const attn_cfg = { num_heads: 2 };
  const backbones = [
    { config: resolveConfig({ ...base, model_type: 'mamba2' }), targets: 'in_proj, out_proj' },
    {
      config: resolveConfig({ ...base, model_type: 'mamba3', d_intermediate: 20 }),
      targets: 'in_proj, out_proj, fc1, fc2',
    },
    {
      config: resolveConfig({ d_model: 12, n_layer: 2, vocab_size: 30, attn_layer_idx: [1], attn_cfg }),
      targets: 'in_proj, x_proj, out_proj',
    },
  ];
  for (const { config, targets } of backbones) {
    const known = targets.split(', ');
    const described = { config, head: { ...head, lora: { ...head.lora!, targets: known } } };
    const json = toHuggingFaceConfig(config, { head: described.head });
    expect(json.model_type).toBe('mamba_ts');
    expect(modelFromJson(parseJsonObject(formatJson(json), 'config.json'))).toEqual(described);
    const wrong = { ...head, lora: { ...head.lora!, targets: ['q_proj'] } };
    expect(() => modelFromJson(toHuggingFaceConfig(config, { head: wrong }))).toThrow(
      `mamba_ts.classifier.lora.targets must be among ${targets}, got q_proj`,
    );
  }
});

describe('what is wrong is named', () => {
  const own = () => written().mamba_ts as JsonObject;
  const classifier = () => own().classifier as JsonObject;
  const withBlock = (change: JsonObject): JsonObject => ({
    ...written(),
    mamba_ts: { ...own(), classifier: { ...classifier(), ...change } },
  });
  const omit = (json: JsonObject, key: string) =>
    Object.fromEntries(Object.entries(json).filter(([k]) => k !== key));
  const cases: [name: string, json: JsonObject, messages: string[]][] = [
    [
      'no labels',
      omit(omit(written(), 'id2label'), 'label2id'),
      ['id2label is missing', 'label2id is missing'],
    ],
    [
      'labels as an array',
      { ...written(), id2label: ['a', 'b'] },
      ['id2label must be an object, got an array'],
    ],
    [
      'a gap',
      { ...written(), id2label: { 0: 'neg', 2: 'pos', 3: 'so so' } },
      ['id2label must number its 3 labels from 0, got none with 1'],
    ],
    [
      'counted from 1',
      { ...written(), id2label: { 1: 'neg', 2: 'pos', 3: 'so so' } },
      ['id2label must number its 3 labels from 0, got none with 0'],
    ],
    [
      'a label that is a number',
      { ...written(), id2label: { 0: 'neg', 1: 5, 2: 'so so' } },
      ['id2label.1 must be a string, got 5'],
    ],
    [
      'two lists that disagree',
      { ...written(), label2id: { neg: 1, pos: 0, other: 2 } },
      [
        'id2label.0 is "neg", label2id gives it 1',
        'id2label.1 is "pos", label2id gives it 0',
        'id2label.2 is "so so", label2id gives it nothing',
        'label2id has "other", id2label has not',
      ],
    ],
    [
      'a count that disagrees',
      { ...written(), num_labels: 2 },
      ['num_labels 2 contradicts the 3 of id2label'],
    ],
    [
      'one label twice',
      { ...written(), id2label: { 0: 'neg', 1: 'pos', 2: 'neg' }, label2id: { neg: 2, pos: 1 } },
      ['id2label.0 is "neg", label2id gives it 2'],
    ],
    [
      'a single class',
      { ...written(), id2label: { 0: 'neg' }, label2id: { neg: 0 }, num_labels: 1 },
      ['classifier: expected at least two labels, got only neg'],
    ],
    [
      'fields missing',
      { ...written(), mamba_ts: { ...own(), classifier: {} } },
      ['mamba_ts.classifier.pooling is missing', 'mamba_ts.classifier.bidirectional is missing'],
    ],
    [
      'a block of a wrong kind',
      { ...written(), mamba_ts: { ...own(), classifier: 3 } },
      ['classifier must be an object'],
    ],
    [
      'kinds',
      withBlock({ pooling: 1, bidirectional: 'yes', max_tokens: '128', lora: [] }),
      [
        'pooling must be a string, got 1',
        'bidirectional must be a boolean, got "yes"',
        'max_tokens must be a number, got "128"',
        'lora must be an object, got an array',
      ],
    ],
    [
      'values',
      withBlock({ pooling: 'sum', max_tokens: 0 }),
      [
        'expected pooling to be one of last, mean, max, mean-max, got sum',
        'expected maxTokens to be a positive integer, got 0',
      ],
    ],
    ['a typo', withBlock({ maxTokens: 5 }), ['mamba_ts.classifier.maxTokens is not a known field']],
    [
      'adapters',
      withBlock({ lora: { r: 4, rank: '4', targets: ['score', 3] } }),
      [
        'lora.r is not a known field',
        'lora.rank must be a number, got "4"',
        'lora.alpha is missing',
        'lora.targets must be an array of strings, got ["score",3]',
      ],
    ],
    [
      'adapters beside nothing',
      withBlock({ lora: { rank: 4, alpha: 8, targets: ['score', 'dt_proj'] } }),
      [
        'lora.targets must be among in_proj, x_proj, out_proj, got score',
        'lora.targets must be among in_proj, x_proj, out_proj, got dt_proj',
      ],
    ],
    [
      'adapters out of range',
      withBlock({ lora: { rank: 0.5, alpha: Number.POSITIVE_INFINITY, targets: [] } }),
      [
        'lora.rank to be a positive integer, got 0.5',
        'lora.alpha to be a number above 0',
        'lora.targets to name',
      ],
    ],
    [
      'the backbone too, in the same error',
      { ...omit(written(), 'hidden_size'), num_labels: 2 },
      ['hidden_size is missing', 'num_labels 2 contradicts'],
    ],
    [
      'the head out of range, the backbone incomplete',
      { ...omit(withBlock({ pooling: 'sum' }), 'state_size') },
      ['state_size is missing', 'got sum'],
    ],
    [
      'a classifier of another program',
      { ...toHuggingFaceConfig(backbone), architectures: ['MambaForSequenceClassification'] },
      ['mamba_ts.classifier is missing, which says how ["MambaForSequenceClassification"] pools'],
    ],
  ];
  test.each(cases)('%s', (_, json, messages) => {
    const attempt = () => modelFromJson(json, 'models/x/config.json');
    expect(attempt).toThrow(ConfigError);
    expect(attempt).toThrow('models/x/config.json');
    for (const message of messages) expect(attempt).toThrow(message);
    expect(() => configFromJson(json)).toThrow(ConfigError);
  });
});

test('any damage gives a model or an error of this library', () => {
  const json = written();
  const block = (json.mamba_ts as JsonObject).classifier as JsonObject;
  const value = fc.oneof(fc.constant(undefined), fc.jsonValue());
  const changed = (keys: string[]) =>
    fc.array(fc.tuple(fc.constantFrom(...keys), value), { maxLength: 3 }).map(Object.fromEntries);
  fc.assert(
    fc.property(
      changed(['id2label', 'label2id', 'num_labels', 'architectures', 'mamba_ts']),
      changed(Object.keys(block)),
      (top, inner) => {
        const own = { ...(json.mamba_ts as JsonObject), classifier: { ...block, ...inner } };
        const damaged = { ...json, mamba_ts: own, ...top } as JsonObject;
        try {
          const found = modelFromJson(damaged);
          if (found.head) expect(found.head).toEqual(resolveHead(found.head));
        } catch (error) {
          expect(error).toBeInstanceOf(MambaError);
        }
      },
    ),
    { numRuns: 500 },
  );
});
