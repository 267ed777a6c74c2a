import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import {
  Classifier,
  ConfigError,
  createReference,
  LanguageModel,
  loadClassifier,
  METRICS_FILE,
  saveModel,
  type TrainClassifyOptions,
  trainClassify,
  trainLm,
  useDevice,
} from '../../src/index.node.ts';
import { byteTokenizer } from '../../src/text/index.ts';
import type { ClassifySettings } from '../../src/train/index.ts';
import { interruptAt, kinds } from './interrupt.ts';
import { toyJsonLines } from './labelled-toy.ts';

let folder: string;
let base: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'mamba-classify-'));
  process.env.MAMBA_CACHE = join(folder, 'cache');
  await writeFile(join(folder, 'train.jsonl'), toyJsonLines(60));
  await writeFile(join(folder, 'test.jsonl'), toyJsonLines(20, 9));
  await useDevice(createReference());
  const model = new LanguageModel({ d_model: 8, n_layer: 2, vocab_size: 256, d_state: 4 }, { seed: 3 });
  model.tokenizer = byteTokenizer();
  base = join(folder, 'base');
  await saveModel(model, base);
});
afterAll(() => rm(folder, { recursive: true, force: true }));

const settings = (more: Partial<ClassifySettings> = {}): Partial<ClassifySettings> => ({
  data: [join(folder, 'train.jsonl')],
  test: [join(folder, 'test.jsonl')],
  tokenizer: 'bpe:290',
  patience: 0,
  epochs: 3,
  batch: 8,
  d_model: 8,
  n_layer: 1,
  d_state: 4,
  logEvery: 2,
  saveEvery: 4,
  lr: 0.01,
  ...more,
});
const fromBase = (more: Partial<ClassifySettings> = {}): Partial<ClassifySettings> => ({
  data: [join(folder, 'train.jsonl')],
  from: base,
  epochs: 2,
  batch: 8,
  saveEvery: 4,
  ...more,
});

const ticks = () => {
  let time = 0;
  return () => (time += 1000);
};

async function weightsOf(model: Classifier): Promise<Record<string, number[]>> {
  const all: Record<string, number[]> = {};
  for (const [name, tensor] of model.namedParameters()) all[name] = [...(await tensor.floats())];
  return all;
}

async function run(name: string, options: Partial<TrainClassifyOptions> = {}) {
  const out = join(folder, name);
  const result = await trainClassify({
    settings: settings(),
    now: ticks(),
    baselines: false,
    ...options,
    out,
  });
  const weights = await weightsOf(result.model);
  const metrics = await readFile(join(out, METRICS_FILE), 'utf8');
  const files = [];
  for (const file of ['model.safetensors', 'optimizer.safetensors', 'config.json'])
    files.push((await readFile(join(out, file))).toString('latin1'));
  return { result, weights, metrics, files, out };
}

describe.each(kinds)(
  'a resumed run equals the unbroken one, bit for bit, on $label',
  ({ label, backend }) => {
    beforeAll(() => useDevice(backend));
    const cases: Record<string, () => Partial<ClassifySettings>> = {
      'dropout of every kind': () => settings({ dropout: 0.2, tokenDropout: 0.2, labelSmoothing: 0.1 }),
      'two directions, weights by class, accumulated': () =>
        settings({ bidirectional: true, pooling: 'max', classWeights: 'balanced', accumulate: 2, epochs: 6 }),
      'adapters beside a pretrained backbone': () => fromBase({ tune: 'lora', loraRank: 2 }),
      'stopped early': () => settings({ patience: 1, epochs: 12, lr: 0.3, schedule: 'constant' }),
    };
    test.each(Object.entries(cases))('%s', async (name, given) => {
      const whole = await run(`${label} ${name} whole`, { settings: given() });
      expect(whole.result.stopped).toBe(name === 'stopped early' ? 'early' : 'finished');
      for (const at of [1, 8]) {
        const first = await run(`${label} ${name} ${at}`, { settings: given(), ...interruptAt(at) });
        expect(first.result).toMatchObject({ stopped: 'interrupted', step: at, valid: null });
        const rest = await run(`${label} ${name} ${at}`, { settings: {}, start: 'resume' });
        expect(rest.result.stopped).toBe(whole.result.stopped);
        expect(rest.weights).toEqual(whole.weights);
        expect(rest.metrics).toBe(whole.metrics);
        for (const [i, file] of rest.files.entries()) expect(file === whole.files[i]).toBe(true);
        expect(rest.result.test?.scores).toEqual(whole.result.test?.scores);
      }
    });
  },
);

describe('a run', () => {
  beforeAll(() => useDevice(createReference()));

  test('learns, keeps the best classifier, and the folder answers as the run did', async () => {
    const { result, out, weights } = await run('learns', {
      settings: settings({ epochs: 8, lr: 0.03 }),
      baselines: true,
    });
    expect(result.test!.scores.accuracy).toBeGreaterThan(0.9);
    expect(result.baselines.map(({ scores }) => scores.examples)).toEqual([20, 20]);
    const accuracies = result.metrics.flatMap(({ validation }) => (validation ? [validation.accuracy] : []));
    expect(accuracies).toHaveLength(8);
    expect(result.valid!.scores.accuracy).toBe(Math.max(...accuracies));
    const loaded = await loadClassifier(out);
    expect(await weightsOf(loaded)).toEqual(weights);
    const { examples, probabilities } = result.test!;
    const again = await loaded.predict(examples.map(({ text }) => text));
    expect(again.map(({ scores }) => Object.values(scores))).toEqual(probabilities.map((row) => [...row]));
  });

  test('stops when no evaluation has been better for so long', async () => {
    const { result } = await run('early', { settings: settings({ epochs: 50, patience: 2, lr: 0.05 }) });
    expect(result.stopped).toBe('early');
    const ranks = result.metrics.flatMap(({ validation: v }) => (v ? [[v.accuracy, -v.loss] as const] : []));
    const best = ranks.reduce((top, rank, i) => {
      const [accuracy, loss] = ranks[top]!;
      return rank[0] > accuracy || (rank[0] === accuracy && rank[1] > loss) ? i : top;
    }, 0);
    expect(ranks.length - 1 - best).toBe(2);
  });

  test('of the head alone leaves the backbone as it was', async () => {
    const { result, weights } = await run('frozen', { settings: fromBase({ tune: 'frozen' }) });
    const random = new Classifier({ ...result.model.config, lora: null }, { seed: 0 });
    expect(result.trainedCount).toBe(random.score.parameterCount);
    const before = await weightsOf(await loadBase());
    for (const [name, values] of Object.entries(before)) expect(weights[name]).toEqual(values);
    expect(weights['score.weight']).not.toEqual((await weightsOf(random))['score.weight']);
  });

  test('of adapters trains them and the head alone, and the small folder gives the same answers', async () => {
    const { result, weights, out } = await run('lora', { settings: fromBase({ tune: 'lora', loraRank: 2 }) });
    const before = await weightsOf(await loadBase());
    for (const [name, values] of Object.entries(before)) expect(weights[name]).toEqual(values);
    const trained = Object.keys(weights).filter((name) => /^score\.|\.lora\./.test(name));
    expect(result.trainedCount).toBe(trained.reduce((sum, name) => sum + weights[name]!.length, 0));
    const texts = result.valid!.examples.map(({ text }) => text);
    const whole = await (await loadClassifier(out)).predict(texts);
    const small = await (await loadClassifier(join(out, 'adapter'))).predict(texts);
    expect(small).toEqual(whole);
    // Merged weights round once more than weights and adapters side by side.
    for (const [i, { scores }] of whole.entries())
      for (const [k, p] of Object.values(scores).entries())
        expect(Math.abs(p - result.valid!.probabilities[i]![k]!)).toBeLessThan(1e-6);
    // A run in its place leaves no adapter of another run behind.
    await trainClassify({ out, settings: fromBase({ tune: 'frozen', epochs: 1 }), start: 'replace' });
    await expect(loadClassifier(join(out, 'adapter'))).rejects.toThrow();
  });

  test("of adapters refuses another base, and says when a tokenizer is not the base's", async () => {
    const told: string[] = [];
    const onProgress: TrainClassifyOptions['onProgress'] = (event) => {
      if (event.kind === 'notice') told.push(event.message);
    };
    const { out } = await run('other', { settings: fromBase({ tune: 'lora', epochs: 1 }), onProgress });
    expect(told).toEqual([]);
    const model = new LanguageModel({ d_model: 8, n_layer: 2, vocab_size: 256, d_state: 4 }, { seed: 4 });
    model.tokenizer = byteTokenizer();
    const other = join(folder, 'other-base');
    await saveModel(model, other);
    const config = join(out, 'adapter', 'adapter_config.json');
    const json = JSON.parse(await readFile(config, 'utf8'));
    await writeFile(config, JSON.stringify({ ...json, base_model_name_or_path: other }));
    await expect(loadClassifier(join(out, 'adapter'))).rejects.toThrow('was trained beside');
    const foreign = fromBase({ epochs: 1, tokenizer: 'words:30' });
    await run('foreign', { settings: foreign, onProgress });
    expect(told).toEqual([expect.stringContaining('not that of')]);
  });

  test.each<[string, Partial<ClassifySettings>]>([
    ['dropout to be within [0, 1)', { dropout: 1 }],
    ['epochs or steps or minutes', { steps: 5 }],
    ['from to name a pretrained model for tune lora', { tune: 'lora' }],
    ['preset to be one of', { preset: 'huge' as 'text-small' }],
    ['pooling to be one of', { pooling: 'sum' as 'max' }],
    ['imdb to stand alone', { data: ['imdb', 'more.csv'] }],
    ['text to name at least one column', { textFields: [] }],
  ])('refuses what is wrong: %s', async (message, more) => {
    await expect(run('refused', { settings: settings(more) })).rejects.toThrow(message);
    await expect(run('refused', { settings: settings(more) })).rejects.toThrow(ConfigError);
  });

  test('is not resumed as a run of another kind', async () => {
    const { out } = await run('kind', { settings: settings({ epochs: 1 }) });
    await expect(trainLm({ out, settings: {}, start: 'resume' })).rejects.toThrow('got that of a classifier');
    const lm = join(folder, 'lm');
    const { model } = await trainLm({
      out: lm,
      settings: {
        data: [join(folder, 'train.jsonl')],
        steps: 1,
        batch: 1,
        length: 8,
        d_model: 8,
        n_layer: 1,
      },
    });
    model.dispose();
    await expect(run('lm', { settings: {}, start: 'resume' })).rejects.toThrow(
      'got that of a language model',
    );
  });

  test('resumes with other settings only where it stays the same run', async () => {
    await run('changed', { settings: settings(), ...interruptAt(2) });
    await expect(run('changed', { settings: { dropout: 0.5 }, start: 'resume' })).rejects.toThrow('dropout');
    const { result } = await run('changed', { settings: { epochs: 1 }, start: 'resume' });
    expect(result).toMatchObject({ stopped: 'finished', step: result.stepsPerEpoch });
  });
});

async function loadBase(): Promise<Classifier> {
  const { loadModel } = await import('../../src/load-model.node.ts');
  return (await loadModel(base)) as unknown as Classifier;
}
