/**
 * The rotations of Mamba-3 (arXiv 2603.15569; mamba3.py in state-spaces/mamba): a recurrence with complex
 * decays, computed with real ones by turning B and C, as rotary embeddings turn queries and keys (Su et al.
 * 2021), but by angles that depend on the input:
 *   theta[t] = theta[t-1] + pi tanh(angle[t]) dt[t]        per head and pair, modulo 2 pi
 *   (a, b)  -> (a cos theta - b sin theta, a sin theta + b cos theta)
 * Which elements make a pair is a matter of convention: neighbours (Mamba-3 SISO, interleaved attention) or
 * elements `gap` apart (Mamba-3 MIMO: gap n / 2; attention: half of the rotary width).
 */
import { kernelOf } from '../backend/backend.ts';
import { anglePartialSize } from '../backend/kernels.ts';
import { ShapeError } from '../base/errors.ts';
import { expectShape, type Shape, showShape } from '../base/shape.ts';
import { add, concat, mul, reshape, slice, stack, sub, unary } from '../tensor/primitives.ts';
import * as raw from '../tensor/raw.ts';
import { record } from '../tensor/tape.ts';
import { Tensor } from '../tensor/tensor.ts';
import { checkSequence } from './causal-conv.ts';
import { choose, rowMasks } from './row-masks.ts';

export interface AngleScanOptions {
  /** The angles before the first token (b, h, s); zeros when omitted. */
  state?: Tensor | null;
  /**
   * Document of each token, i32 (b, l): angles start from 0 where it changes. The
   * incoming state belongs to token 0.
   */
  sequenceIds?: Tensor | null;
  /** Real tokens per row, i32 (b): later positions give 0 and leave the state alone. */
  lengths?: Tensor | null;
}

export interface AngleScanResult {
  /** (b, l, h, s), in [0, 2 pi). */
  theta: Tensor;
  /** The angles after the last token (b, h, s), in [0, 2 pi). */
  state: Tensor;
}

/**
 * angle (b, l, s), shared by all heads; dt (b, l, h). Carried in float64, so that
 * small steps add up over long texts.
 */
export function angleScan(angle: Tensor, dt: Tensor, options: AngleScanOptions = {}): AngleScanResult {
  const { state = null, sequenceIds = null, lengths = null } = options;
  const sizes = checkAngles(angle, dt, options);
  const { b, l, h, s } = sizes;
  const { device } = angle;
  const make = (shape: Shape) => Tensor.empty(shape, 'f32', device);
  const theta = make([b, l, h, s]);
  const stateOut = make([b, h, s]);
  const operands = { angle, dt, sequenceIds, lengths };
  if (stateOut.size > 0) kernelOf(device, 'angleScan')({ ...operands, state, theta, stateOut, ...sizes });
  record('angleScan', [angle, dt, state], [theta, stateOut], operands, ([dtheta, dstateOut], kept, needs) => {
    const grads = {
      dangle: make(angle.shape),
      ddt: raw.full(dt.shape, 0, device),
      dstate: needs[2] ? make([b, h, s]) : null,
    };
    if (stateOut.size > 0) {
      kernelOf(
        device,
        'angleScanGrad',
      )({
        ...kept,
        dtheta: dtheta ?? raw.full([b, l, h, s], 0, device),
        dstateOut: dstateOut ?? null,
        ...grads,
        partial: make([anglePartialSize(b, l, h, s)]),
        ...sizes,
      });
    }
    return [grads.dangle, grads.ddt, grads.dstate];
  });
  return { theta, state: stateOut };
}

/**
 * The twin from primitives, token by token. There is no primitive to take off whole turns: its angles grow,
 * and are those of `angleScan` up to multiples of 2 pi. Their sines, cosines and gradients are the same.
 */
export function angleScanRef(angle: Tensor, dt: Tensor, options: AngleScanOptions = {}): AngleScanResult {
  const { b, l, h, s } = checkAngles(angle, dt, options);
  const { device } = angle;
  const masks = rowMasks(b, l, options, 3, device);
  const bent = mul(unary('tanh', angle), Math.PI); // (b, l, s)
  let theta = options.state ?? raw.full([b, h, s], 0, device);
  const thetas: Tensor[] = [];
  for (let t = 0; t < l; t++) {
    const { alive, continues } = masks(t);
    const before = continues ? mul(theta, continues) : theta;
    const step = mul(slice(bent, 1, t, t + 1), reshape(slice(dt, 1, t, t + 1), [b, h, 1])); // (b, h, s)
    const next = add(before, step);
    theta = choose(alive, next, theta);
    thetas.push(alive ? mul(next, alive) : next);
  }
  return { theta: l > 0 ? stack(thetas, 1) : raw.full([b, 0, h, s], 0, device), state: theta };
}

export interface RotateOptions {
  /** 'adjacent': elements 2 i and 2 i + 1 make pair i. A number: elements i and i + that number. */
  pairing: 'adjacent' | number;
}

/**
 * Turns the first s pairs of every vector of x (b, l, r, h, n) by theta (b, l, heads, s), where heads is
 * h, or 1 for angles that all heads share; the other elements stay as they are. Angles up to 1e4 keep
 * the accuracy of docs/numerics.md.
 */
export function rotate(x: Tensor, theta: Tensor, options: RotateOptions): Tensor {
  const sizes = checkRotate(x, theta, options);
  const { device } = x;
  const kernel = device.kernels.rotate;
  if (!kernel) return rotateRef(x, theta, options);
  const y = Tensor.empty(x.shape, 'f32', device);
  if (x.size > 0) kernel({ x, theta, y, ...sizes });
  record('rotate', [x, theta], [y], { y, theta }, ([dy], kept, needs) => {
    const dx = Tensor.empty(x.shape, 'f32', device);
    const dtheta = needs[1] ? raw.full(theta.shape, 0, device) : null;
    if (x.size > 0) kernelOf(device, 'rotateGrad')({ ...kept, dy: dy!, dx, dtheta, ...sizes });
    return [dx, dtheta];
  });
  return y;
}

/** The twin from primitives. */
export function rotateRef(x: Tensor, theta: Tensor, options: RotateOptions): Tensor {
  const { h, n, s, heads, gap, step } = checkRotate(x, theta, options);
  const [b, l, r] = x.dims(5);
  const part = (from: number, to: number) => slice(x, 4, from, to);
  const angles = reshape(theta, [b, l, 1, heads, s]);
  const [c, w] = [unary('cos', angles), unary('sin', angles)];
  const turned = (x0: Tensor, x1: Tensor): [Tensor, Tensor] => [
    sub(mul(x0, c), mul(x1, w)),
    add(mul(x0, w), mul(x1, c)),
  ];
  if (step === 1) {
    const [y0, y1] = turned(part(0, s), part(gap, gap + s));
    return concat([y0, part(s, gap), y1, part(gap + s, n)], 4);
  }
  const pairs = reshape(part(0, 2 * s), [b, l, r, h, s, 2]);
  const element = (i: number) => reshape(slice(pairs, 5, i, i + 1), [b, l, r, h, s]);
  const y = reshape(stack(turned(element(0), element(1)), 5), [b, l, r, h, 2 * s]);
  return concat([y, part(2 * s, n)], 4);
}

function checkAngles(angle: Tensor, dt: Tensor, options: AngleScanOptions) {
  const op = 'angleScan';
  const [b, l, s] = angle.dims(3);
  const h = dt.dims(3)[2];
  expectShape(op, 'dt (b, l, h)', dt.shape, [b, l, h]);
  if (options.state) expectShape(op, 'state (b, h, s)', options.state.shape, [b, h, s]);
  checkSequence(op, b, l, options);
  raw.requireF32(op, angle, dt, ...(options.state ? [options.state] : []));
  return { b, l, h, s };
}

function checkRotate(x: Tensor, theta: Tensor, { pairing }: RotateOptions) {
  const op = 'rotate';
  const [b, l, r, h, n] = x.dims(5);
  const [, , heads, s] = theta.dims(4);
  expectShape(op, 'theta (b, l, heads, s)', theta.shape, [b, l, heads === 1 ? 1 : h, s]);
  const [step, gap] = pairing === 'adjacent' ? [2, 1] : [1, pairing];
  const fits = step === 2 ? 2 * s <= n : Number.isInteger(gap) && gap >= s && gap + s <= n;
  if (!fits) {
    throw new ShapeError(
      `${op}: expected ${s} pairs of pairing ${pairing} within ${n} elements, got x ${showShape(x.shape)} and ` +
        `theta ${showShape(theta.shape)}. 'adjacent' needs 2 s elements, a gap at least s and at most n - s.`,
    );
  }
  raw.requireF32(op, x, theta);
  return { tokens: b * l, r, h, n, s, heads, step, gap };
}
