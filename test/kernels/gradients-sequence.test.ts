/** The Grad kernels that run along a sequence, in the reference, against finite differences. */
import { describe, it } from 'vitest';
import {
  attentionPartialSize,
  SCAN_CHUNK,
  scanPartialSize,
  ssdGradPartialSize,
  ssdPartialSize,
} from '../../src/backend/kernels.ts';
import { Values } from './cases/values.ts';
import { checkGradients, wide } from './differences.ts';
import { type Operands, out, truth } from './harness.ts';

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
        const forward = { ...common, y: out(b * l * e), windowOut: out(b * e * k), cut1: e, cut2: e };
        await checkGradients('causalConv', forward, cotangents, {
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
        await checkGradients('selectiveScan', forward, cotangents, gradients);
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
        ...{ lastX: null, lastB: null, lastWeight: null },
        y: out(common.x.length),
        stateOut: out(b * h * p * n),
        checkpoints: out(b * Math.ceil(l / q) * h * p * n),
        partial: out(ssdPartialSize(b, l, r, g, q)),
        precision: 0,
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
      await checkGradients('ssd', forward, cotangents, gradients);
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
      await checkGradients('attention', forward, { y: dy }, { q: dq, k: dk, v: dv });
    });
  }
});
