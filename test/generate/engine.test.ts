/** The engine on every device that opens: against a plain loop over step(), batches of ragged rows, ends, memory. */
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { useDevice } from '../../src/backend/backend.ts';
import { ConfigError, StateError } from '../../src/base/errors.ts';
import { generateTokens, type TokenOptions } from '../../src/generate/engine.ts';
import { LanguageModel } from '../../src/models/language-model.ts';
import { State } from '../../src/models/state.ts';
import { devices, reportMissing } from '../kernels/devices.ts';
import { settle } from '../support/settle.ts';

beforeEach(settle);

const CONFIG = { vocab_size: 13, pad_vocab_size_multiple: 8, d_model: 12, n_layer: 2, d_state: 3 };
const PROMPTS = [[1, 2, 3], [4], [5, 6, 7, 8, 9, 10, 11, 12, 0, 1, 2]];

/** Tokens and reason per row, and the state of each row at its end. */
async function collect(model: LanguageModel, prompts: readonly (readonly number[])[], options: TokenOptions) {
  const rows = prompts.map(() => ({
    tokens: [] as number[],
    reason: '',
    state: new Uint8Array() as Uint8Array,
  }));
  for await (const { rows: entries, state } of generateTokens(model, prompts, options)) {
    for (const [i, { row, token, finishReason }] of entries.entries()) {
      if (token !== null) rows[row]!.tokens.push(token);
      if (!finishReason) continue;
      const own = state.rows([i]);
      rows[row]!.reason = finishReason;
      rows[row]!.state = await own.toBytes();
      own.dispose();
    }
    if (entries.every(({ finishReason }) => finishReason)) state.dispose();
  }
  return rows;
}

/** Greedy continuation by step() alone. */
async function stepped(model: LanguageModel, prompt: readonly number[], count: number): Promise<number[]> {
  let state = model.initialState();
  const tokens: number[] = [];
  let logits: Float32Array = new Float32Array();
  for (let t = 0; t < prompt.length + count; t++) {
    const real = Array.from(logits).slice(0, CONFIG.vocab_size);
    if (t >= prompt.length) tokens.push(real.indexOf(Math.max(...real)));
    const out = model.step([prompt[t] ?? tokens.at(-1)!], state);
    state.dispose();
    state = out.state;
    logits = await out.logits.floats();
    out.logits.dispose();
  }
  state.dispose();
  return tokens;
}

reportMissing();

describe.each(devices)('generateTokens on $label', ({ backend }) => {
  let model: LanguageModel;

  beforeAll(async () => {
    await useDevice(backend);
    model = new LanguageModel(CONFIG, { seed: 11 });
    // Larger logits, so that no two are nearly equal and greedy choices do not hang on rounding.
    const { weight } = model.backbone.embeddings;
    weight.write((await weight.floats()).map((x) => 40 * x));
  });
  afterAll(() => model.dispose());

  it('greedy equals a loop over step(), for any chunk size, and leaves nothing behind', async () => {
    const expected = [];
    for (const prompt of PROMPTS) expected.push(await stepped(model, prompt, 8));
    const { liveBytes } = backend.memory;
    for (const prefillTokens of [1, 2, 3, 512]) {
      const rows = await collect(model, PROMPTS, { temperature: 0, maxTokens: 8, prefillTokens });
      expect(rows.map(({ tokens }) => tokens)).toEqual(expected);
      expect(rows.map(({ reason }) => reason)).toEqual(['length', 'length', 'length']);
      expect(backend.memory.liveBytes).toBe(liveBytes);
    }
  });

  it('the batch does not change what a row says, and rows end one by one', async () => {
    const free = await collect(model, PROMPTS, { seed: 5, maxTokens: 12 });
    const alone = await collect(model, PROMPTS.slice(0, 1), { seed: 5, maxTokens: 12 });
    expect(alone[0]!.tokens).toEqual(free[0]!.tokens);
    const eosId = free[1]!.tokens[2]!;
    const stopId = free[2]!.tokens.find((id) => id !== eosId)!;
    const { liveBytes } = backend.memory;
    const cut = await collect(model, PROMPTS, { seed: 5, maxTokens: 12, eosId, stopIds: [stopId] });
    expect(cut[1]!.reason).not.toBe('length');
    cut.forEach(({ tokens, reason }, row) => {
      const all = free[row]!.tokens;
      const end = all.findIndex((id) => id === eosId || id === stopId);
      expect(tokens).toEqual(end < 0 ? all : all.slice(0, end));
      expect(reason).toBe(end < 0 ? 'length' : all[end] === eosId ? 'eos' : 'stop');
    });
    expect(backend.memory.liveBytes).toBe(liveBytes);
  });

  it('the state of a row counts its prompt and tokens, and continues it', async () => {
    const whole = await collect(model, PROMPTS, { temperature: 0, maxTokens: 10 });
    const part = await collect(model, PROMPTS, { temperature: 0, maxTokens: 4 });
    for (const [row, { tokens, state }] of part.entries()) {
      const resumed = State.fromBytes(state, model);
      expect(resumed.tokens).toEqual([PROMPTS[row]!.length + 4]);
      const next = whole[row]!.tokens[4]!;
      const rest = await collect(model, [[next]], { temperature: 0, maxTokens: 5, state: resumed });
      expect([...tokens, next, ...rest[0]!.tokens]).toEqual(whole[row]!.tokens);
      expect(resumed.layers[0]!.ssm!.disposed).toBe(false);
      resumed.dispose();
    }
  });

  it('a steady loop makes no new buffers', async () => {
    let steady = 0;
    let count = 0;
    for await (const { rows, state } of generateTokens(model, PROMPTS, { seed: 1, maxTokens: 60 })) {
      if (++count === 10) steady = backend.memory.newBuffers;
      if (rows[0]!.finishReason) state.dispose();
    }
    expect(count).toBe(61); // the prompts, then one step per token
    expect(backend.memory.newBuffers).toBe(steady);
  });

  it('a long prompt needs no more memory than a short one', async () => {
    const peakOf = async (length: number) => {
      const prompt = Array.from({ length }, (_, i) => i % 13);
      backend.resetPeak();
      const start = backend.memory.liveBytes;
      await collect(model, [prompt], { maxTokens: 1, prefillTokens: 16 });
      return backend.memory.peakBytes - start;
    };
    expect(await peakOf(1000)).toBe(await peakOf(48));
  });

  it('ends at once when aborted, with the state so far', async () => {
    const controller = new AbortController();
    const options = { seed: 2, maxTokens: 50, prefillTokens: 4, signal: controller.signal };
    setTimeout(() => controller.abort(), 0);
    const reading = await collect(model, [Array.from({ length: 20_000 }, () => 1)], options);
    expect(reading[0]!.reason).toBe('abort');
    expect(State.fromBytes(reading[0]!.state, model).tokens[0]).toBeLessThan(20_000);

    const second = new AbortController();
    let tokens = 0;
    for await (const { rows, state } of generateTokens(model, PROMPTS, {
      ...options,
      signal: second.signal,
    })) {
      if (rows[0]!.token !== null) tokens++;
      if (tokens === 3) second.abort();
      if (rows[0]!.finishReason === 'abort') {
        expect(state.tokens).toEqual(PROMPTS.map(({ length }) => length + 3));
        state.dispose();
      }
    }
    expect(tokens).toBe(3);
  });

  it('frees everything when the loop is left early or the model is broken', async () => {
    const { liveBytes } = backend.memory;
    for await (const { rows } of generateTokens(model, PROMPTS, { seed: 2 }))
      if (rows[0]!.token !== null) break;
    expect(backend.memory.liveBytes).toBe(liveBytes);

    const { weight } = model.backbone.norm_f;
    const good = await weight.floats();
    weight.write(good.map(() => Number.NaN));
    await expect(collect(model, PROMPTS, {})).rejects.toThrow(StateError);
    weight.write(good);
    expect(backend.memory.liveBytes).toBe(liveBytes);
  });

  it('refuses empty prompts, bad counts and foreign states', async () => {
    const run = (prompts: number[][], options: TokenOptions = {}) => collect(model, prompts, options);
    await expect(run([])).rejects.toThrow('no prompts');
    await expect(run([[1], []])).rejects.toThrow('an empty prompt in row 1');
    await expect(run([[1]], { maxTokens: -1, prefillTokens: 0, seed: 0.5 })).rejects.toThrow(
      /maxTokens.*prefillTokens.*seed/,
    );
    await expect(run([[1]], { topP: 7 })).rejects.toThrow(ConfigError);
    await expect(run([[99]])).rejects.toThrow('expected ids in');
    const state = model.initialState(2);
    await expect(run([[1]], { state })).rejects.toThrow('a state of 1 rows, got 2');
    state.dispose();
  });
});
