/**
 * The laws every language model obeys, on one device: any way of feeding the same tokens gives the same numbers. Two ways differ by
 * rounding only; how much that may be follows from the number of roundings on the way (roundings.ts).
 */
import fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type Backend, useDevice } from '../../src/backend/backend.ts';
import { createReference } from '../../src/backend/reference/index.ts';
import { Rng } from '../../src/base/rng.ts';
import { generateTokens } from '../../src/generate/engine.ts';
import type { ModelConfigInput } from '../../src/models/config.ts';
import { type ForwardOptions, LanguageModel } from '../../src/models/language-model.ts';
import { crossEntropy, IGNORE_INDEX } from '../../src/ops/cross-entropy.ts';
import { add, mul, slice } from '../../src/tensor/primitives.ts';
import { keep, scope } from '../../src/tensor/scope.ts';
import { backward, noGrad } from '../../src/tensor/tape.ts';
import { Tensor } from '../../src/tensor/tensor.ts';
import { AdamW } from '../../src/train/adamw.ts';
import { devices, reportMissing } from '../kernels/devices.ts';
import {
  expectClose,
  type Floats,
  feed,
  gradients,
  join,
  stateValues,
  unitOf,
  type Values,
  values,
} from './measure.ts';
import { roundings } from './roundings.ts';

/** On every device, and in float64. */
export function checkModels(configs: Readonly<Record<string, ModelConfigInput>>): void {
  reportMissing();
  const all = [{ label: 'reference f64', backend: createReference({ storage: 'f64' }) }, ...devices];
  describe.each(all)('on $label', ({ backend }) => {
    for (const [name, config] of Object.entries(configs)) checkModel(name, config, backend);
  });
}

function checkModel(name: string, input: ModelConfigInput, backend: Backend): void {
  describe(name, () => {
    const LENGTH = 9;
    let model: LanguageModel;
    let relative: number;
    const rng = new Rng(17);
    const ids = (length: number) => Array.from({ length }, () => rng.below(input.vocab_size));
    const i32 = (list: readonly number[]) => Tensor.from(Int32Array.from(list), [1, list.length]);

    beforeAll(async () => {
      await useDevice(backend);
      model = new LanguageModel(input, { seed: 23 });
      relative = 2 * roundings(model.config, 2 * LENGTH) * unitOf(backend);
    });
    afterAll(() => model.dispose());

    it('a whole forward pass equals one step per token', async () => {
      const [a, b] = [ids(LENGTH), ids(LENGTH)];
      const whole = await feed(model, [[a, b]]);
      let state = model.initialState(2);
      const logits: Floats[] = [];
      for (let t = 0; t < LENGTH; t++) {
        const out = model.step([a[t]!, b[t]!], state);
        state.dispose();
        state = out.state;
        logits.push(await values(out.logits));
        out.logits.dispose();
      }
      const width = logits[0]!.length / 2;
      const row = (i: number) => join(logits.map((both) => both.slice(i * width, (i + 1) * width)));
      expectClose({ logits: join([row(0), row(1)]), ...(await stateValues(state)) }, whole, relative);
      expect(state.tokens).toEqual([LENGTH, LENGTH]);
      state.dispose();
    });

    it('split anywhere equals whole, empty pieces included', async () => {
      const row = ids(2 * LENGTH);
      const whole = await feed(model, [[row]]);
      const cuts = fc.array(fc.integer({ min: 0, max: row.length }), { maxLength: 4 });
      await fc.assert(
        fc.asyncProperty(cuts, async (cuts) => {
          const ends = [0, ...cuts.sort((a, b) => a - b), row.length];
          const pieces = ends.slice(1).map((end, i) => [row.slice(ends[i], end)]);
          expectClose(await feed(model, pieces), whole, relative);
        }),
        { numRuns: 8 },
      );
    });

    it('rows of a ragged batch equal the rows alone, from any state', async () => {
      const rows = [ids(4), ids(1), [], ids(LENGTH)];
      const before = noGrad(() => model.forward([ids(3), ids(3), ids(3), ids(3)]));
      const out = noGrad(() => model.forward(rows, { state: before.state }));
      const logits = await values(out.logits);
      const [, l, v] = out.logits.dims(3);
      for (const [i, row] of rows.entries()) {
        const [start, end] = [before.state.rows([i]), out.state.rows([i])];
        const alone = await feed(model, [[row]], start);
        const own = logits.slice(i * l * v, (i * l + row.length) * v);
        expectClose({ logits: own, ...(await stateValues(end)) }, alone, relative);
        expect(end.tokens).toEqual([3 + row.length]);
        expect(end.positions).toEqual(end.tokens);
        start.dispose();
        end.dispose();
      }
      for (const { logits, state } of [before, out]) {
        logits.dispose();
        state.dispose();
      }
    });

    /** Rows with padding on one side, up to two more than the longest; the ids under it are none of the vocabulary. */
    const padded = (rows: readonly number[][], side: 'left' | 'right') => {
      const l = LENGTH + 2;
      const fill = (row: readonly number[], pad: (n: number) => number[]) =>
        side === 'left' ? [...pad(l - row.length), ...row] : [...row, ...pad(l - row.length)];
      return {
        ids: rows.map((row) => fill(row, (n) => new Array<number>(n).fill(-7))),
        attentionMask: rows.map((row) =>
          fill(
            row.map(() => 1),
            (n) => new Array<number>(n).fill(0),
          ),
        ),
        start: (row: number) => (side === 'left' ? l - rows[row]!.length : 0),
        l,
      };
    };

    it.each(['left', 'right'] as const)(
      'rows padded on the %s equal the rows alone, from any state',
      async (side) => {
        const rows = [ids(4), ids(1), ids(LENGTH)];
        const { attentionMask, start, l, ...batch } = padded(rows, side);
        const before = noGrad(() => model.forward([ids(3), ids(3), ids(3)]));
        for (const state of [undefined, before.state]) {
          const options = { attentionMask, state, hiddenStates: true };
          const out = noGrad(() => model.forward(batch.ids, options));
          const last = noGrad(() => model.forward(batch.ids, { ...options, lastOnly: true }));
          for (const [i, row] of rows.entries()) {
            const own = state?.rows([i]);
            const alone = noGrad(() => model.forward([row], { state: own, hiddenStates: true }));
            const part = async (x: Tensor) =>
              (await values(slice(x, 0, i, i + 1))).subarray(
                start(i) * x.shape[2]!,
                (start(i) + row.length) * x.shape[2]!,
              );
            const actual: Values = { logits: await part(out.logits) };
            const expected: Values = { logits: await values(alone.logits) };
            for (const [at, hidden] of alone.hidden.entries()) {
              actual[`hidden ${at}`] = await part(out.hidden[at]!);
              expected[`hidden ${at}`] = await values(hidden);
            }
            const v = last.logits.shape[2]!;
            actual.last = (await values(last.logits)).subarray(i * v, (i + 1) * v);
            expected.last = expected.logits!.subarray((row.length - 1) * v);
            const end = out.state.rows([i]);
            expectClose(
              { ...actual, ...(await stateValues(end)) },
              { ...expected, ...(await stateValues(alone.state)) },
              relative,
            );
            expect(end.tokens).toEqual(alone.state.tokens);
            for (const owner of [own, end, alone.state]) owner?.dispose();
          }
          expect(out.logits.shape[1]).toBe(l);
          out.state.dispose();
          last.state.dispose();
        }
        before.state.dispose();
      },
    );

    it.each(['left', 'right'] as const)(
      'gradients of rows padded on the %s are those of the rows alone',
      async (side) => {
        const rows = [ids(4), ids(2), ids(LENGTH)];
        const goals = rows.map((row) => ids(row.length));
        const total = rows.flat().length;
        const { attentionMask, ids: batch, start, l } = padded(rows, side);
        const targets = new Int32Array(rows.length * l).fill(1); // under the padding: not to count
        for (const [i, row] of goals.entries()) targets.set(row, i * l + start(i));
        const together = await gradients(model, () => {
          const { state } = model.forward(rows.map(() => [1]));
          return model.loss(batch, Tensor.from(targets, [rows.length, l]), { attentionMask, state }).loss;
        });
        const alone = await gradients(model, () =>
          rows
            .map((row, i) => {
              const { state } = model.forward([[1]]);
              return mul(model.loss([row], i32(goals[i]!), { state }).loss, row.length / total);
            })
            .reduce((a, b) => add(a, b)),
        );
        expectClose(together, alone, 3 * relative);
      },
    );

    it('packed documents equal separate ones', async () => {
      const documents = [ids(3), ids(1), ids(5)];
      const options: ForwardOptions = { sequenceIds: [documents.flatMap((doc, i) => doc.map(() => i + 4))] };
      const packed = noGrad(() => model.forward([documents.flat()], options));
      const logits = [];
      let last: Values = {};
      for (const document of documents) {
        last = await feed(model, [[document]]);
        logits.push(last.logits!);
      }
      const actual = { logits: await values(packed.logits), ...(await stateValues(packed.state)) };
      expectClose(actual, { ...last, logits: join(logits) }, relative);
      expect(packed.state.positions).toEqual([model.config.attn_cfg ? 5 : 9]);
      packed.logits.dispose();
      packed.state.dispose();
    });

    /** Mean loss of the second half of a row. */
    const halves = () => {
      const row = ids(2 * LENGTH + 1);
      const targets = row.slice(1);
      return { first: row.slice(0, LENGTH), second: row.slice(LENGTH, -1), row: row.slice(0, -1), targets };
    };

    it('gradients flow through the state', async () => {
      const { first, second, row, targets } = halves();
      const later = targets.map((id, t) => (t < LENGTH ? IGNORE_INDEX : id));
      const whole = await gradients(model, () => crossEntropy(model.forward([row]).logits, i32(later)));
      const split = await gradients(model, () => {
        const { state } = model.forward([first]);
        return crossEntropy(model.forward([second], { state }).logits, i32(targets.slice(LENGTH)));
      });
      // Forward and backward, and one term more per token in the gradients of weights.
      expectClose(split, whole, 3 * relative);
      const cut = await gradients(model, () => {
        const state = model.forward([first]).state.detach();
        return crossEntropy(model.forward([second], { state }).logits, i32(targets.slice(LENGTH)));
      });
      expect(() => expectClose(cut, whole, 3 * relative)).toThrow(); // the state does matter
    });

    // Along a random direction of every parameter, D(h) and D(2h) extrapolated. Only float64 is fine enough.
    const isFine = unitOf(backend) < 1e-15;
    if (isFine)
      it('gradients are those of finite differences', async () => {
        const rng = new Rng(41);
        const row = () => Array.from({ length: LENGTH }, () => rng.below(input.vocab_size));
        const [first, second, goal] = [row(), row(), row()];
        const loss = () => {
          const { state } = model.forward([first]);
          return model.loss([second], i32(goal), { state }).loss;
        };
        const exact = await gradients(model, loss);
        const step = 1e-6; // of embeddings of 0.02, in front of a norm
        const slopes = [];
        for (const [name, tensor] of model.namedParameters()) {
          const start = await values(tensor);
          const direction = Array.from(start, () => rng.uniform(-1, 1));
          const at = async (h: number) => {
            tensor.write(Float64Array.from(start, (x, i) => x + h * direction[i]!));
            const value = scope(() => noGrad(loss));
            const [y] = await values(value);
            value.dispose();
            return y!;
          };
          const difference = async (h: number) => ((await at(h)) - (await at(-h))) / (2 * h);
          const [near, far] = [await difference(step), await difference(2 * step)];
          tensor.write(start);
          const slope = direction.reduce((sum: number, d, i) => sum + d * exact[name]![i]!, 0);
          slopes.push({ name, slope, numeric: (4 * near - far) / 3, error: Math.abs(near - far) });
        }
        const noise = (relative * exact.loss![0]!) / step;
        const steepest = Math.max(...slopes.map(({ slope }) => Math.abs(slope)));
        for (const { name, slope, numeric, error } of slopes) {
          expect(error + noise, name).toBeLessThan(1e-4 * steepest);
          expect(Math.abs(slope - numeric), name).toBeLessThanOrEqual(error + noise);
        }
      });

    it('gradient checkpointing gives the same bits', async () => {
      const { row, targets } = halves();
      const loss = (checkpointing: boolean) =>
        gradients(model, () => model.loss([row], i32(targets), { checkpointing }).loss);
      expect(await loss(true)).toEqual(await loss(false));
      // What a pass makes of lengths and documents must live until the backward pass.
      const ragged = (checkpointing: boolean) =>
        gradients(model, () => {
          const sequenceIds = [row.map((_, t) => (t < 4 ? 7 : 3)), row.map(() => 1)];
          const both = Tensor.from(Int32Array.from([...targets, ...targets]), [2, row.length]);
          const options = { checkpointing, sequenceIds, lengths: [row.length, 5] };
          return model.loss([row, row], both, options).loss;
        });
      expect(await ragged(true)).toEqual(await ragged(false));
    });

    it('never samples ids that pad the vocabulary', async () => {
      const { weight } = model.lm_head ?? model.backbone.embeddings;
      const good = await weight.floats();
      const [rows, d] = weight.dims(2);
      const { vocab_size } = model.config;
      expect(rows).toBeGreaterThan(vocab_size);
      // The padding gets both signs of a large weight: one of each pair is the most likely id by far.
      weight.write(good.map((x, i) => (i < vocab_size * d ? x : Math.floor(i / d) % 2 === 0 ? 100 : -100)));
      const tokens: number[] = [];
      for await (const step of generateTokens(model, [[0], [1]], { maxTokens: 20, seed: 1 })) {
        for (const { token } of step.rows) if (token !== null) tokens.push(token);
        if (step.rows[0]!.finishReason) step.state.dispose();
      }
      weight.write(good);
      expect(tokens).toHaveLength(40);
      expect(Math.max(...tokens)).toBeLessThan(vocab_size);
    });

    it('learns one sentence by heart', async () => {
      const { weight } = model.backbone.embeddings;
      const before = await weight.floats();
      const { row, targets } = halves();
      const optimizer = new AdamW(model.namedParameters(), { weightDecay: 0 });
      const answer = keep(i32(targets));
      let first = 0;
      let loss = 0;
      for (let step = 0; step < 60; step++) {
        const value = scope(() => {
          const { loss } = model.loss([row], answer);
          backward(loss);
          return loss.detach();
        });
        loss = await value.item();
        value.dispose();
        optimizer.step(0.03).dispose();
        if (step === 0) first = loss;
      }
      answer.dispose();
      expect(first).toBeGreaterThan(1);
      expect(loss).toBeLessThan(first / 20);
      expect(await weight.floats()).not.toEqual(before);
    });
  });
}
