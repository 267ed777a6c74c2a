/**
 * The recurrence that Mamba-2 and Mamba-3 share (state space duality; Dao and Gu 2024, arXiv 2405.21060,
 * section 6 and listing 1). A head carries a matrix S (p, n); per head, with r ranks that write and read
 * together (r = 1 but for Mamba-3's MIMO):
 *   S[t]   = exp(decay[t]) S[t-1] + scale[t] sum_k x[t,k] B[t,k]^T
 *   y[t,k] = (exp(decay[t]) S[t-1] + own[t] sum_j x[t,j] B[t,j]^T) C[t,k] + D x[t,k]
 * Kernels compute it chunk by chunk, as matrix products inside a chunk and a recurrence over chunks: the same
 * function, whatever the chunk. The backward pass recomputes from one saved state per chunk, so memory is
 * O(l / chunk * h * p * n).
 * Under withPrecision('bf16' or 'int8'), without gradients, a device may round the factors of the products
 * with the state and into it to bfloat16; the state that goes in and out stays float32.
 */
import { kernelOf } from '../backend/backend.ts';
import { SSD_CHUNK, SSD_RANKS, SSD_WIDTH, ssdGradPartialSize, ssdPartialSize } from '../backend/kernels.ts';
import { ConfigError, ShapeError } from '../base/errors.ts';
import { expectShape, type Shape, showShape } from '../base/shape.ts';
import { currentPrecision } from '../tensor/precision.ts';
import { add, broadcastTo, exp, mul, reshape, slice, stack, sum } from '../tensor/primitives.ts';
import * as raw from '../tensor/raw.ts';
import { needsGrad, record } from '../tensor/tape.ts';
import { Tensor } from '../tensor/tensor.ts';
import { checkSequence, hostIds } from './causal-conv.ts';
import { choose, rowMasks } from './row-masks.ts';

/** weight sum_k x[k] B[k]^T is what it gives. */
export interface LastToken {
  /** (b, r, h, p). */
  x: Tensor;
  /** (b, r, g, n). */
  B: Tensor;
  /** (b, h). */
  weight: Tensor;
}

export interface SsdCoreOptions {
  /** What a token's own input weighs in what it reads, (b, l, h); `scale` when omitted. */
  own?: Tensor | null;
  /** Skip connection (h), or (h, p) with one number per channel. */
  D?: Tensor | null;
  /** The state before the first token (b, h, p, n); zeros when omitted. */
  state?: Tensor | null;
  /**
   * A token before the first that still gives to those that follow it: it joins the state
   * in every row that has a token.
   */
  last?: LastToken | null;
  /**
   * Document of each token, i32 (b, l): the state is reset where it changes. The incoming state belongs to
   * token 0.
   */
  sequenceIds?: Tensor | null;
  /** Real tokens per row, i32 (b): later positions give 0 and leave the state alone. */
  lengths?: Tensor | null;
  /**
   * Tokens per chunk, any number from 1 on; default 128. It changes speed, memory and rounding, nothing else.
   */
  chunkSize?: number;
}

export interface SsdResult {
  /** The shape of x. */
  y: Tensor;
  /** The state after the last token (b, h, p, n). */
  state: Tensor;
}

/**
 * x (b, l, r, h, p); decay, at most 0 (-Infinity forgets everything), and scale (b, l, h); B and C
 * (b, l, r, g, n) with head i in group floor(i / (h / g)), so that neighbouring heads share a group. With
 * l = 1 it is a step of decoding.
 */
export function ssdCore(
  x: Tensor,
  decay: Tensor,
  scale: Tensor,
  B: Tensor,
  C: Tensor,
  options: SsdCoreOptions = {},
): SsdResult {
  const { own = null, D = null, state = null, last = null, sequenceIds = null, lengths = null } = options;
  const sizes = check(x, decay, scale, B, C, options);
  const { b, l, r, h, p, g, n, q } = sizes;
  const { device } = x;
  const kernel = device.kernels.ssd;
  if (!kernel) return ssdCoreRef(x, decay, scale, B, C, options);
  const make = (shape: Shape) => Tensor.empty(shape, 'f32', device);

  const inputs = [x, decay, scale, own, B, C, D, state];
  // Gradients of the token before come from the same kernels.
  if (last && needsGrad([...inputs, last.x, last.B, last.weight])) {
    return ssdCore(x, decay, scale, B, C, { ...options, state: joined(ssdCore, last, options), last: null });
  }
  const y = make(x.shape);
  const stateOut = make([b, h, p, n]);
  const checkpoints = needsGrad(inputs) ? make([b, Math.ceil(l / q), h, p, n]) : null;
  const operands = { x, decay, scale, own, B, C, D, sequenceIds, lengths };
  if (b > 0) {
    const partial = make([ssdPartialSize(b, l, r, g, q)]);
    const [lastX, lastB, lastWeight] = [last?.x ?? null, last?.B ?? null, last?.weight ?? null];
    // The backward pass computes everything again in float32: no gradient is one of rounded products.
    const precision = checkpoints || currentPrecision() === 'f32' ? 0 : 1;
    const outputs = { y, stateOut, checkpoints, partial };
    kernel({ ...operands, state, lastX, lastB, lastWeight, ...outputs, ...sizes, precision });
    partial.dispose();
  }
  if (!checkpoints) return { y, state: stateOut };

  const saved = { ...operands, checkpoints };
  record('ssd', inputs, [y, stateOut], saved, ([dy, dstateOut], kept, needs) => {
    const grads = {
      dx: make(x.shape),
      ddecay: make([b, l, h]),
      dscale: make([b, l, h]),
      down: own ? make([b, l, h]) : null,
      dB: make(B.shape),
      dC: make(C.shape),
      dD: D ? make(D.shape) : null,
      dstate: needs[7] ? make([b, h, p, n]) : null,
    };
    kernelOf(
      device,
      'ssdGrad',
    )({
      ...kept,
      dy: dy ?? raw.full(x.shape, 0, device),
      dstateOut: dstateOut ?? null,
      ...grads,
      partial: make([ssdGradPartialSize(b, l, r, h, p, g, n, q)]),
      ...sizes,
    });
    return Object.values(grads);
  });
  return { y, state: stateOut };
}

/**
 * The same, composed from primitives token by token: slow, memory (b, l, h, p, n), and the truth that the
 * kernels are tested against.
 */
export function ssdCoreRef(
  x: Tensor,
  decay: Tensor,
  scale: Tensor,
  B: Tensor,
  C: Tensor,
  options: SsdCoreOptions = {},
): SsdResult {
  const { own, D } = options;
  const state = options.last ? joined(ssdCoreRef, options.last, options) : options.state;
  const { b, l, r, h, p, g, n } = check(x, decay, scale, B, C, options);
  const masks = rowMasks(b, l, options, 4, x.device);
  const at = (tensor: Tensor, t: number) => slice(tensor, 1, t, t + 1);
  const perHead = (tensor: Tensor, t: number) => reshape(at(tensor, t), [b, h, 1, 1]);
  /** Of one token and rank: x as columns (b, h, p, 1), B and C as rows (b, h, 1, n). */
  const column = (t: number, k: number) => reshape(slice(at(x, t), 2, k, k + 1), [b, h, p, 1]);
  const rows = (M: Tensor, t: number, k: number) => {
    const groups = reshape(slice(at(M, t), 2, k, k + 1), [b, g, 1, n]);
    return reshape(broadcastTo(groups, [b, g, h / g, n]), [b, h, 1, n]);
  };
  const ranks = Array.from({ length: r }, (_, k) => k);

  let S = state ?? raw.full([b, h, p, n], 0, x.device);
  const ys: Tensor[] = [];
  for (let t = 0; t < l; t++) {
    const { alive, continues } = masks(t);
    const before = continues ? mul(S, continues) : S;
    const carried = mul(before, exp(perHead(decay, t)));
    const written = ranks.map((k) => mul(column(t, k), rows(B, t, k))).reduce(add); // (b, h, p, n)
    const next = add(carried, mul(written, perHead(scale, t)));
    const read = own ? add(carried, mul(written, perHead(own, t))) : next;
    S = choose(alive, next, S);
    const y = stack(
      ranks.map((k) => {
        const inner = sum(mul(read, rows(C, t, k)), 3); // (b, h, p)
        if (!D) return inner;
        const skip = D.shape.length === 1 ? reshape(D, [h, 1]) : D;
        return add(inner, mul(reshape(column(t, k), [b, h, p]), skip));
      }),
      1,
    ); // (b, r, h, p)
    ys.push(alive ? mul(y, alive) : y);
  }
  return { y: l > 0 ? stack(ys, 1) : raw.full(x.shape, 0, x.device), state: S };
}

/** The state with what the token before gives, in every row that has a token: that token decays nothing. */
function joined(core: typeof ssdCore, { x, B, weight }: LastToken, { state, lengths }: SsdCoreOptions) {
  const oneToken = (tensor: Tensor) => reshape(tensor, [tensor.shape[0]!, 1, ...tensor.shape.slice(1)]);
  const ends = hostIds('lengths', lengths)?.map((length) => Math.min(length, 1));
  const goesOn = ends ? Tensor.from(ends, [ends.length], { device: x.device }) : null;
  const keys = oneToken(B);
  const none = raw.full([weight.shape[0]!, 1, weight.shape[1]!], 0, x.device);
  return core(oneToken(x), none, oneToken(weight), keys, keys, { state, lengths: goesOn }).state;
}

function check(x: Tensor, decay: Tensor, scale: Tensor, B: Tensor, C: Tensor, options: SsdCoreOptions) {
  const op = 'ssdCore';
  const [b, l, r, h, p] = x.dims(5);
  const g = B.dims(5)[3];
  const n = B.dims(5)[4];
  const { own, D, state, last, chunkSize: q = SSD_CHUNK } = options;
  expectShape(op, 'decay (b, l, h)', decay.shape, [b, l, h]);
  expectShape(op, 'scale (b, l, h)', scale.shape, [b, l, h]);
  expectShape(op, 'B (b, l, r, g, n)', B.shape, [b, l, r, g, n]);
  expectShape(op, 'C (b, l, r, g, n)', C.shape, [b, l, r, g, n]);
  if (!(r * h * p * g * n > 0 && h % g === 0)) {
    throw new ShapeError(
      `${op}: expected ranks, heads, channels and states, and groups that divide ${h} heads, got ` +
        `x ${showShape(x.shape)} and B ${showShape(B.shape)}.`,
    );
  }
  if (p > SSD_WIDTH || n > SSD_WIDTH || r > SSD_RANKS) {
    throw new ShapeError(
      `${op}: expected heads and states of at most ${SSD_WIDTH} and at most ${SSD_RANKS} ranks, got ` +
        `x ${showShape(x.shape)} and B ${showShape(B.shape)}. Use more and smaller heads.`,
    );
  }
  if (own) expectShape(op, 'own (b, l, h)', own.shape, [b, l, h]);
  const dWidth = D?.shape.length === 2 ? p : 1;
  if (D) expectShape(op, 'D (h) or (h, p)', D.shape, D.shape.length === 2 ? [h, p] : [h]);
  if (state) expectShape(op, 'state (b, h, p, n)', state.shape, [b, h, p, n]);
  if (last) {
    expectShape(op, 'last.x (b, r, h, p)', last.x.shape, [b, r, h, p]);
    expectShape(op, 'last.B (b, r, g, n)', last.B.shape, [b, r, g, n]);
    expectShape(op, 'last.weight (b, h)', last.weight.shape, [b, h]);
  }
  if (!(Number.isInteger(q) && q > 0)) {
    throw new ConfigError(`${op}: expected chunkSize to be a positive integer, got ${q}.`);
  }
  checkSequence(op, b, l, options);
  const given = [x, decay, scale, B, C, own, D, state, last?.x, last?.B, last?.weight];
  raw.requireF32(op, ...given.filter((t) => t !== null && t !== undefined));
  return { b, l, r, h, p, g, n, q, dWidth };
}
