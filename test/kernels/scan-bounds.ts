/**
 * The selective scan and its gradient once more, token by token, in balls: see reference/scan.ts for the equations.
 * exp(dt A) is allowed two more roundings of its argument, for implementations that scale A by log2(e) beforehand.
 */
import { SCAN_CHUNK } from '../../src/backend/kernels.ts';
import { sigmoid, silu, softplus } from '../../src/backend/reference/math.ts';
import {
  add,
  apply,
  at,
  type Ball,
  type Estimates,
  exact,
  mul,
  product,
  rounded,
  siluGradBall,
  sum,
  ULPS,
  ZERO,
} from './ball.ts'; // prettier-ignore
import type { Operands } from './harness.ts';

type Common = Operands<'selectiveScan'> | Operands<'selectiveScanGrad'>;

/** One token of one channel: everything that does not depend on the state. */
function tokenOf(o: Common, row: number, t: number, c: number) {
  const token = row * o.l + t;
  const i = token * o.e + c;
  const raw = o.deltaBias ? add(at(o.delta, i), at(o.deltaBias, c)) : at(o.delta, i);
  const dt = o.softplus ? apply(softplus, ULPS.softplus, raw) : raw;
  const offset = (groups: number) =>
    groups === 0 ? c * o.n : (token * groups + Math.floor((c * groups) / o.e)) * o.n;
  const resets = o.sequenceIds !== null && t > 0 && o.sequenceIds[token] !== o.sequenceIds[token - 1];
  return { i, raw, dt, u: at(o.u, i), bAt: offset(o.bGroups), cAt: offset(o.cGroups), resets };
}

type Token = ReturnType<typeof tokenOf>;

function decayOf(o: Common, { dt }: Token, c: number, s: number): Ball {
  return apply(Math.exp, ULPS.exp, rounded(mul(dt, at(o.A, c * o.n + s)), 2));
}

/** The state after a token, and the decays that led to it. */
function advance(o: Common, token: Token, c: number, before: readonly Ball[]) {
  const decay = before.map((_, s) => decayOf(o, token, c, s));
  const after = before.map((h, s) => {
    const fresh = product(token.dt, token.u, at(o.B, token.bAt + s));
    return token.resets ? fresh : add(mul(decay[s]!, h), fresh);
  });
  return { decay, after };
}

export function scanBound(o: Operands<'selectiveScan'>): Estimates {
  const { b, l, e, n } = o;
  const chunks = Math.ceil(l / SCAN_CHUNK);
  const y: Ball[] = new Array(b * l * e).fill(ZERO);
  const stateOut: Ball[] = [];
  const checkpoints: Ball[] = [];
  for (let row = 0; row < b; row++) {
    const length = o.lengths ? o.lengths[row]! : l;
    for (let c = 0; c < e; c++) {
      let h = Array.from({ length: n }, (_, s) => at(o.state, (row * e + c) * n + s));
      for (let t = 0; t < l; t++) {
        if (t % SCAN_CHUNK === 0) {
          for (let s = 0; s < n; s++) checkpoints[((row * chunks + t / SCAN_CHUNK) * e + c) * n + s] = h[s]!;
        }
        if (t >= length) continue;
        const token = tokenOf(o, row, t, c);
        h = advance(o, token, c, h).after;
        const read = readOut(o, token, c, h);
        y[token.i] = o.z ? mul(read, apply(silu, ULPS.silu, at(o.z, token.i))) : read;
      }
      stateOut.push(...h);
    }
  }
  return o.checkpoints ? { y, stateOut, checkpoints } : { y, stateOut };
}

/** C . h + D u */
function readOut(o: Common, token: Token, c: number, h: readonly Ball[]): Ball {
  const terms = h.map((value, s) => mul(at(o.C, token.cAt + s), value));
  return sum(o.D ? [...terms, mul(at(o.D, c), token.u)] : terms);
}

export function scanGradBound(o: Operands<'selectiveScanGrad'>): Estimates {
  const { b, l, e, n } = o;
  const lists = (size: number): Ball[][] => Array.from({ length: size }, () => []);
  const terms = {
    dA: lists(e * n),
    dB: lists(o.bGroups === 0 ? e * n : b * l * o.bGroups * n),
    dC: lists(o.cGroups === 0 ? e * n : b * l * o.cGroups * n),
    dD: lists(e),
    ddeltaBias: lists(e),
  };
  const [du, ddelta, dz] = [0, 1, 2].map(() => new Array<Ball>(b * l * e).fill(ZERO));
  const dstate: Ball[] = [];
  for (let row = 0; row < b; row++) {
    const length = o.lengths ? o.lengths[row]! : l;
    for (let c = 0; c < e; c++) {
      const states = statesOf(o, row, c, length);
      let carried = Array.from({ length: n }, (_, s) => at(o.dstateOut, (row * e + c) * n + s));
      for (let t = length - 1; t >= 0; t--) {
        const token = tokenOf(o, row, t, c);
        const { decay, after } = advance(o, token, c, states[t]!);
        const dy = at(o.dy, token.i);
        const q = o.z ? mul(dy, apply(silu, ULPS.silu, at(o.z, token.i))) : dy;
        const written: Ball[] = [];
        const ddt: Ball[] = [];
        carried = carried.map((incoming, s) => {
          const g = add(mul(at(o.C, token.cAt + s), q), incoming);
          const B = at(o.B, token.bAt + s);
          const before = token.resets ? ZERO : states[t]![s]!;
          const through = product(g, decay[s]!, before);
          written.push(mul(B, g));
          ddt.push(mul(through, at(o.A, c * n + s)), product(g, B, token.u));
          terms.dC[token.cAt + s]!.push(mul(q, after[s]!));
          terms.dB[token.bAt + s]!.push(product(g, token.dt, token.u));
          terms.dA[c * n + s]!.push(mul(through, token.dt));
          return token.resets ? ZERO : mul(decay[s]!, g);
        });
        const slope = token.raw.v > 20 ? exact(1) : apply(sigmoid, ULPS.sigmoid, token.raw);
        const draw = o.softplus ? mul(sum(ddt), slope) : sum(ddt);
        ddelta![token.i] = draw;
        terms.ddeltaBias[c]!.push(draw);
        terms.dD[c]!.push(mul(q, token.u));
        du![token.i] = sum([mul(q, at(o.D, c)), mul(token.dt, sum(written))]);
        if (o.z) dz![token.i] = product(dy, readOut(o, token, c, after), siluGradBall(at(o.z, token.i)));
      }
      dstate.push(...carried);
    }
  }
  const estimates: Estimates = {
    du: du!,
    ddelta: ddelta!,
    dA: terms.dA.map(sum),
    dB: terms.dB.map(sum),
    dC: terms.dC.map(sum),
  };
  if (o.dD) estimates.dD = terms.dD.map(sum);
  if (o.dz) estimates.dz = dz!;
  if (o.ddeltaBias) estimates.ddeltaBias = terms.ddeltaBias.map(sum);
  if (o.dstate) estimates.dstate = dstate;
  return estimates;
}

/** The state before each token, from the checkpoint of its chunk. */
function statesOf(o: Operands<'selectiveScanGrad'>, row: number, c: number, length: number): Ball[][] {
  const chunks = Math.ceil(o.l / SCAN_CHUNK);
  const states: Ball[][] = [];
  let h: Ball[] = [];
  for (let t = 0; t < length; t++) {
    if (t % SCAN_CHUNK === 0) {
      const saved = ((row * chunks + t / SCAN_CHUNK) * o.e + c) * o.n;
      h = Array.from({ length: o.n }, (_, s) => at(o.checkpoints, saved + s));
    }
    states.push(h);
    h = advance(o, tokenOf(o, row, t, c), c, h).after;
  }
  return states;
}
