/**
 * ssd and its gradients in the quadratic form of the paper, pair of tokens by pair of tokens: token i reads
 * what token j wrote, times exp of the decays between them. It shares nothing with the recurrence of
 * reference/ssd.ts, and every output is a sum of plain products of operands, so the bound of any order of
 * computation (recurrence, chunks of any length) is the sum of their absolute values times the roundings that
 * a product can meet:
 *   - one per factor and per addition: no more additions than tokens times ranks, and terms of inner products;
 *   - one exp and one product per token between j and i, for the recurrence; chunks take fewer;
 *   - the argument of exp, a sum of decays, rounded twice (its parts are to be added in more than float32);
 *   - with precision 1, factors rounded to bfloat16: B and the weighted x on the way into the state, the state and C out of it.
 */
import { type Ball, type Estimates, gamma, TINY, ULPS } from './ball.ts';
import type { Floats, Operands } from './harness.ts';

type Common = Operands<'ssd'> | Operands<'ssdGrad'>;

/**
 * Roundings of a product of five operands or fewer, a decay, and what is added once: skip connection,
 * incoming state.
 */
const PRODUCT = 10;
/** exp is 0 in float32 below this: the size of its argument says nothing more. */
const VANISHED = 128;

/** Sums and the bounds of their errors. */
class Sums {
  readonly #v: Float64Array;
  readonly #r: Float64Array;

  constructor(size: number) {
    this.#v = new Float64Array(size);
    this.#r = new Float64Array(size);
  }

  /** Adds a product, or several of total absolute size `size`, of which each meets so many roundings. */
  add(i: number, value: number, size: number, roundings: number): void {
    this.#v[i]! += value;
    this.#r[i]! += size * gamma(roundings) + PRODUCT * TINY;
  }

  get balls(): Ball[] {
    return Array.from(this.#v, (v, i) => ({ v, r: this.#r[i]! }));
  }
}

/**
 * From one token to a later one: the factor, its size (what underflows loses TINY, not EPS of itself), its
 * roundings.
 */
interface Path {
  factor: number;
  size: number;
  roundings: number;
}

/** An inner product and the sum of its absolute terms. */
interface Dot {
  v: number;
  size: number;
}

/** A factor rounded to bfloat16, 8 significant bits, in roundings to float32. */
const TO_BF16 = 2 ** 16;

const THROUGH: Path = { factor: 1, size: 1, roundings: 0 };

/** Everything about one head of one row that outputs are made of. Token -1 is the incoming state. */
function headOf(o: Common, row: number, head: number) {
  const { l, r, h, p, g, n } = o;
  const length = o.lengths ? o.lengths[row]! : l;
  const group = Math.floor((head * g) / h);
  const token = (t: number) => row * l + t;
  const xAt = (t: number, k: number) => ((token(t) * r + k) * h + head) * p;
  const bAt = (t: number, k: number) => ((token(t) * r + k) * g + group) * n;
  const at = (t: number) => token(t) * h + head;

  /** paths[j + 1][i]: from j to i; null across the start of a document. */
  const paths = Array.from({ length: length + 1 }, (_, from) => {
    const line: (Path | null)[] = new Array(length).fill(null);
    if (from > 0) line[from - 1] = THROUGH;
    let exponent = 0;
    for (let i = from; i < length; i++) {
      if (o.sequenceIds && i > 0 && o.sequenceIds[token(i)] !== o.sequenceIds[token(i - 1)]) break;
      exponent += o.decay[at(i)]!;
      const factor = Math.exp(exponent);
      const perToken = 2 * ULPS.exp + 1;
      const roundings = (i - from + 1) * perToken + 2 * Math.min(VANISHED, -exponent);
      line[i] = { factor, size: factor + TINY * 2 ** 24, roundings };
    }
    return line;
  });
  /**
   * From token j (-1: the incoming state) to token i (`length`: the outgoing state, which is what the last
   * token leaves).
   */
  const path = (j: number, i: number): Path | null =>
    length === 0 ? THROUGH : paths[j + 1]![Math.min(i, length - 1)]!;
  /** The weight of what token j wrote in what token i reads. */
  const weight = (j: number, i: number) => (i === j && o.own ? o.own[at(j)]! : o.scale[at(j)]!);
  return { length, xAt, bAt, at, path, weight };
}

type Head = ReturnType<typeof headOf>;

function dot(a: Floats, aAt: number, b: Floats, bAt: number, count: number): Dot {
  let [v, size] = [0, 0];
  for (let i = 0; i < count; i++) {
    v += a[aAt + i]! * b[bAt + i]!;
    size += Math.abs(a[aAt + i]! * b[bAt + i]!);
  }
  return { v, size };
}

/** Calls `visit` for every row and head. */
function eachHead(o: Common, visit: (row: number, head: number, parts: Head) => void): void {
  for (let row = 0; row < o.b; row++) {
    for (let head = 0; head < o.h; head++) visit(row, head, headOf(o, row, head));
  }
}

/** Additions that a term meets: over tokens (the state and what a token before adds come first) and ranks, over the inner products, over what is added once. */
function additions(o: Common, tokens: number): number {
  const before = 'lastX' in o && o.lastX ? 2 : 1;
  return o.r * (tokens + before) + o.n + o.p + PRODUCT;
}

/** What the token before token 0 still gives: per rank, where its x and B stand. */
function lastToken({ r, h, p, g, n, lastX, lastB, lastWeight }: Operands<'ssd'>, row: number, head: number) {
  if (!(lastX && lastB && lastWeight)) return [];
  const weight = lastWeight[row * h + head]!;
  const group = Math.floor((head * g) / h);
  return range(r, (k) => ({
    x: lastX,
    B: lastB,
    weight,
    xAt: ((row * r + k) * h + head) * p,
    bAt: ((row * r + k) * g + group) * n,
  }));
}

export function ssdBound(o: Operands<'ssd'>): Estimates {
  const { b, l, r, h, p, n, q } = o;
  const chunks = Math.ceil(l / q);
  const twoRounded = o.precision === 1 ? 2 * TO_BF16 : 0;
  const y = new Sums(b * l * r * h * p);
  const stateOut = new Sums(b * h * p * n);
  const checkpoints = new Sums(b * chunks * h * p * n);
  eachHead(o, (row, head, parts) => {
    const { length, xAt, bAt, path, weight } = parts;
    const stateAt = (row * h + head) * p * n;
    const carried = length > 0 ? lastToken(o, row, head) : [];

    /** Adds the state that tokens before `end` leave to `sums`. */
    const leave = (sums: Sums, to: number, end: number) => {
      for (let j = -1; j < end; j++) {
        const way = end === 0 ? THROUGH : path(j, end - 1);
        if (!way) continue;
        const roundings = additions(o, end) + way.roundings;
        for (let i = 0; i < p * n; i++) {
          if (j < 0) {
            const value = o.state ? o.state[stateAt + i]! : 0;
            sums.add(to + i, value * way.factor, Math.abs(value) * way.size, roundings);
            for (const last of carried) {
              const given = last.weight * last.x[last.xAt + Math.floor(i / n)]! * last.B[last.bAt + (i % n)]!;
              sums.add(to + i, given * way.factor, Math.abs(given) * way.size, roundings);
            }
            continue;
          }
          for (let k = 0; k < r; k++) {
            const value = o.x[xAt(j, k) + Math.floor(i / n)]! * o.B[bAt(j, k) + (i % n)]! * weight(j, -1);
            sums.add(to + i, value * way.factor, Math.abs(value) * way.size, roundings + twoRounded);
          }
        }
      }
    };
    leave(stateOut, stateAt, length);
    for (let chunk = 0; chunk < chunks; chunk++) {
      leave(checkpoints, ((row * chunks + chunk) * h + head) * p * n, Math.min(chunk * q, length));
    }

    for (let i = 0; i < length; i++) {
      for (let k = 0; k < r; k++) {
        const to = xAt(i, k);
        for (let c = 0; c < p; c++) {
          const skip = o.D ? o.D[o.dWidth === 1 ? head : head * p + c]! * o.x[to + c]! : 0;
          y.add(to + c, skip, Math.abs(skip), additions(o, i));
        }
        for (let j = -1; j <= i; j++) {
          const way = path(j, i);
          if (!way) continue;
          const rounded = j < 0 ? twoRounded : j < i ? 2 * twoRounded : 0;
          const roundings = additions(o, i) + way.roundings + rounded;
          if (j < 0) {
            for (let c = 0; c < p && o.state; c++) {
              const { v, size } = dot(o.state, stateAt + c * n, o.C, bAt(i, k), n);
              y.add(to + c, v * way.factor, size * way.size, roundings);
            }
            for (const last of carried) {
              const { v, size } = dot(last.B, last.bAt, o.C, bAt(i, k), n);
              for (let c = 0; c < p; c++) {
                const value = last.weight * last.x[last.xAt + c]! * way.factor;
                const most = Math.abs(last.weight * last.x[last.xAt + c]!) * way.size;
                y.add(to + c, v * value, size * most, roundings);
              }
            }
            continue;
          }
          for (let other = 0; other < r; other++) {
            const { v, size } = dot(o.C, bAt(i, k), o.B, bAt(j, other), n);
            for (let c = 0; c < p; c++) {
              const value = weight(j, i) * o.x[xAt(j, other) + c]!;
              y.add(to + c, v * value * way.factor, size * Math.abs(value) * way.size, roundings);
            }
          }
        }
      }
    }
  });
  const estimates: Estimates = { y: y.balls, stateOut: stateOut.balls };
  if (o.checkpoints) estimates.checkpoints = checkpoints.balls;
  return estimates;
}

export function ssdGradBound(o: Operands<'ssdGrad'>): Estimates {
  const { b, l, r, h, p, n, q } = o;
  const [dx, dB, dC] = [new Sums(o.x.length), new Sums(o.B.length), new Sums(o.C.length)];
  const [ddecay, dscale, down] = [new Sums(b * l * h), new Sums(b * l * h), new Sums(b * l * h)];
  const [dD, dstate] = [new Sums(h * o.dWidth), new Sums(b * h * p * n)];
  const dstateOut = o.dstateOut ?? new Float64Array(b * h * p * n);
  eachHead(o, (row, head, parts) => {
    const { length, xAt, bAt, at, path, weight } = parts;
    const stateAt = (row * h + head) * p * n;
    // Sums over heads (dB, dC) and over the elements of a state (ddecay, dscale) come on top.
    const total = additions(o, l) + h + p * n;
    const add = (sums: Sums, i: number, { v, size }: Dot, factor: number, way: Path) =>
      sums.add(i, v * factor * way.factor, size * Math.abs(factor) * way.size, total + way.roundings);
    /** <u v^T, M> of a matrix of the size of a state. */
    const form = (u: Floats, uAt: number, v: Floats, vAt: number, M: Floats, mAt: number) =>
      sumOf(range(p, (c) => scaled(dot(M, mAt + c * n, v, vAt, n), u[uAt + c]!)));

    for (let j = 0; j < length; j++) {
      for (let k = 0; k < r; k++) {
        const [xj, bj] = [xAt(j, k), bAt(j, k)];
        for (let c = 0; c < p; c++) {
          const skip = o.dWidth === 1 ? head : head * p + c;
          const [x, dy] = [o.x[xj + c]!, o.dy[xj + c]!];
          dD.add(skip, x * dy, Math.abs(x * dy), b * additions(o, l) * p);
          if (o.D) add(dx, xj + c, one(dy), o.D[skip]!, THROUGH);
        }
        // What later tokens read of it.
        for (let i = j; i < length; i++) {
          const way = path(j, i);
          if (!way) break;
          for (let other = 0; other < r; other++) {
            const [xi, bi] = [xAt(i, other), bAt(i, other)];
            const [inner, outer] = [dot(o.C, bi, o.B, bj, n), dot(o.dy, xi, o.x, xj, p)];
            const pair = { v: inner.v * outer.v, size: inner.size * outer.size };
            add(i === j && o.own ? down : dscale, at(j), pair, 1, way);
            const w = weight(j, i);
            for (let c = 0; c < p; c++) add(dx, xj + c, inner, w * o.dy[xi + c]!, way);
            for (let s = 0; s < n; s++) {
              add(dB, bj + s, outer, w * o.C[bi + s]!, way);
              // Of earlier chunks a token reads the checkpoint.
              if (Math.floor(i / q) === Math.floor(j / q)) add(dC, bi + s, outer, w * o.B[bj + s]!, way);
            }
            for (let m = j + 1; m <= Math.min(i, chunkEnd(j, q)); m++) {
              add(ddecay, at(m), pair, o.scale[at(j)]!, way);
            }
          }
        }
        // What the outgoing state keeps of it.
        const way = path(j, length);
        if (!way) continue;
        const w = o.scale[at(j)]!;
        const pair = form(o.x, xj, o.B, bj, dstateOut, stateAt);
        add(dscale, at(j), pair, 1, way);
        for (let m = j + 1; m <= Math.min(length - 1, chunkEnd(j, q)); m++) add(ddecay, at(m), pair, w, way);
        for (let c = 0; c < p; c++) add(dx, xj + c, dot(dstateOut, stateAt + c * n, o.B, bj, n), w, way);
        for (let e = 0; e < p * n; e++) {
          add(dB, bj + (e % n), one(dstateOut[stateAt + e]!), w * o.x[xj + Math.floor(e / n)]!, way);
        }
      }
    }

    // What tokens read of the checkpoints, and what that makes of the decays from there on.
    for (let start = 0; start < length; start += q) {
      const saved = ((row * Math.ceil(l / q) + start / q) * h + head) * p * n;
      const end = Math.min(chunkEnd(start, q), length - 1);
      for (let i = start; i <= length; i++) {
        const way = path(start - 1, i);
        if (!way) break;
        const read =
          i < length
            ? sumOf(range(r, (k) => form(o.dy, xAt(i, k), o.C, bAt(i, k), o.checkpoints, saved)))
            : dot(dstateOut, stateAt, o.checkpoints, saved, p * n);
        for (let m = start; m <= Math.min(i, end); m++) add(ddecay, at(m), read, 1, way);
        for (let k = 0; k < r && i <= end; k++) {
          for (let e = 0; e < p * n; e++) {
            const dy = o.dy[xAt(i, k) + Math.floor(e / n)]!;
            add(dC, bAt(i, k) + (e % n), one(o.checkpoints[saved + e]!), dy, way);
          }
        }
      }
    }

    for (let i = 0; i <= length; i++) {
      const way = path(-1, i);
      if (!way) break;
      for (let e = 0; e < p * n; e++) {
        if (i === length) add(dstate, stateAt + e, one(dstateOut[stateAt + e]!), 1, way);
        for (let k = 0; k < r && i < length; k++) {
          const dy = o.dy[xAt(i, k) + Math.floor(e / n)]!;
          add(dstate, stateAt + e, one(o.C[bAt(i, k) + (e % n)]!), dy, way);
        }
      }
    }
  });
  const estimates: Estimates = {
    dx: dx.balls,
    ddecay: ddecay.balls,
    dscale: dscale.balls,
    dB: dB.balls,
    dC: dC.balls,
  };
  if (o.down) estimates.down = down.balls;
  if (o.dD) estimates.dD = dD.balls;
  if (o.dstate) estimates.dstate = dstate.balls;
  return estimates;
}

/** The last token of the chunk that token t is in. */
function chunkEnd(t: number, q: number): number {
  return (Math.floor(t / q) + 1) * q - 1;
}

function range<T>(count: number, make: (i: number) => T): T[] {
  return Array.from({ length: count }, (_, i) => make(i));
}

function one(v: number): Dot {
  return { v, size: Math.abs(v) };
}

function scaled({ v, size }: Dot, factor: number): Dot {
  return { v: v * factor, size: size * Math.abs(factor) };
}

function sumOf(parts: readonly Dot[]): Dot {
  return parts.reduce((a, b) => ({ v: a.v + b.v, size: a.size + b.size }), { v: 0, size: 0 });
}
