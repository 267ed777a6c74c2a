/** Mamba-2, Mamba-3 and hybrids on disk: every layout of a model gives the same tensors, every writer gives it back. */
import { cp, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, describe, expect, test } from 'vitest';
import { ConfigError, FormatError, UnsupportedError } from '../../src/base/errors.ts';
import { memorySource } from '../../src/base/source.ts';
import { convertModel, type ModelFormat } from '../../src/convert.node.ts';
import { expectedTensors } from '../../src/io/expected-tensors.ts';
import { readJson } from '../../src/io/file.ts';
import { type OpenOptions, openPretrained, openTensorFile } from '../../src/io/pretrained.node.ts';
import { checkTensors, normaliseNames } from '../../src/io/pretrained.ts';
import { openSafetensors } from '../../src/io/safetensors.ts';
import { encodeSafetensors } from '../../src/io/safetensors-write.ts';
import { type ModelConfig, paddedVocabSize, resolveConfig } from '../../src/models/config.ts';

const MODELS = fileURLToPath(new URL('../fixtures/models/', import.meta.url));
const scratch = await mkdtemp(join(tmpdir(), 'mamba-family-'));
afterAll(() => rm(scratch, { recursive: true }));
let made = 0;
const fresh = (): string => join(scratch, `${made++}`);

interface Read {
  config: ModelConfig;
  tensors: Map<string, Float32Array>;
  notes: readonly string[];
}

async function read(path: string, options: OpenOptions = {}): Promise<Read> {
  const model = await openPretrained(path, options);
  const tensors = new Map<string, Float32Array>();
  for (const name of model.tensors.keys()) tensors.set(name, await model.tensor(name));
  await model.close();
  return { config: model.config, tensors, notes: model.notes ?? [] };
}

/** As a file with a padded vocabulary tells it. */
const padded = (config: ModelConfig): ModelConfig => ({
  ...config,
  vocab_size: paddedVocabSize(config),
  pad_vocab_size_multiple: 1,
});

async function copyOf(path: string): Promise<string> {
  const folder = fresh();
  await cp(join(MODELS, path), folder, { recursive: true });
  return folder;
}

async function changeJson(path: string, change: object): Promise<void> {
  await writeFile(path, JSON.stringify({ ...(await readJson(path)), ...change }));
}

const ALL = ['mamba2-tied', 'mamba2-g2', 'mamba2-nonorm', 'mamba2-hybrid', 'mamba3-siso', 'mamba3-mimo-norm'];

describe.each(ALL)('%s', (name) => {
  test('the original layout opens, with as many parameters as the model has and their gradients names', async () => {
    const { config, tensors } = await read(join(MODELS, name, 'orig'));
    const meta = await readJson(join(MODELS, name, 'meta.json'));
    expect([...tensors.values()].reduce((sum, { length }) => sum + length, 0)).toBe(meta.params);
    const grads = await openTensorFile(join(MODELS, name, 'grads.safetensors'));
    const names = normaliseNames(grads.tensors.keys(), 'grads');
    const found = new Map([...names].map(([ours, theirs]) => [ours, grads.tensors.get(theirs)!.shape]));
    checkTensors(expectedTensors(config), found, 'grads');
    await grads.close();
  });

  test.each<ModelFormat>(['hf', 'original'])(
    'to %s and back: the same configuration and bits',
    async (format) => {
      const before = await read(join(MODELS, name, 'orig'));
      const out = fresh();
      const { notes, weightBytes } = await convertModel(join(MODELS, name, 'orig'), out, { format });
      const after = await read(out);
      expect(after.config).toEqual(before.config);
      expect(after.tensors).toEqual(before.tensors);
      expect(weightBytes).toBe(4 * [...before.tensors.values()].reduce((sum, { length }) => sum + length, 0));
      expect(notes).toHaveLength(format === 'hf' && name === 'mamba2-g2' ? 1 : 0);
      const files =
        format === 'hf' ? ['config.json', 'model.safetensors'] : ['config.json', 'pytorch_model.bin'];
      expect((await readdir(out)).sort()).toEqual(files);
    },
  );
});

test.each([
  ['mamba2-tied', ['hf']],
  ['mamba2-g2', ['hf', 'codestral']],
])('%s: every layout gives the same model', async (name, layouts) => {
  const original = await read(join(MODELS, name, 'orig'));
  for (const layout of layouts) {
    const { config, tensors } = await read(join(MODELS, name, layout));
    const expected = layout === 'hf' ? padded(original.config) : { ...original.config, chunk_size: 256 };
    expect(config).toEqual(expected);
    expect(tensors).toEqual(original.tensors);
  }
});

describe('Codestral', () => {
  const source = join(MODELS, 'mamba2-g2/codestral');

  test('written again, its files hold the same; a file of it opens, too', async () => {
    const out = fresh();
    const { notes } = await convertModel(join(MODELS, 'mamba2-g2/orig'), out, { format: 'codestral' });
    expect(notes).toEqual([
      "Mistral's program cannot load this model, because params.json does not tell it d_state 16, headdim 12, bias true.",
    ]);
    expect(await readJson(join(out, 'params.json'))).toEqual(await readJson(join(source, 'params.json')));
    const [a, b] = await Promise.all(
      [out, source].map((folder) => openTensorFile(join(folder, 'consolidated.safetensors'))),
    );
    expect([...a!.tensors.keys()].sort()).toEqual([...b!.tensors.keys()].sort());
    for (const name of b!.tensors.keys()) expect(await a!.read(name)).toEqual(await b!.read(name));
    await Promise.all([a!.close(), b!.close()]);
    const file = await read(join(out, 'consolidated.safetensors'));
    expect(file.config).toEqual((await read(source)).config);
  });

  test('what params.json leaves out follows from the tensors', async () => {
    const folder = await copyOf('mamba2-g2/codestral');
    await writeFile(join(folder, 'params.json'), '{"dim": 48, "n_layers": 2, "n_groups": 2}');
    expect((await read(folder)).config).toEqual(padded((await read(source)).config));
  });

  test.each<[string, object, string]>([
    ['n_groups missing', { n_groups: null }, 'n_groups is missing'],
    ['a wrong kind', { dim: '48' }, 'dim must be a number, got "48"'],
    ['groups that the channels do not give', { n_groups: 3 }, 'does not go into ngroups 3'],
    ['another width', { dim: 50 }, 'differences'],
    ['another vocabulary', { vocab_size: 400 }, 'not [400, 48]'],
    ['a field of another model', { n_heads: 4 }, 'n_heads is not a known field'],
    [
      'a Transformer',
      { n_groups: undefined, model_type: undefined, n_heads: 4 },
      'expected model_type mamba',
    ],
  ])('%s', async (_, change, message) => {
    const folder = await copyOf('mamba2-g2/codestral');
    await changeJson(join(folder, 'params.json'), change);
    await expect(openPretrained(folder)).rejects.toThrow(message);
    await expect(openPretrained(folder)).rejects.toThrow(folder);
  });

  test.each([
    ['mamba1-tied/orig', 'got mamba1'],
    ['mamba3-siso/orig', 'got mamba3'],
    ['mamba2-hybrid/orig', 'attention in layer 1, 3; d_intermediate 96'],
  ])('%s has no place there', async (name, message) => {
    const out = fresh();
    const attempt = convertModel(join(MODELS, name), out, { format: 'codestral' });
    await expect(attempt).rejects.toThrow(FormatError);
    await expect(attempt).rejects.toThrow(message);
    await expect(readdir(out)).rejects.toThrow('ENOENT');
  });
});

describe('what files do not record', () => {
  const g2 = join(MODELS, 'mamba2-g2/hf');
  const siso = join(MODELS, 'mamba3-siso/orig');

  test('is said when opening, and kept by convert where a layout can hold it', async () => {
    const ungrouped = { config: { norm_groups: 1 } };
    expect((await read(g2)).config).toMatchObject({ norm_groups: 2 });
    expect((await read(g2, ungrouped)).config).toMatchObject({ norm_groups: 1, ngroups: 2 });
    const out = fresh();
    await convertModel(g2, out, { format: 'hf', ...ungrouped });
    expect((await readJson(join(out, 'config.json'))).model_type).toBe('mamba_ts');
    expect((await read(out)).config).toMatchObject({ norm_groups: 1, ngroups: 2 });

    const softplus = { config: { A_activation: 'softplus' } } as const;
    const other = fresh();
    await convertModel(siso, other, { format: 'hf', ...softplus });
    expect((await read(other)).config).toEqual({ ...(await read(siso)).config, A_activation: 'softplus' });

    for (const format of ['original', 'codestral'] as const) {
      const attempt = convertModel(g2, fresh(), { format, ...ungrouped });
      await expect(attempt).rejects.toThrow('norm_groups 1 beside ngroups 2');
    }
    const attempt = convertModel(siso, fresh(), { format: 'original', ...softplus });
    await expect(attempt).rejects.toThrow('A_activation softplus');
  });

  test.each<[string, string, object, string]>([
    ['norm_groups of a Mamba-3', siso, { norm_groups: 1 }, 'a Mamba-2 with a gated norm beside norm_groups'],
    ['norm_groups without a norm', join(MODELS, 'mamba2-nonorm/orig'), { norm_groups: 1 }, 'got one without'],
    ['norm_groups of a Mamba-1', join(MODELS, 'mamba1-tied/hf'), { norm_groups: 1 }, 'got mamba1'],
    ['A_activation of a Mamba-2', g2, { A_activation: 'softplus' }, 'a Mamba-3 beside A_activation'],
    ['groups that do not divide', g2, { norm_groups: 5 }, 'norm_groups 5 must divide d_ssm 96'],
    ['another activation', siso, { A_activation: 'relu' }, 'A_activation must be heavy-tail or softplus'],
    ['another key', siso, { d_model: 64 }, 'norm_groups or A_activation for config, got d_model'],
  ])('%s', async (_, path, config, message) => {
    const attempt = openPretrained(path, { config });
    await expect(attempt).rejects.toThrow(ConfigError);
    await expect(attempt).rejects.toThrow(message);
    await expect(attempt).rejects.toThrow(path);
  });
});

describe('without config.json', () => {
  async function bare(path: string): Promise<string> {
    const folder = await copyOf(path);
    await rm(join(folder, 'config.json'));
    return folder;
  }

  test.each(['mamba3-siso/orig', 'mamba3-mimo-norm/orig'])('%s is told from its tensors', async (name) => {
    const found = await read(await bare(name));
    const given = (await read(join(MODELS, name))).config;
    expect(found.config).toEqual({ ...padded(given), chunk_size: 64 });
    expect(found.notes[0]).toContain('A_activation heavy-tail');
  });

  test.each([
    ['mamba2-tied/hf', 'ngroups * d_state = 32, whose factors no shape tells'],
    ['mamba2-g2/orig', 'ngroups * d_state = 32'],
    ['mamba2-hybrid/orig', 'attention in layer 1, 3, whose num_heads, num_heads_kv and rotary_emb_dim'],
  ])('%s lacks something, which is said', async (name, message) => {
    const attempt = openPretrained(await bare(name));
    await expect(attempt).rejects.toThrow(message);
    await expect(attempt).rejects.toThrow('Put its config.json there');
  });

  test.each([
    { rmsnorm: false, D_has_hdim: true, d_ssm: 32 },
    { bias: true, conv_bias: false, d_conv: 2, d_intermediate: 128, tie_embeddings: false },
  ])('a Mamba-2 of the published state size is told: %o', async (options) => {
    const config = resolveConfig({
      model_type: 'mamba2',
      d_model: 32,
      n_layer: 2,
      vocab_size: 24,
      headdim: 16,
      pad_vocab_size_multiple: 1,
      ...options,
    });
    const entries = [...expectedTensors(config)].map(([name, shape]) => ({
      name,
      dtype: 'F32' as const,
      shape,
      data: new Float32Array(shape.reduce((a, b) => a * b, 1)),
    }));
    const path = `${fresh()}.safetensors`;
    await writeFile(path, await encodeSafetensors(entries));
    const found = await read(path);
    expect(found.config).toEqual(config);
    expect(found.notes[0]).toContain('d_state 128');
  });
});

test('sharded files and a convolution without its axis', async () => {
  const folder = await copyOf('mamba2-g2/hf');
  const path = join(folder, 'model.safetensors');
  const whole = await openSafetensors(memorySource(new Uint8Array(await readFile(path)), path));
  const weight_map: Record<string, string> = {};
  const parts: Awaited<ReturnType<typeof entryOf>>[][] = [[], []];
  const entryOf = async (name: string) => {
    const { dtype, shape } = whole.tensors.get(name)!;
    const squeezed = name.endsWith('conv1d.weight') ? [shape[0]!, shape[2]!] : shape;
    return { name, dtype, shape: squeezed, data: await whole.read(name) };
  };
  for (const [i, name] of [...whole.tensors.keys()].entries()) {
    weight_map[name] = `model-0000${(i % 2) + 1}-of-00002.safetensors`;
    parts[i % 2]!.push(await entryOf(name));
  }
  for (const [i, part] of parts.entries())
    await writeFile(join(folder, `model-0000${i + 1}-of-00002.safetensors`), await encodeSafetensors(part));
  await writeFile(join(folder, 'model.safetensors.index.json'), JSON.stringify({ weight_map }));
  await rm(path);
  const found = await read(folder);
  expect(found.tensors).toEqual((await read(join(MODELS, 'mamba2-g2/hf'))).tensors);
});

test('a tied model may store its head too, if it is the same', async () => {
  const folder = await copyOf('mamba2-tied/hf');
  const path = join(folder, 'model.safetensors');
  const bytes = new Uint8Array(await readFile(path));
  const file = await openSafetensors(memorySource(bytes, path));
  const withHead = async (change: (values: Float32Array) => void) => {
    const head = (await file.readAsF32('backbone.embeddings.weight')) as Float32Array<ArrayBuffer>;
    change(head);
    const { shape } = file.tensors.get('backbone.embeddings.weight')!;
    const entries = [...file.tensors].map(([name, info]) => ({
      name,
      dtype: info.dtype,
      shape: info.shape,
      data: () => file.read(name),
    }));
    await writeFile(
      path,
      await encodeSafetensors([...entries, { name: 'lm_head.weight', dtype: 'F32', shape, data: head }]),
    );
  };
  await withHead(() => {});
  expect((await read(folder)).tensors.has('lm_head.weight')).toBe(false);
  await withHead((values) => {
    values[100]! += 1;
  });
  await expect(openPretrained(folder)).rejects.toThrow('a difference at element 100');
});

describe('a folder that holds another layout already', () => {
  test.each<[ModelFormat, string]>([
    ['original', 'mamba2-tied/hf'],
    ['codestral', 'mamba2-tied/orig'],
    ['original', 'mamba2-g2/codestral'],
  ])('is not joined by %s', async (format, there) => {
    const folder = await copyOf(there);
    const before = (await readdir(folder)).sort();
    const attempt = convertModel(join(MODELS, 'mamba2-g2/hf'), folder, { format });
    await expect(attempt).rejects.toThrow('a folder without a model in another layout');
    expect((await readdir(folder)).sort()).toEqual(before);
  });

  test('the same layout is replaced, the tokenizer too', async () => {
    const folder = fresh();
    await convertModel(join(MODELS, 'mamba2-g2/hf'), folder, { format: 'original' });
    await writeFile(join(folder, 'tokenizer.json'), '{}');
    await writeFile(join(folder, 'notes.txt'), 'mine');
    await convertModel(join(MODELS, 'mamba3-siso/orig'), folder, { format: 'original', weights: 'bf16' });
    expect((await readdir(folder)).sort()).toEqual(['config.json', 'notes.txt', 'pytorch_model.bin']);
    expect((await read(folder)).config.model_type).toBe('mamba3');
  });
});

test('neither an unknown format nor a classifier is written', async () => {
  const attempt = convertModel(join(MODELS, 'mamba2-tied/hf'), fresh(), { format: 'onnx' as 'hf' });
  await expect(attempt).rejects.toThrow('expected format hf, gguf, original, codestral, got onnx');
  const blocks = convertModel(join(MODELS, 'mamba2-tied/hf'), fresh(), {
    format: 'codestral',
    weights: 'q8',
  });
  await expect(blocks).rejects.toThrow('expected weights f32, f16, bf16 for codestral, got q8');
  const folder = await copyOf('mamba1-tied/hf');
  const json = await readJson(join(folder, 'config.json'));
  await changeJson(join(folder, 'config.json'), {
    model_type: 'mamba_ts',
    architectures: ['MambaForSequenceClassification'],
    id2label: { 0: 'a', 1: 'b' },
    label2id: { a: 0, b: 1 },
    mamba_ts: { classifier: { pooling: 'mean', bidirectional: false } },
  });
  expect(json.model_type).toBe('mamba');
  const path = join(folder, 'model.safetensors');
  const file = await openSafetensors(memorySource(new Uint8Array(await readFile(path)), path));
  const entries = [...file.tensors].map(([name, { dtype, shape }]) => ({
    name,
    dtype,
    shape,
    data: () => file.read(name),
  }));
  const score = { name: 'score.weight', dtype: 'F32' as const, shape: [2, 64], data: new Float32Array(128) };
  const bias = { name: 'score.bias', dtype: 'F32' as const, shape: [2], data: new Float32Array(2) };
  await writeFile(path, await encodeSafetensors([...entries, score, bias]));
  for (const format of ['original', 'codestral', 'gguf'] as const) {
    const out = `${fresh()}.gguf`;
    await expect(convertModel(folder, out, { format })).rejects.toThrow(UnsupportedError);
  }
});
