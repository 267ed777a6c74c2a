/**
 * Initial values of parameters, each with its source. Without an `rng` they are left out,
 * for a checkpoint to be loaded.
 */
import type { Rng } from '../base/rng.ts';
import { type Shape, sizeOf } from '../base/shape.ts';
import { keep } from '../tensor/scope.ts';
import { Tensor, type TensorOptions } from '../tensor/tensor.ts';

/** Makes parameters: from `rng`, or uninitialised and without memory when it is null. */
export interface Init {
  rng: Rng | null;
  /** Receives the values of the vectors among the parameters: a cheap identity of the weights. */
  samples: Float32Array[];
  /** Of embeddings, default 0.02. */
  embeddingStd?: number;
  /** The current device when omitted. */
  device?: TensorOptions['device'];
}

/** A parameter of the given shape whose elements come from `value(index)`. */
export function parameter(init: Init, shape: Shape, value: (rng: Rng, index: number) => number): Tensor {
  const { rng, device } = init;
  const tensor = keep(rng ? Tensor.empty(shape, 'f32', device) : Tensor.deferred(shape, 'f32', device));
  if (rng) {
    const host = Float32Array.from({ length: sizeOf(shape) }, (_, i) => value(rng, i));
    tensor.write(host);
    if (shape.length === 1) init.samples.push(host);
  }
  tensor.requiresGrad = true;
  return tensor;
}

/** U(-bound, bound). PyTorch's Linear and Conv1d defaults are bound = 1 / sqrt(fan_in). */
export function uniformParameter(init: Init, shape: Shape, bound: number): Tensor {
  return parameter(init, shape, (rng) => rng.uniform(-bound, bound));
}

export function constantParameter(init: Init, shape: Shape, value: number): Tensor {
  return parameter(init, shape, () => value);
}

/** N(0, std^2); embeddings use std 0.02 (mamba_ssm/models/mixer_seq_simple.py, _init_weights). */
export function normalParameter(init: Init, shape: Shape, std: number): Tensor {
  return parameter(init, shape, (rng) => std * rng.normal());
}

/** log(1..n) in every row: S4D-real (Gu et al. 2022), mamba_simple.py. Shape (e, n). */
export function aLogParameter(init: Init, e: number, n: number): Tensor {
  return parameter(init, [e, n], (_, i) => Math.log((i % n) + 1));
}

/**
 * The bias of dt_proj: the inverse softplus of step sizes log-uniform in [dtMin, dtMax], at least
 * `floor` (mamba_simple.py). Shape (e).
 */
export function dtBiasParameter(init: Init, e: number, dtMin: number, dtMax: number, floor: number): Tensor {
  return parameter(init, [e], (rng) => {
    const dt = Math.max(Math.exp(rng.float() * (Math.log(dtMax) - Math.log(dtMin)) + Math.log(dtMin)), floor);
    return dt + Math.log(-Math.expm1(-dt));
  });
}
