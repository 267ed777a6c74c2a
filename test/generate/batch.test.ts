/** Batches, samples, seeds, bias, log-probabilities, masks: a sequence is what it is alone, on every device. */
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it, vi } from 'vitest';
import {
  type BatchOptions,
  ConfigError,
  generateTokens,
  LanguageModel,
  noGrad,
  Rng,
  ShapeError,
  type TokenLogprob,
  useDevice,
} from '../../src/index.node.ts';
import { devices, reportMissing } from '../kernels/devices.ts';
import { settle } from '../support/settle.ts';
import { expectSameTokens, logitBound } from './same-tokens.ts';

beforeEach(settle);
afterEach(() => vi.restoreAllMocks());
reportMissing();

const V = 61;
const CONFIG = { vocab_size: V, pad_vocab_size_multiple: 8, d_model: 12, n_layer: 1, d_state: 3 };
const rng = new Rng(9);
const PROMPTS = [3, 1, 20, 7, 40, 2].map((n) => Array.from({ length: n }, () => rng.below(V)));

describe.each(devices)('batches on $label', ({ backend }) => {
  let model: LanguageModel;
  beforeAll(async () => {
    await useDevice(backend);
    model = new LanguageModel(CONFIG, { seed: 12 });
    const { weight } = model.backbone.embeddings;
    weight.write((await weight.floats()).map((x) => 15 * x)); // neither flat nor decided
  });
  afterAll(() => model.dispose());

  /** The log-softmax over real ids at each position of a row, and how far rounding may move it. */
  async function logSoftmax(ids: readonly number[]) {
    const out = noGrad(() => model.forward([ids]));
    const host = await out.logits.floats();
    const width = out.logits.shape[2]!;
    out.logits.dispose();
    out.state.dispose();
    const rows = ids.map((_, t) => Float64Array.from(host.subarray(t * width, t * width + V)));
    for (const row of rows) {
      const normalizer = Math.log(row.reduce((sum, x) => sum + Math.exp(x), 0));
      for (let i = 0; i < V; i++) row[i]! -= normalizer;
    }
    return { rows, bound: 2 * logitBound(model, ids.length, host) };
  }

  it('each sample is the prompt alone with its seed, in any company', async () => {
    const { liveBytes } = backend.memory;
    const seeds = PROMPTS.map((_, row) => 100 * row + 7);
    const options = { maxTokens: 12, n: 3 };
    const together = await model.complete(PROMPTS, { ...options, seed: seeds });
    expect(together.map(({ row, sample, seed }) => [row, sample, seed])).toEqual(
      PROMPTS.flatMap((_, row) => [0, 1, 2].map((sample) => [row, sample, seeds[row]! + sample])),
    );
    const order = [4, 0, 5, 2, 3, 1];
    const others = await model.complete(
      order.map((row) => PROMPTS[row]!),
      { ...options, seed: order.map((row) => seeds[row]!), batchSize: 7, prefillTokens: 512 },
    );
    for (const { row, sample, seed, tokens } of together) {
      const prompt = PROMPTS[row]!;
      const [alone] = await model.complete([prompt], { maxTokens: 12, seed });
      const other = others[order.indexOf(row) * 3 + sample]!;
      if (backend.name === 'reference') {
        expect(tokens).toEqual(alone!.tokens);
        expect(other.tokens).toEqual(alone!.tokens);
      }
      await expectSameTokens(model, prompt, seed, tokens, alone!.tokens);
      await expectSameTokens(model, prompt, seed, other.tokens, alone!.tokens);
    }
    expect(backend.memory.liveBytes).toBe(liveBytes);
  });

  it('over many seeds too', async () => {
    const seeds = Array.from({ length: 24 }, (_, i) => 1000 + i);
    const prompt = PROMPTS[3]!;
    const repeated = seeds.map(() => prompt);
    const together = await model.complete(repeated, { maxTokens: 10, seed: seeds, batchSize: 64 });
    const distinct = new Set(together.map(({ tokens }) => tokens.join()));
    expect(distinct.size).toBe(24);
    for (const [i, seed] of seeds.entries()) {
      const [alone] = await model.complete([prompt], { maxTokens: 10, seed });
      await expectSameTokens(model, prompt, seed, together[i]!.tokens, alone!.tokens);
    }
  });

  it('reads each prompt once, however many samples, with a bounded number of tokens per pass', async () => {
    const encode = vi.spyOn(model, 'encode');
    await model.complete(PROMPTS, { n: 5, maxTokens: 2, seed: 1, prefillTokens: 16, batchSize: 100 });
    const passes = encode.mock.calls.map(([ids]) => ids as number[][]);
    expect(passes.flat(2)).toHaveLength(PROMPTS.flat().length);
    for (const rows of passes) {
      const width = Math.max(...rows.map(({ length }) => length));
      expect(width * rows.length).toBeLessThanOrEqual(16);
    }
    expect(passes.length).toBeLessThan(PROMPTS.length + 3); // short ones share a pass
  });

  it('log-probabilities are those of forward(), whatever bias and temperature choose', async () => {
    const options: BatchOptions = {
      maxTokens: 8,
      n: 2,
      seed: 3,
      logprobs: 5,
      temperature: 1.7,
      repetitionPenalty: 1.3,
      logitBias: { 4: 6, 7: Number.NEGATIVE_INFINITY },
    };
    for (const { row, tokens, logprobs } of await model.complete(PROMPTS, options)) {
      const prompt = PROMPTS[row]!;
      expect(logprobs!.map((entry) => entry!.token)).toEqual(tokens);
      expect(tokens).not.toContain(7);
      const { rows, bound } = await logSoftmax([...prompt, ...tokens]);
      for (const [t, entry] of logprobs!.entries())
        expectLogprob(entry!, rows[prompt.length + t - 1]!, bound);
    }
  });

  function expectLogprob({ token, logprob, top }: TokenLogprob, row: Float64Array, bound: number) {
    const near = (actual: number, id: number) =>
      expect(Math.abs(actual - row[id]!)).toBeLessThanOrEqual(bound);
    near(logprob, token);
    expect(new Set(top.map((entry) => entry.token)).size).toBe(5);
    for (const entry of top) near(entry.logprob, entry.token);
    const listed = top.map((entry) => entry.logprob);
    expect(listed).toEqual([...listed].sort((a, b) => b - a));
    const others = row.filter((_, id) => top.every((entry) => entry.token !== id));
    expect(Math.max(...others)).toBeLessThanOrEqual(listed.at(-1)! + bound);
  }

  it.each([512, 5])(
    'echo: the prompt with its log-probabilities, %i tokens per pass',
    async (prefillTokens) => {
      const { liveBytes } = backend.memory;
      const options = { echo: true, logprobs: 5, maxTokens: 4, n: 2, seed: 5, prefillTokens };
      const plain = await model.complete(PROMPTS, { ...options, echo: false });
      for (const [i, { row, tokens, logprobs }] of (await model.complete(PROMPTS, options)).entries()) {
        const prompt = PROMPTS[row]!;
        expect(tokens.slice(0, prompt.length)).toEqual(prompt);
        if (backend.name === 'reference') expect(tokens.slice(prompt.length)).toEqual(plain[i]!.tokens);
        expect(logprobs).toHaveLength(tokens.length);
        expect(logprobs![0]).toBe(null);
        const { rows, bound } = await logSoftmax(tokens);
        for (const [t, entry] of logprobs!.entries()) {
          if (t === 0) continue;
          expect(entry!.token).toBe(tokens[t]);
          expectLogprob(entry!, rows[t - 1]!, bound);
        }
      }
      expect(backend.memory.liveBytes).toBe(liveBytes);
    },
  );

  it('echo of a long prompt needs no more memory than that of a short one', async () => {
    const peakOf = async (length: number) => {
      backend.resetPeak();
      const start = backend.memory.liveBytes;
      const prompt = Array.from({ length }, (_, i) => i % V);
      await model.complete([prompt], { echo: true, logprobs: 0, maxTokens: 1, prefillTokens: 16 });
      return backend.memory.peakBytes - start;
    };
    await peakOf(48);
    expect(await peakOf(992)).toBe(await peakOf(48));
  });

  it('prompts padded under a mask are the prompts', async () => {
    const width = 45;
    const pad = (row: number[], value: number) => [
      ...new Array<number>(width - row.length).fill(value),
      ...row,
    ];
    const options = { maxTokens: 6, n: 2, seed: 4, echo: true, logprobs: 1 };
    const attentionMask = PROMPTS.map((row) =>
      pad(
        row.map(() => 1),
        0,
      ),
    );
    const padded = PROMPTS.map((row) => pad(row, -1));
    expect(await model.complete(padded, { ...options, attentionMask })).toEqual(
      await model.complete(PROMPTS, options),
    );
    const hole = attentionMask.map((row, i) => (i === 2 ? row.map((x, t) => (t === 40 ? 0 : x)) : row));
    await expect(model.complete(padded, { ...options, attentionMask: hole })).rejects.toThrow(ShapeError);
    const tokens = generateTokens(model, padded, { attentionMask: hole });
    await expect(tokens.next()).rejects.toThrow('in row 2');
  });

  it('states of several conversations go on together as alone, in groups of any size', async () => {
    const { liveBytes } = backend.memory;
    const before = noGrad(() => model.forward(PROMPTS));
    const next = PROMPTS.map((_, row) => [row]);
    const options = { maxTokens: 5, seed: 6, temperature: 0, n: 2 };
    const whole = await model.complete(
      PROMPTS.map((prompt, row) => [...prompt, row]),
      options,
    );
    for (const batchSize of [1, 4, 16]) {
      const rest = await model.complete(next, { ...options, state: before.state, batchSize });
      expect(rest.map(({ tokens }) => tokens)).toEqual(whole.map(({ tokens }) => tokens));
    }
    before.logits.dispose();
    before.state.dispose();
    expect(backend.memory.liveBytes).toBe(liveBytes);
  });

  it('a bias forces and bans', async () => {
    const forced = await model.complete([[1]], { maxTokens: 6, logitBias: new Map([[9, 1000]]) });
    expect(forced[0]!.tokens).toEqual([9, 9, 9, 9, 9, 9]);
    const only = Object.fromEntries(Array.from({ length: V }, (_, id) => [id, Number.NEGATIVE_INFINITY]));
    delete only[5];
    delete only[6];
    const [two] = await model.complete([[1]], { maxTokens: 40, seed: 1, logitBias: only, temperature: 5 });
    expect([...new Set(two!.tokens)].sort()).toEqual([5, 6]);
    expect(
      (await model.complete([[1]], { maxTokens: 9, logitBias: { 8: 1000 }, eosId: 8 }))[0],
    ).toMatchObject({
      tokens: [],
      finishReason: 'eos',
    });
  });

  it('refuses options out of range', async () => {
    const run = (options: BatchOptions) => model.complete([[1], [2]], { maxTokens: 1, ...options });
    for (const [options, message] of [
      [{ n: 0 }, 'n an integer >= 1, got 0'],
      [{ n: Number.NaN }, 'n an integer >= 1, got NaN'],
      [{ logprobs: -1 }, 'logprobs an integer >= 0, got -1'],
      [{ seed: [1] }, 'a seed for each of 2 prompts, got 1'],
      [{ seed: [1, 0.5] }, 'seed an integer >= 0, got 0.5'],
      [{ seed: Number.MAX_SAFE_INTEGER, n: 2 }, 'seed an integer >= 0'],
      [{ batchSize: 0 }, 'batchSize an integer >= 1, got 0'],
      [{ logitBias: { [V]: 1 } }, `ids in [0, ${V}), got ${V}`], // padding of the vocabulary
      [{ logitBias: { [-1]: 1 } }, 'got -1'],
      [{ logitBias: { x: 1 } as Record<number, number> }, 'got NaN'],
      [{ logitBias: { 3: Number.NaN } }, 'finite or -Infinity, got NaN for id 3'],
      [{ logitBias: { 3: Number.POSITIVE_INFINITY } }, 'got Infinity for id 3'],
      [
        { logitBias: new Map(Array.from({ length: V }, (_, id) => [id, Number.NEGATIVE_INFINITY])) },
        'an id to choose',
      ],
    ] as [BatchOptions, string][]) {
      await expect(run(options), message).rejects.toThrow(ConfigError);
      await expect(run(options)).rejects.toThrow(message);
    }
    await expect(model.complete([], {})).rejects.toThrow('no prompts');
    await expect(model.complete('text' as unknown as string[])).rejects.toThrow('a list of texts');
    await expect(model.embed('text' as unknown as string[])).rejects.toThrow('a list of texts');
  });

  it('one seed stands for different ones, whatever n', async () => {
    const same = [PROMPTS[0]!, PROMPTS[0]!];
    const pairs = await model.complete(same, { n: 2, maxTokens: 3, seed: 50 });
    expect(pairs.map(({ seed }) => seed)).toEqual([50, 51, 52, 53]);
    const listed = await model.complete(same, { n: 2, maxTokens: 3, seed: [50, 52] });
    expect(listed).toEqual(pairs);
  });
});
