import { cp, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, describe, expect, test } from 'vitest';
import { useDevice } from '../../src/backend/backend.ts';
import { createReference } from '../../src/backend/reference/index.ts';
import { memorySource } from '../../src/base/source.ts';
import { configFromJson } from '../../src/io/config-json.ts';
import { expectedTensors } from '../../src/io/expected-tensors.ts';
import { readJson } from '../../src/io/file.ts';
import { describeNonFinite, reportNonFinite } from '../../src/io/non-finite.ts';
import { openPretrained, openTensorFile } from '../../src/io/pretrained.node.ts';
import { checkTensors, normaliseNames } from '../../src/io/pretrained.ts';
import { openSafetensors } from '../../src/io/safetensors.ts';
import { encodeSafetensors, type TensorEntry } from '../../src/io/safetensors-write.ts';
import { resolveConfig } from '../../src/models/config.ts';
import { LanguageModel } from '../../src/models/language-model.ts';

const MODELS = fileURLToPath(new URL('../fixtures/models/', import.meta.url));
const scratch = await mkdtemp(join(tmpdir(), 'mamba-pretrained-'));
afterAll(() => rm(scratch, { recursive: true }));

let folders = 0;
async function copyOf(model: string): Promise<string> {
  const folder = join(scratch, `${folders++}`);
  await cp(join(MODELS, model, 'hf'), folder, { recursive: true });
  return folder;
}

/** The tensors of a file under changed names, with extra entries. */
async function rewrite(
  path: string,
  rename: (name: string) => string,
  extra: TensorEntry[] = [],
): Promise<void> {
  const file = await openSafetensors(memorySource(new Uint8Array(await readFile(path)), path));
  const entries = [...file.tensors].map(([name, { dtype, shape }]) => ({
    name: rename(name),
    dtype,
    shape,
    data: () => file.read(name),
  }));
  await writeFile(path, await encodeSafetensors([...entries, ...extra]));
}

describe.each(['mamba1-tied', 'mamba1-odd', 'mamba1-bf16', 'falcon-mamba'])('%s', (name) => {
  test('opens, and every tensor has the values that are stored', async () => {
    const model = await openPretrained(join(MODELS, name, 'hf'));
    const meta = await readJson(join(MODELS, name, 'meta.json'));
    let parameters = 0;
    for (const [tensor, shape] of model.tensors) {
      const values = await model.tensor(tensor);
      expect(values.length).toBe(shape.reduce((a, b) => a * b, 1));
      expect(reportNonFinite(tensor, values)).toBeNull();
      parameters += values.length;
    }
    expect(parameters).toBe(meta.params);
    await model.close();
  });

  test('the gradients of the oracle have the names and shapes of the tensors', async () => {
    const config = configFromJson(await readJson(join(MODELS, name, 'hf/config.json')));
    const grads = await openTensorFile(join(MODELS, name, 'grads.safetensors'));
    const names = normaliseNames(grads.tensors.keys(), 'grads');
    const found = new Map([...names].map(([ours, theirs]) => [ours, grads.tensors.get(theirs)!.shape]));
    checkTensors(expectedTensors(config), found, 'grads');
    await grads.close();
  });
});

test('a weights file or an index opens with the config.json beside it', async () => {
  const single = await openPretrained(join(MODELS, 'mamba1-tied/hf/model.safetensors'));
  expect(single.config.d_model).toBe(64);
  const index = await openPretrained(join(MODELS, 'mamba1-bf16/hf/model.safetensors.index.json'));
  expect(index.config.n_layer).toBe(4);
  await single.close();
  await index.close();
});

test('names of other programs become ours', () => {
  const names = normaliseNames(
    [
      'model.backbone.embedding.weight',
      'backbone.layers.0.norm.weight',
      'norm_f.weight',
      'model.lm_head.weight',
      'x.y',
    ],
    'f',
  );
  expect([...names.keys()]).toEqual([
    'backbone.embeddings.weight',
    'backbone.layers.0.norm.weight',
    'backbone.norm_f.weight',
    'lm_head.weight',
    'x.y',
  ]);
  expect(names.get('backbone.norm_f.weight')).toBe('norm_f.weight');
  const twice = [
    'backbone.embedding.weight',
    'backbone.embeddings.weight',
    'norm_f.weight',
    'model.norm_f.weight',
  ];
  expect(() => normaliseNames(twice, 'm.safetensors')).toThrow(
    /embedding.weight and .*norm_f.weight and model.norm_f/,
  );
});

test('a file in the original names loads to the same values', async () => {
  const folder = await copyOf('mamba1-tied');
  await rewrite(
    join(folder, 'model.safetensors'),
    (name) => `model.${name.replace('backbone.embeddings', 'backbone.embedding')}`,
  );
  await cp(join(MODELS, 'mamba1-tied/orig/config.json'), join(folder, 'config.json'));
  const [a, b] = [await openPretrained(folder), await openPretrained(join(MODELS, 'mamba1-tied/hf'))];
  for (const name of a.tensors.keys()) expect(await a.tensor(name)).toEqual(await b.tensor(name));
  await a.close();
  await b.close();
});

test('options add their tensors', () => {
  const base = { d_model: 40, n_layer: 1, vocab_size: 300 };
  const plain = expectedTensors(resolveConfig(base));
  const full = expectedTensors(
    resolveConfig({
      ...base,
      rms_norm: false,
      d_intermediate: 96,
      bias: true,
      conv_bias: false,
      tie_embeddings: false,
    }),
  );
  expect(plain.get('backbone.embeddings.weight')).toEqual([304, 40]);
  expect(plain.get('backbone.layers.0.mixer.x_proj.weight')).toEqual([3 + 2 * 16, 80]);
  const added = [...full.keys()].filter((name) => !plain.has(name));
  expect(added).toEqual([
    'backbone.layers.0.norm.bias',
    'backbone.layers.0.mixer.in_proj.bias',
    'backbone.layers.0.mixer.out_proj.bias',
    'backbone.layers.0.norm2.weight',
    'backbone.layers.0.norm2.bias',
    'backbone.layers.0.mlp.fc1.weight',
    'backbone.layers.0.mlp.fc2.weight',
    'backbone.norm_f.bias',
    'lm_head.weight',
  ]);
  expect(full.get('backbone.layers.0.mlp.fc1.weight')).toEqual([256, 40]);
  expect([...plain.keys()].filter((name) => !full.has(name))).toEqual([
    'backbone.layers.0.mixer.conv1d.bias',
  ]);
});

test('the model has exactly these parameters', () => {
  useDevice(createReference());
  const base = { d_model: 12, n_layer: 2, vocab_size: 30, d_state: 3 };
  const all = { rms_norm: false, d_intermediate: 40, bias: true, conv_bias: false, tie_embeddings: false };
  for (const input of [base, { ...base, ...all }]) {
    const model = new LanguageModel(input);
    const found = new Map([...model.namedParameters()].map(([name, tensor]) => [name, [...tensor.shape]]));
    expect(found).toEqual(
      new Map([...expectedTensors(resolveConfig(input))].map(([name, shape]) => [name, [...shape]])),
    );
    model.dispose();
  }
});

describe('weights that do not fit the configuration', () => {
  const config = resolveConfig({ d_model: 8, n_layer: 1, vocab_size: 16 });
  const expected = expectedTensors(config);
  test('one error lists the missing, the unknown and the wrongly shaped', () => {
    const found = new Map(expected);
    found.delete('backbone.layers.0.mixer.D');
    found.delete('backbone.norm_f.weight');
    found.set('backbone.layers.1.mixer.D', [16]);
    found.set('backbone.layers.0.mixer.A_log', [16, 8]);
    const check = () => checkTensors(expected, found, 'm.safetensors');
    expect(check).toThrow('m.safetensors, got 4 differences');
    expect(check).toThrow('backbone.layers.0.mixer.D [16] is missing');
    expect(check).toThrow('backbone.norm_f.weight [8] is missing');
    expect(check).toThrow('backbone.layers.1.mixer.D [16] is unknown');
    expect(check).toThrow('backbone.layers.0.mixer.A_log is [16, 8], not [16, 16]');
  });
  test('a convolution weight may lack its axis of 1, other shapes may not', () => {
    const name = 'backbone.layers.0.mixer.conv1d.weight';
    checkTensors(expected, new Map(expected).set(name, [16, 4]), 'm');
    expect(() => checkTensors(expected, new Map(expected).set(name, [4, 16]), 'm')).toThrow('is [4, 16]');
    expect(() => checkTensors(expected, new Map(expected).set(name, [16, 4, 1]), 'm')).toThrow(
      'is [16, 4, 1]',
    );
  });
  test('a tied head of another shape', () => {
    expect(() => checkTensors(expected, new Map(expected).set('lm_head.weight', [16, 9]), 'm')).toThrow(
      'is [16, 9]',
    );
  });
});

describe('a tied model that stores its head too', () => {
  async function withHead(change: (values: Float32Array) => void): Promise<string> {
    const folder = await copyOf('mamba1-tied');
    const model = await openPretrained(folder);
    const data = await model.tensor('backbone.embeddings.weight');
    await model.close();
    change(data);
    const head: TensorEntry = { name: 'lm_head.weight', dtype: 'F32', shape: [256, 64], data };
    await rewrite(join(folder, 'model.safetensors'), (name) => name, [head]);
    return folder;
  }
  test('equal: accepted, and not a tensor of its own', async () => {
    const model = await openPretrained(await withHead(() => {}));
    expect(model.tensors.has('lm_head.weight')).toBe(false);
    await model.close();
  });
  test('different: refused', async () => {
    const folder = await withHead((values) => {
      values[777]! += 1;
    });
    await expect(openPretrained(folder)).rejects.toThrow('a difference at element 777');
  });
});

describe('folders that are no model', () => {
  const cases: [name: string, damage: (folder: string) => Promise<unknown>, message: string][] = [
    [
      'no config.json and no Mamba',
      async (f) => {
        await rm(join(f, 'config.json'));
        const name = join(f, 'model.safetensors');
        await writeFile(
          name,
          (await readFile(name)).toString('latin1').replaceAll('A_log', 'A_lag'),
          'latin1',
        );
      },
      'got no backbone.layers.0.mixer.A_log',
    ],
    ['no weights', (f) => rm(join(f, 'model.safetensors')), 'got none of them. Is the download complete?'],
    [
      'only an ONNX file',
      async (f) => {
        await rm(join(f, 'model.safetensors'));
        await writeFile(join(f, 'model.onnx'), 'x');
      },
      'got model.onnx. Convert',
    ],
    [
      'weights cut',
      async (f) =>
        writeFile(
          join(f, 'model.safetensors'),
          (await readFile(join(f, 'model.safetensors'))).subarray(0, 9000),
        ),
      'data_offsets inside',
    ],
    [
      'config of another size',
      async (f) => cp(join(MODELS, 'mamba1-odd/hf/config.json'), join(f, 'config.json')),
      'differences',
    ],
    [
      'a billion layers',
      async (f) =>
        writeFile(
          join(f, 'config.json'),
          (await readFile(join(f, 'config.json'), 'utf8')).replace(
            '"num_hidden_layers": 2',
            '"num_hidden_layers": 1000000000',
          ),
        ),
      'weights for 1000000000 layers, got 22 tensors',
    ],
    ['config not JSON', (f) => writeFile(join(f, 'config.json'), '{\n"a": 1,\n}'), 'line 3, column 1'],
    ['config not UTF-8', (f) => writeFile(join(f, 'config.json'), Uint8Array.of(0x7b, 0xff)), 'UTF-8'],
  ];
  test.each(cases)('%s', async (_, damage, message) => {
    const folder = await copyOf('mamba1-tied');
    await damage(folder);
    const opening = openPretrained(folder);
    await expect(opening).rejects.toThrow(message);
    await expect(opening).rejects.toThrow(folder);
    await expect(opening).rejects.toHaveProperty('code', expect.stringMatching(/^ERR_/));
  });
  test('a shard is missing', async () => {
    const folder = await copyOf('mamba1-bf16');
    await rm(join(folder, 'model-00002-of-00003.safetensors'));
    await expect(openPretrained(folder)).rejects.toThrow('shard model-00002-of-00003.safetensors');
  });
  test('nothing there', async () => {
    await expect(openPretrained(join(scratch, 'nowhere'))).rejects.toThrow('got nothing at this path');
  });
});

test('weights that are not finite are reported with name and counts', async () => {
  const values = Float32Array.of(1, Number.NaN, 2, Number.NEGATIVE_INFINITY, Number.NaN);
  const report = reportNonFinite('D', values)!;
  expect(report).toEqual({ name: 'D', nan: 2, infinite: 1, first: 1 });
  expect(reportNonFinite('A', Float32Array.of(0, -1e38))).toBeNull();
  expect(describeNonFinite([report])).toBe('D: 2 NaN, 1 infinite, first at 1');
});

test('the tokenizer comes with the model', async () => {
  const folder = await copyOf('mamba1-tied');
  await writeFile(join(folder, 'tokenizer.json'), '{"é": 1}');
  await writeFile(join(folder, 'notes.txt'), 'not ours');
  const model = await openPretrained(folder);
  expect(model.tokenizer).toEqual({ 'tokenizer.json': '{"é": 1}' });
  expect(model.configJson.eos_token_id).toBe(0);
  await model.close();
});

describe('without config.json', () => {
  test.each(['mamba1-tied/hf', 'mamba1-tied/orig', 'mamba1-odd/hf', 'mamba1-odd/orig', 'mamba1-bf16/hf'])(
    '%s is told from its tensors',
    async (name) => {
      const given = await openPretrained(join(MODELS, name));
      const folder = await mkdtemp(join(tmpdir(), 'mamba-bare-'));
      await cp(join(MODELS, name), folder, { recursive: true });
      await rm(join(folder, 'config.json'));
      const bare = await openPretrained(folder);
      // Rows of the embedding, which may pad the vocabulary, are all that the tensors tell of it.
      const rows = given.tensors.get('backbone.embeddings.weight')![0]!;
      expect(bare.config).toEqual({ ...given.config, vocab_size: rows, pad_vocab_size_multiple: 1 });
      expect(bare.notes?.[0]).toContain('no config.json');
      expect(given.notes).toBe(undefined);
      await Promise.all([given.close(), bare.close()]);
      await rm(folder, { recursive: true });
    },
  );
});
