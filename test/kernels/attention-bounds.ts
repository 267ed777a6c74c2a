/**
 * Attention and its gradient once more, score by score, in balls: see reference/attention.ts for the
 * equations. Softmax over blocks of ATTENTION_BLOCK keys may rescale its sums once per block: an exp, its
 * argument, two products.
 */
import { ATTENTION_BLOCK } from '../../src/backend/kernels.ts';
import {
  add,
  apply,
  type Ball,
  constant,
  div,
  EPS,
  type Estimates,
  exact,
  mul,
  product,
  rounded,
  sub,
  sum,
  ULPS,
  ZERO,
} from './ball.ts'; // prettier-ignore
import type { Floats, Operands } from './harness.ts';

type Common = Operands<'attention'> | Operands<'attentionGrad'>;

/** Roundings of one rescaling: exp, in units of 2 EPS, and the product. */
const RESCALE = 2 * ULPS.exp + 1;

interface Query {
  /** Of q and y, in heads of d. */
  index: number;
  /** Where the keys that it sees begin, in k and v. */
  keys: number[];
}

/** Every query that exists, token by token, head by head. */
function queries(o: Common): Query[] {
  const found: Query[] = [];
  for (let row = 0; row < o.b; row++) {
    let first = 0;
    for (let t = 0; t < (o.lengths ? o.lengths[row]! : o.l); t++) {
      const token = row * o.l + t;
      const last = o.past[row]! + t;
      if (o.sequenceIds && t > 0 && o.sequenceIds[token] !== o.sequenceIds[token - 1]) first = last;
      for (let head = 0; head < o.hq; head++) {
        const kv = Math.floor((head * o.hk) / o.hq);
        const keys = Array.from({ length: last + 1 - first }, (_, j) => {
          return ((row * o.c + first + j) * o.hk + kv) * o.d;
        });
        found.push({ index: token * o.hq + head, keys });
      }
    }
  }
  return found;
}

function dot(a: Floats, atA: number, b: Floats, atB: number, count: number, scale?: Ball): Ball {
  const terms = Array.from({ length: count }, (_, i) => {
    const x = exact(a[atA + i]!);
    return mul(scale ? mul(x, scale) : x, exact(b[atB + i]!));
  });
  return sum(terms);
}

export function attentionBound(o: Operands<'attention'>): Estimates {
  const y: Ball[] = new Array(o.b * o.l * o.hq * o.d).fill(ZERO);
  const lse: Ball[] = new Array(o.b * o.l * o.hq).fill(ZERO);
  const scale = constant(o.softmaxScale);
  for (const { index, keys } of queries(o)) {
    const scores = keys.map((key) => dot(o.q, index * o.d, o.k, key, o.d, scale));
    const largest = Math.max(...scores.map(({ v }) => v));
    const radius = Math.max(...scores.map(({ r }) => r));
    const span = largest - Math.min(...scores.map(({ v }) => v)) + 2 * radius;
    const blocks = Math.floor((keys.length - 1) / ATTENTION_BLOCK);
    // What is subtracted from the scores cancels; that differences of scores are rounded does not.
    const p = scores.map(({ v, r }) => {
      return rounded(apply(Math.exp, ULPS.exp, { v: v - largest, r: r + 2 * EPS * span }), blocks * RESCALE);
    });
    const total = sum(p);
    for (let i = 0; i < o.d; i++) {
      y[index * o.d + i] = div(sum(p.map((value, j) => mul(value, exact(o.v[keys[j]! + i]!)))), total);
    }
    // The largest score is within `radius` of the one that is used: so far may the logarithm's argument move.
    lse[index] = add({ v: largest, r: 4 * EPS * radius }, apply(Math.log, ULPS.log, total));
  }
  return { y, lse };
}

export function attentionGradBound(o: Operands<'attentionGrad'>): Estimates {
  const lists = (size: number): Ball[][] => Array.from({ length: size }, () => []);
  const [dq, dk, dv] = [lists(o.q.length), lists(o.k.length), lists(o.v.length)];
  const scale = constant(o.softmaxScale);
  for (const { index, keys } of queries(o)) {
    const at = index * o.d;
    const level = dot(o.dy, at, o.y, at, o.d);
    for (const key of keys) {
      const score = dot(o.q, at, o.k, key, o.d, scale);
      const p = apply(Math.exp, ULPS.exp, sub(score, exact(o.lse[index]!)));
      const ds = product(p, sub(dot(o.dy, at, o.v, key, o.d), level), scale);
      for (let i = 0; i < o.d; i++) {
        dq[at + i]!.push(mul(ds, exact(o.k[key + i]!)));
        dk[key + i]!.push(mul(ds, exact(o.q[at + i]!)));
        dv[key + i]!.push(mul(p, exact(o.dy[at + i]!)));
      }
    }
  }
  return { dq: dq.map(sum), dk: dk.map(sum), dv: dv.map(sum) };
}
