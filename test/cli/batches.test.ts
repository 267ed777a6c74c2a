/** Several completions at once, and embeddings, on the command line. */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { byteTokenizer, LanguageModel, loadModel, openTensorFile, saveModel } from '../../src/index.node.ts';
import { cli } from './cli.ts';

const folder = mkdtempSync(join(tmpdir(), 'mamba-ts-cli-'));
const at = (name: string) => join(folder, name);
const PROMPTS = ['one', 'two words', 'é'];
const base = ['generate', '--model', at('model'), '--max-tokens', '8', '--seed', '3'];
afterAll(() => rmSync(folder, { recursive: true, force: true }));

beforeAll(async () => {
  const model = new LanguageModel({ vocab_size: 256, d_model: 16, n_layer: 2, d_state: 4 }, { seed: 5 });
  model.tokenizer = byteTokenizer();
  await saveModel(model, at('model'));
  model.dispose();
  writeFileSync(at('prompts.txt'), `${PROMPTS.join('\n\n')}\r\n`);
  writeFileSync(
    at('prompts.jsonl'),
    PROMPTS.map((prompt, id) => `${JSON.stringify({ id, prompt })}\n`).join(''),
  );
  writeFileSync(at('texts.jsonl'), PROMPTS.map((text) => `${JSON.stringify({ text })}\n`).join(''));
  writeFileSync(at('bad.jsonl'), '{"prompt": "a"}\n{"prompt": 1}\n');
  writeFileSync(at('broken.jsonl'), '{"prompt": "a"}\n{\n');
  writeFileSync(at('empty.txt'), '\n');
});

async function json(argv: readonly string[], input = {}) {
  const { code, stdout, stderr } = await cli([...argv, '--json'], input);
  expect(code, stderr).toBe(0);
  return JSON.parse(stdout);
}

describe('generate, several', () => {
  it('--prompts: the completions of each prompt alone, from lines and from JSONL', async () => {
    const { completions, tokensPerSecond } = await json([...base, '--prompts', at('prompts.txt')]);
    expect(tokensPerSecond).toBeGreaterThan(0);
    expect((await json([...base, '--prompts', at('prompts.jsonl')])).completions).toEqual(completions);
    for (const [row, prompt] of PROMPTS.entries()) {
      const alone = await json([...base, '--prompt', prompt, '--seed', String(3 + row)]);
      const { text, tokens, finishReason, seed } = alone;
      expect(completions[row]).toEqual({
        row,
        sample: 0,
        prompt,
        text,
        tokens,
        finishReason,
        seed,
        logprobs: null,
      });
    }
  });

  it('--n: samples of one prompt, each with its seed; as text, one after the other', async () => {
    const argv = [...base, '--n', '3', '--batch-size', '2', '--prompt', 'ab'];
    const { completions } = await json(argv);
    expect(completions.map(({ seed }: { seed: number }) => seed)).toEqual([3, 4, 5]);
    const { stdout, stderr } = await cli(argv);
    for (const { sample, seed, text } of completions) {
      expect(stdout).toContain(`--- prompt 1, sample ${sample + 1} (seed ${seed}, length)\n${text}\n`);
    }
    expect(stderr).toMatch(/^3 completions, 24 tokens, /m);
    const piped = await json([...base, '--n', '3'], { stdin: ['ab'] });
    expect(piped.completions).toEqual(completions);
  });

  it('--logprobs and --echo: of prompt and completion, as JSON and as lines', async () => {
    const argv = [...base, '--prompt', 'ab', '--logprobs', '2', '--echo'];
    const { text, tokens, logprobs } = await json(argv);
    expect(text.startsWith('ab')).toBe(true);
    expect(tokens.slice(0, 2)).toEqual([97, 98]);
    expect(logprobs).toHaveLength(10);
    expect(logprobs[0]).toBe(null);
    expect(logprobs[1]).toMatchObject({ token: 98 });
    expect(logprobs[1].top).toHaveLength(2);
    const { stdout } = await cli(argv);
    expect(stdout).toContain(`\n  "b" ${logprobs[1].logprob.toFixed(4)}  | `);
    const several = await json([...argv, '--n', '2']);
    expect(several.completions[0]).toMatchObject({ text, tokens, logprobs });
    expect((await cli([...argv, '--n', '2'])).stdout).toContain('  "b" ');
    expect(await json([...base, '--prompt', 'ab'])).not.toHaveProperty('logprobs');
  });

  it('--logit-bias forces and bans', async () => {
    const argv = [...base, '--prompt', 'a', '--logit-bias', '65=1000', '--logit-bias', '66=1000'];
    expect((await json([...argv, '--logit-bias', '66=-inf'])).text).toBe('AAAAAAAA');
    const { code, stderr } = await cli([...base, '--prompt', 'a', '--logit-bias', '256=1']);
    expect(code).toBe(1);
    expect(stderr).toContain('ids in [0, 256), got 256');
  });

  it('--state-in: every prompt goes on from it', async () => {
    const state = at('state.safetensors');
    await cli([...base, '--prompt', 'xyz', '--max-tokens', '0', '--state-out', state]);
    const { completions } = await json([
      ...base,
      '--temperature',
      '0',
      '--prompts',
      at('prompts.txt'),
      '--state-in',
      state,
    ]);
    for (const [row, prompt] of PROMPTS.entries()) {
      const whole = await json([...base, '--temperature', '0', '--prompt', `xyz${prompt}`]);
      expect(completions[row].tokens).toEqual(whole.tokens);
    }
  });

  it.each([
    ['both kinds of prompt', ['--prompt', 'a', '--prompts', 'b'], 2, 'got both'],
    ['one state of several', ['--prompt', 'a', '--n', '2', '--state-out', 'x'], 2, 'a single completion'],
    ['no completions', ['--prompt', 'a', '--n', '0'], 2, 'expected an integer of at least 1'],
    ['half a bias', ['--prompt', 'a', '--logit-bias', '5'], 2, 'ID=NUMBER'],
    ['a bias of nothing', ['--prompt', 'a', '--logit-bias', '5='], 2, 'ID=NUMBER'],
    ['a missing file', ['--prompts', at('nowhere.txt')], 1, 'nowhere.txt'],
    ['a file of nothing', ['--prompts', at('empty.txt')], 1, 'at least one line'],
    [
      'a line without a prompt',
      ['--prompts', at('bad.jsonl')],
      1,
      'bad.jsonl:2: expected a JSON object with text in "prompt"',
    ],
    ['a line that is no JSON', ['--prompts', at('broken.jsonl')], 1, 'broken.jsonl:2: expected JSON'],
  ])('%s: refused', async (_, argv, code, message) => {
    const result = await cli([...base, ...argv]);
    expect(result.stderr).toContain(message);
    expect(result).toMatchObject({ code, stdout: '' });
  });
});

describe('embed', () => {
  const argv = ['embed', '--model', at('model')];

  it('gives the vectors of --text and --data, on stdout, as JSONL and as safetensors', async () => {
    const model = await loadModel(at('model'));
    const expected = (await model.embed(['first', ...PROMPTS])).map((vector) => [...vector]);
    const texts = ['--text', 'first', '--data', at('texts.jsonl')];
    const result = await json([...argv, ...texts]);
    expect(result).toMatchObject({ shape: [4, 16], pooling: 'mean', normalize: false, embeddings: expected });

    const { stdout } = await cli([...argv, ...texts]);
    await cli([...argv, ...texts, '--out', at('vectors.jsonl')]);
    expect(readFileSync(at('vectors.jsonl'), 'utf8')).toBe(stdout);
    const lines = stdout
      .trim()
      .split('\n')
      .map((line) => JSON.parse(line));
    expect(lines).toEqual(expected.map((embedding, i) => ({ text: ['first', ...PROMPTS][i], embedding })));

    const told = await json([...argv, ...texts, '--out', at('vectors.safetensors')]);
    expect(told).not.toHaveProperty('embeddings');
    const file = await openTensorFile(at('vectors.safetensors'));
    expect([...(await file.readAsF32('embeddings'))]).toEqual(expected.flat());
    await file.close();
  });

  it('--pooling last and --normalize', async () => {
    const { embeddings } = await json([...argv, '--text', 'abc', '--pooling', 'last', '--normalize']);
    expect(Math.hypot(...embeddings[0])).toBeCloseTo(1, 6);
  });

  it.each([
    ['nothing to embed', [], 2, 'expected --text or --data'],
    ['another pooling', ['--text', 'a', '--pooling', 'max'], 2, 'Allowed choices are mean, last'],
    ['another kind of file', ['--text', 'a', '--out', 'x.csv'], 2, '.safetensors or .jsonl'],
  ])('%s: refused', async (_, rest, code, message) => {
    const result = await cli([...argv, ...rest]);
    expect(result.stderr).toContain(message);
    expect(result).toMatchObject({ code, stdout: '' });
  });
});
