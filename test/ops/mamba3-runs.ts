/** The ops of Mamba-3 in the layouts of the stored results (test/fixtures/ops): upstream's SISO, and mamba3_mimo.py. */
import { angleScan, rotate } from '../../src/ops/rotation.ts';
import { lastToken, trapezoid } from '../../src/ops/trapezoid.ts';
import {
  add,
  concat,
  div,
  mul,
  permute,
  reshape,
  sigmoid,
  silu,
  slice,
} from '../../src/tensor/primitives.ts';
import type { Tensor } from '../../src/tensor/tensor.ts';

type Inputs = (name: string) => Tensor;
type Has = (name: string) => boolean;

/** One rank, pairs of neighbours; B and C per group with biases per head, an angle for every head, a gate. */
export function siso(input: Inputs, has: Has): Record<string, Tensor> {
  const [V, angles] = [input('V'), input('Angles')];
  const [b, l, h, p] = V.dims(4);
  const s = angles.dims(4)[3];
  const swap = (x: Tensor) => permute(x, [0, 2, 1]); // (b, h, l) -> (b, l, h)
  const dt = swap(input('DT'));
  // The op shares angles between heads; here each has its own: one head at a time.
  const heads = Array.from({ length: h }, (_, i) =>
    angleScan(reshape(slice(angles, 2, i, i + 1), [b, l, s]), slice(dt, 2, i, i + 1), {
      state: has('a0') ? slice(input('a0'), 1, i, i + 1) : null,
    }),
  );
  const theta = concat(
    heads.map((head) => head.theta),
    2,
  );
  const perHead = (name: 'K' | 'Q') => {
    const x = input(name);
    const [, , g, n] = x.dims(4);
    const biased = add(reshape(x, [b, l, g, 1, n]), reshape(input(`${name}_bias`), [g, h / g, n]));
    return rotate(reshape(biased, [b, l, 1, h, n]), theta, { pairing: 'adjacent' });
  };
  const [K, Q] = [perHead('K'), perHead('Q')];
  const oneRank = (x: Tensor) => reshape(x, [x.shape[0]!, 1, ...x.shape.slice(1)]);
  const state = has('s0') ? { ssm: input('s0'), k: oneRank(input('k0')), v: oneRank(input('v0')) } : null;
  const scan = trapezoid(
    reshape(V, [b, l, 1, h, p]),
    dt,
    div(swap(input('ADT')), dt),
    sigmoid(swap(input('Trap'))),
    K,
    Q,
    { D: input('D'), state },
  );
  const y = reshape(scan.y, [b, l, h, p]);
  return {
    y: has('Z') ? mul(y, silu(input('Z'))) : y,
    angle: concat(
      heads.map((head) => head.state),
      1,
    ),
    ssm: scan.ssm,
    k: reshape(lastToken(K), [b, h, K.shape[4]!]),
    v: lastToken(V),
  };
}

/** Several ranks, pairs n / 2 apart, packed and ragged rows. */
export function mimo(input: Inputs, has: Has): Record<string, Tensor> {
  const optional = (name: string) => (has(name) ? input(name) : null);
  const context = { sequenceIds: optional('sequence_ids'), lengths: optional('lengths') };
  const [v, dt] = [input('v'), input('dt')];
  const pairing = input('k').dims(5)[4] / 2;
  const { theta, state: angle } = angleScan(input('angle'), dt, { state: optional('a0'), ...context });
  const K = rotate(input('k'), theta, { pairing });
  const Q = rotate(input('q'), theta, { pairing });
  const state = has('s0') ? { ssm: input('s0'), k: input('k0'), v: input('v0') } : null;
  const { y, ssm } = trapezoid(v, dt, input('A'), input('lam'), K, Q, { D: input('D'), state, ...context });
  return {
    y,
    ssm,
    angle,
    k: lastToken(K, state?.k, context),
    v: lastToken(v, state?.v, context),
  };
}
