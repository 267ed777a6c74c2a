/** From a classifier to a folder and back: the same bits, adapters merged, and no door takes it for another model. */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { afterAll, beforeEach, describe, expect, it } from 'vitest';
import { Rng } from '../src/base/rng.ts';
import {
  Classifier,
  ConfigError,
  convertModel,
  currentDevice,
  FormatError,
  LanguageModel,
  loadCheckpoint,
  loadClassifier,
  loadModel,
  noGrad,
  openPretrained,
  quantizeModel,
  saveCheckpoint,
  saveClassifier,
  saveModel,
  UnsupportedError,
  writeGguf,
} from '../src/index.node.ts';
import { saveAdapter } from '../src/io/adapter.node.ts';
import { fileSource } from '../src/io/file.ts';
import { encodeSafetensors, expectedTensors, openSafetensors, type TensorEntry } from '../src/io/index.ts';
import { addLora, mergeLora } from '../src/nn/lora.ts';
import { byteTokenizer, trainBpe } from '../src/text/index.ts';
import { settle } from './support/settle.ts';

beforeEach(settle);

const root = mkdtempSync(join(tmpdir(), 'mamba-ts-classifier-'));
afterAll(() => rmSync(root, { recursive: true, force: true }));
let folders = 0;
const newFolder = () => join(root, `${folders++}`);

const BACKBONE = { vocab_size: 256, d_model: 10, n_layer: 2, d_state: 3, d_conv: 3, d_inner: 14 };
const LORA = { rank: 2, alpha: 6, targets: ['in_proj', 'x_proj', 'out_proj'] };
const IDS = [[5, 9, 1, 200], [7], [0, 255, 3]];

interface Options {
  labels?: string[];
  bidirectional?: boolean;
  backbone?: Partial<LanguageModel['config']>;
}

function make({
  labels = ['neg', 'pos', 'so so'],
  bidirectional = false,
  backbone,
}: Options = {}): Classifier {
  const config = { labels, bidirectional, pooling: 'max' as const, maxTokens: 64, lora: null };
  return new Classifier({ ...config, backbone: { ...BACKBONE, ...backbone } }, { seed: 4 });
}

type Entry = TensorEntry & { shape: number[]; data: Float32Array };

/** With adapters whose B is not zero. */
function makeAdapted(options: Options = {}): Classifier {
  const classifier = make(options);
  addLora(classifier, LORA, { rng: new Rng(8), samples: [] });
  classifier.config.lora = LORA;
  const rng = new Rng(9);
  for (const [name, tensor] of classifier.namedParameters())
    if (name.endsWith('.lora.B'))
      tensor.write(Float32Array.from({ length: tensor.size }, () => rng.uniform(-1, 1)));
  return classifier;
}

async function valuesOf(classifier: Classifier): Promise<Map<string, Float32Array>> {
  const values = new Map<string, Float32Array>();
  for (const [name, tensor] of classifier.namedParameters()) values.set(name, await tensor.floats());
  return values;
}

const logitsOf = (classifier: Classifier): Promise<Float32Array> =>
  noGrad(() => classifier.forward(IDS).logits).floats();

async function saved(classifier = make()): Promise<string> {
  const folder = newFolder();
  await saveClassifier(classifier, folder);
  return folder;
}

/** Changes the tensors of a saved classifier. */
async function rewrite(folder: string, change: (entries: Entry[]) => Entry[]): Promise<void> {
  const path = join(folder, 'model.safetensors');
  const file = await openSafetensors(await fileSource(path));
  const entries: Entry[] = [];
  for (const [name, { shape }] of file.tensors)
    entries.push({ name, dtype: 'F32', shape: [...shape], data: await file.readAsF32(name) });
  await file.close();
  writeFileSync(path, await encodeSafetensors(change(entries)));
}

describe('the tensors of a classifier', () => {
  const all = { rms_norm: false, d_intermediate: 40, bias: true, conv_bias: false, tie_embeddings: false };
  it.each([
    ['one direction', {}, false],
    ['two directions', { bidirectional: true }, false],
    ['every option of the backbone', { bidirectional: true, backbone: all }, false],
    ['adapters', { bidirectional: true, backbone: all }, true],
  ])('are its parameters, in their order: %s', (_, options, isAdapted) => {
    const classifier = isAdapted ? makeAdapted(options) : make(options);
    const { config } = classifier;
    const found = [...classifier.namedParameters()].map(([name, { shape }]) => [name, [...shape]]);
    const expected = [...expectedTensors(config.backbone, config)];
    expect(found).toEqual(expected.map(([name, shape]) => [name, [...shape]]));
  });

  it('wrong ones are named, all at once', async () => {
    const folder = await saved(make({ bidirectional: true }));
    await rewrite(folder, (entries) => {
      const kept = entries.filter(({ name }) => name !== 'backbone_reverse.norm_f.weight');
      const score = kept.find(({ name }) => name === 'score.weight')!;
      score.shape = [2, 30];
      const extra = { dtype: 'F32' as const, shape: [2], data: new Float32Array(2) };
      return [
        ...kept,
        { ...extra, name: 'score.extra' },
        // A classifier predicts no tokens: not even a head that is tied belongs to it.
        { ...extra, name: 'lm_head.weight', shape: [256, 10], data: new Float32Array(2560) },
      ];
    });
    const loading = loadClassifier(folder);
    await expect(loading).rejects.toThrow(FormatError);
    for (const message of [
      'got 4 differences',
      'backbone_reverse.norm_f.weight [10] is missing',
      'score.weight is [2, 30], not [3, 20]',
      'score.extra [2] is unknown',
      'lm_head.weight [256, 10] is unknown',
    ])
      await expect(loading).rejects.toThrow(message);
  });

  it.each([
    ['one direction', {}, 'score.bias'],
    ['two', { bidirectional: true }, 'backbone_reverse.embeddings.weight'],
  ])("without config.json are told to be a classifier's: %s", async (_, options, name) => {
    const folder = await saved(make(options));
    rmSync(join(folder, 'config.json'));
    await expect(loadClassifier(folder)).rejects.toThrow(FormatError);
    await expect(loadClassifier(folder)).rejects.toThrow(`which ${name} makes a classifier`);
  });

  it('that are not finite are named, and what was made is freed', async () => {
    const classifier = make();
    classifier.score.bias!.write(Float32Array.of(0, Number.NaN, 1));
    const folder = await saved(classifier);
    const before = currentDevice().memory.liveBytes;
    await expect(loadClassifier(folder)).rejects.toThrow('score.bias: 1 NaN');
    expect(currentDevice().memory.liveBytes).toBe(before);
  });
});

describe('loadClassifier and saveClassifier', () => {
  it.each([
    ['one direction', {}],
    ['two directions', { bidirectional: true }],
    [
      'LayerNorm and MLP sublayers',
      { bidirectional: true, backbone: { rms_norm: false, d_intermediate: 7 } },
    ],
    ['an untied backbone', { backbone: { tie_embeddings: false } }],
  ])('a round trip keeps every bit: %s', async (_, options) => {
    const classifier = make(options);
    classifier.tokenizer = byteTokenizer();
    const loaded = await loadClassifier(await saved(classifier));
    expect(loaded.config).toEqual(classifier.config);
    expect(await valuesOf(loaded)).toEqual(await valuesOf(classifier));
    expect(loaded.fingerprint).toBe(await classifier.refreshFingerprint());
    expect(await logitsOf(loaded)).toEqual(await logitsOf(classifier));
    expect(loaded.parameters().some(({ requiresGrad }) => requiresGrad)).toBe(false);
    expect(loaded.tokenizer?.kind).toBe('bytes');
    loaded.dispose();
  });

  it('keeps narrow weights as they are stored, both directions', async () => {
    const folder = await saved(make({ bidirectional: true }));
    const narrow = newFolder();
    await convertModel(folder, narrow, { format: 'hf', weights: 'bf16' });
    const loaded = await loadClassifier(narrow);
    const types = new Map([...loaded.namedParameters()].map(([name, { dtype }]) => [name, dtype]));
    const isMatrix = (name: string) => /(embeddings|in_proj|x_proj|dt_proj|out_proj)\.weight$/.test(name);
    for (const [name, dtype] of types) expect(dtype, name).toBe(isMatrix(name) ? 'bf16' : 'f32');
    expect(
      [...types.keys()].filter((name) => name.startsWith('backbone_reverse.') && isMatrix(name)),
    ).toHaveLength(9);
    const again = await saved(loaded);
    expect(await valuesOf(await loadClassifier(again))).toEqual(await valuesOf(loaded));
    const file = await openSafetensors(await fileSource(join(again, 'model.safetensors')));
    expect(file.tensors.get('backbone_reverse.embeddings.weight')!.dtype).toBe('BF16');
    expect(file.tensors.get('score.weight')!.dtype).toBe('F32');
    await file.close();
  });

  it('rounds the embedding to four bits like the rest: it decides no token', async () => {
    const folder = await saved(make({ backbone: { d_model: 32, d_inner: 64 } }));
    const loaded = await loadClassifier(folder, { weights: 'q4' });
    expect(loaded.backbone.embeddings.weight.dtype).toBe('q4');
    expect(loaded.backbone.layers[0]!.mixer.out_proj.weight.dtype).toBe('q4');
    expect(loaded.score.weight.dtype).toBe('f32');
    await expect(loadClassifier(folder, { weights: 'q5' as 'q4' })).rejects.toThrow(
      'loadClassifier: expected weights',
    );
  });

  it('merges adapters that stand in the file', async () => {
    const adapted = makeAdapted({ bidirectional: true });
    const folder = await saved(adapted);
    const files = await openPretrained(folder);
    expect(files.head?.lora).toEqual(LORA);
    expect(files.tensors.get('backbone_reverse.layers.1.mixer.x_proj.lora.A')).toEqual([2, 14]);
    await files.close();
    const loaded = await loadClassifier(folder);
    mergeLora(adapted);
    expect(loaded.config).toEqual({ ...adapted.config, lora: null });
    expect(await valuesOf(loaded)).toEqual(await valuesOf(adapted));
    expect(await logitsOf(loaded)).not.toEqual(await logitsOf(make({ bidirectional: true })));
    // Merged by hand, it is saved without them.
    expect(await valuesOf(await loadClassifier(await saved(adapted)))).toEqual(await valuesOf(loaded));
    const merged = await saved(adapted);
    const [once, twice] = [folder, merged].map((path) => loadClassifier(path, { weights: 'f16' }));
    expect(await valuesOf(await once!)).toEqual(await valuesOf(await twice!));
  });

  it('a training checkpoint holds it with what it takes to go on', async () => {
    const classifier = makeAdapted();
    const tensors = [...classifier.namedParameters()].map(([name, tensor]) => ({
      name,
      shape: tensor.shape,
      data: () => tensor.floats(),
    }));
    const { config } = classifier;
    const folder = newFolder();
    await saveCheckpoint(folder, { config: config.backbone, head: config, tensors, trainer: { step: 3 } });
    const checkpoint = await loadCheckpoint(folder);
    const { backbone, ...head } = config;
    expect(checkpoint.model.config).toEqual(backbone);
    expect(checkpoint.model.head).toEqual(head);
    expect(checkpoint.trainer).toEqual({ step: 3 });
    for (const [name, values] of await valuesOf(classifier))
      expect(await checkpoint.model.tensor(name)).toEqual(values);
    await checkpoint.close();
    const wrong = saveCheckpoint(folder, { config: config.backbone, head: { ...head, lora: null }, tensors });
    await expect(wrong).rejects.toThrow('backbone.layers.0.mixer.in_proj.lora.A [2, 10] is unknown');
  });
});

describe('an adapter alone', () => {
  /** A language model, and in a folder beside it an adapter with its head; the classifier they make. */
  async function adapterOf(
    options: Options = {},
  ): Promise<{ base: string; folder: string; whole: Classifier }> {
    const base = newFolder();
    const model = new LanguageModel(BACKBONE, { seed: 6 });
    model.tokenizer = byteTokenizer();
    await saveModel(model, base);
    const whole = makeAdapted(options);
    const values = new Map(model.namedParameters());
    for (const [name, tensor] of whole.namedParameters()) {
      const from = values.get(name.replace('backbone_reverse', 'backbone'));
      if (from) tensor.write(await from.floats());
    }
    const folder = newFolder();
    await saveAdapter(folder, { root: whole, head: whole.config, base });
    return { base, folder, whole };
  }
  const edit = (folder: string, change: (json: Record<string, unknown>) => void): void => {
    const path = join(folder, 'adapter_config.json');
    const json = JSON.parse(readFileSync(path, 'utf8'));
    change(json);
    writeFileSync(path, JSON.stringify(json));
  };

  it.each([
    ['one direction', {}],
    ['two, which begin with the same weights', { bidirectional: true }],
  ])('finds its base, and is merged: %s', async (_, options) => {
    const { base, folder, whole } = await adapterOf(options);
    expect(
      JSON.parse(readFileSync(join(folder, 'adapter_config.json'), 'utf8')).base_model_name_or_path,
    ).toBe(`../${basename(base)}`);
    const loaded = await loadClassifier(folder);
    mergeLora(whole);
    expect(loaded.config).toEqual({ ...whole.config, lora: null });
    expect(await valuesOf(loaded)).toEqual(await valuesOf(whole));
    expect(loaded.parameters().some(({ requiresGrad }) => requiresGrad)).toBe(false);
    expect(loaded.tokenizer?.kind).toBe('bytes');
    const narrow = await loadClassifier(folder, { weights: 'bf16' });
    expect(await valuesOf(narrow)).toEqual(
      await valuesOf(await loadClassifier(await saved(loaded), { weights: 'bf16' })),
    );
  });

  it('beside a classifier: its own labels come first, those of the base where it has none', async () => {
    const classifier = make({ bidirectional: true });
    const base = await saved(classifier);
    const adapted = makeAdapted({ bidirectional: true });
    const folder = newFolder();
    await saveAdapter(folder, { root: adapted, head: adapted.config, base });
    mergeLora(adapted);
    expect(await valuesOf(await loadClassifier(folder))).toEqual(await valuesOf(adapted));
    edit(folder, (json) => delete json.mamba_ts);
    expect((await loadClassifier(folder)).config.labels).toEqual(classifier.config.labels);
    const other = makeAdapted({ labels: ['yes', 'no'], bidirectional: true });
    await saveAdapter(folder, { root: other, head: other.config, base });
    expect((await loadClassifier(folder)).config.labels).toEqual(['yes', 'no']);
  });

  it('its own tokenizer comes before that of the base', async () => {
    const { base, folder, whole } = await adapterOf();
    const { tokenizerJson } = trainBpe(['ab ab abc'], { vocabSize: 258 });
    const tokenizer = { 'tokenizer.json': JSON.stringify(tokenizerJson) };
    await saveAdapter(folder, { root: whole, head: whole.config, base, tokenizer });
    expect((await loadClassifier(folder)).tokenizer?.kind).not.toBe('bytes');
  });

  it('says what it lacks', async () => {
    const { base, folder } = await adapterOf();
    await expect(loadModel(folder)).rejects.toThrow('got an adapter, which is no model of its own');
    edit(folder, (json) => delete json.mamba_ts);
    await expect(loadClassifier(folder)).rejects.toThrow(
      /expected the labels .*adapter_config\.json, got none/,
    );
    edit(folder, (json) => {
      json.base_model_name_or_path = './nowhere';
    });
    await expect(loadClassifier(folder)).rejects.toThrow(`(the base of the adapter ${folder};`);
    edit(folder, (json) => {
      json.base_model_name_or_path = null;
    });
    await expect(loadClassifier(folder)).rejects.toThrow('expected base_model_name_or_path');
    const adapted = await saved(makeAdapted());
    edit(folder, (json) => {
      json.base_model_name_or_path = adapted;
    });
    await expect(loadClassifier(folder)).rejects.toThrow('expected a base without adapters');
    const wide = newFolder();
    await saveModel(new LanguageModel({ ...BACKBONE, d_model: 12 }), wide);
    const again = await adapterOf();
    edit(again.folder, (json) => {
      json.base_model_name_or_path = wide;
    });
    const before = currentDevice().memory.liveBytes;
    await expect(loadClassifier(again.folder)).rejects.toThrow('score.weight is [3, 10], not [3, 12]');
    expect(currentDevice().memory.liveBytes).toBe(before);
    rmSync(base, { recursive: true });
  });
});

describe('the wrong door', () => {
  it('loadModel names loadClassifier', async () => {
    const folder = await saved();
    await expect(loadModel(folder)).rejects.toThrow(ConfigError);
    await expect(loadModel(folder)).rejects.toThrow(
      /got a classifier .* Load it with loadClassifier, or ask it with mamba-ts predict/,
    );
  });

  it('loadClassifier names loadModel and the training', async () => {
    const model = new LanguageModel(BACKBONE);
    const folder = newFolder();
    await saveModel(model, folder);
    await expect(loadClassifier(folder)).rejects.toThrow(ConfigError);
    await expect(loadClassifier(folder)).rejects.toThrow(
      `Load it with loadModel, or train a classifier from it: mamba-ts train classify --from ${folder}.`,
    );
    await writeGguf(model, `${folder}.gguf`);
    await expect(loadClassifier(`${folder}.gguf`)).rejects.toThrow('got a language model');
  });

  it('GGUF has no place for one, and nothing is written', async () => {
    const folder = await saved();
    const to = join(root, 'classifier.gguf');
    const files = await openPretrained(folder);
    for (const attempt of [
      () => convertModel(folder, to, { format: 'gguf' }),
      () => quantizeModel(folder, to),
      () => writeGguf(files, to),
    ]) {
      await expect(attempt()).rejects.toThrow(UnsupportedError);
      await expect(attempt()).rejects.toThrow('expected a language model, got a classifier');
      expect(() => readFileSync(to)).toThrow('ENOENT');
    }
    await files.close();
  });
});
