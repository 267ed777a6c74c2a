/**
 * Narrow weights in memory: what is kept in which type, the logits of every type on every device, memory to the byte, and what a state,
 * a saved folder and a GGUF file make of them.
 */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, it, test } from 'vitest';
import { type Backend, withDevice } from '../src/backend/backend.ts';
import { sizeClass } from '../src/backend/cpu.ts';
import { deviceBytes } from '../src/base/panels.ts';
import { memorySource } from '../src/base/source.ts';
import type { WeightDType } from '../src/base/weight-types.ts';
import {
  convertModel,
  createReference,
  currentDevice,
  FormatError,
  generateTokens,
  LanguageModel,
  loadModel,
  noGrad,
  openPretrained,
  State,
  saveModel,
  scope,
  UnsupportedError,
  useDevice,
  writeGguf,
} from '../src/index.node.ts';
import { openGguf } from '../src/io/gguf.ts';
import { toGgufName } from '../src/io/gguf-names.ts';
import { encodeSafetensors, type TensorEntry } from '../src/io/index.ts';
import { loadWeights } from '../src/io/load-weights.ts';
import { devices } from './kernels/devices.ts';
import { fixturePath, maxAbsDiff, readFixture, rowsOf } from './support/oracle.ts';
import { settle } from './support/settle.ts';

const root = mkdtempSync(join(tmpdir(), 'mamba-ts-weights-'));
const at = (name: string): string => join(root, name);
afterAll(() => rmSync(root, { recursive: true, force: true }));

const LOGITS = 2e-5;
const ORACLES = ['mamba1-tied', 'mamba1-odd', 'mamba1-bf16', 'falcon-mamba'] as const;
const NARROW = ['bf16', 'f16', 'q8', 'q4'] as const;
const MATRIX = /(embeddings|lm_head|in_proj|x_proj|dt_proj|out_proj|fc1|fc2)\.weight$/;

async function load(path: string, device: Backend, weights?: WeightDType): Promise<LanguageModel> {
  const files = await openPretrained(path);
  const model = withDevice(device, () => new LanguageModel(files.config, { seed: null })).requireGrad(false);
  await loadWeights(model, files, weights);
  await files.close();
  await model.refreshFingerprint();
  return model;
}

/** The same numbers in float32. */
async function widened(model: LanguageModel): Promise<LanguageModel> {
  const wide = withDevice(model.device, () => new LanguageModel(model.config, { seed: null }));
  const parameters = new Map(wide.namedParameters());
  for (const [name, tensor] of model.namedParameters()) parameters.get(name)!.write(await tensor.floats());
  return wide.requireGrad(false);
}

const forward = (model: LanguageModel, ids: number[][]): Promise<Float32Array> =>
  withDevice(model.device, () => noGrad(() => scope(() => model.forward(ids).logits))).floats();

function typesOf(model: LanguageModel): Record<string, string> {
  return Object.fromEntries([...model.namedParameters()].map(([name, { dtype }]) => [name, dtype]));
}

async function greedy(model: LanguageModel, prompt: number[]): Promise<number[]> {
  const tokens: number[] = [];
  for await (const step of generateTokens(model, [prompt], { maxTokens: 8, temperature: 0 })) {
    const [row] = step.rows;
    if (row!.token !== null) tokens.push(row!.token);
    if (row!.finishReason) step.state.dispose();
  }
  return tokens;
}

describe('which weights are narrow', () => {
  it('BF16 shards stay BF16, matrices only', async () => {
    const model = await load(fixturePath('mamba1-bf16/hf'), createReference());
    for (const [name, dtype] of Object.entries(typesOf(model))) {
      expect(dtype, name).toBe(MATRIX.test(name) ? 'bf16' : 'f32');
    }
    const torch = await load(fixturePath('mamba1-bf16/orig'), createReference());
    expect(typesOf(torch)).toEqual(typesOf(model));
    for (const [[name, a], [, b]] of zip(model.namedParameters(), torch.namedParameters())) {
      expect(await a.data(), name).toEqual(await b.data());
    }
  });

  it('F32 stays F32 unless asked; rows without whole blocks are F16, the head of a Q4 model is Q8', async () => {
    const path = fixturePath('mamba1-odd/hf');
    const [plain, q4] = [await load(path, createReference()), await load(path, createReference(), 'q4')];
    expect(new Set(Object.values(typesOf(plain)))).toEqual(new Set(['f32']));
    const types = typesOf(q4);
    // 48 columns are no whole blocks, 96 are; dt_rank is 5.
    expect(types['lm_head.weight']).toBe('f16');
    expect(types['backbone.layers.0.mixer.in_proj.weight']).toBe('f16');
    expect(types['backbone.layers.0.mixer.x_proj.weight']).toBe('q4');
    expect(types['backbone.layers.0.mixer.out_proj.weight']).toBe('q4');
    expect(types['backbone.layers.0.mixer.dt_proj.weight']).toBe('f16');
    expect(types['backbone.layers.0.mixer.conv1d.weight']).toBe('f32');
    const falcon = await load(fixturePath('falcon-mamba/hf'), createReference(), 'q4');
    expect(typesOf(falcon)['lm_head.weight']).toBe('q8');
    expect(typesOf(falcon)['backbone.embeddings.weight']).toBe('q4');
    const mlp = new LanguageModel({ vocab_size: 8, d_model: 32, n_layer: 1, d_intermediate: 128 });
    await saveModel(mlp, at('mlp'));
    const kept = typesOf(await load(at('mlp'), createReference(), 'q8'));
    expect(kept['backbone.layers.0.mlp.fc1.weight']).toBe('q8');
    expect(kept['backbone.layers.0.norm2.weight']).toBe('f32');
  });

  it.each([
    ['mamba2-tied/hf', [], ['A_log', 'D', 'dt_bias', 'conv1d.weight', 'conv1d.bias', 'norm.weight']],
    ['mamba2-g2/codestral', ['in_proj.bias'], ['A_log', 'D', 'dt_bias', 'conv1d.weight', 'norm.weight']],
    ['mamba2-hybrid/orig', [], ['A_log', 'D', 'dt_bias', 'conv1d.weight']],
    [
      'mamba3-mimo-norm/orig',
      [],
      ['B_bias', 'C_bias', 'B_norm.weight', 'C_norm.weight', 'D', 'dt_bias', 'mimo_x', 'mimo_z', 'mimo_o'],
    ],
  ])('%s: matrices are narrow, what the recurrence amplifies is not', async (name, more, vectors) => {
    for (const weights of NARROW) {
      const types = typesOf(await load(fixturePath(name), createReference(), weights));
      for (const [tensor, dtype] of Object.entries(types)) {
        const isKept = dtype === weights || dtype === 'f16' || dtype === 'q8';
        expect(MATRIX.test(tensor) ? isKept : dtype === 'f32', `${weights} ${tensor} ${dtype}`).toBe(true);
      }
      for (const vector of [...vectors, ...more])
        expect(types[`backbone.layers.0.mixer.${vector}`]).toBe('f32');
    }
  });

  it.each(NARROW)(
    '%s in memory and in a GGUF file are the same bytes, whichever came first',
    async (weights) => {
      const path = fixturePath('falcon-mamba/hf');
      const stored = weights.startsWith('q') ? (`${weights}_0` as 'q8_0') : (weights as 'f16');
      const file = at(`${weights}.gguf`);
      await convertModel(path, file, { format: 'gguf', weights });
      const asked = await load(path, createReference(), weights);
      const found = await load(file, createReference());
      expect(typesOf(found)).toEqual(typesOf(asked));
      expect(Object.values(typesOf(found))).toContain(weights);
      for (const [[name, a], [, b]] of zip(asked.namedParameters(), found.namedParameters())) {
        // A goes through -exp and log.
        if (!name.endsWith('A_log')) expect(await a.data(), name).toEqual(await b.data());
      }
      // From memory, from the file, and from the file once more.
      await writeGguf(asked, at('memory.gguf'), { weights: stored });
      await convertModel(file, at('again.gguf'), { format: 'gguf', weights });
      const open = (name: string) => openGguf(memorySource(new Uint8Array(readFileSync(at(name))), name));
      for (const name of ['memory.gguf', 'again.gguf']) {
        const [a, b] = [await open(`${weights}.gguf`), await open(name)];
        for (const [theirs, { type, start, end }] of a.tensors) {
          const other = b.tensors.get(theirs)!;
          expect(other.type.name).toBe(type.name);
          if (theirs.endsWith('ssm_a')) continue;
          const bytes = (file: string, from: number) =>
            readFileSync(at(file)).subarray(from, from + end - start);
          expect(bytes(name, other.start).equals(bytes(`${weights}.gguf`, start)), theirs).toBe(true);
        }
      }
    },
  );

  it('a quantised model asked for in its own type keeps its bytes; in float32 it is widened exactly', async () => {
    const [q8, wide] = [
      await load(at('q8.gguf'), createReference(), 'q8'),
      await load(at('q8.gguf'), createReference(), 'f32'),
    ];
    expect(new Set(Object.values(typesOf(wide)))).toEqual(new Set(['f32']));
    for (const [[name, a], [, b]] of zip(q8.namedParameters(), wide.namedParameters())) {
      expect(await a.floats(), name).toEqual(await b.data());
    }
  });
});

describe.each(devices)('on $label', ({ backend }) => {
  it('BF16 shards give the stored logits', async () => {
    const expected = await readFixture('mamba1-bf16/expected.safetensors');
    const model = await load(fixturePath('mamba1-bf16/hf'), backend);
    for (const length of ['S1', 'S7', 'S64']) {
      const logits = await forward(model, rowsOf(expected(`input_ids.${length}`)));
      expect(maxAbsDiff(logits, expected(`logits.${length}`).data), length).toBeLessThan(LOGITS);
    }
    model.dispose();
  });

  test.each(ORACLES.flatMap((name) => NARROW.map((weights) => [name, weights] as const)))(
    '%s as %s: the logits and tokens of the rounded weights in float32',
    async (name, weights) => {
      const expected = await readFixture(`${name}/expected.safetensors`);
      const model = await load(fixturePath(`${name}/hf`), backend, weights);
      const wide = await widened(model);
      const ids = rowsOf(expected('input_ids.S7'));
      const [got, want] = [await forward(model, ids), await forward(wide, ids)];
      // It is the model: nearer to the stored logits than these are to one another.
      const exact = Float64Array.from(expected('logits.S7').data);
      const size = (x: Float32Array, y: Float32Array | Float64Array) =>
        Math.sqrt(x.reduce((sum, value, i) => sum + (value - y[i]!) ** 2, 0) / x.length);
      expect(size(got, exact)).toBeLessThan(
        size(Float32Array.from(exact), new Float64Array(exact.length)) / 2,
      );
      // Beside q8 and q4 activations are rounded too, in steps 256 times finer than those of q8 and more than those of q4.
      if (weights.startsWith('q')) expect(size(got, want)).toBeLessThan(size(want, exact) / 64);
      else expect(maxAbsDiff(got, want)).toBeLessThan(LOGITS);
      expect(await greedy(model, ids[0]!)).toEqual(await greedy(wide, ids[0]!));
      model.dispose();
      wide.dispose();
    },
  );

  test.each([undefined, 'f32', ...NARROW] as const)('weights %s: memory to the byte', async (weights) => {
    const path = fixturePath('mamba1-bf16/hf');
    await settle();
    const before = backend.memory.liveBytes;
    backend.resetPeak();
    const model = await load(path, backend, weights);
    const room = (bytes: number) =>
      backend.name === 'reference' ? Math.ceil(bytes / 64) * 64 : sizeClass(bytes);
    const own = model
      .parameters()
      .reduce((sum, { dtype, shape }) => sum + room(deviceBytes(dtype, shape)), 0);
    expect(backend.memory.liveBytes - before).toBe(own);
    // Blocks on their way into panels: one piece of one matrix, here the whole.
    const blocks = model.parameters().filter(({ dtype }) => dtype.startsWith('q'));
    const largest = Math.max(0, ...blocks.map(({ sizeBytes }) => room(sizeBytes)));
    expect(backend.memory.peakBytes - before).toBeGreaterThanOrEqual(own);
    expect(backend.memory.peakBytes - before).toBeLessThanOrEqual(own + largest);
    const bits = { bf16: 16, f16: 16, q8: 8.5, q4: 4.5, f32: 32 }[weights ?? 'bf16'];
    const { in_proj } = model.backbone.layers[0]!.mixer;
    expect((8 * in_proj.weight.sizeBytes) / in_proj.weight.size).toBe(bits);
    model.dispose();
    expect(backend.memory.liveBytes).toBe(before);
  });
});

describe('a narrow model', () => {
  it('shares its fingerprint and state with the same model in float32', async () => {
    const ids = [[1, 2, 3, 4, 5]];
    const wide = await loadModel(fixturePath('falcon-mamba/hf'), { device: 'reference' });
    const { state } = noGrad(() => wide.forward(ids));
    const bytes = await state.toBytes();
    const before = await state.layers[1]!.ssm!.floats();
    for (const weights of NARROW) {
      const model = await loadModel(fixturePath('falcon-mamba/hf'), { device: 'reference', weights });
      expect(model.fingerprint).toBe(wide.fingerprint);
      const taken = State.fromBytes(bytes, model);
      expect(await taken.layers[1]!.ssm!.floats()).toEqual(before);
      expect(noGrad(() => model.forward([[6]], { state: taken })).state.tokens).toEqual([6]);
      const own = noGrad(() => model.forward(ids)).state;
      expect(own.sizeBytes).toBe(state.sizeBytes);
      expect((await own.toBytes()).length).toBe(bytes.length);
    }
    expect((await loadModel(at('q4.gguf'), { device: 'reference' })).fingerprint).toBe(wide.fingerprint);
  });

  it.each(NARROW)('%s: saved and loaded again, it has the same numbers', async (weights) => {
    const model = await loadModel(fixturePath('mamba1-tied/hf'), { device: 'reference', weights });
    await saveModel(model, at(`saved-${weights}`));
    const back = await loadModel(at(`saved-${weights}`));
    const kept = weights.startsWith('q') ? 'f32' : weights;
    expect(new Set(Object.values(typesOf(back)))).toEqual(
      new Set(['f32', ...(kept === 'f32' ? ['f16'] : [kept])]),
    );
    for (const [[name, a], [, b]] of zip(model.namedParameters(), back.namedParameters())) {
      expect(await b.floats(), name).toEqual(await a.floats());
    }
    expect(back.fingerprint).toBe(model.fingerprint);
  });

  it('is not trained', async () => {
    const model = await loadModel(fixturePath('mamba1-bf16/hf'), { device: 'reference' });
    expect(() => model.requireGrad(true)).toThrow(UnsupportedError);
    expect(() => model.requireGrad(true)).toThrow("Load the model with weights: 'f32'");
    const wide = await loadModel(fixturePath('mamba1-bf16/hf'), { device: 'reference', weights: 'f32' });
    expect(wide.requireGrad(true).forward([[1]]).logits.tracksGrad).toBe(true);
  });
});

describe('what cannot be loaded', () => {
  const CONFIG = { vocab_size: 32, d_model: 32, n_layer: 1, d_state: 2 };

  async function folderWith(
    change: (entries: Map<string, TensorEntry>) => void,
    name: string,
  ): Promise<string> {
    await useDevice(createReference());
    const model = new LanguageModel(CONFIG);
    await saveModel(model, at(name));
    const entries = new Map<string, TensorEntry>();
    for (const [name, tensor] of model.namedParameters()) {
      entries.set(name, { name, dtype: 'F32', shape: tensor.shape, data: await tensor.floats() });
    }
    change(entries);
    writeFileSync(join(at(name), 'model.safetensors'), await encodeSafetensors(entries.values()));
    return at(name);
  }

  const TENSOR = 'backbone.layers.0.mixer.out_proj.weight';

  it.each([
    ['BF16', 0x7f80, '0 NaN, 1 infinite, first at 70'],
    ['BF16', 0xffc1, '1 NaN, 0 infinite, first at 70'],
    ['F16', 0xfc00, '0 NaN, 1 infinite, first at 70'],
    ['F16', 0x7e00, '1 NaN, 0 infinite, first at 70'],
  ] as const)('%s bits %i are reported by name', async (dtype, bits, message) => {
    const folder = await folderWith((entries) => {
      const { shape } = entries.get(TENSOR)!;
      const data = new Uint16Array(shape[0]! * shape[1]!);
      data[70] = bits;
      entries.set(TENSOR, { name: TENSOR, dtype, shape, data });
    }, `${dtype}-${bits}`);
    await settle();
    const before = currentDevice().memory.liveBytes;
    for (const weights of [undefined, 'f32', 'q8'] as const) {
      await expect(loadModel(folder, { weights })).rejects.toThrow(`${TENSOR}: ${message}`);
    }
    await expect(
      convertModel(folder, at('x.gguf'), { format: 'gguf', weights: dtype.toLowerCase() }),
    ).rejects.toThrow(/layers\.0\.mixer\.out_proj\.weight, got (NaN|infinity) at element 70/);
    expect(currentDevice().memory.liveBytes).toBe(before);
  });

  it.each([
    ['q8', 0x7c00, '0 NaN, 32 infinite, first at 64'],
    ['q4', 0x7e00, '32 NaN, 0 infinite, first at 64'],
  ] as const)('%s blocks with the scale %i are reported by name', async (weights, scale, message) => {
    const folder = await folderWith(() => {}, weights);
    const path = at(`scale-${weights}.gguf`);
    await convertModel(folder, path, { format: 'gguf', weights });
    const bytes = new Uint8Array(readFileSync(path));
    const { tensors } = await openGguf(memorySource(bytes.slice(), path));
    const { start, type } = tensors.get(toGgufName(TENSOR, 'mamba')!)!;
    new DataView(bytes.buffer).setUint16(start + 2 * type.bytes, scale, true);
    writeFileSync(path, bytes);
    await expect(loadModel(path)).rejects.toThrow(FormatError);
    await expect(loadModel(path)).rejects.toThrow(`${TENSOR}: ${message}`);
    await expect(loadModel(path, { weights: 'f32' })).rejects.toThrow(`${TENSOR}: ${message}`);
  });

  it('values beyond the type name tensor, type and file', async () => {
    const folder = await folderWith((entries) => {
      (entries.get(TENSOR)!.data as Float32Array)[3] = 1e5;
    }, 'large');
    await settle();
    const before = currentDevice().memory.liveBytes;
    await expect(loadModel(folder, { weights: 'f16' })).rejects.toThrow(FormatError);
    await expect(loadModel(folder, { weights: 'f16' })).rejects.toThrow(
      /up to 65504 for f16 in backbone\.layers\.0\.mixer\.out_proj\.weight of .*, got 100000 at element 3/,
    );
    expect(currentDevice().memory.liveBytes).toBe(before);
    const model = await loadModel(folder, { weights: 'q8' });
    expect((await model.backbone.layers[0]!.mixer.out_proj.weight.floats())[3]).toBeCloseTo(1e5, -2);
  });
});

function* zip<A, B>(a: Iterable<A>, b: Iterable<B>): Generator<[A, B]> {
  const others = [...b];
  const ones = [...a];
  expect(ones.length).toBe(others.length);
  for (const [i, one] of ones.entries()) yield [one, others[i]!];
}
