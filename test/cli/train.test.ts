/** `train lm`: usage errors, a whole run, resuming, what it leaves behind. */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Command, CommanderError } from 'commander';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { register } from '../../src/cli/commands/train.ts';
import { connectIo } from '../../src/cli/output.ts';
import { createReference, loadModel, MambaError, useDevice } from '../../src/index.node.ts';
import { toyText } from '../train/toy.ts';

const folder = mkdtempSync(join(tmpdir(), 'mamba-ts-train-'));
const at = (name: string) => join(folder, name);
beforeAll(async () => {
  await useDevice(createReference());
  process.env.MAMBA_CACHE = at('cache');
  writeFileSync(at('toy.txt'), toyText);
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

async function cli(argv: readonly string[], signal = new AbortController().signal) {
  const result = { usage: false, error: '', stdout: '', stderr: '' };
  const io = {
    stdout: { write: (text: string) => void (result.stdout += text) },
    stderr: { write: (text: string) => void (result.stderr += text) },
    stdin: (async function* (): AsyncGenerator<string> {})(),
    interrupts: () => signal,
  };
  const program = new Command('mamba-ts')
    .exitOverride()
    .configureOutput({ writeOut: io.stdout.write, writeErr: io.stderr.write });
  connectIo(program, io);
  register(program);
  try {
    await program.parseAsync([...argv], { from: 'user' });
  } catch (error) {
    if (!(error instanceof CommanderError) && !(error instanceof MambaError)) throw error;
    result.usage = error instanceof CommanderError;
    result.error = result.usage ? result.stderr : error.message;
  }
  return result;
}

const SMALL = [
  '--d-model',
  '8',
  '--layers',
  '1',
  '--d-state',
  '4',
  '--batch',
  '2',
  '--length',
  '16',
  '--log-every',
  '1',
];
const lm = (out: string, ...more: string[]) => ['train', 'lm', '--out', at(out), ...more];
const fresh = (out: string, ...more: string[]) => lm(out, '--data', at('toy.txt'), ...SMALL, ...more);

describe('usage errors', () => {
  it.each<[string, string[], string]>([
    ['steps and minutes', ['--steps', '3', '--minutes', '1'], 'cannot be used with'],
    ['neither', [], '--steps or --minutes is needed'],
    ['resume and force', ['--steps', '3', '--resume', '--force'], 'cannot be used with'],
    ['stream and pack', ['--steps', '3', '--stream', '--pack'], 'cannot be used with'],
    ['an unknown flag', ['--steps', '3', '--learning-rate', '1'], 'unknown option'],
    ['no steps at all', ['--steps', '0'], 'expected an integer of at least 1'],
    [
      'a precision of no use to training',
      ['--steps', '3', '--precision', 'int8'],
      'Allowed choices are f32, bf16',
    ],
    ['an unknown preset', ['--steps', '3', '--preset', 'huge'], 'Allowed choices are tiny'],
    [
      'an unknown architecture',
      ['--steps', '3', '--arch', 'rwkv'],
      'Allowed choices are mamba1, mamba2, mamba3',
    ],
    [
      'layers that are none',
      ['--steps', '3', '--attn-layers', '1,x'],
      'expected layers such as "1,3", got "x"',
    ],
  ])('%s', async (_, more, message) => {
    const { usage, error } = await cli(fresh('usage', ...more));
    expect(error).toContain(message);
    expect(usage).toBe(true);
  });

  it('no --out, no --data', async () => {
    expect((await cli(['train', 'lm', '--data', 'x', '--steps', '1'])).error).toContain('--out');
    expect((await cli(lm('usage', '--steps', '1'))).error).toContain('--data is needed');
  });
});

describe('train lm', () => {
  it('trains, tells, and leaves a model, metrics and a report', async () => {
    const { stdout, stderr, error } = await cli(fresh('run', '--steps', '4', '--lr', '0.01'));
    expect(error).toBe('');
    expect(stderr).toMatch(
      /^mamba1, [\d.]+k parameters \(d_model 8, 1 layers\) on .+\n\d+ tokens to learn from, \d+ held out\n/,
    );
    expect(stderr).toMatch(
      /step 4\/4 {2}loss \d\.\d{3} {2}\d\.\d{3} bits\/byte {2}[\d.]+k? tokens\/s {2}0:00 left\n$/,
    );
    expect(stdout).toMatch(/held-out bits per byte: \d\.\d{3}\n/);
    expect(stdout).toContain('training loss, bits per token, up to step 4');
    const metrics = readFileSync(at('run/metrics.jsonl'), 'utf8').trim().split('\n');
    expect(metrics.map((line) => JSON.parse(line).step)).toEqual([1, 2, 3, 4]);
    expect(readFileSync(at('run/report.html'), 'utf8')).toContain('held-out bits per byte');
    const model = await loadModel(at('run'));
    expect(model.config).toMatchObject({ d_model: 8, n_layer: 1, d_state: 4, vocab_size: 256 });
    expect(model.tokenizer?.kind).toBe('bytes');
    model.dispose();
  });

  it('--json prints one document', async () => {
    const { stdout } = await cli(fresh('json', '--steps', '2', '--json', '--pack', '--tokenizer', 'bpe:300'));
    const result = JSON.parse(stdout);
    expect(stdout.trim().split('\n')).toHaveLength(1);
    expect(result).toMatchObject({
      out: at('json'),
      stopped: 'finished',
      step: 2,
      tokens: 64,
      settings: { sampling: 'pack', tokenizer: 'bpe:300', d_model: 8 },
    });
    expect(result.validation.bitsPerByte).toBeLessThan(result.validation.bitsPerToken);
  });

  it('--precision is kept with the run, and computes otherwise', async () => {
    const losses = [];
    for (const precision of ['f32', 'bf16']) {
      await cli(fresh(precision, '--steps', '2', '--precision', precision));
      losses.push(JSON.parse(readFileSync(at(`${precision}/metrics.jsonl`), 'utf8').split('\n')[0]!).loss);
    }
    expect(losses[0]).not.toBe(losses[1]);
    const { stdout } = await cli(lm('bf16', '--resume', '--steps', '3', '--json'));
    expect(JSON.parse(stdout)).toMatchObject({ step: 3, settings: { precision: 'bf16' } });
    const refused = await cli(lm('bf16', '--resume', '--precision', 'f32'));
    expect(refused.error).toContain('precision "bf16", got "f32"');
  });

  it('refuses to overwrite, resumes, replaces', async () => {
    await cli(fresh('again', '--steps', '2'));
    const refused = await cli(fresh('again', '--steps', '2'));
    expect(refused).toMatchObject({ usage: false });
    expect(refused.error).toContain('--resume');
    expect(refused.error).toContain('--force');
    const resumed = await cli(lm('again', '--resume', '--steps', '5', '--json'));
    expect(resumed.stderr).toContain('resumed after step 2');
    expect(JSON.parse(resumed.stdout)).toMatchObject({ step: 5 });
    expect((await cli(lm('again', '--resume', '--d-model', '16'))).error).toContain('d_model 8, got 16');
    const replaced = await cli(fresh('again', '--steps', '1', '--force', '--json'));
    expect(JSON.parse(replaced.stdout)).toMatchObject({ step: 1 });
    expect((await cli(lm('nothing', '--resume'))).error).toContain('none');
  });

  it('says how to go on after an interrupt', async () => {
    const controller = new AbortController();
    controller.abort(); // before the first step
    const { stdout } = await cli(fresh('stopped early', '--steps', '3'), controller.signal);
    expect(stdout).toContain(
      `interrupted; go on with: mamba-ts train lm --out '${at('stopped early')}' --resume`,
    );
    const { stdout: rest } = await cli(lm('stopped early', '--resume', '--json'));
    expect(JSON.parse(rest)).toMatchObject({ stopped: 'finished', step: 3 });
  });
});
