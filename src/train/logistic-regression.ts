/**
 * Logistic regression with an L2 penalty on sparse rows, as scikit-learn's LogisticRegression: minimises C *
 * (sum over the examples of -log p(class)) + |weights|^2 / 2, the intercepts free of the penalty. Two classes
 * share one weight vector; more have one each (multinomial).
 */
import { minimise } from './lbfgs.ts';
import { softmax } from './naive-bayes.ts';
import type { SparseRows } from './tf-idf.ts';

/** Weight vectors that `classes` take. */
export function outputsOf(classes: number): number {
  return classes === 2 ? 1 : classes;
}

export interface FitOptions {
  /** The rows to learn from, each class among them. */
  indices: Int32Array;
  /** C above. */
  strength: number;
  /** Nats per example, default 1e-4. */
  tolerance?: number;
  signal?: AbortSignal;
}

export class LogisticRegression {
  readonly classes: number;
  readonly outputs: number;
  /** (features + 1, outputs); the last row is the intercepts. */
  readonly weights: Float64Array;

  constructor(features: number, classes: number) {
    this.classes = classes;
    this.outputs = outputsOf(classes);
    this.weights = new Float64Array((features + 1) * this.outputs);
  }

  /**
   * Goes on from the weights as they are to the minimum: until |gradient|^2 / (2 penalty), which bounds what
   * better weights could still gain, is below `tolerance`.
   */
  async fit(
    rows: SparseRows,
    truth: Int32Array,
    { indices, strength, tolerance = 1e-4, signal }: FitOptions,
  ): Promise<void> {
    const penalty = 1 / (strength * indices.length); // of the mean, so that values are nats per example
    await minimise(
      (weights, gradient) => this.#loss(rows, truth, indices, { penalty, weights, gradient }),
      this.weights,
      {
        curvature: this.#curvature(rows, indices, penalty),
        isDone: (gradient) => squares(gradient, gradient.length) < 2 * penalty * tolerance,
        signal,
      },
    );
  }

  /** The second derivatives of the loss where all classes are equally probable. */
  #curvature(rows: SparseRows, indices: Int32Array, penalty: number): Float64Array {
    const { outputs, classes } = this;
    const share = (1 / classes) * (1 - 1 / classes); // of p (1 - p)
    const curvature = new Float64Array(this.weights.length).fill(penalty);
    curvature.fill(share, curvature.length - outputs);
    for (const i of indices) {
      const end = rows.starts[i + 1]!;
      for (let at = rows.starts[i]!; at < end; at++) {
        const to = rows.columns[at]! * outputs;
        const value = (share * rows.values[at]! ** 2) / indices.length;
        for (let k = 0; k < outputs; k++) curvature[to + k]! += value;
      }
    }
    return curvature;
  }

  /** The probability of each class for row i. */
  probabilities(rows: SparseRows, i: number, weights = this.weights): Float64Array {
    const { outputs, classes } = this;
    const first = classes - outputs; // of two classes the first has score 0
    const scores = new Float64Array(classes);
    scores.set(weights.subarray(weights.length - outputs), first);
    const end = rows.starts[i + 1]!;
    for (let at = rows.starts[i]!; at < end; at++) {
      const value = rows.values[at]!;
      const from = rows.columns[at]! * outputs;
      for (let k = 0; k < outputs; k++) scores[first + k]! += value * weights[from + k]!;
    }
    return softmax(scores);
  }

  /** Mean loss with penalty; writes its gradient. */
  #loss(
    rows: SparseRows,
    truth: Int32Array,
    indices: Int32Array,
    { penalty, weights, gradient }: { penalty: number; weights: Float64Array; gradient: Float64Array },
  ): number {
    const { outputs, classes } = this;
    const first = classes - outputs;
    const intercepts = weights.length - outputs;
    for (let at = 0; at < weights.length; at++) gradient[at] = at < intercepts ? penalty * weights[at]! : 0;
    let nats = 0;
    for (const i of indices) {
      const slopes = this.probabilities(rows, i, weights); // dloss/dscore = p - (1 for the true class)
      nats -= Math.log(Math.max(slopes[truth[i]!]!, Number.MIN_VALUE));
      slopes[truth[i]!]!--;
      for (let k = 0; k < classes; k++) slopes[k]! /= indices.length;
      const end = rows.starts[i + 1]!;
      for (let at = rows.starts[i]!; at < end; at++) {
        const value = rows.values[at]!;
        const to = rows.columns[at]! * outputs;
        for (let k = 0; k < outputs; k++) gradient[to + k]! += value * slopes[first + k]!;
      }
      for (let k = 0; k < outputs; k++) gradient[intercepts + k]! += slopes[first + k]!;
    }
    return nats / indices.length + (penalty / 2) * squares(weights, intercepts);
  }
}

function squares(x: Float64Array, count: number): number {
  let sum = 0;
  for (let at = 0; at < count; at++) sum += x[at]! * x[at]!;
  return sum;
}
