/** `convert`: there and back again, and what it refuses. */
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, symlinkSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { LanguageModel, loadModel, saveModel } from '../../src/index.node.ts';
import { byteTokenizer } from '../../src/text/index.ts';
import { cli } from './cli.ts';

const folder = mkdtempSync(join(tmpdir(), 'mamba-ts-convert-'));
const at = (name: string) => join(folder, name);
afterAll(() => rmSync(folder, { recursive: true, force: true }));

beforeAll(async () => {
  const model = new LanguageModel({ vocab_size: 256, d_model: 32, n_layer: 2, d_state: 4 }, { seed: 5 });
  model.tokenizer = byteTokenizer();
  await saveModel(model, at('model'));
});

const convert = (from: string, out: string, ...more: string[]) =>
  cli(['convert', '--model', at(from), '--out', at(out), ...more]);

describe('convert', () => {
  it('folder to GGUF to folder: the same model with its tokenizer', async () => {
    const { code, stdout } = await convert('model', 'model.gguf', '--format', 'gguf', '--json');
    expect(code).toBe(0);
    expect(JSON.parse(stdout)).toMatchObject({ format: 'gguf', weights: 'f32', notes: [] });
    expect((await convert('model.gguf', 'again', '--format', 'hf')).code).toBe(0);
    expect(readdirSync(at('again')).sort()).toEqual([
      'config.json',
      'mamba_tokenizer.json',
      'model.safetensors',
    ]);
    const [a, b, c] = [
      await loadModel(at('model')),
      await loadModel(at('again')),
      await loadModel(at('model.gguf')),
    ];
    expect(c.fingerprint).toBe(b.fingerprint);
    expect(b.config).toEqual(a.config);
    const text = async (path: string) =>
      (await cli(['generate', '--model', at(path), '--prompt', 'ab', '--max-tokens', '8', '--seed', '1']))
        .stdout;
    expect(await text('model.gguf')).toBe(await text('model'));
  });

  it('never in the place of the source, nor under a name that is not read as GGUF', async () => {
    const before = readdirSync(at('model')).map((name) => [
      name,
      readFileSync(at(`model/${name}`), 'latin1'),
    ]);
    symlinkSync(at('model'), at('link'));
    await convert('model', 'own.gguf', '--format', 'gguf');
    for (const [from, out, format, message] of [
      ['model', 'model', 'hf', 'another place than that of the source'],
      ['model', 'link', 'hf', 'another place than that of the source'],
      ['own.gguf', 'own.gguf', 'gguf', 'another place than that of the source'],
      ['model', 'model/config.json', 'gguf', 'ends in .gguf'],
      ['model', 'model.bin', 'gguf', 'ends in .gguf'],
    ] as const) {
      const { code, stderr } = await convert(from, out, '--format', format);
      expect(stderr).toContain(message);
      expect(code).toBe(1);
    }
    const after = readdirSync(at('model')).map((name) => [name, readFileSync(at(`model/${name}`), 'latin1')]);
    expect(after).toEqual(before);
    expect(existsSync(at('model.bin'))).toBe(false);
  });

  it('narrow weights take the bytes they should', async () => {
    const bytes = async (weights: string): Promise<number> =>
      JSON.parse(
        (await convert('model', `${weights}.gguf`, '--format', 'gguf', '--weights', weights, '--json'))
          .stdout,
      ).weightBytes;
    const [f32, f16, q8, q4] = [
      await bytes('f32'),
      await bytes('f16'),
      await bytes('q8_0'),
      await bytes('q4_0'),
    ];
    expect(f16).toBeLessThan(f32);
    expect(q8).toBeLessThan(f16);
    expect(q4).toBeLessThan(q8);
    expect([await bytes('q8'), await bytes('q4'), await bytes('bf16')]).toEqual([q8, q4, f16]);
    const { code, stdout } = await convert(
      'model',
      'narrow',
      '--format',
      'hf',
      '--weights',
      'bf16',
      '--json',
    );
    expect(code).toBe(0);
    expect(2 * JSON.parse(stdout).weightBytes).toBe(4 * (await loadModel(at('narrow'))).parameterCount);
  });

  it('layouts of other programs; what files do not record is said with --config', async () => {
    const model = new LanguageModel(
      { model_type: 'mamba2', vocab_size: 256, d_model: 32, n_layer: 1, d_state: 8, headdim: 8, ngroups: 2 },
      { seed: 5 },
    );
    model.tokenizer = byteTokenizer();
    await saveModel(model, at('two'));
    for (const [format, files] of [
      ['original', ['config.json', 'mamba_tokenizer.json', 'pytorch_model.bin']],
      ['codestral', ['consolidated.safetensors', 'mamba_tokenizer.json', 'params.json']],
    ] as const) {
      const { code, stderr } = await convert('two', format, '--format', format);
      expect(code).toBe(0);
      expect(readdirSync(at(format)).sort()).toEqual(files);
      expect(stderr.includes('does not tell it d_state 8, headdim 8')).toBe(format === 'codestral');
      expect((await loadModel(at(format))).fingerprint).toBe(model.fingerprint);
    }
    const config = ['--config', 'norm_groups=1'];
    expect((await convert('codestral', 'ungrouped', '--format', 'hf', ...config)).code).toBe(0);
    const { config: kept } = await loadModel(at('ungrouped'));
    expect(kept).toMatchObject({ norm_groups: 1, ngroups: 2 });
    const info = await cli(['info', '--model', at('two'), ...config, '--json']);
    expect(JSON.parse(info.stdout).model.config).toMatchObject({ norm_groups: 1 });
    const asked = ['logits', '--model', at('two'), '--ids', '1,2,3'];
    const logits = async (path: string, ...more: string[]) => {
      expect((await cli([...asked, '--out', at(path), ...more])).code).toBe(0);
      return readFileSync(at(path), 'latin1');
    };
    expect(await logits('a.safetensors', ...config)).not.toBe(await logits('b.safetensors'));

    const none = await cli(['info', '--model', at('model'), ...config]);
    expect(none.stderr).toContain('expected a Mamba-2 with a gated norm beside norm_groups');
    expect(none.code).toBe(1);
    for (const value of ['norm_groups', 'norm_groups=0', 'A_activation=relu', 'd_model=8', '=1']) {
      const wrong = await cli(['info', '--model', at('two'), '--config', value]);
      expect([value, wrong.code]).toEqual([value, 2]);
    }
  });

  it('usage errors and failures', async () => {
    const wrong = await convert('model', 'x', '--format', 'hf', '--weights', 'q4_0');
    expect(wrong).toMatchObject({ code: 2 });
    expect(wrong.stderr).toContain('expected --weights f32, bf16, f16 for --format hf');
    expect((await convert('model', 'x', '--format', 'onnx')).code).toBe(2);
    const missing = await convert('nothing', 'x', '--format', 'gguf');
    expect(missing.code).toBe(1);
    expect(readdirSync(folder)).not.toContain('x');
  });
});
