/** The state as a value: bytes, rows, forks, refusals. */
import fc from 'fast-check';
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { useDevice } from '../../src/backend/backend.ts';
import { FormatError, MambaError, StateError } from '../../src/base/errors.ts';
import { LanguageModel } from '../../src/models/language-model.ts';
import { State } from '../../src/models/state.ts';
import { noGrad } from '../../src/tensor/tape.ts';
import { devices, reportMissing } from '../kernels/devices.ts';
import { settle } from '../support/settle.ts';

beforeEach(settle);

const CONFIG = { vocab_size: 11, d_model: 8, n_layer: 2, d_state: 3 };
const ROWS = [[1, 2, 3, 4], [5], [6, 7]];

/** All values of all rows, row by row. */
async function contents(state: State): Promise<number[][]> {
  const rows = state.tokens.map((count) => [count]);
  for (const layer of state.layers) {
    for (const tensor of Object.values(layer)) {
      const data = await tensor.floats();
      const size = data.length / state.batch;
      rows.forEach((row, i) => {
        row.push(...data.subarray(i * size, (i + 1) * size));
      });
    }
  }
  return rows;
}

reportMissing();

describe.each(devices)('State on $label', ({ backend }) => {
  let model: LanguageModel;
  let state: State;
  let all: number[][];

  beforeAll(async () => {
    await useDevice(backend);
    model = new LanguageModel(CONFIG, { seed: 4 });
    state = noGrad(() => model.forward(ROWS)).state;
    all = await contents(state);
  });
  afterAll(() => {
    state.dispose();
    model.dispose();
  });

  it('counts tokens and bytes', () => {
    expect(state.tokens).toEqual([4, 1, 2]);
    expect(state.batch).toBe(3);
    // Two layers of three rows: (e, k) and (e, n) with e = 16, k = 4, n = 3, in float32.
    expect(state.sizeBytes).toBe(2 * 3 * 16 * (4 + 3) * 4);
    expect(new Set(all.map((row) => JSON.stringify(row))).size).toBe(3);
  });

  it('the initial state is what no tokens leave, and reading from it is reading from nothing', async () => {
    const initial = model.initialState(3);
    const start = await contents(initial);
    expect(start.flat().every((value) => value === 0)).toBe(true);
    const after = noGrad(() => model.forward(ROWS, { state: initial })).state;
    expect(await contents(after)).toEqual(all);
    const same = noGrad(() => model.forward([[], [], []], { state: after })).state;
    expect(await contents(same)).toEqual(all);
    for (const each of [initial, after, same]) each.dispose();
  });

  it('forward() leaves the state it starts from alone, so it can be forked', async () => {
    const ends = [];
    for (const next of [1, 2, 1]) {
      const out = noGrad(() => model.forward([[next], [next], [next]], { state }));
      ends.push(await contents(out.state));
      out.state.dispose();
    }
    expect(ends[0]).toEqual(ends[2]);
    expect(ends[0]).not.toEqual(ends[1]);
    expect(await contents(state)).toEqual(all);
  });

  it('rows(), withRows(), join() and clone() move whole rows, bit for bit', async () => {
    const rows = state.rows([2, 0, 2]);
    expect(await contents(rows)).toEqual([all[2], all[0], all[2]]);
    const replaced = state.withRows([1, 0], rows.rows([1, 2]));
    expect(await contents(replaced)).toEqual([all[2], all[0], all[2]]);
    const joined = State.join([
      { state: rows, row: 1 },
      { state, row: 1 },
    ]);
    expect(await contents(joined)).toEqual([all[0], all[1]]);
    const clone = state.clone();
    clone.dispose();
    expect(await contents(state)).toEqual(all);
    for (const each of [rows, replaced, joined]) each.dispose();
  });

  it('goes through bytes, bit for bit, and back to another process', async () => {
    const bytes = await state.toBytes();
    const again = State.fromBytes(bytes, model);
    expect(await contents(again)).toEqual(all);
    expect(await again.toBytes()).toEqual(bytes);
    const [a, b] = [state, again].map((each) =>
      noGrad(() => model.forward([[1], [2], [3]], { state: each })),
    );
    expect(await b!.logits.data()).toEqual(await a!.logits.data());
    again.dispose();
  });

  it('reads the Buffer that readFile gives, at any place in its memory', async () => {
    const bytes = await state.toBytes();
    const pool = Buffer.alloc(bytes.length + 3);
    pool.set(bytes, 3);
    for (const buffer of [Buffer.from(bytes), pool.subarray(3)]) {
      const again = State.fromBytes(buffer, model);
      expect(await contents(again)).toEqual(all);
      again.dispose();
    }
  });

  it('is disposed of without a trace', async () => {
    const { liveBytes } = backend.memory;
    const bytes = await state.toBytes();
    const made = [state.clone(), state.rows([0]), State.fromBytes(bytes, model), model.initialState(7)];
    made.push(state.withRows([0], made[1]!));
    expect(backend.memory.liveBytes).toBeGreaterThan(liveBytes);
    for (const each of made) each.dispose();
    expect(backend.memory.liveBytes).toBe(liveBytes);
  });
});

describe('the fingerprint', () => {
  it('of new weights is what refreshing finds, and follows training', async () => {
    await useDevice(devices[0]!.backend);
    const model = new LanguageModel(CONFIG, { seed: 9 });
    const { fingerprint } = model;
    expect(await model.refreshFingerprint()).toBe(fingerprint);
    const { state } = noGrad(() => model.forward(ROWS));
    const [, vector] = [...model.namedParameters()].find(([, tensor]) => tensor.shape.length === 1)!;
    vector.write(new Float32Array(vector.size).fill(0.5));
    const bytes = await state.toBytes();
    expect(model.fingerprint).not.toBe(fingerprint);
    expect(State.fromBytes(bytes, model).tokens).toEqual(state.tokens);
    expect(() => model.forward(ROWS, { state })).not.toThrow();
  });
});

describe('what is refused', () => {
  let model: LanguageModel;
  let bytes: Uint8Array;
  let state: State;

  beforeAll(async () => {
    await useDevice(devices[0]!.backend);
    model = new LanguageModel(CONFIG, { seed: 4 });
    state = noGrad(() => model.forward(ROWS)).state;
    bytes = await state.toBytes();
  });

  it.each([
    ['other weights', { ...CONFIG }, 5],
    ['another size', { ...CONFIG, d_state: 4 }, 4],
    ['another depth', { ...CONFIG, n_layer: 3 }, 4],
    ['norms of dt, B and C', { ...CONFIG, mixer_rms_eps: 1e-6 }, 4],
  ])('the state of a model of %s', (_, config, seed) => {
    const other = new LanguageModel(config, { seed });
    expect(() => State.fromBytes(bytes, other)).toThrow(StateError);
    expect(() => State.fromBytes(bytes, other)).toThrow(
      `expected a state of this model (${other.fingerprint})`,
    );
    expect(() => other.forward(ROWS, { state })).toThrow(StateError);
    expect(() =>
      State.join([
        { state: other.initialState(), row: 0 },
        { state, row: 0 },
      ]),
    ).toThrow(StateError);
  });

  it('a state of other rows, and rows that do not exist', () => {
    expect(() => model.forward([[1]], { state })).toThrow('expected a state of 1 rows, got 3');
    expect(() => state.rows([3])).toThrow('expected rows in [0, 3), got 3');
    expect(() => state.withRows([0, 0], state.rows([0, 1]))).toThrow('2 different rows');
    expect(() => state.withRows([0], state)).toThrow('3 different rows');
    expect(() => State.join([])).toThrow('at least one row');
  });

  it('truncated bytes, anywhere', () => {
    for (let length = 0; length < bytes.length; length += 7) {
      expect(() => State.fromBytes(bytes.slice(0, length), model), `${length}`).toThrow(MambaError);
    }
    expect(() => State.fromBytes(new Uint8Array(3), model)).toThrow(FormatError);
  });

  it('damaged bytes: an error of ours, or a state of the right shape', () => {
    const headerEnd = 8 + Number(new DataView(bytes.buffer).getBigUint64(0, true));
    const damage = fc.array(fc.tuple(fc.nat({ max: headerEnd + 40 }), fc.nat({ max: 255 })), {
      minLength: 1,
      maxLength: 4,
    });
    let refused = 0;
    fc.assert(
      fc.property(damage, (changes) => {
        const copy = bytes.slice();
        for (const [at, value] of changes) copy[at] = value;
        try {
          const read = State.fromBytes(copy, model);
          expect(read.layers.map(({ ssm }) => ssm!.shape)).toEqual([
            [3, 16, 3],
            [3, 16, 3],
          ]);
          read.dispose();
        } catch (error) {
          expect(error).toBeInstanceOf(MambaError);
          refused++;
        }
      }),
      { numRuns: 2000, seed: 1 },
    );
    expect(refused).toBeGreaterThan(1000);
  });
});
