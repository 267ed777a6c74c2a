/** The layers every model is made of. Weights have the layout of PyTorch checkpoints. */
import { ShapeError } from '../base/errors.ts';
import { linear, splitLinear } from '../ops/linear.ts';
import { layerNorm, type NormResult, rmsNorm } from '../ops/norm.ts';
import { add, gatherRows, mul, silu } from '../tensor/primitives.ts';
import type { Tensor } from '../tensor/tensor.ts';
import { constantParameter, type Init, normalParameter, uniformParameter } from './init.ts';
import { Module } from './module.ts';

/**
 * The low-rank part of a Linear (Hu et al. 2021): scale * B (A x). B starts at zero, so a new one changes
 * nothing.
 */
export class Lora extends Module {
  readonly A: Tensor; // (rank, in)
  readonly B: Tensor; // (out, rank)
  readonly scale: number;

  /** A has the bound of PyTorch's kaiming_uniform with a = sqrt(5), as PEFT initialises it. */
  constructor(init: Init, inputs: number, outputs: number, options: { rank: number; scale: number }) {
    super();
    this.A = uniformParameter(init, [options.rank, inputs], 1 / Math.sqrt(inputs));
    this.B = constantParameter(init, [outputs, options.rank], 0);
    this.scale = options.scale;
  }

  /** x (..., in) -> parts of the given sizes, (..., size) each. */
  split(x: Tensor, sizes: readonly number[]): Tensor[] {
    return splitLinear(mul(linear(x, this.A), this.scale), this.B, sizes);
  }
}

/**
 * y = x W^T + bias; weight (out, in), which may be narrow. With `lora` its output is added; lora.ts puts it
 * there.
 */
export class Linear extends Module {
  readonly weight: Tensor;
  readonly bias: Tensor | null;
  lora: Lora | null;

  /**
   * `scale` multiplies the default bound 1 / sqrt(inputs). Biases start at zero (as the official models
   * re-initialise them).
   */
  constructor(init: Init, inputs: number, outputs: number, options: { bias?: boolean; scale?: number } = {}) {
    super();
    this.weight = uniformParameter(init, [outputs, inputs], (options.scale ?? 1) / Math.sqrt(inputs));
    this.bias = options.bias ? constantParameter(init, [outputs], 0) : null;
    this.lora = null;
  }

  /** x (..., in) -> (..., out). */
  forward(x: Tensor): Tensor {
    return this.split(x, [this.weight.shape[0]!])[0]!;
  }

  /** The output in parts of the given sizes, each contiguous. */
  split(x: Tensor, sizes: readonly number[]): Tensor[] {
    const parts = splitLinear(x, this.weight, sizes, this.bias);
    if (!this.lora) return parts;
    return this.lora.split(x, sizes).map((low, i) => add(parts[i]!, low));
  }
}

/**
 * Depthwise convolution weights as checkpoints hold them: weight (e, 1, k), bias (e). `bound` of
 * their initial values: 1 / sqrt(k).
 */
export class Conv1d extends Module {
  readonly weight: Tensor;
  readonly bias: Tensor | null;

  constructor(init: Init, e: number, k: number, options: { bias: boolean; bound?: number | null }) {
    super();
    this.weight = uniformParameter(init, [e, 1, k], options.bound ?? 1 / Math.sqrt(k));
    this.bias = options.bias ? uniformParameter(init, [e], 1 / Math.sqrt(k)) : null;
  }
}

/** A table of vectors; weight (rows, d), which may be narrow. */
export class Embedding extends Module {
  readonly weight: Tensor;

  constructor(init: Init, rows: number, d: number) {
    super();
    this.weight = normalParameter(init, [rows, d], init.embeddingStd ?? 0.02);
  }

  /**
   * ids (b, l) i32 -> (b, l, d). Throws ShapeError for an id outside the table,
   * when the ids came from the host.
   */
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

/**
 * fc2(a * silu(g)) with [a, g] = fc1(x) (mamba_ssm/modules/mlp.py); the hidden width is
 * rounded up to a multiple of 128.
 */
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
