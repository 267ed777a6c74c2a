/** `quantize` and `--weights`: the command line around quantizeModel and loadModel. */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { LanguageModel, saveModel } from '../../src/index.node.ts';
import { byteTokenizer } from '../../src/text/index.ts';
import { cli } from './cli.ts';

const folder = mkdtempSync(join(tmpdir(), 'mamba-ts-quantize-'));
const at = (name: string) => join(folder, name);
afterAll(() => rmSync(folder, { recursive: true, force: true }));

beforeAll(async () => {
  const model = new LanguageModel({ vocab_size: 256, d_model: 32, n_layer: 2, d_state: 4 }, { seed: 5 });
  model.tokenizer = byteTokenizer();
  await saveModel(model, at('model'));
  writeFileSync(at('text.txt'), 'abc '.repeat(50));
});

describe('quantize', () => {
  it('reports sizes, and with --data what they cost', async () => {
    const argv = ['quantize', '--model', at('model'), '--out', at('q8.gguf')];
    const plain = await cli(argv);
    expect(plain.code).toBe(0);
    expect(plain.stdout).toMatch(
      /^source: 0\.\d MB, 32\.00 bits per weight\n.*q8\.gguf: 0\.\d MB, \d+\.\d\d bits/,
    );
    const { code, stdout } = await cli([...argv, '--weights', 'q4', '--data', at('text.txt'), '--json']);
    expect(code).toBe(0);
    const result = JSON.parse(stdout);
    expect(result).toMatchObject({ out: at('q8.gguf'), weights: 'q4', notes: [] });
    expect(result.comparison.tokens).toBe(199);
    expect(result.comparison.agreement).toBeLessThanOrEqual(1);
    expect(result.result.bytes).toBeLessThan(result.source.bytes / 2);
    const shown = await cli([...argv, '--data', at('text.txt')]);
    expect(shown.stdout).toMatch(
      /perplexity [\d.]+ -> [\d.]+, bits per token [\d.]+ -> [\d.]+\nsame likeliest token at [\d.]+ % of 199 positions\n$/,
    );
  });

  it('a wrong type is a usage error, a missing model a failure; nothing is written', async () => {
    const before = readFileSync(at('q8.gguf'));
    const run = (...argv: string[]) => cli(['quantize', '--out', at('q8.gguf'), ...argv]);
    expect((await run('--model', at('model'), '--weights', 'q5')).code).toBe(2);
    expect((await run()).code).toBe(2);
    const missing = await run('--model', at('nothing'));
    expect(missing).toMatchObject({ code: 1 });
    expect(missing.stderr).toContain('got nothing at this path');
    expect(readFileSync(at('q8.gguf')).equals(before)).toBe(true);
  });
});

describe('--weights', () => {
  const MODEL = ['--model', '', '--json'];
  const on = (name: string, ...argv: string[]) => {
    MODEL[1] = at('model');
    return cli([name, ...MODEL, ...argv]);
  };

  it.each(['f32', 'bf16', 'f16', 'q8', 'q4'])('%s: generate, eval and logits', async (weights) => {
    const wanted = ['--weights', weights];
    const text = await on('generate', '--prompt', 'ab', '--max-tokens', '4', '--temperature', '0', ...wanted);
    expect(text.code, text.stderr).toBe(0);
    expect(JSON.parse(text.stdout).tokens).toHaveLength(4);
    const scores = await on('eval', '--data', at('text.txt'), ...wanted);
    expect(JSON.parse(scores.stdout).bitsPerToken).toBeGreaterThan(0);
    const out = at(`${weights}.safetensors`);
    expect((await on('logits', '--ids', '1,2', '--out', out, ...wanted)).code).toBe(0);
    const plain = at('plain.safetensors');
    await on('logits', '--ids', '1,2', '--out', plain);
    expect(readFileSync(out).equals(readFileSync(plain))).toBe(weights === 'f32');
  });

  it('another type is a usage error', async () => {
    expect((await on('generate', '--prompt', 'a', '--weights', 'q5')).code).toBe(2);
  });
});
