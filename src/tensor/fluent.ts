/**
 * Attaches the primitives to Tensor as methods, so that `x.add(y).sum()` reads well. The one
 * place that extends its prototype.
 */
import type { DType } from '../base/dtype.ts';
import type { Shape } from '../base/shape.ts';
import * as p from './primitives.ts';
import { backward } from './tape.ts';
import { Tensor } from './tensor.ts';

declare module './tensor.ts' {
  interface Tensor {
    add(b: p.Operand): Tensor;
    sub(b: p.Operand): Tensor;
    mul(b: p.Operand): Tensor;
    div(b: p.Operand): Tensor;
    neg(): Tensor;
    exp(): Tensor;
    log(): Tensor;
    sigmoid(): Tensor;
    silu(): Tensor;
    softplus(): Tensor;
    sum(axis?: number, keepDim?: boolean): Tensor;
    mean(axis?: number, keepDim?: boolean): Tensor;
    argmax(axis: number): Tensor;
    matmul(b: Tensor): Tensor;
    reshape(shape: Shape): Tensor;
    permute(axes: readonly number[]): Tensor;
    transpose(): Tensor;
    slice(axis: number, start: number, end?: number): Tensor;
    cast(dtype: DType): Tensor;
    /** Propagates gradients to the leaves; see tape.ts. */
    backward(gradient?: Tensor): void;
  }
}

const methods = {
  add: p.add,
  sub: p.sub,
  mul: p.mul,
  div: p.div,
  neg: p.neg,
  exp: p.exp,
  log: p.log,
  sigmoid: p.sigmoid,
  silu: p.silu,
  softplus: p.softplus,
  sum: p.sum,
  mean: p.mean,
  argmax: p.argmax,
  matmul: p.matmul,
  reshape: p.reshape,
  permute: p.permute,
  transpose: p.transpose,
  slice: p.slice,
  cast: p.cast,
  backward,
};

for (const [name, fn] of Object.entries(methods)) {
  Object.defineProperty(Tensor.prototype, name, {
    value(this: Tensor, ...rest: unknown[]) {
      return (fn as (x: Tensor, ...rest: unknown[]) => unknown)(this, ...rest);
    },
    writable: true,
    configurable: true,
  });
}
