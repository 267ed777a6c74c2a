/**
 * The recurrence of Mamba-3 (arXiv 2603.15569; mamba3.py in state-spaces/mamba). Where Mamba-2 takes the
 * input of a step at its end (Euler's rule), this takes it at both ends, with weights lambda and 1 - lambda
 * (1/2: the trapezoidal rule, of second order). Per head, with r ranks, values v, keys k and queries q (the
 * paper's x, B and C; keys and queries already turned, see rotation.ts):
 *   alpha = exp(A dt),   beta = (1 - lambda) dt alpha,   gamma = lambda dt
 *   S[t]  = alpha S[t-1] + beta sum_j v[t-1,j] k[t-1,j]^T + gamma sum_j v[t,j] k[t,j]^T           (p, n)
 *   y[t,j] = S[t] q[t,j] + D v[t,j]
 * What token t gives to token t + 1 is n[t] = dt[t+1] (1 - lambda[t+1]), times the decay of t + 1. So
 * it may be written into the state at once, if token t itself does not read it: that is ssdCore with
 * scale gamma + n and own gamma.
 */
import { ShapeError } from '../base/errors.ts';
import { expectShape, sizeOf } from '../base/shape.ts';
import {
  add,
  affine,
  concat,
  exp,
  gatherRows,
  mul,
  reshape,
  slice,
  stack,
  sum,
} from '../tensor/primitives.ts';
import * as raw from '../tensor/raw.ts';
import { Tensor } from '../tensor/tensor.ts';
import { checkSequence, hostIds } from './causal-conv.ts';
import { choose, rowMasks } from './row-masks.ts';
import { ssdCore } from './ssd-core.ts';

/** What a row carries from its last token to the next call. */
export interface TrapezoidState {
  /** S after that token (b, h, p, n). */
  ssm: Tensor;
  /** Its keys, turned (b, r, h, n). */
  k: Tensor;
  /** Its values (b, r, h, p). */
  v: Tensor;
}

export interface TrapezoidOptions {
  /** Skip connection (h). */
  D?: Tensor | null;
  /** What was carried; zeros when omitted. It belongs to the document of token 0. */
  state?: TrapezoidState | null;
  /** Document of each token, i32 (b, l): where it changes, S and the token before count as zero. */
  sequenceIds?: Tensor | null;
  /** Real tokens per row, i32 (b): later positions give 0 and leave S alone. */
  lengths?: Tensor | null;
  /** Tokens per chunk of ssdCore: speed, memory and rounding, nothing else. */
  chunkSize?: number;
}

export interface TrapezoidResult {
  /** (b, l, r, h, p). */
  y: Tensor;
  /** S after the last token (b, h, p, n). With `lastToken` of K and V it makes the next call's state. */
  ssm: Tensor;
}

/**
 * V (b, l, r, h, p); dt, lambda in (0, 1) and A, negative (b, l, h); K and Q (b, l, r, h, n). With
 * l = 1 it is a step of decoding.
 */
export function trapezoid(
  V: Tensor,
  dt: Tensor,
  A: Tensor,
  lambda: Tensor,
  K: Tensor,
  Q: Tensor,
  options: TrapezoidOptions = {},
): TrapezoidResult {
  const { D = null, state = null, sequenceIds = null, lengths = null, chunkSize } = options;
  const { b, l, h } = check(V, dt, A, lambda, K, Q, options);
  const earlier = mul(dt, affine(lambda, -1, 1)); // the weight of the token before, (b, l, h)
  const own = mul(dt, lambda);
  let scale = own;
  if (l > 1) {
    const later = concat([slice(earlier, 1, 1, l), raw.full([b, 1, h], 0, V.device)], 1);
    const followed = followedMask(b, l, options, V);
    scale = add(own, followed ? mul(later, followed) : later);
  }
  const { y, state: ssm } = ssdCore(V, mul(A, dt), scale, K, Q, {
    own: l > 1 ? own : null,
    D,
    state: state?.ssm ?? null,
    last:
      state && l > 0 ? { x: state.v, B: state.k, weight: reshape(slice(earlier, 1, 0, 1), [b, h]) } : null,
    sequenceIds,
    lengths,
    chunkSize,
  });
  return { y, ssm };
}

/**
 * (b, l, 1): 1 where the next token exists and is of the same document. Null if that
 * is so but for the last column.
 */
function followedMask(b: number, l: number, options: TrapezoidOptions, like: Tensor): Tensor | null {
  const ids = hostIds('sequenceIds', options.sequenceIds);
  const ends = hostIds('lengths', options.lengths);
  if (!ids && !ends) return null;
  const mask = Float32Array.from({ length: b * l }, (_, at) => {
    const [row, t] = [Math.floor(at / l), at % l];
    return t + 1 < (ends ? ends[row]! : l) && (!ids || ids[at] === ids[at + 1]) ? 1 : 0;
  });
  return Tensor.from(mask, [b, l, 1], { device: like.device });
}

/**
 * The last real token of each row of x (b, l, ...), for the next call's state: token lengths[i] - 1 of row i,
 * or l - 1. A row without any token takes that of `previous` (b, ...), or zeros when there is none. Gradients
 * flow to where the values came from. -> (b, ...)
 */
export function lastToken(
  x: Tensor,
  previous: Tensor | null = null,
  options: { lengths?: Tensor | null } = {},
): Tensor {
  const op = 'lastToken';
  if (x.shape.length < 2) throw new ShapeError(`${op}: expected x (b, l, ...), got [${x.shape.join(', ')}].`);
  const [b, l, ...rest] = x.shape as [number, number, ...number[]];
  if (previous) expectShape(op, 'previous (b, ...)', previous.shape, [b, ...rest]);
  const { lengths } = options;
  checkSequence(op, b, l, { lengths });
  const ends = hostIds('lengths', lengths) ?? new Int32Array(b).fill(l);
  const d = sizeOf(rest);
  const rows = Array.from(ends, (end, row) => ({ row, end }));
  const live = rows.filter(({ end }) => end > 0);
  const before = previous ?? raw.full([b, ...rest], 0, x.device);
  if (live.length === 0) return reshape(before, before.shape);

  const pick = (table: Tensor, ids: number[]) =>
    gatherRows(table, Tensor.from(Int32Array.from(ids), [ids.length], { device: x.device }));
  const last = pick(
    reshape(x, [b * l, d]),
    live.map(({ row, end }) => row * l + end - 1),
  );
  if (live.length === b) return reshape(last, [b, ...rest]);
  // The rows that were read, in their order, and behind them all previous ones.
  let read = 0;
  const both = concat([last, reshape(before, [b, d])], 0);
  const chosen = pick(
    both,
    rows.map(({ row, end }) => (end > 0 ? read++ : live.length + row)),
  );
  return reshape(chosen, [b, ...rest]);
}

/** The recurrence as it stands above, from primitives, token by token. */
export function trapezoidRef(
  V: Tensor,
  dt: Tensor,
  A: Tensor,
  lambda: Tensor,
  K: Tensor,
  Q: Tensor,
  options: TrapezoidOptions = {},
): TrapezoidResult {
  const { D, state } = options;
  const { b, l, r, h, p, n } = check(V, dt, A, lambda, K, Q, options);
  const { device } = V;
  const masks = rowMasks(b, l, options, 4, device);
  const at = (x: Tensor, t: number) => reshape(slice(x, 1, t, t + 1), [b, ...x.shape.slice(2)]);
  const perHead = (x: Tensor, t: number) => reshape(at(x, t), [b, h, 1, 1]);
  /** sum_j v[j] k[j]^T, from (b, r, h, p) and (b, r, h, n). */
  const written = (v: Tensor, k: Tensor) =>
    sum(mul(reshape(v, [b, r, h, p, 1]), reshape(k, [b, r, h, 1, n])), 1); // (b, h, p, n)

  let S = state?.ssm ?? raw.full([b, h, p, n], 0, device);
  let before = state ? written(state.v, state.k) : raw.full([b, h, p, n], 0, device);
  const ys: Tensor[] = [];
  for (let t = 0; t < l; t++) {
    const { alive, continues } = masks(t);
    const here = (x: Tensor) => (continues ? mul(x, continues) : x);
    const [v, q] = [at(V, t), at(Q, t)];
    const [step, share] = [perHead(dt, t), perHead(lambda, t)];
    const alpha = exp(mul(perHead(A, t), step));
    const beta = mul(mul(affine(share, -1, 1), step), alpha);
    const now = written(v, at(K, t));
    const next = add(add(mul(alpha, here(S)), mul(beta, here(before))), mul(mul(share, step), now));
    const query = (j: number) => reshape(slice(q, 1, j, j + 1), [b, h, 1, n]);
    const read = stack(
      Array.from({ length: r }, (_, j) => sum(mul(next, query(j)), 3)),
      1,
    ); // (b, r, h, p)
    const y = D ? add(read, mul(v, reshape(D, [h, 1]))) : read;
    ys.push(alive ? mul(y, alive) : y);
    S = choose(alive, next, S);
    before = choose(alive, now, before);
  }
  return { y: l > 0 ? stack(ys, 1) : raw.full(V.shape, 0, device), ssm: S };
}

function check(
  V: Tensor,
  dt: Tensor,
  A: Tensor,
  lambda: Tensor,
  K: Tensor,
  Q: Tensor,
  options: TrapezoidOptions,
) {
  const op = 'trapezoid';
  const [b, l, r, h, p] = V.dims(5);
  const n = K.dims(5)[4];
  expectShape(op, 'dt (b, l, h)', dt.shape, [b, l, h]);
  expectShape(op, 'A (b, l, h)', A.shape, [b, l, h]);
  expectShape(op, 'lambda (b, l, h)', lambda.shape, [b, l, h]);
  expectShape(op, 'K (b, l, r, h, n)', K.shape, [b, l, r, h, n]);
  expectShape(op, 'Q (b, l, r, h, n)', Q.shape, [b, l, r, h, n]);
  const { D, state } = options;
  if (D) expectShape(op, 'D (h)', D.shape, [h]);
  if (state) {
    expectShape(op, 'state.ssm (b, h, p, n)', state.ssm.shape, [b, h, p, n]);
    expectShape(op, 'state.k (b, r, h, n)', state.k.shape, [b, r, h, n]);
    expectShape(op, 'state.v (b, r, h, p)', state.v.shape, [b, r, h, p]);
  }
  checkSequence(op, b, l, options);
  const given = [V, dt, A, lambda, K, Q, D, state?.ssm, state?.k, state?.v];
  raw.requireF32(op, ...given.filter((t) => t !== null && t !== undefined));
  return { b, l, r, h, p, n };
}
