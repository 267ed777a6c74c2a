/**
 * Causal softmax attention with grouped queries over a cache of keys (Vaswani et al. 2017; Ainslie et al.
 * 2023), computed block by block of keys with an online softmax (Dao et al. 2022): memory O(l), never (l, l).
 *   y[t] = sum_j softmax_j(scale q[t] . k[j]) v[j]    over the keys j of the token's document, up to its own
 * Keys are counted in the cache: past[row] of them come before token 0, token t's own is at past[row] + t
 * (see key-cache.ts). Query head i reads the kv head floor(i / (hq / hk)).
 */
import { kernelOf } from '../backend/backend.ts';
import { ATTENTION_WIDTH, attentionPartialSize } from '../backend/kernels.ts';
import { ShapeError } from '../base/errors.ts';
import { expectShape, showShape } from '../base/shape.ts';
import {
  add,
  amax,
  broadcastTo,
  div,
  exp,
  matmul,
  mul,
  permute,
  reshape,
  sub,
  sum,
} from '../tensor/primitives.ts';
import * as raw from '../tensor/raw.ts';
import { record } from '../tensor/tape.ts';
import { Tensor } from '../tensor/tensor.ts';
import { checkSequence, hostIds } from './causal-conv.ts';

/** Elements that a head may have. */
export { ATTENTION_WIDTH };

export interface AttentionOptions {
  /** Keys of each row before token 0, (b); none when omitted. */
  past?: readonly number[] | null;
  /** Document of each token, i32 (b, l): it sees no other. The keys before token 0 belong to token 0's. */
  sequenceIds?: Tensor | null;
  /** Real tokens per row, i32 (b): later positions give 0, and their keys are seen by nobody. */
  lengths?: Tensor | null;
  /** Default 1 / sqrt(d). */
  softmaxScale?: number | null;
}

/**
 * q (b, l, hq, d); k and v (b, c, hk, d) with c >= past + length in every row and hk dividing hq; d at most
 * 512. Gives (b, l, hq, d).
 */
export function attention(q: Tensor, k: Tensor, v: Tensor, options: AttentionOptions = {}): Tensor {
  const { sequenceIds = null, lengths = null } = options;
  const { sizes, before, softmaxScale } = check(q, k, v, options);
  const { b, l, c, hq, hk, d } = sizes;
  const { device } = q;
  const kernel = device.kernels.attention;
  if (!kernel) return attentionRef(q, k, v, options);
  const past = Tensor.from(Int32Array.from(before), [b], { device });
  const y = Tensor.empty(q.shape, 'f32', device);
  const lse = Tensor.empty([b, l, hq], 'f32', device);
  const numbers = { ...sizes, softmaxScale };
  if (y.size > 0) kernel({ q, k, v, past, sequenceIds, lengths, y, lse, ...numbers });
  const saved = { q, k, v, past, sequenceIds, lengths, y, lse };
  record('attention', [q, k, v], [y], saved, ([dy], kept) => {
    const grads = [q, k, v].map(({ shape }) =>
      y.size > 0 ? Tensor.empty(shape, 'f32', device) : raw.full(shape, 0, device),
    );
    const [dq, dk, dv] = grads as [Tensor, Tensor, Tensor];
    const partial = Tensor.empty([attentionPartialSize(b, l, c, hq, hk, d)], 'f32', device);
    if (y.size > 0) kernelOf(device, 'attentionGrad')({ ...kept, dy: dy!, dq, dk, dv, partial, ...numbers });
    return grads;
  });
  return y;
}

/** The twin from primitives: all scores at once, memory (b, hq, l, c). */
export function attentionRef(q: Tensor, k: Tensor, v: Tensor, options: AttentionOptions = {}): Tensor {
  const { sizes, before, softmaxScale } = check(q, k, v, options);
  const { b, l, c, hq, hk, d } = sizes;
  const heads = (x: Tensor, rows: number) => reshape(permute(x, [0, 2, 1, 3]), [b * hq, rows, d]);
  const repeated = (x: Tensor) =>
    reshape(broadcastTo(reshape(x, [b, c, hk, 1, d]), [b, c, hk, hq / hk, d]), [b, c, hq, d]);
  const scores = mul(matmul(heads(q, l), permute(heads(repeated(k), c), [0, 2, 1])), softmaxScale);

  const seen = new Float32Array(b * l * c); // 1 where token t sees key j
  const ids = hostIds('sequenceIds', options.sequenceIds);
  const ends = hostIds('lengths', options.lengths);
  for (let row = 0; row < b; row++) {
    let first = 0;
    for (let t = 0; t < (ends ? ends[row]! : l); t++) {
      const [token, own] = [row * l + t, before[row]! + t];
      if (ids && t > 0 && ids[token] !== ids[token - 1]) first = own;
      seen.fill(1, token * c + first, token * c + own + 1);
    }
  }
  const device = q.device;
  const perHead = (x: Float32Array) =>
    reshape(broadcastTo(Tensor.from(x, [b, 1, l, c], { device }), [b, hq, l, c]), [b * hq, l, c]);
  const mask = perHead(seen);
  const hidden = perHead(seen.map((sees) => (sees ? 0 : -1e30)));
  const shifted = add(scores, hidden);
  const largest =
    c > 0 ? reshape(amax(shifted.detach(), 2), [b * hq, l, 1]) : raw.full([b * hq, l, 1], 0, device);
  const weights = mul(exp(sub(shifted, largest)), mask);
  const totals = sum(weights, 2, true);
  // Nobody to look at: 0 / 1.
  const none = Tensor.from(
    Float32Array.from({ length: b * l }, (_, at) => (ends && at % l >= ends[Math.floor(at / l)]! ? 1 : 0)),
    [b, 1, l, 1],
    { device },
  );
  const safe = add(totals, reshape(broadcastTo(none, [b, hq, l, 1]), [b * hq, l, 1]));
  const y = div(matmul(weights, heads(repeated(v), c)), safe); // (b hq, l, d)
  return permute(reshape(y, [b, hq, l, d]), [0, 2, 1, 3]);
}

function check(q: Tensor, k: Tensor, v: Tensor, options: AttentionOptions) {
  const op = 'attention';
  const [b, l, hq, d] = q.dims(4);
  const [, c, hk] = k.dims(4);
  expectShape(op, 'k (b, c, hk, d)', k.shape, [b, c, hk, d]);
  expectShape(op, 'v like k', v.shape, k.shape);
  if (!(hk > 0 && hq % hk === 0)) {
    throw new ShapeError(`${op}: expected kv heads that divide ${hq} query heads, got ${hk}.`);
  }
  if (d > ATTENTION_WIDTH) {
    throw new ShapeError(
      `${op}: expected heads of at most ${ATTENTION_WIDTH}, got ${d}. Use more and smaller heads.`,
    );
  }
  checkSequence(op, b, l, options);
  raw.requireF32(op, q, k, v);
  const before = pastOf(op, b, options.past);
  const ends = hostIds('lengths', options.lengths);
  before.forEach((count, row) => {
    const needed = count + (ends ? ends[row]! : l);
    if (needed > c) {
      throw new ShapeError(
        `${op}: expected ${needed} keys in row ${row} (${count} before token 0), ` +
          `got k ${showShape(k.shape)}. Append them first.`,
      );
    }
  });
  const softmaxScale = options.softmaxScale ?? 1 / Math.sqrt(d);
  return { sizes: { b, l, c, hq, hk, d }, before, softmaxScale };
}

/** The number of keys before token 0 in each row, checked. */
export function pastOf(op: string, b: number, past: readonly number[] | null | undefined): readonly number[] {
  const counts = past ?? new Array<number>(b).fill(0);
  if (counts.length !== b || !counts.every((count) => Number.isInteger(count) && count >= 0)) {
    throw new ShapeError(`${op}: expected past as ${b} counts of keys, got [${counts.join(', ')}].`);
  }
  return counts;
}
