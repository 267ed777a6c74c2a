/** What every architecture must do as a run: learn, load again, be measured in both ways, be fine-tuned, classify. */
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { loadClassifier, loadModel, trainClassify, trainLm, useDevice } from '../../src/index.node.ts';
import { evaluate, type LmSettings, memoryTokens } from '../../src/train/index.ts';
import { predictTokens } from '../../src/train/predict-tokens.ts';
import { devices } from '../kernels/devices.ts';
import { toyJsonLines } from './labelled-toy.ts';
import { toyText, toyTokens } from './toy.ts';

let folder: string;
const at = (name: string): string => join(folder, name);
beforeAll(async () => {
  await useDevice(devices.at(-1)!.backend);
  folder = await mkdtemp(join(tmpdir(), 'mamba-architectures-'));
  process.env.MAMBA_CACHE = at('cache');
  await writeFile(at('toy.txt'), toyText);
  await writeFile(at('train.jsonl'), toyJsonLines(30));
});
afterAll(() => rm(folder, { recursive: true, force: true }));

const CASES: Record<string, Partial<LmSettings>> = {
  mamba1: { arch: 'mamba1' },
  mamba2: { arch: 'mamba2', ngroups: 2 },
  mamba3: { arch: 'mamba3', d_intermediate: 8 },
  'mamba3 of rank 2': { arch: 'mamba3', mimo_rank: 2, rope_fraction: 1 },
  'a hybrid of mamba1': { arch: 'mamba1', attnLayers: [1], attnConv: 0 },
  'a hybrid of mamba2': { arch: 'mamba2', attnLayers: [1], attnHeads: 2, attnKvHeads: 1 },
  'a hybrid of mamba3': { arch: 'mamba3', attnLayers: [0] },
};

describe.each(Object.entries(CASES))('%s', (name, shape) => {
  beforeAll(async () => {
    const { model, metrics, validation } = await trainLm({
      out: at(name),
      settings: {
        ...shape,
        data: [at('toy.txt')],
        d_model: 8,
        n_layer: 2,
        d_state: 4,
        batch: 4,
        length: 24,
        steps: 40,
        lr: 0.03,
        logEvery: 1,
      },
    });
    expect(metrics[0]!.bitsPerByte).toBeGreaterThan(7); // 8 bits know nothing
    expect(validation!.bitsPerByte).toBeLessThan(5);
    const loaded = await loadModel(at(name));
    expect(loaded.config).toEqual(model.config);
    expect(await evaluate(loaded, toyTokens())).toEqual(await evaluate(model, toyTokens()));
    loaded.dispose();
    model.dispose();
  });

  test('is measured as a stream: the pieces change nothing', async () => {
    const model = await loadModel(at(name));
    const tokens = memoryTokens(new TextEncoder().encode(toyText.slice(0, 300)), { vocabSize: 256 });
    const whole = await evaluate(model, tokens, { mode: 'stream', window: 300 });
    const pieces = await evaluate(model, tokens, { mode: 'stream', window: 37 });
    expect(Math.abs(pieces.loss - whole.loss)).toBeLessThan(1e-5);
    const predicted = await predictTokens(model, tokens, { length: 50 });
    expect(Math.abs(predicted.loss - whole.loss)).toBeLessThan(1e-5);
    expect(predicted.best).toHaveLength(299);
    model.dispose();
  });

  test('is a base of classifiers: adapters beside what it has, or everything', async () => {
    const settings = { data: [at('train.jsonl')], from: at(name), epochs: 1, batch: 8, loraRank: 2 };
    const lora = await trainClassify({
      out: at(`${name} lora`),
      settings: { ...settings, tune: 'lora' },
      baselines: false,
    });
    const config = JSON.parse(await readFile(at(`${name} lora/adapter/adapter_config.json`), 'utf8'));
    const all = ['in_proj', ...(shape.arch === 'mamba1' ? ['x_proj'] : []), 'out_proj'];
    expect(config.target_modules).toEqual(all);
    const classifier = await loadClassifier(at(`${name} lora`));
    const texts = ['the old whale sees a ship', 'wheat and barn'];
    const [first] = await classifier.predict(texts);
    expect((await (await loadClassifier(at(`${name} lora/adapter`))).predict(texts))[0]).toEqual(first);
    lora.model.dispose();
    const full = await trainClassify({ out: at(`${name} full`), settings, baselines: false });
    expect(full.model.config.backbone).toEqual(classifier.config.backbone);
    full.model.dispose();
  });

  test('classifies from random weights, in both directions', async () => {
    const { attnHeads, attnKvHeads, attnLayers, preset: _, ...own } = shape;
    const { model, metrics } = await trainClassify({
      out: at(`${name} fresh`),
      settings: {
        ...own,
        ...(attnLayers && { attnLayers: [0] }),
        data: [at('train.jsonl')],
        tokenizer: 'bytes',
        d_model: 8,
        d_state: 4,
        bidirectional: true,
        steps: 40,
        batch: 8,
        lr: 0.03,
        dropout: 0,
        tokenDropout: 0,
        patience: 0,
        evalEvery: 40,
        logEvery: 10,
      },
      baselines: false,
    });
    expect(model.config.backbone).toMatchObject({ model_type: shape.arch, n_layer: 1 });
    expect(metrics.at(-1)!.loss).toBeLessThan(metrics[0]!.loss);
    model.dispose();
  });
});
