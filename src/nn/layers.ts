/** The layers every model is made of. Weights have the layout of PyTorch checkpoints. */
import { ShapeError } from '../base/errors.ts';
import { linear, splitLinear } from '../ops/linear.ts';
import { layerNorm, type NormResult, rmsNorm } from '../ops/norm.ts';
import { gatherRows, mul, silu } from '../tensor/primitives.ts';
import type { Tensor } from '../tensor/tensor.ts';
import { constantParameter, type Init, normalParameter, uniformParameter } from './init.ts';
import { Module } from './module.ts';

/** y = x W^T + bias; weight (out, in), which may be narrow. */
export class Linear extends Module {
  readonly weight: Tensor;
  readonly bias: Tensor | null;

  /** `scale` multiplies the default bound 1 / sqrt(inputs). Biases start at zero (as the official models re-initialise them). */
  constructor(init: Init, inputs: number, outputs: number, options: { bias?: boolean; scale?: number } = {}) {
    super();
    this.weight = uniformParameter(init, [outputs, inputs], (options.scale ?? 1) / Math.sqrt(inputs));
    this.bias = options.bias ? constantParameter(init, [outputs], 0) : null;
  }

  /** x (..., in) -> (..., out). */
  forward(x: Tensor): Tensor {
    return linear(x, this.weight, this.bias);
  }

  /** The output in parts of the given sizes, each contiguous. */
  split(x: Tensor, sizes: readonly number[]): Tensor[] {
    return splitLinear(x, this.weight, sizes, this.bias);
  }
}

/** A table of vectors; weight (rows, d), which may be narrow. */
export class Embedding extends Module {
  readonly weight: Tensor;

  constructor(init: Init, rows: number, d: number) {
    super();
    this.weight = normalParameter(init, [rows, d], 0.02);
  }

  /** ids (b, l) i32 -> (b, l, d). Throws ShapeError for an id outside the table, when the ids came from the host. */
  forward(ids: Tensor): Tensor {
    const rows = this.weight.shape[0]!;
    const bad = ids.host?.find((id) => id < 0 || id >= rows);
    if (bad !== undefined) {
      throw new ShapeError(
        `Embedding: expected ids in [0, ${rows}), got ${bad}. Use the tokenizer this model was trained with.`,
      );
    }
    return gatherRows(this.weight, ids);
  }
}

/** RMSNorm or LayerNorm of x + residual; the sum is handed on. */
export class Norm extends Module {
  readonly weight: Tensor;
  /** LayerNorm only. */
  readonly bias: Tensor | null;
  readonly #eps: number;

  constructor(init: Init, d: number, options: { rms: boolean; eps: number }) {
    super();
    this.weight = constantParameter(init, [d], 1);
    this.bias = options.rms ? null : constantParameter(init, [d], 0);
    this.#eps = options.eps;
  }

  forward(x: Tensor, residual: Tensor | null): NormResult {
    const options = { residual, eps: this.#eps };
    return this.bias ? layerNorm(x, this.weight, this.bias, options) : rmsNorm(x, this.weight, options);
  }
}

/** fc2(a * silu(g)) with [a, g] = fc1(x) (mamba_ssm/modules/mlp.py); the hidden width is rounded up to a multiple of 128. */
export class GatedMlp extends Module {
  readonly fc1: Linear;
  readonly fc2: Linear;

  constructor(init: Init, d: number, hidden: number, options: { scale: number }) {
    super();
    const width = gatedMlpWidth(hidden);
    this.fc1 = new Linear(init, d, 2 * width);
    this.fc2 = new Linear(init, width, d, options);
  }

  forward(x: Tensor): Tensor {
    const width = this.fc2.weight.shape[1]!;
    const [a, g] = this.fc1.split(x, [width, width]) as [Tensor, Tensor];
    return this.fc2.forward(mul(a, silu(g)));
  }
}

export function gatedMlpWidth(hidden: number): number {
  return Math.ceil(hidden / 128) * 128;
}
