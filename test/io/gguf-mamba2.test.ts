/**
 * GGUF files of llama.cpp's architecture mamba2: as it lays them out, what has no place in them, metadata
 * that contradicts the tensors.
 */
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { sizeOf } from '../../src/base/shape.ts';
import { memorySource } from '../../src/base/source.ts';
import {
  createReference,
  FormatError,
  LanguageModel,
  loadModel,
  noGrad,
  UnsupportedError,
  useDevice,
  writeGguf,
} from '../../src/index.node.ts';
import { expectedTensors } from '../../src/io/expected-tensors.ts';
import { ggufContent } from '../../src/io/gguf-export.ts';
import { type GgufModel, openGgufModel } from '../../src/io/gguf-model.ts';
import { type GgufEntry, type GgufField, ggufChunks } from '../../src/io/gguf-write.ts';
import type { StoredWeight } from '../../src/io/weight-pieces.ts';
import { resolveConfig } from '../../src/models/config.ts';
import type { Mamba2Input } from '../../src/models/config-mamba2.ts';
import { maxAbsDiff } from '../support/oracle.ts';

const root = mkdtempSync(join(tmpdir(), 'mamba-ts-gguf2-'));
const at = (name: string): string => join(root, name);
afterAll(() => rmSync(root, { recursive: true, force: true }));
beforeAll(() => useDevice(createReference()));

describe('files as llama.cpp lays them out, with logits of the recurrence in float64', () => {
  it.each([
    ['groups2', { ngroups: 2, norm_groups: 2, tie_embeddings: true }],
    ['groups1', { ngroups: 1, norm_groups: 1, tie_embeddings: false }],
  ])('mamba2-%s', async (name, own) => {
    const path = fileURLToPath(new URL(`../fixtures/gguf/mamba2-${name}`, import.meta.url));
    const model = await loadModel(`${path}.gguf`);
    const sizes = { d_model: 16, n_layer: 2, vocab_size: 40, d_inner: 32, headdim: 8, d_state: 6 };
    expect(model.config).toMatchObject({ model_type: 'mamba2', ...sizes, d_conv: 4, bias: false, ...own });
    const { ids, logits } = JSON.parse(readFileSync(`${path}.json`, 'utf8')) as {
      ids: number[];
      logits: number[][];
    };
    // The bound of docs/numerics.md for logits in float32.
    expect(maxAbsDiff(await noGrad(() => model.forward([ids])).logits.floats(), logits.flat())).toBeLessThan(
      2e-5,
    );
    await writeGguf(model, at(`${name}.gguf`), { weights: own.tie_embeddings ? 'f32' : 'f16' });
    expect((await loadModel(at(`${name}.gguf`))).fingerprint).toBe(model.fingerprint);
  });
});

describe('writing', () => {
  it.each<[string, Partial<Mamba2Input>, RegExp]>([
    ['LayerNorm', { rms_norm: false }, /LayerNorm/],
    ['MLP sublayers', { d_intermediate: 16 }, /MLP sublayers \(d_intermediate 16\)/],
    ['attention', { attn_layer_idx: [0], attn_cfg: { num_heads: 2 } }, /attention in layers 0/],
    ['a SwiGLU beside the recurrence', { d_ssm: 8 }, /d_ssm 8 of d_inner 16/],
    ['D per channel', { D_has_hdim: true }, /D_has_hdim/],
    ['no gated norm', { rmsnorm: false }, /rmsnorm false/],
    ['a norm before the gate', { norm_before_gate: true }, /norm_before_gate/],
    [
      'one norm over several groups',
      { ngroups: 2, norm_groups: 1 },
      /1 groups of channels with 2 of B and C/,
    ],
    ['limited step sizes', { dt_limit: [0, 0.5] }, /dt_limit 0,0.5/],
    ['several', { rmsnorm: false, dt_limit: [0.1, Number.POSITIVE_INFINITY] }, /rmsnorm false.*; .*dt_limit/],
  ])('mamba2 with %s is refused by name', async (_, change, message) => {
    const small = {
      model_type: 'mamba2',
      vocab_size: 20,
      d_model: 8,
      n_layer: 2,
      d_state: 4,
      headdim: 4,
    } as const;
    const refused = writeGguf(new LanguageModel({ ...small, ...change }), at('never.gguf'));
    await expect(refused).rejects.toThrow(UnsupportedError);
    await expect(refused).rejects.toThrow(message);
    await expect(refused).rejects.toThrow('write the Hugging Face layout');
    expect(existsSync(at('never.gguf'))).toBe(false);
  });

  it('mamba2: any width, groups and kernel; what llama.cpp lacks is noted', async () => {
    const small = {
      model_type: 'mamba2',
      vocab_size: 20,
      d_model: 8,
      n_layer: 2,
      d_state: 3,
      d_conv: 3,
    } as const;
    const model = new LanguageModel({
      ...small,
      expand: 3,
      headdim: 4,
      ngroups: 3,
      bias: true,
      conv_bias: false,
    });
    const { notes } = await writeGguf(model, at('wide2.gguf'));
    expect(notes.join()).toMatch(/^llama.cpp knows no bias of in_proj.*zeros.*no tokenizer/);
    expect((await loadModel(at('wide2.gguf'))).config).toEqual({ ...model.config, conv_bias: true });
  });
});

describe('a mamba2 file', () => {
  const config = resolveConfig({
    model_type: 'mamba2',
    ...{ vocab_size: 20, d_model: 8, n_layer: 2, d_state: 4, headdim: 4, ngroups: 2 },
  });
  const shapes = expectedTensors(config);
  const weight = (name: string): StoredWeight => {
    const size = sizeOf(shapes.get(name)!);
    const pieces = async function* () {
      yield { at: 0, count: size, data: new Float32Array(size).fill(0.5) };
    };
    return { dtype: 'f32', size, storedBytes: 4 * size, pieces };
  };
  type Change = (metadata: Map<string, GgufField>, entries: GgufEntry[]) => void;
  async function changed(change: Change): Promise<GgufModel> {
    const { metadata, entries } = ggufContent({ config, tokenizer: {}, weight }, 'f32', 'changed');
    change(metadata, entries);
    const parts: Uint8Array[] = [];
    for await (const part of ggufChunks(metadata, entries)) parts.push(part.slice());
    return openGgufModel(memorySource(new Uint8Array(Buffer.concat(parts)), 'dir/changed.gguf'));
  }
  const set =
    (key: string, value: number): Change =>
    (metadata) =>
      metadata.set(`mamba2.${key}`, { type: 'u32', value });
  const reshape =
    (name: string, shape: number[]): Change =>
    (_, entries) => {
      entries.find((entry) => entry.name === name)!.shape = shape;
    };

  it('as written opens', async () => expect((await changed(() => {})).config).toEqual(config));

  it.each<[string, Change, RegExp]>([
    ['without its groups', (metadata) => metadata.delete('mamba2.ssm.group_count'), /group_count is missing/],
    [
      'with a text for a number',
      (metadata) => metadata.set('mamba2.ssm.group_count', { type: 'string', value: '2' }),
      /group_count must be a number, got a string/,
    ],
    [
      'with keys of mamba',
      (metadata) => metadata.set('general.architecture', { type: 'string', value: 'mamba' }),
      /mamba.embedding_length is missing; mamba.block_count is missing/,
    ],
    [
      'with heads that do not divide the width',
      set('ssm.time_step_rank', 3),
      /inner_size 16 is not divided by 3 heads/,
    ],
    ['with no heads', set('ssm.time_step_rank', 0), /not divided by 0 heads/],
    ['with more heads than channels', set('ssm.time_step_rank', 32), /not divided by 32 heads/],
    [
      'with groups that do not divide the heads',
      set('ssm.group_count', 3),
      /ngroups 3 must divide the heads 4\. Correct the model configuration\. Convert the file again\.$/,
    ],
    ['with no groups', set('ssm.group_count', 0), /ngroups must be a positive integer, got 0/],
    ['with more layers than tensors', set('block_count', 4_000_000_000), /block_count is 4000000000 with/],
    ['with another state size', set('ssm.state_size', 5), /in_proj.weight is \[52, 8\], not \[56, 8\]/],
    ['with other groups', set('ssm.group_count', 1), /mixer.norm.weight is \[2, 8\], not \[16\]/],
    ['with A in a row', reshape('blk.1.ssm_a', [1, 4]), /layers.1.mixer.A_log is \[1, 4\], not \[4\]/],
    [
      'with a tensor of mamba',
      (_, entries) => {
        entries[3]!.name = 'blk.0.ssm_x.weight';
      },
      /blk.0.ssm_x.weight \(no tensor of llama.cpp's mamba2\)/,
    ],
  ])('%s is refused', async (_, change, message) => {
    const opening = changed(change);
    await expect(opening).rejects.toThrow(FormatError);
    await expect(opening).rejects.toThrow(message);
    await expect(opening).rejects.toThrow('dir/changed.gguf');
  });

  it('with A that is not below zero is refused when it is read', async () => {
    const positive: Change = (_, entries) => {
      entries.find(({ name }) => name === 'blk.1.ssm_a')!.bytes = async function* () {
        yield new Uint8Array(Float32Array.of(-1, -1, 0, -1).buffer);
      };
    };
    const model = await changed(positive);
    await expect(model.tensor('backbone.layers.1.mixer.A_log')).rejects.toThrow(
      'expected A below zero, got 0 at element 2 (dir/changed.gguf, tensor blk.1.ssm_a)',
    );
  });
});
