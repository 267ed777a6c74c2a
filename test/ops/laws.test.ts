/**
 * Laws of the fused ops on every device: each equals its twin composed from primitives (outputs and gradients), any split equals the whole,
 * a ragged batch equals its rows alone, packed documents equal separate ones.
 */
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { withDevice } from '../../src/backend/backend.ts';
import { causalConv1d, causalConv1dRef } from '../../src/ops/causal-conv.ts';
import { crossEntropy, tokenLosses, tokenLossesRef } from '../../src/ops/cross-entropy.ts';
import { gatedRmsNorm, gatedRmsNormRef, siluGate, siluGateRef } from '../../src/ops/gated-norm.ts';
import { splitLinear, splitLinearRef } from '../../src/ops/linear.ts';
import { layerNorm, normRef, rmsNorm } from '../../src/ops/norm.ts';
import { selectiveScan, selectiveScanRef } from '../../src/ops/selective-scan.ts';
import { concat, matmul, slice } from '../../src/tensor/primitives.ts';
import { scope } from '../../src/tensor/scope.ts';
import { backward } from '../../src/tensor/tape.ts';
import { Tensor } from '../../src/tensor/tensor.ts';
import { devices } from '../kernels/devices.ts';
import { expectTwins, int, type Leaves, type Op } from '../support/twins.ts';

describe.each(devices)('twins on $label', ({ backend: device }) => {
  const scanShapes = (b: number, l: number, e: number, n: number, g: number) => ({
    u: [b, l, e],
    delta: [b, l, e],
    A: [e, n],
    B: g === 0 ? [e, n] : g === 1 ? [b, l, n] : [b, l, g, n],
    C: g === 0 ? [e, n] : [b, l, n],
    D: [e],
    z: [b, l, e],
    deltaBias: [e],
    state: [b, e, n],
  });
  const scanOp =
    (scan: typeof selectiveScan, extra: { sequenceIds?: Tensor; lengths?: Tensor } = {}): Op =>
    ({ u, delta, A, B, C, D, z, deltaBias, state }) => {
      const out = scan(u!, delta!, A!, B!, C!, { D, z, deltaBias, state, deltaSoftplus: true, ...extra });
      return [out.y, out.state];
    };

  test.each([
    [1, 1, 5, 1, 1],
    [3, 2, 17, 8, 0],
    [2, 7, 6, 16, 2],
    [1, 63, 5, 16, 1],
    [2, 65, 18, 4, 3],
  ])('selectiveScan b=%i l=%i e=%i n=%i g=%i', async (b, l, e, n, g) => {
    await expectTwins(device, scanShapes(b, l, e, n, g), scanOp(selectiveScan), scanOp(selectiveScanRef));
  });

  test('selectiveScan with documents and lengths', async () => {
    const [b, l] = [3, 9];
    const sequenceIds = int(
      [0, 0, 0, 1, 1, 2, 2, 2, 2, 5, 5, 5, 5, 5, 5, 5, 5, 5, 1, 2, 3, 4, 5, 6, 7, 8, 9],
      [b, l],
      device,
    );
    const lengths = int([9, 4, 0], [b], device);
    const extra = { sequenceIds, lengths };
    await expectTwins(
      device,
      scanShapes(b, l, 6, 3, 1),
      scanOp(selectiveScan, extra),
      scanOp(selectiveScanRef, extra),
    );
  });

  test.each([
    [1, 1, 5, 1],
    [2, 3, 17, 4],
    [3, 9, 6, 5],
  ])('causalConv1d b=%i l=%i e=%i k=%i, documents and lengths', async (b, l, e, k) => {
    const shapes = { x: [b, l, e], weight: [e, k], bias: [e], window: [b, e, k] };
    const ids = Array.from({ length: b * l }, (_, i) => Math.floor((i % l) / 2));
    const extra = {
      sequenceIds: int(ids, [b, l], device),
      lengths: int([l, Math.max(0, l - 4), 0].slice(0, b), [b], device),
    };
    for (const options of [{}, extra]) {
      const op =
        (conv: typeof causalConv1d): Op =>
        ({ x, weight, bias, window }) => {
          const out = conv(x!, weight!, bias!, { activation: 'silu', window, ...options });
          return [out.y, out.window];
        };
      await expectTwins(device, shapes, op(causalConv1d), op(causalConv1dRef));
    }
  });

  test('norms', async () => {
    const shapes = { x: [3, 5, 7], residual: [3, 5, 7], weight: [7], bias: [7] };
    const both = (r: { y: Tensor; residual: Tensor }) => [r.y, r.residual];
    await expectTwins(
      device,
      shapes,
      ({ x, residual, weight }) => both(rmsNorm(x!, weight!, { residual })),
      ({ x, residual, weight }) => both(normRef(x!, weight!, null, { residual })),
    );
    await expectTwins(
      device,
      shapes,
      ({ x, residual, weight, bias }) => both(layerNorm(x!, weight!, bias!, { residual })),
      ({ x, residual, weight, bias }) => both(normRef(x!, weight!, bias!, { residual }, true)),
    );
  });

  test('gated norms, and the gate alone', async () => {
    const shapes = { x: [3, 5, 12], z: [3, 5, 12], weight: [12] };
    for (const options of [
      {},
      { normBeforeGate: true },
      { groupSize: 4 },
      { groupSize: 3, normBeforeGate: true },
    ]) {
      for (const gated of [true, false]) {
        const op =
          (norm: typeof gatedRmsNorm): Op =>
          ({ x, z, weight }) => [norm(x!, weight!, { ...options, z: gated ? z : null })];
        await expectTwins(device, shapes, op(gatedRmsNorm), op(gatedRmsNormRef));
      }
    }
    const gate =
      (fn: typeof siluGate): Op =>
      ({ x, z }) => [fn(x!, z!)];
    await expectTwins(device, { x: [3, 5, 12], z: [3, 5, 12] }, gate(siluGate), gate(siluGateRef));
  });

  test('linear in parts', async () => {
    const shapes = { x: [2, 9, 5], weight: [12, 5], bias: [12] };
    const op =
      (fn: typeof splitLinear): Op =>
      ({ x, weight, bias }) =>
        fn(x!, weight!, [7, 1, 4], bias);
    await expectTwins(device, shapes, op(splitLinear), op(splitLinearRef));
  });

  test('cross-entropy with ignored targets', async () => {
    const targets = int([3, 0, -100, 10, 2, -100], [2, 3], device);
    await expectTwins(
      device,
      { logits: [2, 3, 11] },
      ({ logits }) => [tokenLosses(logits!, targets).loss],
      ({ logits }) => [tokenLossesRef(logits!, targets).loss],
    );
  });
});

describe.each(devices)('cross-entropy on $label', ({ backend: device }) => {
  test('the gradient takes the place of logits that nobody holds', () => {
    const x = Tensor.ones([64, 8], { device, requiresGrad: true });
    const w = Tensor.ones([8, 1000], { device });
    const targets = int(new Array<number>(64).fill(1), [64], device);
    withDevice(device, () => {
      const run = () =>
        scope(() => {
          const loss = scope(() => crossEntropy(matmul(x, w), targets));
          device.resetPeak();
          const before = device.memory.liveBytes;
          backward(loss);
          return device.memory.peakBytes - before;
        });
      expect(run()).toBeLessThan(64 * 1000 * 4);
    });
  });

  test('all targets ignored gives 0', async () => {
    const loss = withDevice(device, () => crossEntropy(Tensor.ones([2, 5]), int([-100, -100], [2], device)));
    expect(await loss.item()).toBe(0);
  });

  test('a target outside the vocabulary is refused', () => {
    expect(() => withDevice(device, () => crossEntropy(Tensor.ones([1, 5]), int([5], [1], device)))).toThrow(
      /\[0, 5\)/,
    );
  });
});

describe.each(devices)('selectiveScan split anywhere equals the whole on $label', ({ backend: device }) => {
  test('outputs, state and gradients', async () => {
    await fc.assert(
      fc.asyncProperty(fc.integer({ min: 2, max: 40 }), fc.nat(), fc.integer(), async (l, at, seed) => {
        const cut = 1 + (at % (l - 1));
        const [b, e, n] = [2, 5, 3];
        const shapes = { u: [b, l, e], delta: [b, l, e], A: [e, n], B: [b, l, n], C: [b, l, n], D: [e] };
        const scan = (x: Leaves, from: number, to: number, state: Tensor | null) => {
          const part = (name: string) => slice(x[name]!, 1, from, to);
          return selectiveScan(part('u'), part('delta'), x.A!, part('B'), part('C'), {
            D: x.D,
            deltaSoftplus: true,
            state,
          });
        };
        await expectTwins(
          device,
          shapes,
          (x) => {
            const first = scan(x, 0, cut, null);
            const second = scan(x, cut, l, first.state);
            return [concat([first.y, second.y], 1), second.state];
          },
          (x) => {
            const whole = scan(x, 0, l, null);
            return [whole.y, whole.state];
          },
          seed,
        );
      }),
      { numRuns: 12, seed: 5 },
    );
  });
});
