/**
 * The optimizer's two kernels: the square of the gradient norm, summed over many tensors into one scalar on
 * the device, and the AdamW update that clips by it. Nothing is read back. Not differentiable.
 */
import { kernelOf } from '../backend/backend.ts';
import { expectShape } from '../base/shape.ts';
import { requireF32 } from '../tensor/raw.ts';
import { Tensor } from '../tensor/tensor.ts';

/** Sum of the squares of all elements of all tensors, a scalar, added up in float64 within each tensor. */
export function sumOfSquares(tensors: readonly Tensor[], device = tensors[0]?.device): Tensor {
  const y = Tensor.zeros([], { device });
  for (const x of tensors) {
    requireF32('sumOfSquares', x, y);
    if (x.size > 0) kernelOf(x.device, 'sumSquares')({ x, y, count: x.size, accumulate: 1 });
  }
  return y;
}

export interface AdamWStep {
  lr: number;
  beta1: number;
  beta2: number;
  eps: number;
  weightDecay: number;
  /** The number of this step, from 1. */
  step: number;
  /** Scales the gradient by min(1, maxNorm / sqrt(sumSquares)); null leaves it alone. */
  clip: { sumSquares: Tensor; maxNorm: number } | null;
}

/**
 * One update of `param` and its moments `m` and `v`, all in place (Loshchilov and
 * Hutter 2019, with bias correction).
 */
export function adamwStep(param: Tensor, grad: Tensor, m: Tensor, v: Tensor, options: AdamWStep): void {
  for (const [name, tensor] of Object.entries({ grad, m, v }))
    expectShape('adamw', name, tensor.shape, param.shape);
  requireF32('adamw', param, grad, m, v);
  if (param.size === 0) return;
  const { lr, beta1, beta2, eps, weightDecay, step, clip } = options;
  kernelOf(
    param.device,
    'adamw',
  )({
    param,
    grad,
    m,
    v,
    sumSquares: clip?.sumSquares ?? null,
    count: param.size,
    lr,
    beta1,
    beta2,
    eps,
    weightDecay,
    correction1: 1 - beta1 ** step,
    correction2: 1 - beta2 ** step,
    maxNorm: clip?.maxNorm ?? 0,
  });
}
