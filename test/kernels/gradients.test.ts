/**
 * Every Grad kernel of the reference against finite differences; gradients-sequence.test.ts has those that
 * run along a sequence.
 */
import { describe, expect, it } from 'vitest';
import { NORM_BLOCKS, UNARY } from '../../src/backend/kernels.ts';
import { Values } from './cases/values.ts';
import { checkGradients, wide } from './differences.ts';
import { type Operands, out, truth } from './harness.ts';

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
      await checkGradients('unary', { op, x, y: out(count), count }, { y: dy }, { x: dx });
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
        await checkGradients('norm', forward, cotangents, gradients);
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
      await checkGradients(
        'gatedNorm',
        forward,
        { y: dy },
        { x: dx, ...(z && { z: dz }), ...(weight && { weight: dweight }) },
      );
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
  await checkGradients('crossEntropy', forward, { loss: dloss }, { logits: dlogits });
});
