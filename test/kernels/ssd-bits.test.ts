/**
 * What ssd promises beyond its bounds: the same bits for a row whatever stands beside or behind it, and for a row cut at multiples
 * of the chunk; and nothing of a later token, of another document or of padding in what a token reads, be it infinite.
 */
import { describe, expect, it } from 'vitest';
import type { Backend } from '../../src/backend/backend.ts';
import { ssdGradPartialSize, ssdPartialSize } from '../../src/backend/kernels.ts';
import { Values } from './cases/values.ts';
import { devices } from './devices.ts';
import { type Operands, out, type Result, run } from './harness.ts';

const SIZES = { r: 2, h: 4, p: 19, g: 2, n: 21, q: 24, dWidth: 1 };
const { r, h, p, g, n, q } = SIZES;
/** Elements per token of each operand. */
const PER_TOKEN = { x: r * h * p, decay: h, scale: h, own: h, B: r * g * n, C: r * g * n, sequenceIds: 1 };
type Sequence = { [K in keyof PER]: K extends 'sequenceIds' ? Int32Array : Float32Array };
type PER = typeof PER_TOKEN;

function sequence(name: string, tokens: number, documents = false): Sequence {
  const values = new Values(name);
  return {
    x: values.normal(tokens * PER_TOKEN.x),
    decay: values.logUniform(tokens * h, 1e-3, 2).map((rate) => -rate),
    scale: values.normal(tokens * h),
    own: values.normal(tokens * h),
    B: values.normal(tokens * PER_TOKEN.B),
    C: values.normal(tokens * PER_TOKEN.C),
    sequenceIds: documents ? values.documents(1, tokens, 11) : new Int32Array(tokens),
  };
}

/** Tokens from .. to of a sequence. */
function part(s: Sequence, from: number, to: number): Sequence {
  return Object.fromEntries(
    Object.entries(s).map(([name, array]) => {
      const size = PER_TOKEN[name as keyof PER];
      return [name, array.slice(from * size, to * size)];
    }),
  ) as Sequence;
}

/** Sequences one after the other, which is also how rows of a batch stand. */
function joined(parts: Sequence[]): Sequence {
  const join = (name: keyof PER) => parts.flatMap((s) => Array.from(s[name]));
  return Object.fromEntries(
    Object.keys(PER_TOKEN).map((name) => {
      const all = join(name as keyof PER);
      return [name, name === 'sequenceIds' ? Int32Array.from(all) : Float32Array.from(all)];
    }),
  ) as Sequence;
}

interface Form {
  backend: Backend;
  precision: number;
}

function forward(
  { backend, precision }: Form,
  s: Sequence,
  b: number,
  state: Float32Array | null = null,
  lengths?: number[],
  checkpoints = false,
): Promise<Result> {
  const l = s.decay.length / h / b;
  const operands: Operands<'ssd'> = {
    ...s,
    D: new Values('D').normal(h),
    state,
    ...{ lastX: null, lastB: null, lastWeight: null },
    lengths: lengths ? Int32Array.from(lengths) : null,
    y: out(b * l * PER_TOKEN.x),
    stateOut: out(b * h * p * n),
    checkpoints: checkpoints ? out(b * Math.ceil(l / q) * h * p * n) : null,
    partial: out(ssdPartialSize(b, l, r, g, q)),
    b,
    l,
    ...SIZES,
    precision,
  };
  return run(backend, { kernel: 'ssd', name: 'bits', operands });
}

/** The gradients of a forward pass from `state`; dy and the gradient of the state that leaves are given. */
async function backward(
  backend: Backend,
  s: Sequence,
  b: number,
  state: Float32Array,
  dy: Float32Array,
  dstateOut: Float32Array,
  lengths?: number[],
): Promise<Result> {
  const l = s.decay.length / h / b;
  const { checkpoints } = await forward({ backend, precision: 0 }, s, b, state, lengths, true);
  const operands: Operands<'ssdGrad'> = {
    ...s,
    D: new Values('D').normal(h),
    lengths: lengths ? Int32Array.from(lengths) : null,
    checkpoints: f32(checkpoints),
    dy,
    dstateOut,
    dx: out(s.x.length),
    ddecay: out(s.decay.length),
    dscale: out(s.decay.length),
    down: out(s.decay.length),
    dB: out(s.B.length),
    dC: out(s.C.length),
    dD: out(h),
    dstate: out(b * h * p * n),
    partial: out(ssdGradPartialSize(b, l, r, h, p, g, n, q)),
    b,
    l,
    ...SIZES,
  };
  return run(backend, { kernel: 'ssdGrad', name: 'bits', operands });
}

const f32 = (x: Result[string] | undefined) => Float32Array.from(x!);
const START = new Values('start').normal(h * p * n);

const FORMS = devices
  .filter(({ backend }) => backend.kernels.ssd)
  .flatMap(({ label, backend }) =>
    [0, 1].map((precision) => ({ label: `${label}${precision ? ', bf16' : ''}`, backend, precision })),
  );

describe.each(FORMS)('ssd on $label', (form) => {
  it('is cut at multiples of the chunk without changing a bit', async () => {
    const s = sequence('cut', 5 * q + 1, true);
    const whole = await forward(form, s, 1, START);
    let state = START;
    const y: number[] = [];
    for (const [from, to] of [
      [0, q],
      [q, 4 * q],
      [4 * q, 5 * q],
      [5 * q, 5 * q + 1],
    ] as const) {
      const cut = part(s, from, to);
      const got = await forward(form, cut, 1, state);
      y.push(...f32(got.y));
      state = f32(got.stateOut);
      // The state belongs to the document of the token that comes next, unless another one starts there.
      if (to < 5 * q + 1 && s.sequenceIds[to] !== s.sequenceIds[to - 1])
        state = new Float32Array(START.length);
    }
    expect(Float32Array.from(y)).toEqual(f32(whole.y));
    expect(state).toEqual(f32(whole.stateOut));
  });

  it('gives a row the same bits alone, in a batch and in front of padding', async () => {
    for (const length of [1, 2, 30, 49]) {
      const s = sequence(`row ${length}`, length);
      const alone = await forward(form, s, 1, START);
      // Padding is anything, and so is the row beside it.
      const padding = sequence('padding', 60 - length);
      padding.x.fill(Number.NaN);
      padding.decay.fill(Number.NaN);
      padding.B.fill(Number.POSITIVE_INFINITY);
      const batch = joined([sequence('beside', 60), s, padding]);
      const states = Float32Array.from([...new Values('other').normal(START.length), ...START]);
      const both = await forward(form, batch, 2, states, [60, length]);
      expect(f32(both.y).slice(60 * PER_TOKEN.x, (60 + length) * PER_TOKEN.x)).toEqual(f32(alone.y));
      expect(f32(both.y).slice((60 + length) * PER_TOKEN.x)).toEqual(
        new Float32Array((60 - length) * PER_TOKEN.x),
      );
      expect(f32(both.stateOut).slice(START.length)).toEqual(f32(alone.stateOut));
    }
  });

  it('lets nothing infinite through to earlier tokens and other documents', async () => {
    const tokens = 40;
    const bad = 13;
    const s = sequence('finite', tokens);
    s.sequenceIds.fill(1, bad + 1);
    const clean = await forward(form, s, 1, START);
    s.x.fill(Number.POSITIVE_INFINITY, bad * PER_TOKEN.x, (bad + 1) * PER_TOKEN.x);
    s.B.fill(Number.NaN, bad * PER_TOKEN.B, (bad + 1) * PER_TOKEN.B);
    const spoiled = await forward(form, s, 1, START);
    const [was, is] = [f32(clean.y), f32(spoiled.y)];
    expect(is.slice(0, bad * PER_TOKEN.x)).toEqual(was.slice(0, bad * PER_TOKEN.x));
    expect(is.slice((bad + 1) * PER_TOKEN.x)).toEqual(was.slice((bad + 1) * PER_TOKEN.x));
    expect(is.slice(bad * PER_TOKEN.x, (bad + 1) * PER_TOKEN.x).some(Number.isFinite)).toBe(false);
    expect(f32(spoiled.stateOut)).toEqual(f32(clean.stateOut));
  });
});

describe.each(FORMS.filter(({ precision }) => precision === 0))('ssd in float32 on $label', (form) => {
  it('gives its gradients the same bits alone, in a batch and in front of padding', async () => {
    const [length, l] = [61, 75];
    const s = sequence('gradient', length, true);
    const dy = new Values('dy').normal(l * PER_TOKEN.x);
    const dlast = new Values('dlast').normal(START.length);
    const alone = await backward(form.backend, s, 1, START, dy.slice(0, length * PER_TOKEN.x), dlast);
    const batch = joined([sequence('beside', l), s, sequence('padding', l - length)]);
    const twice = (own: Float32Array) => Float32Array.from([...own, ...own]);
    const both = await backward(form.backend, batch, 2, twice(START), twice(dy), twice(dlast), [l, length]);
    for (const name of ['dx', 'ddecay', 'dscale', 'down', 'dB', 'dC', 'dstate']) {
      const [one, two] = [f32(alone[name]), f32(both[name])];
      const row = two.slice(two.length / 2);
      expect(row.slice(0, one.length), name).toEqual(one);
      expect(row.slice(one.length), name).toEqual(new Float32Array(row.length - one.length));
    }
  });

  it('forgets everything where the decay is minus infinity', async () => {
    const s = sequence('forget', 40);
    s.decay.fill(Number.NEGATIVE_INFINITY, 17 * h, 18 * h);
    s.decay.fill(Number.NEGATIVE_INFINITY, 30 * h, 32 * h);
    const documents = { ...s, sequenceIds: Int32Array.from({ length: 40 }, (_, t) => (t < 17 ? 0 : 1)) };
    const [infinite, cut] = [await forward(form, s, 1, START), await forward(form, documents, 1, START)];
    const worst = (a: Float32Array, b: Float32Array) => Math.max(...a.map((v, i) => Math.abs(v - b[i]!)));
    const size = Math.max(...f32(cut.y).map(Math.abs));
    // The same sums in another order, of a few hundred products.
    expect(worst(f32(infinite.y), f32(cut.y))).toBeLessThan(size * 500 * 2 ** -24);
    expect(f32(infinite.y).every(Number.isFinite)).toBe(true);
  });
});
