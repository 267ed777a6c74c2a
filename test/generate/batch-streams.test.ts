/** Streams of several texts: what arrives when, how each ends, what is freed. */
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { type BatchOptions, generateTokens, LanguageModel } from '../../src/index.node.ts';
import { byteTokenizer } from '../../src/text/index.ts';
import { settle } from '../support/settle.ts';

beforeEach(settle);
afterEach(() => vi.restoreAllMocks());

describe('streams of several texts', () => {
  const bytes = byteTokenizer();
  const model = new LanguageModel({ vocab_size: 256, d_model: 8, n_layer: 1, d_state: 2 }, { seed: 3 });
  const memory = () => model.backbone.embeddings.weight.device.memory;
  beforeEach(() => {
    model.tokenizer = bytes;
  });

  async function texts(prompts: readonly string[], options: BatchOptions) {
    const all: { text: string; tokens: number; reason: string | null; read: number }[] = [];
    const { n = 1 } = options;
    for await (const part of model.generateBatch(prompts, { seed: 1, ...options })) {
      const entry = (all[part.row * n + part.sample] ??= { text: '', tokens: 0, reason: null, read: 0 });
      expect(entry.reason).toBe(null);
      entry.text += part.text;
      entry.tokens += part.tokens.length;
      entry.reason = part.finishReason;
      const state = part.copyState();
      expect(state.batch).toBe(1);
      entry.read = state.tokens[0]!;
      state.dispose();
    }
    return all;
  }

  it('gives every sequence what generate() gives it, parts and states', async () => {
    const { liveBytes } = memory();
    const prompts = ['one', 'and a longer one', 'é'];
    const all = await texts(prompts, { n: 2, maxTokens: 9, seed: 20 });
    for (const [i, { text, tokens, reason, read }] of all.entries()) {
      const prompt = prompts[Math.floor(i / 2)]!;
      let alone = '';
      for await (const part of model.generate(prompt, { maxTokens: 9, seed: 20 + i })) {
        alone += part.text;
        if (part.finishReason) {
          expect(part.state.tokens).toEqual([read]);
          part.state.dispose();
        }
      }
      expect(text).toBe(alone);
      expect({ tokens, reason }).toEqual({ tokens: 9, reason: 'length' });
    }
    expect(memory().liveBytes).toBe(liveBytes);
  });

  it('a sequence that met its stop string leaves the batch', async () => {
    const { liveBytes } = memory();
    const prompts = ['a', 'b', 'c', 'd'];
    const free = await texts(prompts, { maxTokens: 30 });
    const stop = free[1]!.text.slice(2, 4);
    const step = vi.spyOn(model, 'step');
    const cut = await texts(prompts, { maxTokens: 30, stop });
    expect(cut[1]!.reason).toBe('stop');
    for (const [i, { text, reason }] of cut.entries()) {
      const end = free[i]!.text.indexOf(stop);
      expect(text).toBe(end < 0 ? free[i]!.text : free[i]!.text.slice(0, end));
      expect(reason).toBe(end < 0 ? 'length' : 'stop');
    }
    // What follows the stop string (two characters of at most four bytes, and what it took to be sure) was not computed.
    const computed = step.mock.calls.reduce((sum, [ids]) => sum + ids.length, 0);
    expect(cut[1]!.tokens).toBeLessThan(10);
    expect(computed).toBeLessThanOrEqual(4 * 30 - (30 - cut[1]!.tokens - 12));
    expect(memory().liveBytes).toBe(liveBytes);
  });

  it('the engine takes out what its caller ends', async () => {
    const { liveBytes } = memory();
    const seen: number[][] = [];
    for await (const { rows, state, end } of generateTokens(model, [[1], [2], [3]], {
      maxTokens: 4,
      seed: 2,
    })) {
      seen.push(rows.map(({ row }) => row));
      expect(state.batch).toBe(rows.length);
      if (seen.length === 2) end(1);
      if (seen.length === 4) for (const i of rows.keys()) end(i);
    }
    expect(seen).toEqual([
      [0, 1, 2],
      [0, 1, 2],
      [0, 2],
      [0, 2],
    ]);
    expect(memory().liveBytes).toBe(liveBytes);
  });

  it('echo begins the text with the prompt, incomplete characters included; stop strings do not apply to it', async () => {
    const [whole] = await model.complete(['stop. é'], { echo: true, maxTokens: 5, seed: 2, stop: 'p.' });
    const [rest] = await model.complete(['stop. é'], { maxTokens: 5, seed: 2 });
    expect(whole!.text).toBe(`stop. é${rest!.text}`);
    expect(whole!.tokens).toEqual([...bytes.encode('stop. é'), ...rest!.tokens]);

    const half = [...bytes.encode('x'), 0xc3];
    const logitBias = { 169: 1000 }; // the other half
    const [joined] = await model.complete([half], { echo: true, maxTokens: 1, logitBias, logprobs: 0 });
    expect(joined).toMatchObject({ text: 'xé', tokens: [120, 0xc3, 0xa9] });
    expect(joined!.logprobs!.map((entry) => entry?.token ?? null)).toEqual([null, 0xc3, 0xa9]);
    const [only] = await model.complete([half], { echo: true, maxTokens: 0 });
    expect(only).toMatchObject({ text: 'x\ufffd', tokens: [120, 0xc3], finishReason: 'length' });
    expect(await texts(['ab'], { echo: true, maxTokens: 0 })).toEqual([
      { text: 'ab', tokens: 2, reason: 'length', read: 2 },
    ]);
  });

  it('generate() gives the log-probabilities of its parts', async () => {
    const logprobs = [];
    const tokens = [];
    for await (const part of model.generate('ab', { maxTokens: 6, seed: 3, logprobs: 2, echo: true })) {
      expect(part.logprobs?.length ?? 0).toBe(part.tokens.length);
      logprobs.push(...(part.logprobs ?? []));
      tokens.push(...part.tokens);
      if (part.finishReason) part.state.dispose();
    }
    expect(tokens).toHaveLength(8);
    expect(logprobs.slice(1).map((entry) => entry!.token)).toEqual(tokens.slice(1));
    expect(logprobs.slice(1).every((entry) => entry!.top.length === 2)).toBe(true);
  });

  it('a signal ends all sequences, those that wait for their turn too; leaving early frees everything', async () => {
    const { liveBytes } = memory();
    const controller = new AbortController();
    const reasons: (string | null)[] = [];
    for await (const part of model.generateBatch(['a', 'b', 'c'], {
      batchSize: 2,
      signal: controller.signal,
    })) {
      controller.abort();
      if (part.finishReason) reasons[part.row] = part.finishReason;
    }
    expect(reasons).toEqual(['abort', 'abort', 'abort']);
    for await (const part of model.generateBatch(['a', 'b', 'c'], { n: 2, maxTokens: 50, stop: 'zzzz' })) {
      if (part.sample === 1) break;
    }
    expect(memory().liveBytes).toBe(liveBytes);
  });
});
