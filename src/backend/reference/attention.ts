/**
 * Causal attention over a cache of keys. Query head i reads the kv head floor(i / (hq / hk)); token t of a
 * row sees the keys first(t) .. past + t of its row, where first(t) is 0 in the
 * document of token 0, and past + (its start) in a later one:
 *
 *   s[j] = scale q . k[j],   lse = log sum_j exp(s[j]),   p[j] = exp(s[j] - lse),   y = sum_j p[j] v[j].
 *
 * Backward (Dao et al. 2022, appendix B.4), p again from lse:
 *
 *   dv[j] += p[j] dy,   ds[j] = p[j] (dy . v[j] - dy . y),
 *   dq = scale sum_j ds[j] k[j],   dk[j] += scale ds[j] q.
 */
import type { Kernels } from '../backend.ts';
import { startsDocument } from './documents.ts';
import { type Floats, ids, input, optionalIds, output } from './storage.ts';

export const attention = {
  attention({ b, l, c, hq, hk, d, softmaxScale, ...refs }) {
    const [q, k, v] = [input(refs.q), input(refs.k), input(refs.v)];
    const seen = visible(ids(refs.past), optionalIds(refs.sequenceIds), optionalIds(refs.lengths), b, l);
    const [y, lseOut] = [output(refs.y), output(refs.lse)];
    y.subarray(0, b * l * hq * d).fill(0);
    lseOut.subarray(0, b * l * hq).fill(0);

    for (const { row, token, first, last } of seen) {
      for (let head = 0; head < hq; head++) {
        const at = (token * hq + head) * d;
        const keyAt = (j: number) => ((row * c + j) * hk + kvHead(head, hq, hk)) * d;
        const scores = new Float64Array(last + 1 - first);
        let largest = Number.NEGATIVE_INFINITY;
        for (let j = first; j <= last; j++) {
          scores[j - first] = softmaxScale * dot(q, at, k, keyAt(j), d);
          largest = Math.max(largest, scores[j - first]!);
        }
        let total = 0;
        for (const score of scores) total += Math.exp(score - largest);
        const lse = largest + Math.log(total);
        const sums = new Float64Array(d);
        for (let j = first; j <= last; j++) {
          const p = Math.exp(scores[j - first]! - lse);
          for (let i = 0; i < d; i++) sums[i]! += p * v[keyAt(j) + i]!;
        }
        y.set(sums, at);
        lseOut[token * hq + head] = lse;
      }
    }
  },

  attentionGrad({ b, l, c, hq, hk, d, softmaxScale, ...refs }) {
    const [q, k, v] = [input(refs.q), input(refs.k), input(refs.v)];
    const seen = visible(ids(refs.past), optionalIds(refs.sequenceIds), optionalIds(refs.lengths), b, l);
    const [y, lse, dy] = [input(refs.y), input(refs.lse), input(refs.dy)];
    const dq = new Float64Array(b * l * hq * d);
    const dk = new Float64Array(b * c * hk * d);
    const dv = new Float64Array(b * c * hk * d);

    for (const { row, token, first, last } of seen) {
      for (let head = 0; head < hq; head++) {
        const at = (token * hq + head) * d;
        const level = dot(dy, at, y, at, d);
        for (let j = first; j <= last; j++) {
          const key = ((row * c + j) * hk + kvHead(head, hq, hk)) * d;
          const p = Math.exp(softmaxScale * dot(q, at, k, key, d) - lse[token * hq + head]!);
          const ds = p * (dot(dy, at, v, key, d) - level) * softmaxScale;
          for (let i = 0; i < d; i++) {
            dq[at + i]! += ds * k[key + i]!;
            dk[key + i]! += ds * q[at + i]!;
            dv[key + i]! += p * dy[at + i]!;
          }
        }
      }
    }
    output(refs.dq).set(dq);
    output(refs.dk).set(dk);
    output(refs.dv).set(dv);
  },
} satisfies Partial<Kernels>;

/** The tokens that exist, (b, l) in order, each with the first and the last key that it sees. */
function* visible(
  past: Int32Array,
  sequenceIds: Int32Array | null,
  lengths: Int32Array | null,
  b: number,
  l: number,
) {
  for (let row = 0; row < b; row++) {
    let first = 0;
    for (let t = 0; t < (lengths ? lengths[row]! : l); t++) {
      const token = row * l + t;
      if (startsDocument(sequenceIds, token, t)) first = past[row]! + t;
      yield { row, token, first, last: past[row]! + t };
    }
  }
}

function kvHead(head: number, hq: number, hk: number): number {
  return Math.floor(head / (hq / hk));
}

function dot(a: Floats, atA: number, b: Floats, atB: number, count: number): number {
  let sum = 0;
  for (let i = 0; i < count; i++) sum += a[atA + i]! * b[atB + i]!;
  return sum;
}
