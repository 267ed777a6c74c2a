/**
 * Every gradient rule of the primitives, in one table. `d` is the gradient of the output; a rule returns the
 * gradients of the inputs in order. Fused operations keep their rules in their own files (ops/).
 */
import type { Backend } from '../backend/backend.ts';
import type { UnaryOp } from '../backend/kernels.ts';
import { type Shape, sizeOf, stridesOf } from '../base/shape.ts';
import * as raw from './raw.ts';
import type { Tensor } from './tensor.ts';

const { affine, binary, broadcastTo, sumTo } = raw;

/** 1 where a and b select this operand, 1/2 on ties: (sign(a - b) + 1) / 2 through min/max arithmetic. */
function share(op: 'max' | 'min', a: Tensor, b: Tensor): Tensor {
  const difference = op === 'max' ? binary('sub', a, b) : binary('sub', b, a);
  const huge = affine(difference, 1e38, 0.5);
  const zero = raw.full([], 0, a.device);
  const one = raw.full([], 1, a.device);
  return binary('min', binary('max', huge, zero), one);
}

/** 1 where a difference that is never positive is zero, else 0. */
function atLeast(difference: Tensor): Tensor {
  return binary('max', affine(difference, 1e38, 1), raw.full([], 0, difference.device));
}

export const GRADS = {
  add: (d: Tensor, a: Shape, b: Shape) => [sumTo(d, a), sumTo(d, b)],
  sub: (d: Tensor, a: Shape, b: Shape) => [sumTo(d, a), sumTo(raw.unary('neg', d), b)],
  mul: (d: Tensor, a: Tensor, b: Tensor, needs: readonly boolean[]) => [
    needs[0] ? sumTo(binary('mul', d, b), a.shape) : null,
    needs[1] ? sumTo(binary('mul', d, a), b.shape) : null,
  ],
  div: (d: Tensor, a: Tensor, b: Tensor, needs: readonly boolean[]) => {
    const da = binary('div', d, b);
    const db = () => raw.unary('neg', binary('mul', da, binary('div', a, b)));
    return [sumTo(da, a.shape), needs[1] ? sumTo(db(), b.shape) : null];
  },
  /** max and min: ties share the gradient equally. */
  select: (op: 'max' | 'min', d: Tensor, a: Tensor, b: Tensor) => {
    const left = share(op, a, b);
    const right = affine(left, -1, 1);
    return [sumTo(binary('mul', d, left), a.shape), sumTo(binary('mul', d, right), b.shape)];
  },
  /** y = clamp(x): d where y is x. */
  clamp: (d: Tensor, x: Tensor, y: Tensor) => {
    const distance = raw.unary('abs', binary('sub', x, y));
    return [binary('mul', d, atLeast(raw.unary('neg', distance)))];
  },
  unary: (op: UnaryOp, d: Tensor, x: Tensor, y: Tensor) => [raw.unaryGrad(op, x, y, d)],
  affine: (d: Tensor, scale: number) => [affine(d, scale, 0)],
  reshape: (d: Tensor, x: Shape) => [d.alias(x)],
  /** Sum over one axis: every element of the axis gets d. */
  sum: (d: Tensor, x: Shape, axis: number) => {
    const kept = x.map((extent, i) => (i === axis ? 1 : extent));
    return [broadcastTo(d.alias(kept), x)];
  },
  /** Largest element of one axis: those that are equal to it share d. */
  amax: (d: Tensor, x: Tensor, y: Tensor, axis: number) => {
    const kept = x.shape.map((extent, i) => (i === axis ? 1 : extent));
    const isLargest = atLeast(binary('sub', x, y.alias(kept)));
    const each = binary('div', d.alias(kept), raw.reduce('sum', isLargest, axis).alias(kept));
    return [binary('mul', isLargest, each)];
  },
  broadcastTo: (d: Tensor, x: Shape) => [sumTo(d, x)],
  permute: (d: Tensor, axes: readonly number[]) => {
    const inverse = axes.map((_, i) => axes.indexOf(i));
    return [raw.permute(d, inverse)];
  },
  slice: (d: Tensor, x: Shape, axis: number, start: number) => {
    const dx = raw.full(x, 0, d.device);
    const strides = stridesOf(x);
    raw.scatterStrided(d, dx, strides, start * strides[axis]!, false);
    return [dx];
  },
  split: (ds: readonly (Tensor | null)[], shapes: readonly Shape[], axis: number, device: Backend) => [
    raw.concat(
      ds.map((d, i) => d ?? raw.full(shapes[i]!, 0, device)),
      axis,
    ),
  ],
  concat: (d: Tensor, extents: readonly number[], axis: number) => {
    let at = 0;
    return extents.map((extent) => {
      at += extent;
      return raw.slice(d, axis, at - extent, at);
    });
  },
  /**
   * Adds to `sum`, the gradient that the table has already, where there is one: a
   * table may be far larger than d.
   */
  gatherRows: (d: Tensor, table: Shape, ids: Tensor, sum: Tensor | null) => {
    const dtable = sum ?? raw.full(table, 0, d.device);
    raw.scatterAddRows(d, ids, dtable);
    return [dtable];
  },
  /** c = a b. With a shared (unbatched) b, the batch is one long product. */
  matmul: (d: Tensor, a: Tensor, b: Tensor, needs: readonly boolean[]) => {
    const shared = a.shape.length === 3 && b.shape.length === 2;
    const flat = (x: Tensor) => x.alias([sizeOf(x.shape) / x.shape.at(-1)!, x.shape.at(-1)!]);
    const db = () =>
      shared ? raw.matmul(flat(a), flat(d), { transA: true }) : raw.matmul(a, d, { transA: true });
    return [needs[0] ? raw.matmul(d, b, { transB: true }) : null, needs[1] ? db() : null];
  },
};
