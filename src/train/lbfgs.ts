/**
 * L-BFGS: minimises a smooth convex function of many numbers from its values and gradients. No random
 * numbers. Source: J. Nocedal, S. Wright, "Numerical Optimization", algorithms 7.4 and 7.5, with a halving
 * line search.
 */
import { turn } from '../base/turn.ts';

/** The function at x; writes its gradient. */
export type Objective = (x: Float64Array, gradient: Float64Array) => number;

export interface MinimiseOptions {
  /** An estimate of the second derivative along each number, positive: what is steep and what is flat. */
  curvature: Float64Array;
  /** Whether this gradient is small enough to stop. */
  isDone: (gradient: Float64Array) => boolean;
  /** Stops between evaluations with the signal's reason. */
  signal?: AbortSignal;
}

/** Steps remembered; kept in float32, which is enough for a direction. */
const MEMORY = 8;
const MAX_STEPS = 2000;

/**
 * Moves x to the minimum, in place. Ends when `isDone`, when no step along the direction lowers the value
 * (the limit of float64), or after 2000 steps. Returns the number of evaluations.
 */
export async function minimise(
  objective: Objective,
  x: Float64Array,
  { curvature, isDone, signal }: MinimiseOptions,
): Promise<number> {
  let gradient = new Float64Array(x.length);
  let nextGradient = new Float64Array(x.length);
  const next = new Float64Array(x.length);
  const direction = new Float64Array(x.length);
  const history: Step[] = [];
  let value = objective(x, gradient);
  let evaluations = 1;
  for (let step = 0; step < MAX_STEPS && !isDone(gradient); step++) {
    findDirection(gradient, history, curvature, direction);
    const slope = dot(gradient, direction);
    let length = 1;
    for (;;) {
      await turn();
      signal?.throwIfAborted();
      for (let i = 0; i < x.length; i++) next[i] = x[i]! + length * direction[i]!;
      const nextValue = objective(next, nextGradient);
      evaluations++;
      if (nextValue < value && nextValue <= value + 1e-4 * length * slope) {
        value = nextValue;
        break;
      }
      length /= 2;
      if (length < 1e-10) return evaluations;
    }
    remember(history, x, next, gradient, nextGradient);
    x.set(next);
    [gradient, nextGradient] = [nextGradient, gradient];
  }
  return evaluations;
}

/** A step and how the gradient changed along it: what is known of the curvature. */
interface Step {
  s: Float32Array;
  y: Float32Array;
  sy: number;
}

function remember(
  history: Step[],
  x: Float64Array,
  next: Float64Array,
  gradient: Float64Array,
  nextGradient: Float64Array,
): void {
  const oldest = history.length === MEMORY ? history.shift() : undefined;
  const { s, y } = oldest ?? { s: new Float32Array(x.length), y: new Float32Array(x.length) };
  for (let i = 0; i < x.length; i++) {
    s[i] = next[i]! - x[i]!;
    y[i] = nextGradient[i]! - gradient[i]!;
  }
  const sy = dot(s, y);
  if (sy > 0) history.push({ s, y, sy }); // rounding may hide the curvature of a tiny step
}

/** direction = -H gradient, H the inverse second derivative as far as the estimate and the history tell. */
function findDirection(
  gradient: Float64Array,
  history: readonly Step[],
  curvature: Float64Array,
  direction: Float64Array,
): void {
  for (let i = 0; i < gradient.length; i++) direction[i] = -gradient[i]!;
  const shares = history.map(() => 0);
  for (let h = history.length - 1; h >= 0; h--) {
    const { s, y, sy } = history[h]!;
    shares[h] = dot(s, direction) / sy;
    add(direction, -shares[h]!, y);
  }
  const last = history.at(-1);
  const scale = last ? last.sy / weightedSquares(last.y, curvature) : 1;
  for (let i = 0; i < direction.length; i++) direction[i]! *= scale / curvature[i]!;
  history.forEach(({ s, y, sy }, h) => {
    add(direction, shares[h]! - dot(y, direction) / sy, s);
  });
}

function weightedSquares(y: Float32Array, curvature: Float64Array): number {
  let sum = 0;
  for (let i = 0; i < y.length; i++) sum += (y[i]! * y[i]!) / curvature[i]!;
  return sum;
}

function add(to: Float64Array, factor: number, x: Float32Array): void {
  for (let i = 0; i < to.length; i++) to[i]! += factor * x[i]!;
}

function dot(a: Float32Array | Float64Array, b: Float32Array | Float64Array): number {
  let sum = 0;
  for (let i = 0; i < a.length; i++) sum += a[i]! * b[i]!;
  return sum;
}
