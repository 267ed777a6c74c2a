/**
 * The selective scan of Mamba-1 (Gu and Dao 2023, section 3.2 and algorithm 2;
 * selective_scan_ref in state-spaces/mamba):
 *   dt = f(delta + deltaBias)                          f = softplus or identity
 *   h[t] = exp(dt A) h[t-1] + dt B[t] u[t]             A exact (zero-order hold), B by Euler's rule
 *   y[t] = (C[t] . h[t] + D u[t]) * silu(z[t])
 * The state goes in and out as a value; both directions are differentiable. The backward pass
 * recomputes states chunk by chunk from one saved state per chunk, so memory is O(l /
 * SCAN_CHUNK * e * n), never (b, l, e, n).
 */
import { kernelOf } from '../backend/backend.ts';
import { SCAN_CHUNK, scanPartialSize } from '../backend/kernels.ts';
import { ShapeError } from '../base/errors.ts';
import { expectShape, type Shape, showShape } from '../base/shape.ts';
import {
  add,
  broadcastTo,
  exp,
  mul,
  reshape,
  silu,
  slice,
  softplus,
  stack,
  sum,
} from '../tensor/primitives.ts';
import * as raw from '../tensor/raw.ts';
import { needsGrad, record } from '../tensor/tape.ts';
import { Tensor } from '../tensor/tensor.ts';
import { checkSequence } from './causal-conv.ts';
import { choose, rowMasks } from './row-masks.ts';

export interface SelectiveScanOptions {
  /** Skip connection (e). */
  D?: Tensor | null;
  /** Gate (b, l, e). */
  z?: Tensor | null;
  /** Added to delta (e). */
  deltaBias?: Tensor | null;
  /** Default false, as upstream. The identity above 20. */
  deltaSoftplus?: boolean;
  /** The state before the first token (b, e, n); zeros when omitted. */
  state?: Tensor | null;
  /**
   * Document of each token, i32 (b, l): the state is reset where it changes. The
   * incoming state belongs to token 0.
   */
  sequenceIds?: Tensor | null;
  /** Real tokens per row, i32 (b): later positions give 0 and leave the state alone. */
  lengths?: Tensor | null;
}

export interface SelectiveScanResult {
  /** (b, l, e). */
  y: Tensor;
  /** The state after the last token (b, e, n). */
  state: Tensor;
}

/**
 * u, delta (b, l, e); A (e, n), negative for a stable recurrence; B and C each constant (e, n), per token (b,
 * l, n), or per token and group (b, l, g, n) with channel c in group floor(c / (e / g)).
 */
export function selectiveScan(
  u: Tensor,
  delta: Tensor,
  A: Tensor,
  B: Tensor,
  C: Tensor,
  options: SelectiveScanOptions = {},
): SelectiveScanResult {
  const { D = null, z = null, deltaBias = null, state = null, sequenceIds = null, lengths = null } = options;
  const { b, l, e, n, bGroups, cGroups } = check(u, delta, A, B, C, options);
  const { device } = u;
  const kernel = device.kernels.selectiveScan;
  if (!kernel) return selectiveScanRef(u, delta, A, B, C, options);
  const softplus = options.deltaSoftplus ? 1 : 0;
  const flags = { b, l, e, n, bGroups, cGroups, softplus };
  const make = (shape: Shape) => Tensor.empty(shape, 'f32', device);

  const inputs = [u, delta, A, B, C, D, z, deltaBias, state];
  const y = make([b, l, e]);
  const stateOut = make([b, e, n]);
  const checkpoints = needsGrad(inputs) ? make([b, Math.ceil(l / SCAN_CHUNK), e, n]) : null;
  if (b * e > 0)
    kernel({
      u,
      delta,
      A,
      B,
      C,
      D,
      z,
      deltaBias,
      state,
      sequenceIds,
      lengths,
      y,
      stateOut,
      checkpoints,
      ...flags,
    });
  if (!checkpoints) return { y, state: stateOut };

  const saved = { u, delta, A, B, C, D, z, deltaBias, sequenceIds, lengths, checkpoints };
  record('selectiveScan', inputs, [y, stateOut], saved, ([dy, dstateOut], kept, needs) => {
    const optional = (wanted: boolean, shape: Shape) => (wanted ? make(shape) : null);
    const grads = {
      du: make([b, l, e]),
      ddelta: make([b, l, e]),
      dA: make([e, n]),
      dB: make(B.shape),
      dC: make(C.shape),
      dD: optional(D !== null, [e]),
      dz: optional(z !== null, [b, l, e]),
      ddeltaBias: optional(deltaBias !== null, [e]),
      dstate: optional(needs[8]!, [b, e, n]),
    };
    kernelOf(
      device,
      'selectiveScanGrad',
    )({
      ...kept,
      dy: dy ?? raw.full([b, l, e], 0, device),
      dstateOut: dstateOut ?? null,
      ...grads,
      partial: make([scanPartialSize(b, l, e, n, bGroups, cGroups)]),
      ...flags,
    });
    return Object.values(grads);
  });
  return { y, state: stateOut };
}

/**
 * The same, composed from primitives token by token: slow, memory (b, l, e, n), and the truth that
 * the kernels are tested against.
 */
export function selectiveScanRef(
  u: Tensor,
  delta: Tensor,
  A: Tensor,
  B: Tensor,
  C: Tensor,
  options: SelectiveScanOptions = {},
): SelectiveScanResult {
  const { D, z, deltaBias, state } = options;
  const { b, l, e, n } = check(u, delta, A, B, C, options);
  const masks = rowMasks(b, l, options, 3, u.device);
  let dt = deltaBias ? add(delta, deltaBias) : delta;
  if (options.deltaSoftplus) dt = softplus(dt);

  const at = (x: Tensor, t: number) => slice(x, 1, t, t + 1); // (b, 1, ...)
  const perChannel = (M: Tensor, t: number): Tensor => {
    if (M.shape.length === 2) return M; // (e, n)
    const groups = M.shape.length === 4 ? M.shape[2]! : 1;
    const token = reshape(at(M, t), [b, groups, 1, n]);
    return reshape(broadcastTo(token, [b, groups, e / groups, n]), [b, e, n]);
  };
  let h = state ?? raw.full([b, e, n], 0, u.device);
  const ys: Tensor[] = [];
  for (let t = 0; t < l; t++) {
    const { alive, continues } = masks(t);
    const before = continues ? mul(h, continues) : h;
    const dtT = reshape(at(dt, t), [b, e, 1]);
    const uT = reshape(at(u, t), [b, e, 1]);
    const next = add(mul(exp(mul(dtT, A)), before), mul(mul(dtT, uT), perChannel(B, t))); // (b, e, n)
    h = choose(alive, next, h);
    let y = sum(mul(next, perChannel(C, t)), 2); // (b, e)
    if (D) y = add(y, mul(reshape(uT, [b, e]), D));
    if (z) y = mul(y, silu(reshape(at(z, t), [b, e])));
    ys.push(alive ? mul(y, reshape(alive, [b, 1])) : y);
  }
  return { y: l > 0 ? stack(ys, 1) : raw.full([b, 0, e], 0, u.device), state: h };
}

/**
 * One token of the recurrence, for decoding (selective_state_update upstream). state (b, e, n); x, dt, z (b,
 * e); A (e, n); B, C (b, n) or (b, g, n); D, dtBias (e). Heads are channels: flatten (h, p) to e.
 */
export function selectiveStateUpdate(
  state: Tensor,
  x: Tensor,
  dt: Tensor,
  A: Tensor,
  B: Tensor,
  C: Tensor,
  options: { D?: Tensor | null; z?: Tensor | null; dtBias?: Tensor | null; dtSoftplus?: boolean } = {},
): SelectiveScanResult {
  const oneToken = (t: Tensor) => reshape(t, [t.shape[0]!, 1, ...t.shape.slice(1)]);
  const { D = null, z = null, dtBias = null, dtSoftplus = false } = options;
  const { y, state: next } = selectiveScan(oneToken(x), oneToken(dt), A, oneToken(B), oneToken(C), {
    D,
    z: z && oneToken(z),
    deltaBias: dtBias,
    deltaSoftplus: dtSoftplus,
    state,
  });
  return { y: reshape(y, x.shape), state: next };
}

function check(u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, options: SelectiveScanOptions) {
  const op = 'selectiveScan';
  const [b, l, e] = u.dims(3);
  const [channels, n] = A.dims(2);
  expectShape(op, 'A (e, n)', [channels, n], [e, n]);
  expectShape(op, 'delta (b, l, e)', delta.shape, [b, l, e]);
  const groupsOf = (what: string, M: Tensor): number => {
    if (M.shape.length === 2) {
      expectShape(op, `${what} (e, n)`, M.shape, [e, n]);
      return 0;
    }
    if (M.shape.length === 3) {
      expectShape(
        op,
        `${what} (b, l, n)`,
        M.shape,
        [b, l, n],
        'Channels-last layout is expected: transpose (b, n, l).',
      );
      return 1;
    }
    const g = M.shape[2] ?? 0;
    expectShape(op, `${what} (b, l, g, n)`, M.shape, [b, l, g, n]);
    if (g === 0 || e % g !== 0)
      throw new ShapeError(`${op}: expected groups that divide ${e} channels, got ${showShape(M.shape)}.`);
    return g;
  };
  const bGroups = groupsOf('B', B);
  const cGroups = groupsOf('C', C);
  const { D, z, deltaBias, state } = options;
  if (D) expectShape(op, 'D (e)', D.shape, [e]);
  if (z) expectShape(op, 'z (b, l, e)', z.shape, [b, l, e]);
  if (deltaBias) expectShape(op, 'deltaBias (e)', deltaBias.shape, [e]);
  if (state) expectShape(op, 'state (b, e, n)', state.shape, [b, e, n]);
  checkSequence(op, b, l, options);
  raw.requireF32(
    op,
    u,
    delta,
    A,
    B,
    C,
    ...[D, z, deltaBias, state].filter((t) => t !== null && t !== undefined),
  );
  return { b, l, e, n, bGroups, cGroups };
}
