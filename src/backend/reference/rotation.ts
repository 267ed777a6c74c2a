/**
 * The rotations of Mamba-3 (and of rotary attention). An angle is carried per head and pair,
 *
 *   theta[t] = theta[t-1] + pi tanh(angle[t]) dt[t]   modulo 2 pi,
 *
 * and pair i of a vector is turned by theta[i]:
 *
 *   y[i0] = x[i0] cos theta - x[i1] sin theta,   y[i1] = x[i0] sin theta + x[i1] cos theta.
 *
 * Backward, g is the adjoint of theta; where a document starts, nothing flows back:
 *
 *   g[t] = dtheta[t] + g[t+1], dangle[t] = sum_heads g[t] pi (1 - tanh^2) dt[t], ddt[t] =
 *   sum_pairs g[t] pi tanh(angle[t])
 *   dx = dy turned by -theta, dtheta = dy[i1] y[i0] - dy[i0] y[i1] since dy/dtheta
 *   is y turned by a right angle.
 */
import type { Kernels } from '../backend.ts';
import { startsDocument } from './documents.ts';
import { type Floats, input, optionalIds, optionalInput, optionalOutput, output } from './storage.ts';

const TURN = 2 * Math.PI;

export const rotation = {
  angleScan({ b, l, h, s, ...refs }) {
    const [angle, dt, state] = [input(refs.angle), input(refs.dt), optionalInput(refs.state)];
    const [sequenceIds, lengths] = [optionalIds(refs.sequenceIds), optionalIds(refs.lengths)];
    const [theta, stateOut] = [output(refs.theta), output(refs.stateOut)];

    for (let row = 0; row < b; row++) {
      const length = lengths ? lengths[row]! : l;
      for (let i = 0; i < h * s; i++) {
        const [head, pair] = [Math.floor(i / s), i % s];
        let carried = state ? state[row * h * s + i]! : 0;
        for (let t = 0; t < l; t++) {
          const token = row * l + t;
          if (t >= length) {
            theta[token * h * s + i] = 0;
            continue;
          }
          if (startsDocument(sequenceIds, token, t)) carried = 0;
          carried += Math.PI * Math.tanh(angle[token * s + pair]!) * dt[token * h + head]!;
          carried %= TURN; // exact
          if (carried < 0) carried += TURN;
          store(theta, token * h * s + i, carried);
        }
        store(stateOut, row * h * s + i, carried);
      }
    }
  },

  angleScanGrad({ b, l, h, s, ...refs }) {
    const [angle, dt] = [input(refs.angle), input(refs.dt)];
    const [sequenceIds, lengths] = [optionalIds(refs.sequenceIds), optionalIds(refs.lengths)];
    const [dtheta, dstateOut] = [input(refs.dtheta), optionalInput(refs.dstateOut)];
    const dstate = optionalOutput(refs.dstate);
    const dangle = new Float64Array(b * l * s);
    const ddt = new Float64Array(b * l * h);

    for (let row = 0; row < b; row++) {
      const length = lengths ? lengths[row]! : l;
      for (let i = 0; i < h * s; i++) {
        const [head, pair] = [Math.floor(i / s), i % s];
        let g = dstateOut ? dstateOut[row * h * s + i]! : 0;
        for (let t = length - 1; t >= 0; t--) {
          const token = row * l + t;
          g += dtheta[token * h * s + i]!;
          const bent = Math.tanh(angle[token * s + pair]!);
          dangle[token * s + pair]! += g * Math.PI * (1 - bent * bent) * dt[token * h + head]!;
          ddt[token * h + head]! += g * Math.PI * bent;
          if (startsDocument(sequenceIds, token, t)) g = 0;
        }
        if (dstate) dstate[row * h * s + i] = g;
      }
    }
    output(refs.dangle).set(dangle);
    output(refs.ddt).set(ddt);
  },

  rotate({ tokens, r, h, n, s, heads, step, gap, ...refs }) {
    const [x, theta, y] = [input(refs.x), input(refs.theta), output(refs.y)];
    for (let at = 0; at < tokens * r * h * n; at++) y[at] = x[at]!;
    for (let vector = 0; vector < tokens * r * h; vector++) {
      const angles = anglesOf(vector, r, h, heads, s);
      for (let i = 0; i < s; i++) {
        const [c, w] = [Math.cos(theta[angles + i]!), Math.sin(theta[angles + i]!)];
        const i0 = vector * n + i * step;
        const [x0, x1] = [x[i0]!, x[i0 + gap]!];
        y[i0] = x0 * c - x1 * w;
        y[i0 + gap] = x0 * w + x1 * c;
      }
    }
  },

  rotateGrad({ tokens, r, h, n, s, heads, step, gap, ...refs }) {
    const [y, theta, dy, dx] = [input(refs.y), input(refs.theta), input(refs.dy), output(refs.dx)];
    const dtheta = new Float64Array(tokens * heads * s);
    for (let at = 0; at < tokens * r * h * n; at++) dx[at] = dy[at]!;
    for (let vector = 0; vector < tokens * r * h; vector++) {
      const angles = anglesOf(vector, r, h, heads, s);
      for (let i = 0; i < s; i++) {
        const [c, w] = [Math.cos(theta[angles + i]!), Math.sin(theta[angles + i]!)];
        const i0 = vector * n + i * step;
        const [dy0, dy1] = [dy[i0]!, dy[i0 + gap]!];
        dx[i0] = dy0 * c + dy1 * w;
        dx[i0 + gap] = dy1 * c - dy0 * w;
        dtheta[angles + i]! += dy1 * y[i0]! - dy0 * y[i0 + gap]!;
      }
    }
    optionalOutput(refs.dtheta)?.set(dtheta);
  },
} satisfies Partial<Kernels>;

/** Angles just below a whole turn round up to it, which is 0. */
function store(to: Floats, at: number, theta: number): void {
  to[at] = theta;
  if (to[at]! >= TURN) to[at] = 0;
}

/** Where the angles of vector (token, rank, head) start: (tokens, heads, s). */
function anglesOf(vector: number, r: number, h: number, heads: number, s: number): number {
  const token = Math.floor(vector / (r * h));
  return (token * heads + (heads === 1 ? 0 : vector % h)) * s;
}
