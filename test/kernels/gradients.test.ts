/**
 * Every Grad kernel of the reference against finite differences of its forward kernel, in float64. The derivative comes
 * from central differences D(h) and D(2h), extrapolated to (4 D(h) - D(2h)) / 3; its error is below |D(h) - D(2h)|, which
 * bounds the cruder of the two, plus the rounding of the loss divided by h.
 */
import { describe, expect, it } from 'vitest';
import type { KernelName } from '../../src/backend/backend.ts';
import {
  attentionPartialSize,
  NORM_BLOCKS,
  SCAN_CHUNK,
  scanPartialSize,
  ssdGradPartialSize,
  ssdPartialSize,
  UNARY,
} from '../../src/backend/kernels.ts';
import { boundsOf } from './bounds.ts';
import { Values } from './cases/values.ts';
import { type Case, type Operands, out, type Result, truth } from './harness.ts';

const H = 2 ** -12;
/** A tolerance above this share of the largest gradient would prove nothing. */
const SHARP = 1e-5;

type Arrays = Record<string, Float64Array>;

/** A scalar of all outputs, by its gradient with respect to each: sum of cotangent * output. */
function lossOf(result: Result, cotangents: Arrays): { loss: number; size: number } {
  let [loss, size] = [0, 0];
  for (const [name, weights] of Object.entries(cotangents)) {
    weights.forEach((weight, i) => {
      loss += weight * result[name]![i]!;
      size += Math.abs(weight * result[name]![i]!);
    });
  }
  return { loss, size };
}

/** Compares `gradients` (by the name of the input) with differences of the loss of the forward kernel. */
async function check<N extends KernelName>(
  kernel: N,
  operands: Operands<N>,
  cotangents: Arrays,
  gradients: Record<string, Result[string] | null | undefined>,
) {
  const test: Case<N> = { kernel, name: 'forward', operands };
  const result = await truth(test);
  const bounds = await boundsOf(test, result);
  let noise = lossOf(result, cotangents).size * 2 ** -52; // the sum of the loss itself, pairwise at worst a few bits
  for (const [name, weights] of Object.entries(cotangents)) {
    weights.forEach((weight, i) => {
      noise +=
        Math.abs(weight) * ((bounds[name]?.[i]?.r ?? 0) * 2 ** -29 + Math.abs(result[name]![i]!) * 2 ** -53);
    });
  }
  for (const [name, gradient] of Object.entries(gradients)) {
    const input = Float64Array.from(operands[name as keyof Operands<N>] as unknown as Float64Array);
    expect(gradient?.length, `${name} has a gradient for every element`).toBe(input.length);
    const largest = Math.max(...gradient!.map(Math.abs));
    const slope = async (i: number, h: number) => {
      const at = async (x: number) => {
        const moved = { ...operands, [name]: input.with(i, x) };
        return lossOf(await truth({ ...test, operands: moved }), cotangents).loss;
      };
      return ((await at(input[i]! + h)) - (await at(input[i]! - h))) / (2 * h);
    };
    for (let i = 0; i < input.length; i++) {
      const [fine, coarse] = [await slope(i, H), await slope(i, 2 * H)];
      const tolerance = Math.abs(fine - coarse) + (2 * noise) / H;
      const difference = (4 * fine - coarse) / 3;
      expect(tolerance, `sharpness of ${name}[${i}]`).toBeLessThan(SHARP * largest + Number.MIN_VALUE);
      expect(Math.abs(gradient![i]! - difference), `d${name}[${i}]`).toBeLessThanOrEqual(tolerance);
    }
  }
}

const wide = (array: Float32Array): Float64Array => Float64Array.from(array);

describe('unaryGrad', () => {
  UNARY.forEach((name, op) => {
    it(name, async () => {
      const values = new Values(name);
      const positive = name === 'log' || name === 'sqrt' || name === 'rsqrt' || name === 'reciprocal';
      // Away from the kinks of abs and relu.
      const x = wide(values.uniform(24, 0.5, 3)).map((value, i) => (positive || i % 2 ? value : -value));
      const count = x.length;
      const { y } = await truth({ kernel: 'unary', name, operands: { op, x, y: out(count), count } });
      const dy = wide(values.normal(count));
      const operands = { op, x, y: y as Float64Array, dy, dx: out(count), count };
      const { dx } = await truth({ kernel: 'unaryGrad', name, operands });
      await check('unary', { op, x, y: out(count), count }, { y: dy }, { x: dx });
    });
  });

  it('softplus above its threshold has slope 1', async () => {
    const x = Float64Array.of(20.5, 30);
    const operands = {
      op: UNARY.indexOf('softplus'),
      x,
      y: x,
      dy: Float64Array.of(1, 1),
      dx: out(2),
      count: 2,
    };
    const { dx } = await truth({ kernel: 'unaryGrad', name: 'softplus', operands });
    expect(Array.from(dx!)).toEqual([1, 1]);
  });
});

describe('normGrad', () => {
  for (const center of [0, 1]) {
    for (const affine of [false, true]) {
      it(`${center ? 'layer' : 'rms'}${affine ? ' with weight' : ''}`, async () => {
        const values = new Values(`norm ${center} ${affine}`);
        const [rows, d] = [5, 7];
        const weight = affine ? wide(values.normal(d)) : null;
        const bias = affine && center ? wide(values.normal(d)) : null;
        const forward: Operands<'norm'> = {
          x: wide(values.normal(rows * d)),
          residual: wide(values.normal(rows * d)),
          weight,
          bias,
          y: out(rows * d),
          sum: out(rows * d),
          mean: center ? out(rows) : null,
          rstd: out(rows),
          ...{ rows, d, eps: 1e-3, center },
        };
        const { sum, mean, rstd } = await truth({ kernel: 'norm', name: 'forward', operands: forward });
        const cotangents = { y: wide(values.normal(rows * d)), sum: wide(values.normal(rows * d)) };
        const { ds, dweight, dbias } = await truth({
          kernel: 'normGrad',
          name: 'backward',
          operands: {
            s: sum as Float64Array,
            weight,
            mean: center ? (mean as Float64Array) : null,
            rstd: rstd as Float64Array,
            dy: cotangents.y,
            dsum: cotangents.sum,
            ds: out(rows * d),
            dweight: affine ? out(d) : null,
            dbias: bias ? out(d) : null,
            partial: out(NORM_BLOCKS * 2 * d),
            ...{ rows, d, center },
          },
        });
        const gradients = {
          x: ds,
          residual: ds,
          ...(affine ? { weight: dweight } : {}),
          ...(bias ? { bias: dbias } : {}),
        };
        await check('norm', forward, cotangents, gradients);
      });
    }
  }
});

describe('gatedNormGrad', () => {
  const KINDS = { 'gate in front': 0, 'gate behind': 1, 'no gate': 0, 'no norm': 0 };
  for (const [kind, normBeforeGate] of Object.entries(KINDS)) {
    it(kind, async () => {
      const values = new Values(`gated norm ${kind}`);
      const [rows, d] = [5, 6];
      const z = kind === 'no gate' ? null : wide(values.normal(rows * d));
      const weight = kind === 'no norm' ? null : wide(values.normal(d));
      const common = {
        x: wide(values.normal(rows * d)),
        z,
        weight,
        ...{ rows, d, groupSize: 3, normBeforeGate, eps: 1e-3 },
      };
      const dy = wide(values.normal(rows * d));
      const { dx, dz, dweight } = await truth({
        kernel: 'gatedNormGrad',
        name: 'backward',
        operands: {
          ...common,
          dy,
          dx: out(rows * d),
          dz: z && out(rows * d),
          dweight: weight && out(d),
          partial: out(NORM_BLOCKS * d),
        },
      });
      const forward = { ...common, y: out(rows * d) };
      await check(
        'gatedNorm',
        forward,
        { y: dy },
        { x: dx, ...(z && { z: dz }), ...(weight && { weight: dweight }) },
      );
    });
  }
});

describe('causalConvGrad', () => {
  for (const k of [1, 2, 4]) {
    for (const silu of [0, 1]) {
      it(`k ${k}${silu ? ' silu' : ''}, window, documents, ragged rows`, async () => {
        const values = new Values(`conv ${k} ${silu}`);
        const [b, l, e] = [3, 6, 2];
        const common = {
          x: wide(values.normal(b * l * e)),
          weight: wide(values.normal(e * k)),
          bias: wide(values.normal(e)),
          window: wide(values.normal(b * e * k)),
          // A document that ends within the reach of the window, one that ends later, rows of 6, 2 and 0 tokens.
          sequenceIds: Int32Array.of(1, 2, 2, 2, 3, 3, 4, 4, 4, 4, 4, 4, 5, 5, 5, 5, 5, 5),
          lengths: Int32Array.of(6, 2, 0),
          ...{ b, l, e, k, silu },
        };
        const cotangents = { y: wide(values.normal(b * l * e)), windowOut: wide(values.normal(b * e * k)) };
        const { dx, dweight, dbias, dwindow } = await truth({
          kernel: 'causalConvGrad',
          name: 'backward',
          operands: {
            ...common,
            dy: cotangents.y,
            dwindowOut: cotangents.windowOut,
            dx: out(b * l * e),
            dweight: out(e * k),
            dbias: out(e),
            dwindow: out(b * e * k),
            partial: out(b * e * (k + 1)),
          },
        });
        const forward = { ...common, y: out(b * l * e), windowOut: out(b * e * k) };
        await check('causalConv', forward, cotangents, {
          x: dx,
          weight: dweight,
          bias: dbias,
          window: dwindow,
        });
      });
    }
  }
});

describe('selectiveScanGrad', () => {
  const LAYOUTS = [
    { bGroups: 1, cGroups: 1 },
    { bGroups: 2, cGroups: 0 },
    { bGroups: 0, cGroups: 2 },
  ];
  for (const { bGroups, cGroups } of LAYOUTS) {
    for (const full of [false, true]) {
      it(`groups ${bGroups}/${cGroups}${full ? ', softplus, D, z, bias, state, documents, ragged rows' : ''}`, async () => {
        const values = new Values(`scan ${bGroups} ${full}`);
        // Two chunks, the second one of three steps.
        const [b, l, e, n] = [2, SCAN_CHUNK + 3, 2, 2];
        const size = b * l * e;
        const optional = (count: number) => (full ? wide(values.normal(count)) : null);
        const documents = values.documents(b, l, 20);
        documents.fill(documents[SCAN_CHUNK - 1]! + 1, SCAN_CHUNK, l); // one starts with the chunk
        const common = {
          u: wide(values.normal(size)),
          delta: wide(full ? values.normal(size, 1, -1) : values.uniform(size, 0.05, 0.8)),
          A: wide(values.uniform(e * n, -2, -0.2)),
          B: wide(values.normal(bGroups === 0 ? e * n : b * l * bGroups * n)),
          C: wide(values.normal(cGroups === 0 ? e * n : b * l * cGroups * n)),
          D: optional(e),
          z: optional(size),
          deltaBias: optional(e),
          sequenceIds: full ? documents : null,
          lengths: full ? Int32Array.of(l, 9) : null,
          ...{ b, l, e, n, bGroups, cGroups, softplus: full ? 1 : 0 },
        };
        const forward: Operands<'selectiveScan'> = {
          ...common,
          state: optional(b * e * n),
          y: out(size),
          stateOut: out(b * e * n),
          checkpoints: out(b * 2 * e * n),
        };
        const { checkpoints } = await truth({ kernel: 'selectiveScan', name: 'forward', operands: forward });
        const cotangents = { y: wide(values.normal(size)), stateOut: wide(values.normal(b * e * n)) };
        const has = (count: number) => (full ? out(count) : null);
        const gradient = await truth({
          kernel: 'selectiveScanGrad',
          name: 'backward',
          operands: {
            ...common,
            checkpoints: checkpoints as Float64Array,
            dy: cotangents.y,
            dstateOut: cotangents.stateOut,
            du: out(size),
            ddelta: out(size),
            dA: out(e * n),
            dB: out(common.B.length),
            dC: out(common.C.length),
            dD: has(e),
            dz: has(size),
            ddeltaBias: has(e),
            dstate: has(b * e * n),
            partial: out(scanPartialSize(b, l, e, n, bGroups, cGroups)),
          },
        });
        const names = ['u', 'delta', 'A', 'B', 'C', ...(full ? ['D', 'z', 'deltaBias', 'state'] : [])];
        const gradients = Object.fromEntries(names.map((name) => [name, gradient[`d${name}`]]));
        await check('selectiveScan', forward, cotangents, gradients);
      });
    }
  }
});

describe('ssdGrad', () => {
  for (const full of [false, true]) {
    it(full ? 'ranks, own, D per channel, state, documents, ragged rows' : 'without options', async () => {
      const values = new Values(`ssd ${full}`);
      // Three chunks, the last one of one token.
      const [b, l, r, h, p, g, n, q] = [2, 7, full ? 2 : 1, 2, 2, full ? 1 : 2, 3, 3];
      const steps = b * l * h;
      const dWidth = full ? p : 1;
      const optional = (count: number) => (full ? wide(values.normal(count)) : null);
      const common = {
        x: wide(values.normal(b * l * r * h * p)),
        decay: wide(values.uniform(steps, -2, -0.1)),
        scale: wide(values.normal(steps)),
        own: optional(steps),
        B: wide(values.normal(b * l * r * g * n)),
        C: wide(values.normal(b * l * r * g * n)),
        D: optional(h * dWidth),
        sequenceIds: full ? Int32Array.of(1, 1, 2, 3, 3, 3, 3, 4, 4, 4, 4, 4, 4, 4) : null,
        lengths: full ? Int32Array.of(l, 5) : null,
        ...{ b, l, r, h, p, g, n, q, dWidth },
      };
      const forward: Operands<'ssd'> = {
        ...common,
        state: optional(b * h * p * n),
        y: out(common.x.length),
        stateOut: out(b * h * p * n),
        checkpoints: out(b * Math.ceil(l / q) * h * p * n),
        partial: out(ssdPartialSize(b, l, r, g, q)),
      };
      const { checkpoints } = await truth({ kernel: 'ssd', name: 'forward', operands: forward });
      const cotangents = {
        y: wide(values.normal(common.x.length)),
        stateOut: wide(values.normal(b * h * p * n)),
      };
      const has = (count: number) => (full ? out(count) : null);
      const gradient = await truth({
        kernel: 'ssdGrad',
        name: 'backward',
        operands: {
          ...common,
          checkpoints: checkpoints as Float64Array,
          dy: cotangents.y,
          dstateOut: cotangents.stateOut,
          dx: out(common.x.length),
          ddecay: out(steps),
          dscale: out(steps),
          down: has(steps),
          dB: out(common.B.length),
          dC: out(common.C.length),
          dD: has(h * dWidth),
          dstate: has(b * h * p * n),
          partial: out(ssdGradPartialSize(b, l, r, h, p, g, n, q)),
        },
      });
      const names = ['x', 'decay', 'scale', 'B', 'C', ...(full ? ['own', 'D', 'state'] : [])];
      const gradients = Object.fromEntries(names.map((name) => [name, gradient[`d${name}`]]));
      await check('ssd', forward, cotangents, gradients);
    });
  }
});

describe('attentionGrad', () => {
  for (const [hq, hk] of [
    [2, 2],
    [4, 2],
  ] as const) {
    it(`${hq} heads over ${hk}, keys from before, documents, ragged rows`, async () => {
      const values = new Values(`attention ${hq}`);
      const [b, l, c, d] = [3, 5, 7, 3];
      const sizes = { b, l, c, hq, hk, d, softmaxScale: 0.75 };
      const common = {
        q: wide(values.normal(b * l * hq * d)),
        k: wide(values.normal(b * c * hk * d)),
        v: wide(values.normal(b * c * hk * d)),
        past: Int32Array.of(2, 0, 1),
        sequenceIds: Int32Array.of(1, 1, 2, 2, 2, 3, 4, 4, 4, 4, 5, 5, 5, 5, 5),
        lengths: Int32Array.of(5, 4, 0),
      };
      const forward = { ...common, y: out(b * l * hq * d), lse: out(b * l * hq), ...sizes };
      const { y, lse } = await truth({ kernel: 'attention', name: 'forward', operands: forward });
      const dy = wide(values.normal(b * l * hq * d));
      const { dq, dk, dv } = await truth({
        kernel: 'attentionGrad',
        name: 'backward',
        operands: {
          ...common,
          y: y as Float64Array,
          lse: lse as Float64Array,
          dy,
          dq: out(b * l * hq * d),
          dk: out(b * c * hk * d),
          dv: out(b * c * hk * d),
          partial: out(attentionPartialSize(b, l, c, hq, hk, d)),
          ...sizes,
        },
      });
      await check('attention', forward, { y: dy }, { q: dq, k: dk, v: dv });
    });
  }
});

it('crossEntropyGrad', async () => {
  const values = new Values('loss');
  const [rows, v] = [4, 9];
  const common = {
    logits: wide(values.normal(rows * v, 2)),
    targets: Int32Array.of(3, -1, 0, 8),
    rows,
    v,
    ignore: -1,
  };
  const forward = { ...common, loss: out(rows), lse: out(rows), valid: out(rows) };
  const { lse } = await truth({ kernel: 'crossEntropy', name: 'forward', operands: forward });
  const dloss = wide(values.normal(rows));
  const operands = { ...common, lse: lse as Float64Array, dloss, dlogits: out(rows * v) };
  const { dlogits } = await truth({ kernel: 'crossEntropyGrad', name: 'backward', operands });
  await check('crossEntropy', forward, { loss: dloss }, { logits: dlogits });
});
