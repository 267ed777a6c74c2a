/**
 * The rotations once more, in balls: see reference/rotation.ts for the equations. Sine and cosine count as any other function, with the errors
 * that ULPS promises: relative to 1, or to |theta| near 0. So an element of a turned pair is off by about 6 EPS (|x0| + |x1|).
 */
import {
  add,
  apply,
  at,
  type Ball,
  constant,
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
import type { Operands } from './harness.ts';

const TURN = 2 * Math.PI;
const PI = constant(Math.PI);

const bentOf = (angle: Ball): Ball => apply(Math.tanh, ULPS.tanh, angle);

type Angles = Operands<'angleScan'> | Operands<'angleScanGrad'>;
const lengthOf = (o: Angles, row: number): number => (o.lengths ? o.lengths[row]! : o.l);
const resets = (o: Angles, token: number): boolean =>
  o.sequenceIds !== null && token % o.l > 0 && o.sequenceIds[token] !== o.sequenceIds[token - 1];

export function angleScanBound(o: Operands<'angleScan'>): Estimates {
  const { b, l, h, s } = o;
  const theta: Ball[] = new Array(b * l * h * s).fill(ZERO);
  const stateOut: Ball[] = [];
  for (let i = 0; i < b * h * s; i++) {
    const [row, head, pair] = [Math.floor(i / (h * s)), Math.floor(i / s) % h, i % s];
    let carried = at(o.state, i);
    for (let t = 0; t < lengthOf(o, row); t++) {
      const token = row * l + t;
      const step = product(PI, bentOf(at(o.angle, token * s + pair)), at(o.dt, token * h + head));
      const { v, r } = resets(o, token) ? step : add(carried, step);
      // Taking off whole turns is one more rounding, of what is left.
      carried = { ...rounded({ v: v - TURN * Math.floor(v / TURN), r }), period: TURN };
      theta[(token * h + head) * s + pair] = carried;
    }
    stateOut.push(carried);
  }
  return { theta, stateOut };
}

export function angleScanGradBound(o: Operands<'angleScanGrad'>): Estimates {
  const { b, l, h, s } = o;
  const lists = (size: number): Ball[][] => Array.from({ length: size }, () => []);
  const [dangle, ddt, dstate] = [lists(b * l * s), lists(b * l * h), [] as Ball[]];
  for (let i = 0; i < b * h * s; i++) {
    const [row, head, pair] = [Math.floor(i / (h * s)), Math.floor(i / s) % h, i % s];
    let g = at(o.dstateOut, i);
    for (let t = lengthOf(o, row) - 1; t >= 0; t--) {
      const token = row * l + t;
      g = add(g, at(o.dtheta, (token * h + head) * s + pair));
      const bent = bentOf(at(o.angle, token * s + pair));
      const slope = product(PI, sub(exact(1), mul(bent, bent)), at(o.dt, token * h + head));
      dangle[token * s + pair]!.push(mul(g, slope));
      ddt[token * h + head]!.push(product(g, PI, bent));
      if (resets(o, token)) g = ZERO;
    }
    dstate.push(g);
  }
  const estimates: Estimates = { dangle: dangle.map(sum), ddt: ddt.map(sum) };
  if (o.dstate) estimates.dstate = dstate;
  return estimates;
}

/** Calls `visit` for every pair: its two places in x, its place in theta, its cosine and sine. */
function eachPair(
  o: Operands<'rotate'> | Operands<'rotateGrad'>,
  visit: (i0: number, i1: number, angle: number, c: Ball, w: Ball) => void,
): void {
  for (let i = 0; i < o.tokens * o.r * o.h * o.s; i++) {
    const [vector, pair] = [Math.floor(i / o.s), i % o.s];
    const token = Math.floor(vector / (o.r * o.h));
    const angle = (token * o.heads + (o.heads === 1 ? 0 : vector % o.h)) * o.s + pair;
    const theta = at(o.theta, angle);
    const c = apply(Math.cos, ULPS.cos, theta, () => 1);
    const w = apply(Math.sin, ULPS.sin, theta, (x) => Math.min(1, Math.abs(x)));
    const i0 = vector * o.n + pair * o.step;
    visit(i0, i0 + o.gap, angle, c, w);
  }
}

export function rotateBound(o: Operands<'rotate'>): Estimates {
  const y = Array.from(o.x, exact);
  eachPair(o, (i0, i1, _, c, w) => {
    const [x0, x1] = [at(o.x, i0), at(o.x, i1)];
    y[i0] = sub(mul(x0, c), mul(x1, w));
    y[i1] = add(mul(x0, w), mul(x1, c));
  });
  return { y };
}

export function rotateGradBound(o: Operands<'rotateGrad'>): Estimates {
  const dx = Array.from(o.dy, exact);
  const dtheta: Ball[][] = Array.from({ length: o.tokens * o.heads * o.s }, () => []);
  eachPair(o, (i0, i1, angle, c, w) => {
    const [dy0, dy1] = [at(o.dy, i0), at(o.dy, i1)];
    dx[i0] = add(mul(dy0, c), mul(dy1, w));
    dx[i1] = sub(mul(dy1, c), mul(dy0, w));
    dtheta[angle]!.push(sub(mul(dy1, at(o.y, i0)), mul(dy0, at(o.y, i1))));
  });
  return o.dtheta ? { dx, dtheta: dtheta.map(sum) } : { dx };
}
