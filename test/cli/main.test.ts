/** The command line: usage errors, one JSON document, and the commands that need no training. */
import { spawnSync } from 'node:child_process';
import { closeSync, existsSync, mkdtempSync, openSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import {
  LanguageModel,
  loadModel,
  noGrad,
  openTensorFile,
  saveModel,
  VERSION,
} from '../../src/index.node.ts';
import { byteTokenizer } from '../../src/text/index.ts';
import { roundings } from '../models/roundings.ts';
import { bundle } from '../support/bundle.ts';
import { cli } from './cli.ts';

const folder = mkdtempSync(join(tmpdir(), 'mamba-ts-cli-'));
const modelFolder = join(folder, 'model');
const at = (name: string) => join(folder, name);
afterAll(() => rmSync(folder, { recursive: true, force: true }));

beforeAll(async () => {
  const model = new LanguageModel({ vocab_size: 256, d_model: 16, n_layer: 2, d_state: 4 }, { seed: 5 });
  model.tokenizer = byteTokenizer();
  await saveModel(model, modelFolder);
  model.dispose();
});

/** Options of a short, repeatable completion. */
const SHORT = ['--max-tokens', '12', '--seed', '3'];

describe('usage', () => {
  it('tells its version and agrees with package.json', async () => {
    const { version } = JSON.parse(readFileSync(new URL('../../package.json', import.meta.url), 'utf8'));
    expect(VERSION).toBe(version);
    expect(await cli(['--version'])).toEqual({ code: 0, stdout: `${version}\n`, stderr: '' });
  });

  it('--help lists the commands', async () => {
    const { code, stdout } = await cli(['--help']);
    expect(code).toBe(0);
    for (const name of ['train', 'eval', 'generate', 'logits', 'info'])
      expect(stdout).toContain(`  ${name} `);
  });

  it.each([
    ['an unknown command', ['generat'], 'Did you mean generate?'],
    ['an unknown flag', ['generate', '--model', 'x', '--temprature', '1'], 'Did you mean --temperature?'],
    ['no command', [], 'Usage: mamba-ts'],
    ['a missing option', ['generate'], "required option '--model <model>' not specified"],
    ['a word for a number', ['generate', '--model', 'x', '--max-tokens', 'many'], 'expected an integer'],
    ['an empty number', ['generate', '--model', 'x', '--temperature', ''], 'expected a number'],
    ['a number out of range', ['generate', '--model', 'x', '--top-p', '1.5'], 'above 0, at most 1'],
    ['a mass of nothing', ['generate', '--model', 'x', '--top-p', '0'], 'above 0'],
    ['a stop of nothing', ['generate', '--model', 'x', '--stop', ''], 'at least one character'],
    ['half a token', ['generate', '--model', 'x', '--max-tokens', '1.5'], 'expected an integer'],
    ['an unknown device', ['info', '--device', 'cuda'], 'Allowed choices are native, wasm, reference'],
    ['ids that are none', ['logits', '--model', 'x', '--ids', '1,b', '--out', 'y'], '"1,2,3;4,5,6"'],
    ['rows of different lengths', ['logits', '--model', 'x', '--ids', '1;2,3', '--out', 'y'], 'equal length'],
    ['too many words', ['info', 'now'], 'too many arguments'],
  ])('%s: exit code 2 and what to do', async (_, argv, message) => {
    const { code, stdout, stderr } = await cli(argv);
    expect(stderr).toContain(message);
    expect(stdout).toBe('');
    expect(code).toBe(2);
  });

  it('a failure: exit code 1, the message alone, the stack with MAMBA_DEBUG=1', async () => {
    const argv = ['generate', '--model', at('nothing'), '--prompt', 'a'];
    const plain = await cli(argv);
    expect(plain.code).toBe(1);
    expect(plain.stdout).toBe('');
    expect(plain.stderr).toContain(`got nothing at this path`);
    expect(plain.stderr.trim().split('\n')).toHaveLength(1);
    process.env.MAMBA_DEBUG = '1';
    try {
      expect((await cli(argv)).stderr).toContain('    at ');
    } finally {
      delete process.env.MAMBA_DEBUG;
    }
  });

  it('--json: errors are one document too', async () => {
    for (const argv of [
      ['info', '--model', at('nothing'), '--json'],
      ['info', '--jsn', '--json'],
    ]) {
      const { code, stdout } = await cli(argv);
      expect(code).toBeGreaterThan(0);
      expect(JSON.parse(stdout).error).toBeTypeOf('string');
    }
  });
});

it.skipIf(!existsSync('/dev/full'))('a full disk behind stdout: a message, not a stack', async () => {
  const program = await bundle("import './src/cli/main.ts';", folder);
  const full = openSync('/dev/full', 'w');
  const { status, stderr } = spawnSync(process.execPath, [program, '--version'], {
    stdio: ['ignore', full, 'pipe'],
    encoding: 'utf8',
  });
  closeSync(full);
  expect(stderr).toMatch(/^output: expected to write to stdout, got ENOSPC.*\n$/);
  expect(status).toBe(1);
});

describe('generate', () => {
  const base = ['generate', '--model', modelFolder, ...SHORT];

  it('streams the same text for the same seed, from --prompt and from stdin in pieces', async () => {
    const first = await cli([...base, '--prompt', 'é b']);
    const bytes = new TextEncoder().encode('é b');
    const second = await cli(base, { stdin: [bytes.slice(0, 1), bytes.slice(1)] });
    expect(first.code).toBe(0);
    expect(second.stdout).toBe(first.stdout);
    expect(first.stderr).toMatch(/^\d+ tokens, .* seed 3, length$/m);
    const other = await cli([...base, '--prompt', 'é b', '--seed', '4']);
    expect(other.stdout).not.toBe(first.stdout);
  });

  it('gives the bytes of stdin to a model of bytes as they are', async () => {
    const { code, stdout } = await cli([...base, '--json'], {
      stdin: [Uint8Array.of(97, 0xff), Uint8Array.of(0xc3)],
    });
    expect(code).toBe(0);
    const result = JSON.parse(stdout);
    expect(result.stateTokens).toBe(3 + result.tokens.length);
    expect(result.prompt).toBe('a\ufffd\ufffd');
  });

  it('--json: one document with the text that is streamed otherwise', async () => {
    const text = (await cli([...base, '--prompt', 'ab'])).stdout.slice(0, -1);
    const { code, stdout } = await cli([...base, '--prompt', 'ab', '--json']);
    expect(code).toBe(0);
    const result = JSON.parse(stdout);
    expect(result).toMatchObject({ prompt: 'ab', text, seed: 3, finishReason: 'length', stateTokens: 14 });
    expect(result.tokens).toHaveLength(12);
    expect(stdout.endsWith('}\n')).toBe(true);
  });

  it('--stop ends before the text', async () => {
    const { text } = JSON.parse((await cli([...base, '--prompt', 'ab', '--json'])).stdout);
    const stop = text.slice(3, 5);
    const { stdout } = await cli([...base, '--prompt', 'ab', '--json', '--stop', stop, '--stop', 'never']);
    const result = JSON.parse(stdout);
    expect(result.finishReason).toBe('stop');
    expect(result.text).toBe(text.slice(0, text.indexOf(stop)));
  });

  it('goes on from a saved state as if it had never stopped', async () => {
    const greedy = ['--temperature', '0'];
    const whole = JSON.parse((await cli([...base, ...greedy, '--prompt', 'abcdef', '--json'])).stdout);
    const state = at('state.safetensors');
    await cli([...base, '--max-tokens', '0', '--prompt', 'abc', '--state-out', state]);
    const argv = [...base, ...greedy, '--state-in', state, '--prompt', 'def', '--json'];
    const rest = JSON.parse((await cli(argv)).stdout);
    expect(rest.tokens).toEqual(whole.tokens);
    expect(rest.stateTokens).toBe(6 + 12);
  });

  it('refuses the state of another model', async () => {
    const other = new LanguageModel({ vocab_size: 256, d_model: 16, n_layer: 2, d_state: 4 }, { seed: 6 });
    const state = other.initialState();
    writeFileSync(at('other.safetensors'), await state.toBytes());
    const { code, stderr } = await cli([...base, '--prompt', 'a', '--state-in', at('other.safetensors')]);
    expect(code).toBe(1);
    expect(stderr).toContain('expected a state of this model');
  });

  it('Ctrl-C ends the text and still saves the state', async () => {
    const signal = AbortSignal.abort();
    const argv = [...base, '--prompt', 'abc', '--state-out', at('cut.safetensors'), '--json'];
    const { code, stdout } = await cli(argv, { signal });
    expect(code).toBe(0);
    expect(JSON.parse(stdout)).toMatchObject({ finishReason: 'abort', text: '', stateTokens: 0 });
    expect((await cli([...base, '--prompt', 'abc', '--state-in', at('cut.safetensors')])).code).toBe(0);
  });
});

describe('logits', () => {
  it('writes what the model computes, whole or in two parts', async () => {
    const model = await loadModel(modelFolder);
    const rows = [
      [1, 2, 3, 4],
      [250, 0, 7, 9],
    ];
    const { logits } = noGrad(() => model.forward(rows));
    const expected = await logits.floats();
    const base = ['logits', '--model', modelFolder, '--json'];
    const whole = await cli([...base, '--ids', '1,2,3,4;250,0,7,9', '--out', at('whole.safetensors')]);
    expect(JSON.parse(whole.stdout)).toMatchObject({ shape: [2, 4, 256], stateTokens: [4, 4] });
    expect(await readLogits(at('whole.safetensors'))).toEqual(expected);

    const state = at('logits-state.safetensors');
    await cli([...base, '--ids', '1,2,3;250,0,7', '--out', at('a.safetensors'), '--state-out', state]);
    const second = await cli([...base, '--ids', '4;9', '--out', at('b.safetensors'), '--state-in', state]);
    expect(JSON.parse(second.stdout).stateTokens).toEqual([4, 4]);
    const last = await readLogits(at('b.safetensors'));
    for (const row of [0, 1]) {
      const whole = expected.subarray((4 * row + 3) * 256, (4 * row + 4) * 256);
      const split = last.subarray(row * 256, (row + 1) * 256);
      const scale = Math.max(...whole.map(Math.abs));
      const bound = 2 * roundings(model.config, 4) * 2 ** -24 * scale;
      for (let i = 0; i < 256; i++) expect(Math.abs(whole[i]! - split[i]!)).toBeLessThanOrEqual(bound);
    }
  });

  it('refuses ids outside the vocabulary and writes nothing', async () => {
    const argv = ['logits', '--model', modelFolder, '--ids', '1,256', '--out', at('bad.safetensors')];
    const { code, stderr } = await cli(argv);
    expect(code).toBe(1);
    expect(stderr).toContain('expected ids in [0, 256), got 256');
    expect(() => readFileSync(at('bad.safetensors'))).toThrow();
  });

  async function readLogits(path: string): Promise<Float32Array> {
    const file = await openTensorFile(path);
    try {
      return (await file.readAsF32('logits')).slice();
    } finally {
      await file.close();
    }
  }
});

describe('eval', () => {
  const text = 'It was the best of times, it was the wörst of times. '.repeat(20);
  const base = ['eval', '--model', modelFolder, '--json'];

  it('gives the mean loss of the text, in windows and as one stream', async () => {
    writeFileSync(at('text.txt'), text);
    const argv = [...base, '--data', at('text.txt')];
    const windows = JSON.parse((await cli([...argv, '--window', '50', '--batch', '3'])).stdout);
    const ids = [...new TextEncoder().encode(text)];
    expect(windows).toMatchObject({ tokens: ids.length - 1, bytes: ids.length - 1, data: 'text.txt' });
    expect(windows.bitsPerByte).toBeCloseTo(windows.loss / Math.LN2, 12);
    expect(windows.perplexity).toBeCloseTo(Math.exp(windows.loss), 9);

    const stream = JSON.parse((await cli([...argv, '--window', '50', '--stream'])).stdout);
    const model = await loadModel(modelFolder);
    const { logits } = noGrad(() => model.forward([ids.slice(0, -1)]));
    const rows = await logits.floats();
    let nats = 0;
    for (let t = 0; t + 1 < ids.length; t++) {
      const row = rows.subarray(256 * t, 256 * (t + 1));
      const total = row.reduce((sum, x) => sum + Math.exp(x), 0);
      nats += Math.log(total) - row[ids[t + 1]!]!;
    }
    // Losses near log 256 with a relative rounding of the logits and of the sum over 256 terms in float32.
    expect(Math.abs(stream.loss - nats / (ids.length - 1))).toBeLessThan(300 * 2 ** -24 * Math.log(256));
  });

  it('needs text', async () => {
    writeFileSync(at('empty.txt'), '');
    const empty = await cli([...base, '--data', at('empty.txt')]);
    expect(empty.code).toBe(1);
    expect(empty.stderr).toMatch(/text/);
    const missing = await cli([...base, '--data', at('no-such.txt')]);
    expect(missing.code).toBe(1);
    expect(missing.stderr).toContain('no-such.txt');
  });
});

describe('info', () => {
  it('lists devices, and the model from its headers', async () => {
    const { code, stdout } = await cli(['info', '--model', modelFolder, '--device', 'reference', '--json']);
    expect(code).toBe(0);
    const report = JSON.parse(stdout);
    expect(report).toMatchObject({ version: VERSION, device: 'reference' });
    const reference = report.devices.find(({ name }: { name: string }) => name === 'reference');
    expect(reference).toMatchObject({ isAvailable: true, missingKernels: [] });
    const model = await loadModel(modelFolder);
    const state = model.initialState();
    expect(report.model).toMatchObject({ parameters: model.parameterCount, stateBytes: state.sizeBytes });
    expect(report.model.tokenizer).toEqual(['mamba_tokenizer.json']);
    const text = (await cli(['info', '--model', modelFolder])).stdout;
    expect(text).toContain('reference');
    expect(text).toContain(`${model.parameterCount} parameters`);
  });
});
