/** From a folder to a model and back: same numbers, same fingerprint, clear refusals. */
import { cpSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeEach, describe, expect, it } from 'vitest';
import {
  currentDevice,
  FormatError,
  LanguageModel,
  type LoadModelOptions,
  loadModel,
  noGrad,
  onDeviceNotice,
  openDefaultDevice,
  openDevice,
  State,
  saveModel,
  useDevice,
} from '../src/index.node.ts';
import { encodeSafetensors, type TensorEntry } from '../src/io/index.ts';
import type { Mamba1 } from '../src/models/mamba1.ts';
import { byteTokenizer, tokenizerFromFiles, trainBpe } from '../src/text/index.ts';
import { fixturePath, maxAbsDiff, readFixture, rowsOf } from './support/oracle.ts';
import { settle } from './support/settle.ts';

beforeEach(settle);

const root = mkdtempSync(join(tmpdir(), 'mamba-ts-load-'));
afterAll(() => rmSync(root, { recursive: true, force: true }));
let folders = 0;
const newFolder = () => join(root, `${folders++}`);

const ODD = { vocab_size: 21, d_model: 10, n_layer: 2, d_state: 3, d_conv: 3, d_inner: 14, bias: true };

describe('loadModel and saveModel', () => {
  it.each([
    ['plain', {}],
    ['untied, without a convolution bias', { tie_embeddings: false, conv_bias: false }],
    ['LayerNorm and MLP sublayers', { rms_norm: false, d_intermediate: 7 }],
  ])('a round trip keeps every weight: %s', async (_, extra) => {
    const model = new LanguageModel({ ...ODD, ...extra }, { seed: 9 });
    const folder = newFolder();
    await saveModel(model, folder);
    const loaded = await loadModel(folder);
    expect(loaded.config).toEqual(model.config);
    expect(loaded.fingerprint).toBe(model.fingerprint);
    expect(loaded.tokenizer).toBe(null);
    const parameters = new Map(loaded.namedParameters());
    for (const [name, tensor] of model.namedParameters()) {
      expect(await parameters.get(name)!.data(), name).toEqual(await tensor.data());
      expect(parameters.get(name)!.requiresGrad).toBe(false);
    }
  });

  it('keeps the tokenizer', async () => {
    const model = new LanguageModel({ ...ODD, vocab_size: 256 });
    model.tokenizer = byteTokenizer();
    const folder = newFolder();
    await saveModel(model, folder);
    expect((await loadModel(folder)).tokenizer?.kind).toBe('bytes');
  });

  it('ends texts at the id of config.json where there is no tokenizer', async () => {
    const model = new LanguageModel(ODD);
    model.eosId = 5;
    const folder = newFolder();
    await saveModel(model, folder);
    const loaded = await loadModel(folder);
    const ended = async (eosId?: null) => {
      const options = { logitBias: { 5: 1000 }, maxTokens: 3, ...(eosId === null && { eosId }) };
      const [all] = await loaded.complete([[1, 2]], options);
      return all!.finishReason;
    };
    expect(loaded.eosId).toBe(5);
    expect(await ended()).toBe('eos');
    expect(await ended(null)).toBe('length');
  });

  it('opens a file, a sharded set and bfloat16 weights', async () => {
    const file = await loadModel(fixturePath('mamba1-tied/hf/model.safetensors'));
    const folder = await loadModel(fixturePath('mamba1-tied/hf'));
    expect(file.fingerprint).toBe(folder.fingerprint);
    const sharded = await loadModel(fixturePath('mamba1-bf16/hf'));
    const weight = await sharded.backbone.embeddings.weight.floats();
    // Widened from 16 bits: the lower half of every word is zero.
    expect(new Uint32Array(weight.buffer).every((bits) => (bits & 0xffff) === 0)).toBe(true);
  });

  it('puts the model on the device that is asked for, without gradients until they are wanted', async () => {
    await useDevice('reference');
    const model = await loadModel(fixturePath('mamba1-tied/hf'), { device: 'reference' });
    const { device } = model.backbone.embeddings.weight;
    expect(device).toBe(await openDevice('reference'));
    expect(currentDevice()).toBe(device);
    expect(model.forward([[1, 2]]).logits.tracksGrad).toBe(false);
    expect(model.requireGrad(true).forward([[1, 2]]).logits.tracksGrad).toBe(true);
    expect(noGrad(() => model.forward([[1, 2]])).logits.tracksGrad).toBe(false);
  });

  it('needs little more memory than the model', async () => {
    const model = new LanguageModel({ vocab_size: 64, d_model: 64, n_layer: 6 });
    const folder = newFolder();
    await saveModel(model, folder);
    const backend = await useDevice('reference');
    backend.resetPeak();
    const before = backend.memory.liveBytes;
    const loaded = await loadModel(folder);
    const own = backend.memory.liveBytes - before;
    expect(own).toBeGreaterThanOrEqual(4 * loaded.parameterCount);
    expect(backend.memory.peakBytes - before).toBe(own);
    loaded.dispose();
    expect(backend.memory.liveBytes).toBe(before);
  });

  it('every layout of a Mamba-2 is one model to a state; another norm is another model', async () => {
    const load = (path: string, options: LoadModelOptions = {}) =>
      loadModel(fixturePath(path), { device: 'reference', ...options });
    const model = await load('mamba2-g2/orig');
    const expected = await readFixture('mamba2-g2/expected.safetensors');
    const ids = rowsOf(expected('input_ids.S7'));
    const { state } = noGrad(() => model.forward([ids[0]!]));
    const bytes = await state.toBytes();
    const other = await load('mamba2-g2/codestral');
    expect(other.fingerprint).toBe(model.fingerprint);
    const next = async (of: LanguageModel, from: State) =>
      noGrad(() => of.forward([[5]], { state: from })).logits.floats();
    expect(await next(other, State.fromBytes(bytes, other))).toEqual(await next(model, state));
    const ungrouped = await load('mamba2-g2/orig', { config: { norm_groups: 1 } });
    expect(() => State.fromBytes(bytes, ungrouped)).toThrow('expected a state of this model');
    const logits = await noGrad(() => ungrouped.forward(ids)).logits.floats();
    expect(maxAbsDiff(logits, expected('hf_ungrouped_norm.logits.S7').data)).toBeLessThan(2e-5);
  });

  it('reports weights that are not finite by name, and frees what it made', async () => {
    const model = new LanguageModel(ODD);
    const { D } = model.backbone.layers[1]!.mixer as Mamba1;
    const values = await D.floats();
    values[3] = Number.NaN;
    values[5] = Number.NEGATIVE_INFINITY;
    D.write(values);
    const folder = newFolder();
    await saveModel(model, folder);
    const before = currentDevice().memory.liveBytes;
    const loading = loadModel(folder);
    await expect(loading).rejects.toThrow(FormatError);
    await expect(loading).rejects.toThrow('backbone.layers.1.mixer.D: 1 NaN, 1 infinite, first at 3');
    expect(currentDevice().memory.liveBytes).toBe(before);
  });

  it('refuses a head that differs from the embedding it is tied to', async () => {
    const model = new LanguageModel(ODD);
    const tensors: (TensorEntry & { data: Float32Array })[] = [];
    for (const [name, tensor] of model.namedParameters()) {
      tensors.push({ name, dtype: 'F32', shape: tensor.shape, data: await tensor.floats() });
    }
    const { shape, data } = tensors[0]!;
    const folder = newFolder();
    await saveModel(model, folder);
    const write = async (head: Float32Array) => {
      const entries = [...tensors, { name: 'lm_head.weight', dtype: 'F32' as const, shape, data: head }];
      writeFileSync(join(folder, 'model.safetensors'), await encodeSafetensors(entries));
    };
    await write(data);
    expect((await loadModel(folder)).lm_head).toBe(null);
    await write(data.map((x) => x + 1));
    await expect(loadModel(folder)).rejects.toThrow('because the configuration ties them');
  });

  it('tells what it cannot do', async () => {
    await expect(loadModel(fixturePath('mamba1-tied/hf'), { weights: 'q5' as 'f32' })).rejects.toThrow(
      'expected weights f32, bf16, f16, q8, q4, got q5',
    );
    await expect(loadModel(join(root, 'nothing'))).rejects.toThrow('got nothing at this path');
    await expect(loadModel(fixturePath('mamba1-tied/hf'), { device: 'tpu' as 'wasm' })).rejects.toThrow(
      /expected one of .*reference.*, got tpu/,
    );
  });

  it('refuses a tokenizer file it cannot read before it makes the model', async () => {
    const folder = newFolder();
    cpSync(fixturePath('mamba1-tied/hf'), folder, { recursive: true });
    writeFileSync(join(folder, 'tokenizer.json'), '{');
    await expect(loadModel(folder)).rejects.toThrow(
      /expected JSON in tokenizer\.json, got: .* at position 1/,
    );
    await expect(loadModel(folder)).rejects.toThrow(
      `(the tokenizer for ${join(folder, 'model.safetensors')})`,
    );
  });

  it('a trained tokenizer is read back', async () => {
    const { tokenizerJson, tokenizerConfig } = trainBpe(['ab ab abc'], { vocabSize: 262 });
    const files = {
      'tokenizer.json': JSON.stringify(tokenizerJson),
      'tokenizer_config.json': JSON.stringify(tokenizerConfig),
    };
    const model = new LanguageModel({ ...ODD, vocab_size: 262 });
    model.tokenizer = tokenizerFromFiles(files);
    const folder = newFolder();
    await saveModel(model, folder);
    expect(readdirSync(folder)).toContain('tokenizer.json');
    const config = JSON.parse(readFileSync(join(folder, 'config.json'), 'utf8'));
    expect(config.eos_token_id).toBe(model.tokenizer.eosId);
    const loaded = await loadModel(folder);
    expect(loaded.tokenizer!.encode('ab abc')).toEqual(model.tokenizer.encode('ab abc'));
  });
});

describe('the default device', () => {
  it('is what MAMBA_DEVICE says', () => {
    expect(openDefaultDevice('reference').name).toBe('reference');
    expect(() => openDefaultDevice('cuda')).toThrow(
      'MAMBA_DEVICE to be one of native, wasm, reference, got cuda',
    );
  });

  it('is the first that opens', () => {
    expect(['native', 'wasm', 'reference']).toContain(openDefaultDevice('').name);
  });

  it('lists what was tried when the wanted one does not open, and falls back with a notice otherwise', () => {
    const before = process.env.MAMBA_NATIVE;
    process.env.MAMBA_NATIVE = join(root, 'no-such-addon.node');
    try {
      expect(() => openDefaultDevice('native')).toThrow(/no-such-addon\.node: no such file/);
      const notices: string[] = [];
      onDeviceNotice((message) => notices.push(message));
      const backend = openDefaultDevice('');
      expect(backend.name).not.toBe('native');
      expect(notices).toHaveLength(1);
      expect(notices[0]).toContain('no-such-addon.node: no such file');
      onDeviceNotice(() => {});
    } finally {
      if (before === undefined) delete process.env.MAMBA_NATIVE;
      else process.env.MAMBA_NATIVE = before;
    }
  });
});
