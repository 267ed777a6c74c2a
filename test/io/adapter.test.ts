/**
 * Adapters on disk: what PEFT saved is read with its answers, ours come back bit for bit, everything else is
 * named in an error.
 */
import { mkdir, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { type Backend, withDevice } from '../../src/backend/backend.ts';
import { createReference } from '../../src/backend/reference/index.ts';
import { ConfigError, FormatError, UnsupportedError } from '../../src/base/errors.ts';
import { Rng } from '../../src/base/rng.ts';
import { fromFloats } from '../../src/base/weight-types.ts';
import { openAdapter, saveAdapter } from '../../src/io/adapter.node.ts';
import { applyAdapter, fromPeftName, toPeftName } from '../../src/io/adapter.ts';
import { FileError } from '../../src/io/file.ts';
import type { JsonObject } from '../../src/io/json.ts';
import { openTensorFile } from '../../src/io/pretrained.node.ts';
import { encodeSafetensors, type TensorEntry } from '../../src/io/safetensors-write.ts';
import { Classifier } from '../../src/models/classifier.ts';
import type { ClassifierHead } from '../../src/models/classifier-config.ts';
import type { Init } from '../../src/nn/init.ts';
import { Linear } from '../../src/nn/layers.ts';
import { addLora, loraParameters, mergeLora } from '../../src/nn/lora.ts';
import { Module } from '../../src/nn/module.ts';
import { Tensor } from '../../src/tensor/tensor.ts';
import { maxAbsDiff } from '../support/oracle.ts';

const fixtures = fileURLToPath(new URL('../fixtures/adapters', import.meta.url));
const device = createReference();
let folder = '';
let count = 0;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'mamba-adapter-'));
});
afterAll(() => rm(folder, { recursive: true, force: true }));
const fresh = (): string => join(folder, `adapter-${count++}`);

const HEAD: ClassifierHead = {
  labels: ['bad', 'good'],
  pooling: 'max',
  bidirectional: false,
  maxTokens: 512,
  lora: { rank: 2, alpha: 3, targets: ['in_proj', 'fc1'] },
};
const _CONFIG: JsonObject = { peft_type: 'LORA', r: 2, lora_alpha: 3, target_modules: ['in_proj', 'fc1'] };

class Layer extends Module {
  readonly in_proj: Linear;
  readonly fc1: Linear;
  constructor(init: Init) {
    super();
    this.in_proj = new Linear(init, 4, 6);
    this.fc1 = new Linear(init, 6, 3, { bias: true });
  }
}

/** The names of a classifier, little more. */
class Tiny extends Module {
  readonly layers: Layer[];
  readonly score: Linear;
  constructor(seed: number, on: Backend = device) {
    super();
    const init = { rng: new Rng(seed), samples: [], device: on };
    this.layers = [new Layer(init), new Layer(init)];
    this.score = new Linear(init, 3, 2, { bias: true });
  }
}

/** With adapters and a head as if trained. */
function trained(): Tiny {
  const root = new Tiny(1);
  addLora(root, HEAD.lora!, { rng: new Rng(2), samples: [] });
  const rng = new Rng(3);
  for (const [, tensor] of [...loraParameters(root), ...root.score.namedParameters()])
    tensor.write(Float32Array.from({ length: tensor.size }, () => rng.normal()));
  return root;
}

async function valuesOf(parameters: Iterable<[string, Tensor]>): Promise<Record<string, Float32Array>> {
  const values: Record<string, Float32Array> = {};
  for (const [path, tensor] of parameters) values[path] = await tensor.floats();
  return values;
}

describe('an adapter of PEFT', () => {
  const answers = async () =>
    JSON.parse(await readFile(join(fixtures, 'answers.json'), 'utf8')) as Record<
      'ids' | 'logits' | 'without',
      number[]
    >; // prettier-ignore

  async function base(): Promise<Classifier> {
    const backbone = {
      vocab_size: 19,
      d_model: 12,
      d_state: 4,
      n_layer: 2,
      dt_rank: 3,
      pad_vocab_size_multiple: 1,
    };
    const labels = ['a', 'b', 'c'];
    const model = withDevice(
      device,
      () => new Classifier({ labels, pooling: 'mean', backbone }, { seed: null }),
    );
    const file = await openTensorFile(join(fixtures, 'base/model.safetensors'));
    for (const [name, tensor] of model.namedParameters()) tensor.write(await file.readAsF32(name));
    await file.close();
    return model;
  }

  test('gives its logits, beside the weights and merged, and saved again the same file', async () => {
    const { ids, logits, without } = await answers();
    const model = await base();
    const read = async () => withDevice(device, () => model.forward([ids]).logits).floats();
    // Two float32 results, each within 2e-5 of the truth for logits of 6.5.
    const bound = (2 * 2e-5 * Math.max(...logits.map(Math.abs))) / 6.5;
    expect(maxAbsDiff(await read(), without)).toBeLessThan(bound);
    expect(maxAbsDiff(without, logits)).toBeGreaterThan(0.1);
    const adapter = await openAdapter(join(fixtures, 'peft'));
    expect(adapter.lora).toEqual({ rank: 3, alpha: 5, targets: ['in_proj', 'x_proj'] });
    expect([adapter.head, adapter.base]).toEqual([null, null]);
    applyAdapter(model, adapter);
    expect(maxAbsDiff(await read(), logits)).toBeLessThan(bound);

    const again = fresh();
    await saveAdapter(again, { root: model, head: { ...model.config, lora: adapter.lora }, base: 'base' });
    const file = 'adapter_model.safetensors';
    expect(await readFile(join(again, file))).toEqual(await readFile(join(fixtures, 'peft', file)));
    mergeLora(model);
    expect(maxAbsDiff(await read(), logits)).toBeLessThan(bound);
  });
});

describe('saved and opened', () => {
  test('everything comes back, bit for bit', async () => {
    const [root, path] = [trained(), fresh()];
    await saveAdapter(path, { root, head: HEAD, base: '../base' });
    expect((await readdir(path)).sort()).toEqual(['adapter_config.json', 'adapter_model.safetensors']);
    const adapter = await openAdapter(path);
    expect([adapter.lora, adapter.head, adapter.base]).toEqual([HEAD.lora, HEAD, '../base']);
    const other = new Tiny(1);
    applyAdapter(other, adapter);
    expect(await valuesOf(other.namedParameters())).toEqual(await valuesOf(root.namedParameters()));
    expect(other.layers[1]!.fc1.lora!.scale).toBe(1.5);
    expect(
      [...other.namedParameters()].filter(([, { requiresGrad }]) => !requiresGrad).map(([p]) => p),
    ).toEqual([
      'layers.0.in_proj.weight',
      'layers.0.fc1.weight',
      'layers.0.fc1.bias',
      'layers.1.in_proj.weight',
      'layers.1.fc1.weight',
      'layers.1.fc1.bias',
    ]);
  });

  test('a second save replaces the first and leaves other files', async () => {
    const [root, path] = [trained(), fresh()];
    await mkdir(path);
    await writeFile(join(path, 'README.md'), 'mine');
    await saveAdapter(path, { root, head: HEAD, base: 'old' });
    root.score.bias!.write([7, 8]);
    await saveAdapter(path, { root, head: HEAD, base: 'new' });
    const adapter = await openAdapter(path);
    expect([adapter.base, [...adapter.tensors.get('score.bias')!.values]]).toEqual(['new', [7, 8]]);
    expect(await readFile(join(path, 'README.md'), 'utf8')).toBe('mine');
  });

  test('into a model with narrow weights: what was trained stays float32', async () => {
    const [root, path] = [trained(), fresh()];
    await saveAdapter(path, { root, head: HEAD, base: 'base' });
    const narrow = new Tiny(1);
    for (const [name, tensor] of [...narrow.requireGrad(false).namedParameters()]) {
      if (tensor.shape.length < 2) continue;
      const data = fromFloats(await tensor.floats(), 'bf16');
      narrow.replaceParameter(name, Tensor.from(data, tensor.shape, { dtype: 'bf16', device }));
    }
    applyAdapter(narrow, await openAdapter(path));
    expect(await valuesOf(loraParameters(narrow))).toEqual(await valuesOf(loraParameters(root)));
    expect(await narrow.score.weight.floats()).toEqual(await root.score.weight.floats());
    expect([narrow.score.weight.dtype, narrow.layers[0]!.fc1.weight.dtype]).toEqual(['f32', 'bf16']);
  });

  test.each([
    ['no adapters in the configuration', { ...HEAD, lora: null }],
    ['another rank', { ...HEAD, lora: { ...HEAD.lora!, rank: 1 } }],
    ['another scale', { ...HEAD, lora: { ...HEAD.lora!, alpha: 4 } }],
    ['more targets', { ...HEAD, lora: { ...HEAD.lora!, targets: ['in_proj', 'fc1', 'score'] } }],
  ])('%s: refused, nothing written', async (_, head) => {
    const path = fresh();
    await expect(saveAdapter(path, { root: trained(), head, base: 'base' })).rejects.toThrow(ConfigError);
    await expect(readdir(path)).rejects.toThrow('ENOENT');
  });

  test.each([
    ['layers.0.in_proj.lora.A', 'base_model.model.layers.0.in_proj.lora_A.weight'],
    ['fc.lora.B', 'base_model.model.fc.lora_B.weight'],
    ['score.bias', 'base_model.model.score.bias'],
  ])('%s is %s', (ours, theirs) => {
    expect([toPeftName(ours), fromPeftName(theirs)]).toEqual([theirs, ours]);
  });
});

describe('files that are damaged or do not fit', () => {
  /** The adapter of `trained`, with other tensors: null leaves one out. */
  async function folderWith(changes: Record<string, Partial<TensorEntry> | null>): Promise<string> {
    const [root, path] = [trained(), fresh()];
    await saveAdapter(path, { root, head: HEAD, base: 'base' });
    const file = await openTensorFile(join(path, 'adapter_model.safetensors'));
    const entries: TensorEntry[] = [];
    for (const [name, { shape }] of file.tensors) {
      if (changes[name] === null) continue;
      entries.push({ name, dtype: 'F32', shape, data: await file.readAsF32(name), ...changes[name] });
    }
    await file.close();
    for (const [name, change] of Object.entries(changes))
      if (change && !entries.some((entry) => entry.name === (change.name ?? name)))
        entries.push({ name, dtype: 'F32', shape: [1], data: new Float32Array(1), ...change });
    await writeFile(join(path, 'adapter_model.safetensors'), await encodeSafetensors(entries));
    return path;
  }
  const at = (path: string): string => `base_model.model.layers.0.${path}.weight`;
  const data = (length: number, last = 1): Float32Array =>
    new Float32Array(length).fill(1).fill(last, length - 1);

  test.each([
    [
      'a pair without its half',
      { [at('fc1.lora_B')]: null },
      FormatError,
      `${at('fc1.lora_A')} without ${at('fc1.lora_B')}`,
    ],
    [
      'another rank',
      { [at('fc1.lora_A')]: { shape: [3, 6], data: data(18) } },
      FormatError,
      `${at('fc1.lora_A')} [3, 6]`,
    ],
    [
      'a vector',
      { [at('fc1.lora_A')]: { shape: [12], data: data(12) } },
      FormatError,
      `${at('fc1.lora_A')} [12]`,
    ],
    [
      'NaN',
      { [at('fc1.lora_A')]: { data: data(12, Number.NaN) } },
      FormatError,
      `${at('fc1.lora_A')}: 1 NaN, 0 infinite, first at 11`,
    ],
    [
      'infinity',
      { 'base_model.model.score.bias': { data: data(2, Number.POSITIVE_INFINITY) } },
      FormatError,
      '1 infinite',
    ],
    ['DoRA', { [at('fc1.lora_magnitude_vector')]: {} }, UnsupportedError, at('fc1.lora_magnitude_vector')],
    [
      'an embedding',
      { 'base_model.model.embeddings.lora_embedding_A': {} },
      UnsupportedError,
      'lora_embedding_A',
    ],
    ['a name of no adapter', { 'layers.0.fc1.weight': {} }, UnsupportedError, 'got layers.0.fc1.weight'],
  ] as const)('%s', async (_, changes, type, message) => {
    const error = await openAdapter(await folderWith(changes)).catch((reason: unknown) => reason);
    expect(error).toBeInstanceOf(type);
    expect((error as Error).message).toContain(message);
  });

  test.each([
    [
      'a layer too many',
      {
        'base_model.model.layers.2.fc1.lora_A.weight': { shape: [2, 6], data: data(12) },
        'base_model.model.layers.2.fc1.lora_B.weight': { shape: [3, 2], data: data(6) },
      },
      'layers.2.fc1.lora.A is unknown',
    ],
    [
      'a layer too few',
      { [at('fc1.lora_A')]: null, [at('fc1.lora_B')]: null },
      'layers.0.fc1.lora.A [2, 6] is missing; layers.0.fc1.lora.B [3, 2] is missing',
    ],
    [
      'another width',
      { [at('fc1.lora_A')]: { shape: [2, 5], data: data(10) } },
      'layers.0.fc1.lora.A is [2, 5], not [2, 6]',
    ],
    [
      'more classes',
      { 'base_model.model.score.weight': { shape: [3, 3], data: data(9) } },
      'score.weight is [3, 3], not [2, 3]',
    ],
    ['no head', { 'base_model.model.score.weight': null }, 'score.weight [2, 3] is missing'],
  ] as const)('%s: refused, the model as it was', async (_, changes, message) => {
    const adapter = await openAdapter(await folderWith(changes));
    const root = new Tiny(5);
    const before = await valuesOf(root.namedParameters());
    expect(() => applyAdapter(root, adapter)).toThrow(FormatError);
    expect(() => applyAdapter(root, adapter)).toThrow(message);
    expect(await valuesOf(root.namedParameters())).toEqual(before);
  });

  test('a head without bias gets zeros', async () => {
    const root = new Tiny(5);
    root.score.bias!.write([3, 4]);
    applyAdapter(root, await openAdapter(await folderWith({ 'base_model.model.score.bias': null })));
    expect([...(await root.score.bias!.floats())]).toEqual([0, 0]);
  });

  test('float16 and bfloat16 are widened', async () => {
    const path = await folderWith({
      'base_model.model.score.bias': { dtype: 'BF16', data: data(2, -3.140625) },
    });
    expect([...(await openAdapter(path)).tensors.get('score.bias')!.values]).toEqual([1, -3.140625]);
  });

  test('cut, missing and foreign files', async () => {
    const path = await folderWith({});
    const weights = join(path, 'adapter_model.safetensors');
    const bytes = await readFile(weights);
    for (const length of [0, 7, 100, bytes.length - 1]) {
      await writeFile(weights, bytes.subarray(0, length));
      await expect(openAdapter(path), `${length} bytes`).rejects.toThrow(FormatError);
    }
    await rm(weights);
    await expect(openAdapter(path)).rejects.toThrow(FileError);
    await writeFile(join(path, 'adapter_config.json'), '{"peft_type": "LORA"');
    await expect(openAdapter(path)).rejects.toThrow(FormatError);
    await rm(join(path, 'adapter_config.json'));
    await expect(openAdapter(path)).rejects.toThrow(FileError);
    await expect(openAdapter(fresh())).rejects.toThrow('the folder of an adapter');
  });

  test('a target that the model has not', async () => {
    const adapter = await openAdapter(await folderWith({}));
    const lora = { ...adapter.lora, targets: ['in_proj', 'q_proj'] };
    expect(() => applyAdapter(new Tiny(1), { ...adapter, lora })).toThrow(
      'among in_proj, fc1, score, got q_proj',
    );
  });
});
