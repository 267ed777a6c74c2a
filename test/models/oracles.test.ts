/**
 * Whole models against stored float64 results of independent implementations, on every device: logits at every stored length, the residual
 * stream, recurrent states, step logits, greedy tokens, all gradients. Bounds of docs/numerics.md: 2e-5 absolute for logits (|logits| up to
 * 6.5), 2e-5 of the largest value (at least 1) for states, 1e-4 relative for gradients. The AdamW trace is in test/train/adamw.test.ts.
 */
import { describe, expect, test } from 'vitest';
import { type Backend, withDevice } from '../../src/backend/backend.ts';
import { generateTokens } from '../../src/generate/engine.ts';
import { openPretrained } from '../../src/io/pretrained.node.ts';
import { LanguageModel } from '../../src/models/language-model.ts';
import type { State } from '../../src/models/state.ts';
import { scope } from '../../src/tensor/scope.ts';
import { backward } from '../../src/tensor/tape.ts';
import { Tensor } from '../../src/tensor/tensor.ts';
import { devices } from '../kernels/devices.ts';
import { fixturePath, maxAbsDiff, readFixture, relativeError, rowsOf } from '../support/oracle.ts';

const LOGITS = 2e-5;
const GRADIENTS = 1e-4;

async function load(path: string, device: Backend): Promise<LanguageModel> {
  const files = await openPretrained(fixturePath(path));
  const model = withDevice(device, () => new LanguageModel(files.config, { seed: null }));
  for (const [path, tensor] of model.namedParameters()) tensor.write(await files.tensor(path));
  await files.close();
  return model;
}

/** Each model in every layout that programs have for it. */
const LAYOUTS = [
  'mamba1-tied/hf',
  'mamba1-odd/hf',
  'mamba1-bf16/hf',
  'falcon-mamba/hf',
  'mamba2-tied/hf',
  'mamba2-tied/orig',
  'mamba2-g2/hf',
  'mamba2-g2/orig',
  'mamba2-g2/codestral',
  'mamba2-nonorm/orig',
  'mamba2-hybrid/orig',
  'mamba3-siso/orig',
  'mamba3-mimo-norm/orig',
];

/** The stored files name parameters as the original checkpoints do. */
const originalName = (path: string) => path.replace('backbone.', '').replace('embeddings.', 'embedding.');

/** Whole turns do not count. */
function largestAngle(actual: ArrayLike<number>, expected: ArrayLike<number>): number {
  const turns = Array.from(actual, (angle, i) => (angle - expected[i]!) / (2 * Math.PI));
  return 2 * Math.PI * Math.max(...turns.map((turn) => Math.abs(turn - Math.round(turn))));
}

describe.each(devices)('on $label', ({ backend }) => {
  describe.each(LAYOUTS)('%s', async (path) => {
    const [name] = path.split('/') as [string];
    const expected = await readFixture(`${name}/expected.safetensors`);
    const grads = await readFixture(`${name}/grads.safetensors`);
    const model = await load(path, backend);
    const { n_layer } = model.config;
    const on = <T>(fn: () => T): T => withDevice(backend, fn);
    const stored = (key: string) => expected(key).data;

    async function expectState(state: State, prefix: string) {
      for (const [i, layer] of state.layers.entries()) {
        for (const [part, tensor] of Object.entries(layer)) {
          const key = `${prefix}.layer${i}.${part}`;
          const [actual, wanted] = [await tensor.floats(), stored(key)];
          const difference = part === 'angle' ? largestAngle(actual, wanted) : maxAbsDiff(actual, wanted);
          const largest = Math.max(1, ...Array.from(wanted, Math.abs));
          expect(difference, key).toBeLessThan(LOGITS * largest);
        }
      }
    }

    test.each(['S1', 'S7', 'S64'])('logits at %s', async (length) => {
      const { logits } = on(() => model.forward(rowsOf(expected(`input_ids.${length}`))));
      expect(maxAbsDiff(await logits.floats(), stored(`logits.${length}`))).toBeLessThan(LOGITS);
    });

    test('logits at S257, at the stored positions', async () => {
      const { logits } = on(() => model.forward(rowsOf(expected('input_ids.S257'))));
      const [b, l, v] = logits.dims(3);
      const all = await logits.floats();
      const positions = [...stored('logits.S257.positions')];
      const chosen = Array.from({ length: b }, (_, row) =>
        positions.map((t) => all.subarray((row * l + t) * v, (row * l + t + 1) * v)),
      ).flat();
      const flat = Float32Array.from(chosen.flatMap((part) => [...part]));
      expect(maxAbsDiff(flat, stored('logits.S257'))).toBeLessThan(LOGITS);
    });

    test('the residual stream after every block and the final norm', async () => {
      const { hidden } = on(() => model.forward(rowsOf(expected('input_ids.S7')), { hiddenStates: true }));
      expect(hidden).toHaveLength(n_layer + 1);
      for (const [i, h] of hidden.entries()) {
        const key = i < n_layer ? `hidden.S7.layer${i}` : 'hidden.S7.final_norm';
        expect(relativeError(await h.floats(), stored(key)), key).toBeLessThan(LOGITS);
      }
    });

    test('states after a prefix, then step by step', async () => {
      const rows = rowsOf(expected('input_ids.S64'));
      const cut = stored('state.prefix_len')[0]!;
      const prefix = on(() => model.forward(rows.map((row) => row.slice(0, cut))));
      await expectState(prefix.state, 'state.after_prefix');
      const [b, steps, v] = expected('step.logits').shape as [number, number, number];
      const all = new Float32Array(b * steps * v);
      let { state } = prefix;
      for (let i = 0; i < steps; i++) {
        const out = on(() =>
          model.step(
            rows.map((row) => row[cut + i]!),
            state,
          ),
        );
        state = out.state;
        const logits = await out.logits.floats();
        for (let row = 0; row < b; row++)
          all.set(logits.subarray(row * v, (row + 1) * v), (row * steps + i) * v);
      }
      expect(maxAbsDiff(all, stored('step.logits'))).toBeLessThan(LOGITS);
      expect(state.tokens).toEqual(new Array(b).fill(cut + steps));
      await expectState(state, 'state.after_steps');
    });

    test('greedy tokens', async () => {
      const wanted = [...stored('greedy.tokens')];
      let ids = [...stored('greedy.prompt')];
      let state: State | null = null;
      const tokens: number[] = [];
      while (tokens.length < wanted.length) {
        const out = on(() => model.forward([ids], { state, lastOnly: true }));
        const logits = await out.logits.floats();
        const best = logits.indexOf(Math.max(...logits.subarray(0, model.config.vocab_size)));
        tokens.push(best);
        ids = [best];
        state = out.state;
      }
      expect(tokens).toEqual(wanted);
    });

    test('prompts of every length together, padded on the left: logits and greedy tokens', async () => {
      const lengths = ['S1', 'S7', 'S64'];
      const rows = lengths.map((length) => rowsOf(expected(`input_ids.${length}`))[1]!);
      const padded = (prompts: readonly number[][], value: (id: number) => number, pad: number) =>
        prompts.map((row) => [...new Array<number>(64 - row.length).fill(pad), ...row.map(value)]);
      const mask = (prompts: readonly number[][]) => padded(prompts, () => 1, 0);
      const same = (id: number) => id;
      const { logits } = on(() => model.forward(padded(rows, same, 0), { attentionMask: mask(rows) }));
      const [, l, v] = logits.dims(3);
      const all = await logits.floats();
      for (const [row, length] of lengths.entries()) {
        const count = rows[row]!.length;
        const own = all.subarray(((row + 1) * l - count) * v, (row + 1) * l * v);
        const wanted = stored(`logits.${length}`).subarray(count * v, 2 * count * v);
        expect(maxAbsDiff(own, wanted), length).toBeLessThan(LOGITS);
      }

      const prompts = [...rows, [...stored('greedy.prompt')]];
      const maxTokens = stored('greedy.tokens').length;
      const options = { temperature: 0, maxTokens, eosId: null, attentionMask: mask(prompts) };
      const tokens: number[] = [];
      for await (const step of generateTokens(model, padded(prompts, same, 0), options)) {
        const { token } = step.rows[prompts.length - 1]!;
        if (token !== null) tokens.push(token);
        if (step.rows[0]!.finishReason) step.state.dispose();
      }
      expect(tokens).toEqual([...stored('greedy.tokens')]);
    });

    test('the loss and every gradient, with and without recomputation', async () => {
      const rows = rowsOf(expected('input_ids.S64'));
      const inputs = rows.map((row) => row.slice(0, -1));
      const targets = Int32Array.from(rows.flatMap((row) => row.slice(1)));
      for (const checkpointing of [false, true]) {
        const loss = on(() =>
          scope(() => {
            const labels = Tensor.from(targets, [rows.length, targets.length / rows.length]);
            const out = model.loss(inputs, labels, { checkpointing });
            backward(out.loss);
            return out.loss;
          }),
        );
        const exact = stored('loss.S64')[0]!;
        expect(Math.abs((await loss.item()) - exact)).toBeLessThan(LOGITS);
        for (const [path, tensor] of model.namedParameters()) {
          const key = originalName(path);
          expect(relativeError(await tensor.grad!.floats(), grads(key).data), key).toBeLessThan(GRADIENTS);
        }
        model.zeroGrad();
      }
    });
  });
});
