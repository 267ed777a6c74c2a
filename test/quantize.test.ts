/** quantizeModel: what it writes, what it measures, what it refuses. */
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import {
  ConfigError,
  convertModel,
  LanguageModel,
  loadModel,
  noGrad,
  openPretrained,
  quantizeModel,
  saveModel,
  UnsupportedError,
  useDevice,
} from '../src/index.node.ts';
import { byteTokenizer } from '../src/text/index.ts';
import { evaluate, memoryTokens } from '../src/train/index.ts';
import { devices } from './kernels/devices.ts';
import { fixturePath } from './support/oracle.ts';

const root = mkdtempSync(join(tmpdir(), 'mamba-ts-quantize-'));
const at = (name: string): string => join(root, name);
afterAll(() => rmSync(root, { recursive: true, force: true }));

const TEXT = 'Call me Ishmael. Some years ago, never mind how long precisely. '.repeat(5);

/** What the source finds in the text; every type is compared with it. */
let before: { bitsPerToken: number; likeliest: number[] };

beforeAll(async () => {
  await useDevice(devices.at(-1)!.backend); // the reference takes a minute
  const model = await loadModel(fixturePath('falcon-mamba/hf'));
  model.tokenizer = byteTokenizer();
  await saveModel(model, at('source'));
  writeFileSync(at('text.txt'), TEXT);
  before = { bitsPerToken: await stream(at('source')), likeliest: await likeliest(at('source')) };
});

const stream = async (path: string): Promise<number> => {
  const model = await loadModel(path);
  const tokens = memoryTokens(new TextEncoder().encode(TEXT), { vocabSize: 256 });
  return (await evaluate(model, tokens, { mode: 'stream', window: 256 })).bitsPerToken;
};

/** After every token but the last, the whole text at once. */
async function likeliest(path: string): Promise<number[]> {
  const model = await loadModel(path);
  const ids = [...new TextEncoder().encode(TEXT)].slice(0, -1);
  const logits = await noGrad(() => model.forward([ids])).logits.floats();
  return ids.map((_, t) => {
    const row = logits.subarray(256 * t, 256 * (t + 1));
    return row.indexOf(Math.max(...row));
  });
}

describe('quantizeModel', () => {
  it.each([
    ['q8', 8.5],
    ['q4', 4.5],
    ['f16', 16],
    ['bf16', 16],
  ] as const)('%s: the file, its size, and what it costs', async (weights, bits) => {
    const out = at(`${weights}.gguf`);
    const seen = new Set<string>();
    const result = await quantizeModel(at('source'), out, {
      weights,
      data: [at('text.txt')],
      onCompare: (model, done, total) => seen.add(`${model} ${done === total}`),
    });
    // The same file as that of convert.
    const converted = join(at('converted'), `${weights}.gguf`);
    await convertModel(at('source'), converted, { format: 'gguf', weights });
    expect(readFileSync(out).equals(readFileSync(converted))).toBe(true);
    const files = await openPretrained(at('source'));
    let [elements, matrices] = [0, 0];
    for (const [name, shape] of files.tensors) {
      const size = shape.reduce((a, b) => a * b, 1);
      elements += size;
      if (/(embeddings|lm_head|in_proj|x_proj|out_proj)\.weight/.test(name)) matrices += size;
    }
    await files.close();
    expect(result).toMatchObject({ path: out, weights, parameterCount: elements });
    expect(result.source).toEqual({ bytes: 4 * elements, bitsPerWeight: 32 });
    // dt_rank 4 is no whole block: f16; the head of q4 has eight bits; convolution, A, D, norms and biases have 32.
    const dt = 2 * 128 * 4;
    const head = weights === 'q4' ? 256 * 64 * (8.5 - 4.5) : 0;
    const bytes = (matrices * bits + head + dt * 16 + (elements - matrices - dt) * 32) / 8;
    expect(result.result.bytes).toBe(bytes);
    expect(result.result.bitsPerWeight).toBeCloseTo((8 * bytes) / elements, 12);
    const { comparison } = result;
    expect(comparison!.tokens).toBe(TEXT.length - 1);
    expect(comparison!.source.bitsPerToken).toBeCloseTo(before.bitsPerToken, 6);
    expect(comparison!.result.bitsPerToken).toBeCloseTo(await stream(out), 6);
    expect(comparison!.result.bitsPerToken).not.toBe(comparison!.source.bitsPerToken);
    expect(comparison!.result.perplexity).toBeCloseTo(2 ** comparison!.result.bitsPerToken, 6);
    const after = await likeliest(out);
    const same = before.likeliest.filter((id, i) => id === after[i]).length;
    expect(comparison!.agreement).toBe(same / after.length);
    expect(seen).toContain('source true');
    expect(seen).toContain('result true');
  });

  it('a model that is in the type already does not change', async () => {
    const { source, result, comparison } = await quantizeModel(at('q8.gguf'), at('again.gguf'), {
      data: [at('text.txt')],
    });
    expect(result).toEqual(source);
    expect(comparison!.agreement).toBe(1);
    // But for A, which is stored as -exp(A_log).
    expect(comparison!.result.bitsPerToken).toBeCloseTo(comparison!.source.bitsPerToken, 5);
  });

  it('refuses before it writes', async () => {
    const bytes = readFileSync(at('q8.gguf'));
    const quantise = (from: string, to: string, options = {}) => quantizeModel(at(from), at(to), options);
    await expect(quantise('q8.gguf', 'q8.gguf', { weights: 'q4' })).rejects.toThrow(
      'another file than the source',
    );
    await expect(quantise('source', 'q8.gguf', { weights: 'q3' })).rejects.toThrow(ConfigError);
    await expect(quantise('source', 'q8.gguf', { data: [at('nothing.txt')] })).rejects.toThrow('nothing.txt');
    const bare = await loadModel(fixturePath('mamba1-tied/hf'));
    await saveModel(bare, at('bare'));
    await expect(quantise('bare', 'q8.gguf', { data: [at('text.txt')] })).rejects.toThrow(
      'expected a tokenizer',
    );
    const small = { vocab_size: 8, d_model: 32, n_layer: 1 };
    await saveModel(new LanguageModel({ ...small, rms_norm: false }), at('norm'));
    await expect(quantise('norm', 'q8.gguf')).rejects.toThrow(UnsupportedError);
    const model = new LanguageModel(small);
    const { weight } = model.backbone.layers[0]!.mixer.out_proj;
    weight.write(new Float32Array(weight.size).fill(Number.NaN));
    await saveModel(model, at('broken'));
    await expect(quantise('broken', 'q8.gguf')).rejects.toThrow('got NaN at element 0');
    expect(readFileSync(at('q8.gguf')).equals(bytes)).toBe(true);
    expect(existsSync(at('source/q8.gguf'))).toBe(false);
  });
});
