/**
 * A whole model gives the same bits with one, two and three threads: a prompt, steps of training, tokens one by one; in every
 * precision and with narrow weights. Sizes are such that products, scans and the head are cut into several tasks.
 */
import { createHash } from 'node:crypto';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { type Backend, useDevice } from '../../src/backend/backend.ts';
import { openNative } from '../../src/backend/native.ts';
import { createReference } from '../../src/backend/reference/index.ts';
import { openWasmFile } from '../../src/backend/wasm.node.ts';
import { wasmVariants } from '../../src/backend/wasm-variant.ts';
import { Rng } from '../../src/base/rng.ts';
import { Stepper } from '../../src/generate/stepper.ts';
import { loadModel, saveModel } from '../../src/load-model.node.ts';
import type { ModelConfigInput } from '../../src/models/config.ts';
import { LanguageModel } from '../../src/models/language-model.ts';
import { scope } from '../../src/tensor/scope.ts';
import { backward, noGrad } from '../../src/tensor/tape.ts';
import { Tensor } from '../../src/tensor/tensor.ts';
import { AdamW } from '../../src/train/adamw.ts';
import { devices, reportMissing } from '../kernels/devices.ts';

reportMissing();

type Open = (threads: number) => Backend;
const OPEN: [label: string, open: Open][] = [
  ['native', (threads) => openNative({ threads })],
  ...wasmVariants().map((variant): [string, Open] => [
    `wasm ${variant}`,
    (threads) => openWasmFile({ variant, threads }),
  ]),
];
const here = OPEN.filter(([label]) => devices.some(({ backend }) => label.startsWith(backend.name)));
const THREADS = [1, 2, 3];

const [BATCH, LENGTH, VOCABULARY] = [2, 120, 2000];
const SIZES = { vocab_size: VOCABULARY, d_model: 96, n_layer: 2 };
const CONFIGS: Record<string, ModelConfigInput> = {
  mamba1: SIZES,
  mamba2: { ...SIZES, model_type: 'mamba2', headdim: 32, d_state: 32 },
  mamba3: { ...SIZES, model_type: 'mamba3', headdim: 32, d_state: 32, is_mimo: true, mimo_rank: 2 },
  'mamba1 and attention': { ...SIZES, attn_layer_idx: [1], attn_cfg: { num_heads: 3 } },
};

const rng = new Rng(7);
const idsOf = (count: number) => Int32Array.from({ length: count }, () => rng.below(VOCABULARY));
const PROMPT = idsOf(BATCH * LENGTH);
const TARGETS = idsOf(BATCH * LENGTH);
const TOKENS = Array.from({ length: 4 }, () => [...idsOf(BATCH)]);

/** Digests of tensors by name: two runs are equal, or it is known where they part. */
class Digests {
  readonly all: Record<string, string> = {};

  async add(name: string, tensor: Tensor): Promise<void> {
    const { buffer, byteOffset, byteLength } = await tensor.floats();
    const bytes = new Uint8Array(buffer, byteOffset, byteLength);
    this.all[name] = createHash('sha256').update(bytes).digest('hex');
  }
}

/** A prompt, then tokens one by one, replayed from the third on. */
async function generated(model: LanguageModel, digests: Digests): Promise<void> {
  const { logits, state: start } = noGrad(() => model.forward(Tensor.from(PROMPT, [BATCH, LENGTH])));
  await digests.add('logits', logits);
  const stepper = new Stepper(model);
  let state = start;
  for (const [t, ids] of TOKENS.entries()) {
    const out = stepper.step(ids, state);
    await digests.add(`logits ${t}`, out.logits);
    state = out.state;
  }
  for (const [name, tensor] of state.namedTensors()) await digests.add(name, tensor);
  stepper.dispose();
}

async function trained(model: LanguageModel, digests: Digests): Promise<void> {
  const optimizer = new AdamW(model.namedParameters());
  for (const step of [0, 1]) {
    const loss = () =>
      model.loss(Tensor.from(PROMPT, [BATCH, LENGTH]), Tensor.from(TARGETS, [BATCH, LENGTH])).loss;
    scope(() => backward(loss()));
    for (const [name, { grad }] of model.namedParameters())
      if (grad) await digests.add(`gradient ${step} of ${name}`, grad);
    await digests.add(`norm ${step}`, optimizer.step(1e-2));
  }
  for (const [name, tensor] of model.namedParameters()) await digests.add(name, tensor);
  optimizer.dispose();
}

const folder = await mkdtemp(join(tmpdir(), 'mamba-threads-'));
beforeAll(async () => {
  await useDevice(createReference());
  for (const [name, config] of Object.entries(CONFIGS)) {
    await saveModel(new LanguageModel(config, { seed: 1 }), join(folder, name));
  }
});
afterAll(() => rm(folder, { recursive: true }));

describe.each(here)('%s', (_, open) => {
  const opened = THREADS.map(open);

  const expectSameBits = async (run: (digests: Digests) => Promise<void>) => {
    const results: Digests['all'][] = [];
    for (const device of opened) {
      await useDevice(device);
      const digests = new Digests();
      await run(digests);
      results.push(digests.all);
    }
    expect(results[1]).toEqual(results[0]);
    expect(results[2]).toEqual(results[0]);
  };

  test.each(Object.keys(CONFIGS))('%s: a prompt, tokens, steps of training', (name) =>
    expectSameBits(async (digests) => {
      const model = await loadModel(join(folder, name));
      await generated(model, digests);
      model.requireGrad(true);
      await trained(model, digests);
      model.dispose();
    }),
  );

  test('steps of training in bf16', () =>
    expectSameBits(async (digests) => {
      const model = await loadModel(join(folder, 'mamba1'), { precision: 'bf16' });
      model.requireGrad(true);
      await trained(model, digests);
      model.dispose();
    }));

  test.each([
    ['f16', 'f32'],
    ['bf16', 'bf16'],
    ['q8', 'f32'],
    ['q8', 'int8'],
    ['q4', 'f32'],
  ] as const)('weights %s, products in %s: a prompt, tokens', (weights, precision) =>
    expectSameBits(async (digests) => {
      const model = await loadModel(join(folder, 'mamba1'), { weights, precision });
      await generated(model, digests);
      model.dispose();
    }),
  );
});
