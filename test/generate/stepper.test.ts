/**
 * Replayed steps against eager ones, to the bit: every architecture, batches that change, states that are
 * held or come from elsewhere.
 */
import { describe, expect, it } from 'vitest';
import { useDevice } from '../../src/backend/backend.ts';
import { Rng } from '../../src/base/rng.ts';
import { Stepper } from '../../src/generate/stepper.ts';
import type { ModelConfigInput } from '../../src/models/config.ts';
import { LanguageModel } from '../../src/models/language-model.ts';
import type { State } from '../../src/models/state.ts';
import { addLora, mergeLora } from '../../src/nn/lora.ts';
import type { Tensor } from '../../src/tensor/tensor.ts';
import { devices, reportMissing } from '../kernels/devices.ts';
import { CONFIGS } from '../models/configs.ts';

reportMissing();

/** As text: comparing arrays element by element takes most of the time otherwise. */
const bits = (values: Float32Array) =>
  Buffer.from(values.buffer, values.byteOffset, values.byteLength).toString('hex');

async function stateBits(state: State): Promise<Record<string, string>> {
  const result: Record<string, string> = { tokens: state.tokens.join() };
  for (const [name, tensor] of state.namedTensors()) result[name] = bits(await tensor.floats());
  return result;
}

/** A stepper and eager steps side by side, from any state; each step is compared. */
class Pair {
  readonly stepper: Stepper;
  readonly model: LanguageModel;
  replayed: State;
  eager: State;
  #isLent = false;

  constructor(model: LanguageModel, start: State) {
    this.model = model;
    this.stepper = new Stepper(model);
    this.eager = start.clone();
    this.replayed = start;
  }

  async step(ids: readonly number[]): Promise<{ isLent: boolean; logits: Float32Array }> {
    const expected = this.model.step(ids, this.eager);
    const out = this.stepper.step(ids, this.replayed);
    this.take(out.state, out.isLent);
    this.eager.dispose();
    this.eager = expected.state;
    const logits = await out.logits.floats();
    expect(bits(logits)).toEqual(bits(await expected.logits.floats()));
    expect(await stateBits(this.replayed)).toEqual(await stateBits(this.eager));
    expected.logits.dispose();
    if (!out.isLent) out.logits.dispose();
    return { isLent: out.isLent, logits };
  }

  take(state: State, isLent = false): void {
    if (!this.#isLent && state !== this.replayed) this.replayed.dispose();
    this.replayed = state;
    this.#isLent = isLent;
  }

  /** Goes on with some of the rows. */
  rows(indices: readonly number[]): void {
    const [replayed, eager] = [this.replayed.rows(indices), this.eager.rows(indices)];
    this.take(replayed);
    this.eager.dispose();
    this.eager = eager;
  }

  dispose(): void {
    if (!this.#isLent) this.replayed.dispose();
    this.eager.dispose();
    this.stepper.dispose();
  }
}

const rng = new Rng(5);
const idsOf = (count: number) => Array.from({ length: count }, () => rng.below(11));

describe.each(devices)('Stepper on $label', ({ backend }) => {
  const withModel = async (config: ModelConfigInput, run: (model: LanguageModel) => Promise<void>) => {
    await useDevice(backend);
    const before = backend.memory.liveBytes;
    const model = new LanguageModel(config, { seed: 3 });
    await run(model);
    model.dispose();
    expect(backend.memory.liveBytes).toBe(before);
  };

  it.each(Object.entries(CONFIGS))('%s: the bits of model.step, batches of 1, 3 and 16', (_, config) =>
    withModel(config, async (model) => {
      const grows = Boolean(model.config.attn_cfg);
      for (const batch of [1, 3, 16]) {
        const pair = new Pair(model, model.initialState(batch));
        const lent: boolean[] = [];
        for (let t = 0; t < 5; t++) lent.push((await pair.step(idsOf(batch))).isLent);
        expect(lent).toEqual(grows ? Array(5).fill(false) : [false, true, true, true, true]);
        pair.dispose();
      }
    }),
  );

  for (const name of ['plain', 'Mamba-2', 'Mamba-3, two ranks']) {
    it(`${name}: rows leave, come back and are forked`, () =>
      withModel(CONFIGS[name]!, async (model) => {
        const pair = new Pair(model, model.initialState(4));
        for (const rows of [[0, 1, 2, 3], [0, 2, 3], [1], [0, 0, 0], [2, 1, 0]]) {
          pair.rows(rows);
          for (let t = 0; t < 4; t++) await pair.step(idsOf(rows.length));
        }
        pair.dispose();
      }));

    it(`${name}: a state that is held keeps its values, however long`, () =>
      withModel(CONFIGS[name]!, async (model) => {
        const pair = new Pair(model, model.initialState(2));
        const held: { state: State; values: Record<string, string> }[] = [];
        for (let t = 0; t < 12; t++) {
          await pair.step(idsOf(2));
          // Now and then, twice running, and every one: each asks for another way from buffer to buffer.
          if (t === 3 || t === 5 || t === 6 || t > 7) {
            held.push({ state: pair.replayed.detach(), values: await stateBits(pair.replayed) });
          }
          if (t === 9) held.splice(1, 1)[0]!.state.dispose();
        }
        pair.dispose();
        for (const { state, values } of held) {
          expect(await stateBits(state)).toEqual(values);
          state.dispose();
        }
      }));

    it(`${name}: goes on from a state that comes from elsewhere`, () =>
      withModel(CONFIGS[name]!, async (model) => {
        const pair = new Pair(model, model.initialState(2));
        for (let t = 0; t < 4; t++) await pair.step(idsOf(2));
        for (const count of [1, 2]) {
          const { logits, state } = model.forward([idsOf(3), idsOf(3)]);
          logits.dispose();
          pair.eager.dispose();
          pair.eager = state.clone();
          pair.take(state);
          for (let t = 0; t < count; t++) expect((await pair.step(idsOf(2))).isLent).toBe(true);
        }
        pair.dispose();
      }));
  }

  it('weights that change count from the next step on, however they change', () =>
    withModel(CONFIGS.plain!, async (model) => {
      const pair = new Pair(model, model.initialState(1));
      const settle = async () => {
        for (let t = 0; t < 3; t++) await pair.step([t]);
      };
      await settle();
      const changes: (() => void)[] = [];
      const { mixer } = model.backbone.layers[0] as unknown as { mixer: Record<string, Tensor> };
      changes.push(() => mixer.A_log!.write(new Float32Array(mixer.A_log!.size).fill(0.5)));
      changes.push(() => model.backbone.norm_f.weight.write(new Float32Array(8).fill(3)));
      changes.push(() => {
        addLora(model, { rank: 1, alpha: 4, targets: ['in_proj'] }, { rng: new Rng(1), samples: [] });
        for (const [path, tensor] of model.namedParameters())
          if (path.endsWith('lora.B')) tensor.write(new Float32Array(tensor.size).fill(0.7));
      });
      changes.push(() => mergeLora(model));
      changes.push(() => {
        model.precision = 'bf16';
      });
      for (const change of changes) {
        const before = await pair.step([7]);
        expect(before.isLent).toBe(true);
        change();
        await settle();
      }
      pair.dispose();
    }));

  it('refuses what model.step refuses, and goes on', () =>
    withModel(CONFIGS.plain!, async (model) => {
      const pair = new Pair(model, model.initialState(1));
      for (let t = 0; t < 3; t++) await pair.step([t]);
      expect(() => pair.stepper.step([99], pair.replayed)).toThrow('expected ids in');
      expect(() => pair.stepper.step([1, 2], pair.replayed)).toThrow('expected a state of 2 rows, got 1');
      const other = new LanguageModel(CONFIGS['odd sizes']!, { seed: 3 });
      const foreign = other.initialState();
      expect(() => pair.stepper.step([1], foreign)).toThrow('expected a state of this model');
      foreign.dispose();
      other.dispose();
      expect((await pair.step([1])).isLent).toBe(true);
      pair.dispose();
    }));
});
