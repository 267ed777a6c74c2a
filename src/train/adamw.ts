/**
 * AdamW over named parameters, with the decay groups of the official recipe: matrices and convolution filters
 * decay, biases, norms, D, dt_proj.bias, dt_bias and A_log do not. (B_bias and C_bias of Mamba-3, a matrix
 * per head, do, as in the official code.) The gradient norm is clipped on the device, nothing is read back.
 */
import { ConfigError, StateError } from '../base/errors.ts';
import { sameShape, showShape } from '../base/shape.ts';
import { adamwStep, sumOfSquares } from '../ops/adamw.ts';
import { unary } from '../tensor/primitives.ts';
import { keep, scope } from '../tensor/scope.ts';
import { noGrad } from '../tensor/tape.ts';
import { Tensor } from '../tensor/tensor.ts';

export interface AdamWOptions {
  /** Decay rates of the two moments, default [0.9, 0.95]. */
  betas?: readonly [number, number];
  /** Default 1e-8. */
  eps?: number;
  /** Decoupled decay of the parameters that `decays` names, default 0.1. */
  weightDecay?: number;
  /** The gradient is scaled down to this norm when it is longer; null never. Default 1. */
  maxNorm?: number | null;
}

interface Slot {
  name: string;
  param: Tensor;
  m: Tensor;
  v: Tensor;
}

/** Whether weight decay applies: to everything of rank 2 and above but A_log. */
export function decays(name: string, tensor: Tensor): boolean {
  return tensor.shape.length >= 2 && name.split('.').at(-1) !== 'A_log';
}

export class AdamW {
  readonly #slots: Slot[];
  readonly #betas: readonly [number, number];
  readonly #eps: number;
  readonly #weightDecay: number;
  readonly #maxNorm: number | null;
  #steps = 0;

  /** `parameters` as from `model.namedParameters()`. Throws ConfigError for options out of range. */
  constructor(parameters: Iterable<readonly [string, Tensor]>, options: AdamWOptions = {}) {
    const { betas = [0.9, 0.95], eps = 1e-8, weightDecay = 0.1, maxNorm = 1 } = options;
    const problems: string[] = [];
    if (!betas.every((beta) => beta >= 0 && beta < 1))
      problems.push(`betas in [0, 1), got ${betas.join(', ')}`);
    if (!(eps > 0)) problems.push(`eps above 0, got ${eps}`);
    if (!(weightDecay >= 0)) problems.push(`weightDecay of at least 0, got ${weightDecay}`);
    if (maxNorm !== null && !(maxNorm > 0)) problems.push(`maxNorm above 0 or null, got ${maxNorm}`);
    if (problems.length > 0)
      throw new ConfigError(`AdamW: expected ${problems.join('; ')}. Correct the options.`);
    this.#betas = betas;
    this.#eps = eps;
    this.#weightDecay = weightDecay;
    this.#maxNorm = maxNorm;
    this.#slots = [...parameters].map(([name, param]) => {
      const zeros = () => keep(Tensor.zeros(param.shape, { device: param.device }));
      return { name, param, m: zeros(), v: zeros() };
    });
  }

  /** Steps taken. */
  get steps(): number {
    return this.#steps;
  }

  /**
   * Updates every parameter that has a gradient and drops the gradients. Returns their norm before clipping,
   * a scalar that the caller may read (and disposes). Throws StateError when no parameter has a gradient.
   */
  step(lr: number): Tensor {
    return noGrad(() =>
      scope(() => {
        const grads = this.#slots.flatMap(({ param }) => param.grad ?? []);
        if (grads.length === 0)
          throw new StateError('AdamW.step: expected gradients, got none. Call backward() first.');
        this.#steps++;
        const sumSquares = sumOfSquares(grads);
        const clip = this.#maxNorm === null ? null : { sumSquares, maxNorm: this.#maxNorm };
        const [beta1, beta2] = this.#betas;
        for (const { name, param, m, v } of this.#slots) {
          if (!param.grad) continue;
          const weightDecay = decays(name, param) ? this.#weightDecay : 0;
          const options = { lr, beta1, beta2, eps: this.#eps, weightDecay, step: this.#steps, clip };
          adamwStep(param, param.grad, m, v, options);
          param.grad.dispose();
          param.grad = null;
        }
        return unary('sqrt', sumSquares);
      }),
    );
  }

  /** The moments by name: `m.NAME` and `v.NAME`. They are the live tensors, not copies. */
  *namedTensors(): Generator<[string, Tensor]> {
    for (const { name, m } of this.#slots) yield [`m.${name}`, m];
    for (const { name, v } of this.#slots) yield [`v.${name}`, v];
  }

  /** Continues after `steps` steps with the moments that `read` gives for the names of namedTensors(). */
  async restore(steps: number, read: (name: string) => Promise<Float32Array>): Promise<void> {
    for (const [name, tensor] of this.namedTensors()) {
      const data = await read(name);
      if (!sameShape([data.length], [tensor.size])) {
        throw new StateError(
          `AdamW.restore: expected ${showShape(tensor.shape)} for ${name}, got ${data.length} elements. ` +
            'Resume with the model of the first run.',
        );
      }
      tensor.write(data);
    }
    this.#steps = steps;
  }

  dispose(): void {
    for (const [, tensor] of this.namedTensors()) tensor.dispose();
  }
}
