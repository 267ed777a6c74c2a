/** `mamba-ts bench`: what it prints and what it refuses. No test looks at a time. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { LanguageModel, saveModel } from '../../src/index.node.ts';
import { cli } from './cli.ts';

const folder = mkdtempSync(join(tmpdir(), 'mamba-ts-bench-'));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const SHORT = ['--prompt', '4', '--generate', '2', '--rounds', '1'];
const TINY = ['bench', '--shape', 'tiny', '--vocab', '64', ...SHORT];

describe('bench', () => {
  it('of a shape: a table on stdout, progress on stderr', async () => {
    const { code, stdout, stderr } = await cli([...TINY, '--batch', '2', '--train']);
    expect(code, stderr).toBe(0);
    expect(stdout).toMatch(/^tiny, random weights: mamba1, d_model 64, 2 layers, vocabulary 64\n/);
    for (const row of ['prefill 2 x 4', 'decode 2 x 2', 'train 2 x 4', 'memory at most'])
      expect(stdout).toContain(`\n${row} `);
    expect(stderr).toBe('warmed up\nround 1 of 1\n');
  });

  it('of a model, with --json one document', async () => {
    const model = new LanguageModel({ vocab_size: 64, d_model: 32, n_layer: 1, d_state: 4 }, { seed: 5 });
    await saveModel(model, join(folder, 'model'));
    model.dispose();
    const argv = [
      'bench',
      '--model',
      join(folder, 'model'),
      '--weights',
      'q8',
      '--precision',
      'int8',
      ...SHORT,
      '--json',
    ];
    const { code, stdout, stderr } = await cli(argv);
    expect(code, stderr).toBe(0);
    const result = JSON.parse(stdout);
    expect(result).toMatchObject({
      name: join(folder, 'model'),
      model: { weights: 'q8', precision: 'int8', n_layer: 1 },
      train: null,
    });
    expect(result.decode.tokensPerSecond.median).toBeGreaterThan(0);
  });

  it.each([
    ['neither model nor shape', ['bench'], 'expected --model or --shape, got neither'],
    ['both', ['bench', '--shape', 'tiny', '--model', 'x'], 'got both'],
    ['an unknown shape', ['bench', '--shape', 'mamba-131m'], 'expected one of tiny, small'],
    ['a vocabulary for a model', ['bench', '--model', 'x', '--vocab', '9'], '--vocab is of --shape'],
    ['no threads', [...TINY, '--threads', '0'], 'expected an integer in [1, 1024]'],
    [
      'threads of another device',
      [...TINY, '--threads', '2', '--device', 'reference'],
      'of the native device',
    ],
    [
      'training narrow weights',
      [...TINY, '--train', '--weights', 'q8'],
      '--train needs --weights f32, got q8',
    ],
    ['a precision that is none', [...TINY, '--precision', 'q8'], 'Allowed choices are f32, bf16, int8'],
    ['a type that is none', [...TINY, '--weights', 'q5'], 'Allowed choices are f32, bf16, f16, q8, q4'],
    ['an empty prompt', [...TINY, '--prompt', '0'], 'expected an integer of at least 1'],
  ])('%s: exit code 2 and what to do', async (_, argv, message) => {
    const { code, stdout, stderr } = await cli(argv);
    expect(stderr).toContain(message);
    expect(stdout).toBe('');
    expect(code).toBe(2);
  });

  it('a model that is not there: exit code 1', async () => {
    const { code, stderr } = await cli(['bench', '--model', join(folder, 'nothing')]);
    expect([code, stderr]).toEqual([1, expect.stringContaining('got nothing at this path')]);
  });
});
