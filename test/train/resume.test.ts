import { spawn } from 'node:child_process';
import { appendFile, mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { useDevice } from '../../src/backend/backend.ts';
import { createReference } from '../../src/backend/reference/index.ts';
import { ConfigError, StateError } from '../../src/base/errors.ts';
import { loadModel } from '../../src/load-model.node.ts';
import { LanguageModel } from '../../src/models/language-model.ts';
import { memoryTokens } from '../../src/train/data-tokens.ts';
import { evaluate } from '../../src/train/evaluate.ts';
import { DivergenceError } from '../../src/train/loop.ts';
import { parseMetrics } from '../../src/train/metrics.ts';
import { METRICS_FILE } from '../../src/train/run.node.ts';
import { type TrainLmOptions, trainLm } from '../../src/train/train-lm.node.ts';
import type { LmSettings } from '../../src/train/train-lm-options.ts';
import { bundle } from '../support/bundle.ts';
import { interruptAt, kinds } from './interrupt.ts';
import { toyText, weightsOf } from './toy.ts';

let folder: string;
let data: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'mamba-resume-'));
  data = join(folder, 'toy.txt');
  process.env.MAMBA_CACHE = join(folder, 'cache');
  await writeFile(data, toyText);
  await writeFile(
    join(folder, 'docs.jsonl'),
    toyText
      .split('. ')
      .map((text) => `${JSON.stringify({ text })}\n`)
      .join(''),
  );
});
afterAll(() => rm(folder, { recursive: true, force: true }));

const settings = (more: Partial<LmSettings> = {}): Partial<LmSettings> => ({
  data: [data],
  steps: 6,
  batch: 2,
  length: 12,
  d_model: 8,
  n_layer: 1,
  d_state: 4,
  logEvery: 2,
  saveEvery: 3,
  warmup: 2,
  ...more,
});

/** A clock that gains one second per look, so that times are reproducible too. */
const ticks = (from = 0) => {
  let time = from;
  return () => (time += 1000);
};

async function run(name: string, options: Partial<TrainLmOptions> = {}) {
  const out = join(folder, name);
  const result = await trainLm({ settings: settings(), now: ticks(), ...options, out });
  const weights = await weightsOf(result.model);
  result.model.dispose();
  const metrics = await readFile(join(out, METRICS_FILE), 'utf8');
  const optimizer = await readFile(join(out, 'optimizer.safetensors'));
  return { result, weights, metrics, optimizer: optimizer.toString('latin1') };
}

describe.each(kinds)(
  'a resumed run equals the unbroken one, bit for bit, on $label',
  ({ label, backend }) => {
    beforeAll(() => useDevice(backend));
    const cases: Record<string, () => Partial<LmSettings>> = {
      'random windows': () => ({}),
      'accumulated, wsd': () => ({ accumulate: 2, schedule: 'wsd' }),
      'packed documents, bpe': () => ({
        data: [join(folder, 'docs.jsonl')],
        sampling: 'pack',
        tokenizer: 'bpe:280',
      }),
      'stream with carried state': () => ({ sampling: 'stream', length: 7 }),
      'bf16 products': () => ({ precision: 'bf16', checkpointing: true }),
      evaluated: () => ({ evalEvery: 2, evalTokens: 40 }),
    };
    test.each(Object.entries(cases))('%s', (name, more) => expectSame(`${label} ${name}`, more(), [1, 3, 5]));

    const architectures: Record<string, () => Partial<LmSettings>> = {
      'mamba2, stream with carried state': () => ({ arch: 'mamba2', sampling: 'stream', length: 7 }),
      'mamba3, stream with carried state': () => ({ arch: 'mamba3', sampling: 'stream', length: 7 }),
      'mamba3 of rank 2 with MLPs, documents': () => ({
        data: [join(folder, 'docs.jsonl')],
        arch: 'mamba3',
        mimo_rank: 2,
        d_intermediate: 8,
        sampling: 'stream',
        length: 7,
        batch: 3,
      }),
      'a hybrid, packed documents': () => ({
        data: [join(folder, 'docs.jsonl')],
        arch: 'mamba2',
        n_layer: 2,
        attnLayers: [1],
        attnHeads: 2,
        sampling: 'pack',
        checkpointing: true,
      }),
    };
    test.each(Object.entries(architectures))('%s', (name, more) =>
      expectSame(`${label} ${name}`, more(), [4]),
    );
  },
);

/** A run that is interrupted after one of these steps and resumed ends like the one that is not. */
async function expectSame(name: string, more: Partial<LmSettings>, interrupts: number[]): Promise<void> {
  const whole = await run(`${name} whole`, { settings: settings(more) });
  expect(whole.result).toMatchObject({ stopped: 'finished', step: 6 });
  for (const at of interrupts) {
    const first = await run(`${name} ${at}`, { settings: settings(more), ...interruptAt(at) });
    expect(first.result).toMatchObject({ stopped: 'interrupted', step: at });
    const rest = await run(`${name} ${at}`, { settings: {}, start: 'resume' });
    expect(rest.result).toMatchObject({ stopped: 'finished', step: 6, tokens: whole.result.tokens });
    expect(rest.weights).toEqual(whole.weights);
    expect(rest.metrics).toBe(whole.metrics);
    expect(rest.optimizer === whole.optimizer).toBe(true);
    expect(rest.result.metrics).toEqual(whole.result.metrics);
  }
}

describe('a resumed run equals the unbroken one, bit for bit', () => {
  beforeAll(() => useDevice(createReference()));

  test('a process killed between checkpoints loses only the steps since the last one', async () => {
    const whole = await run('unkilled', { settings: settings({ steps: 9 }) });
    const program = await bundle(
      `import { useDevice } from './src/backend/backend.ts';
       import { createReference } from './src/backend/reference/index.ts';
       import { trainLm } from './src/train/train-lm.node.ts';
       await useDevice(createReference());
       let time = 0;
       await trainLm({ ...JSON.parse(process.argv[2]), now: () => (time += 1000), onProgress: (event) => {
         if (event.kind === 'step' && event.step === 5) process.kill(process.pid, 'SIGKILL');
       } });`,
      folder,
    );
    const out = join(folder, 'killed');
    const child = spawn(
      process.execPath,
      [program, JSON.stringify({ out, settings: settings({ steps: 9, logEvery: 1 }) })],
      {
        stdio: 'inherit',
      },
    );
    const signal = await new Promise((resolve) => child.on('exit', (_, name) => resolve(name)));
    expect(signal).toBe('SIGKILL');
    expect(parseMetrics(await readFile(join(out, METRICS_FILE), 'utf8')).map((entry) => entry.step)).toEqual([
      1, 2, 3, 4,
    ]);
    await appendFile(join(out, METRICS_FILE), '{"step": 5, "lo'); // a line that the crash cut
    const rest = await run('killed', { settings: { logEvery: 1 }, start: 'resume' });
    expect(rest.weights).toEqual(whole.weights);
    expect(rest.result.metrics.map((entry) => entry.step)).toEqual([1, 2, 3, 4, 5, 6, 7, 8, 9]);
  });

  test('a finished run can be made longer', async () => {
    await run('longer', { settings: settings({ schedule: 'constant' }) });
    const longer = await run('longer', { settings: { steps: 8 }, start: 'resume' });
    const whole = await run('long', { settings: settings({ schedule: 'constant', steps: 8, warmup: 2 }) });
    expect(longer.result.step).toBe(8);
    expect(longer.weights).toEqual(whole.weights);
  });
});

describe('what is refused', () => {
  test('a folder with a checkpoint, unless it is resumed or replaced', async () => {
    const { weights } = await run('taken');
    await expect(run('taken')).rejects.toThrow(ConfigError);
    const replaced = await run('taken', { start: 'replace', settings: settings({ seed: 7 }) });
    expect(replaced.weights).not.toEqual(weights);
    await expect(run('empty', { start: 'resume' })).rejects.toThrow(/none/);
  });

  test('another model, other data, other batches on resume', async () => {
    await run('other', interruptAt(2));
    await expect(run('other', { start: 'resume', settings: { d_model: 16 } })).rejects.toThrow(
      /d_model 8, got 16/,
    );
    await expect(run('other', { start: 'resume', settings: { batch: 4 } })).rejects.toThrow(ConfigError);
    await expect(run('other', { start: 'resume', settings: { precision: 'bf16' } })).rejects.toThrow(
      /precision "f32", got "bf16"/,
    );
    const other = join(folder, 'changing.txt');
    await writeFile(other, toyText);
    await run('changed', { settings: settings({ data: [other] }), ...interruptAt(2) });
    await writeFile(other, `${toyText}!`);
    await expect(run('changed', { start: 'resume', settings: {} })).rejects.toThrow(StateError);
  });

  test.each<[RegExp, Partial<LmSettings>]>([
    [/got steps and minutes/, { minutes: 1 }],
    [/got neither/, { steps: null }],
    [/precision to be one of f32, bf16, got int8/, { precision: 'int8' as 'bf16' }],
    [/at least one file/, { data: [] }],
    [/preset/, { preset: 'huge' as 'tiny' }],
    [/lr.*batch|batch.*lr/, { batch: 0, lr: -1 }],
    [/expected files/, { data: ['/nowhere/at all'] }],
    [/length/, { length: 100_000 }],
    [/bpe:SIZE/, { tokenizer: 'bpe:many' }],
  ])('%s', async (message, more) => {
    await expect(run('refused', { settings: settings(more) })).rejects.toThrow(message);
  });

  test('divergence keeps the last good checkpoint', async () => {
    const running = run('diverged', { settings: settings({ lr: 1e30, saveEvery: 1, warmup: 0, steps: 20 }) });
    await expect(running).rejects.toThrow(DivergenceError);
    await expect(running).rejects.toThrow(/in step \d+/);
    const model = await loadModel(join(folder, 'diverged'));
    const tokens = memoryTokens(new TextEncoder().encode(toyText), { vocabSize: 256 });
    expect((await evaluate(model, tokens)).loss).toBeGreaterThan(0);
    model.dispose();
  });

  test('weights that are finite but compute nothing finite are not saved', async () => {
    const running = run('huge', { settings: settings({ lr: 1e30, saveEvery: 0, warmup: 0, steps: 1 }) });
    await expect(running).rejects.toThrow(/finite/);
    const model = await loadModel(join(folder, 'huge'));
    expect(model.fingerprint).toBe(new LanguageModel(model.config, { seed: 0 }).fingerprint);
    model.dispose();
  });
});

describe('what a run reads and tells', () => {
  test('its own folder inside the data is not part of the data', async () => {
    const books = join(folder, 'books');
    await mkdir(books);
    await writeFile(join(books, 'toy.txt'), toyText);
    const first = await run('books/run', { settings: settings({ data: [books], steps: 3 }) });
    const second = await run('books/run', { start: 'resume', settings: { steps: 6 } });
    expect([first.result.step, second.result.step]).toEqual([3, 6]);
  });

  test('a finished run that is resumed is measured again; test text is measured at the end', async () => {
    const text = join(folder, 'test.txt');
    await writeFile(text, toyText.slice(0, 200));
    const first = await run('measured', { settings: settings({ test: [text] }) });
    expect(first.result.test?.tokens).toBe(199);
    const again = await run('measured', { start: 'resume', settings: {} });
    expect(again.result.validation).toEqual(first.result.validation);
    expect(again.result.test).toEqual(first.result.test);
  });
});
