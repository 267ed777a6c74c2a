/**
 * The primitive operations: check, dispatch, record. Everything fused in ops/ has a twin composed from these.
 * All results are new tensors; float32 unless said otherwise.
 */
import { UNARY, type UnaryOp } from '../backend/kernels.ts';
import type { DType } from '../base/dtype.ts';
import { ConfigError, DTypeError, ShapeError } from '../base/errors.ts';
import { axisOf, broadcastShapes, type Shape, sameShape, showShape, sizeOf } from '../base/shape.ts';
import { GRADS } from './grads.ts';
import * as raw from './raw.ts';
import { record } from './tape.ts';
import { Tensor } from './tensor.ts';

export type Operand = Tensor | number;

function asTensor(x: Operand, like: Tensor): Tensor {
  return x instanceof Tensor ? x : raw.full([], x, like.device);
}

/** a + b with broadcasting. */
export function add(a: Tensor, b: Operand): Tensor {
  if (typeof b === 'number') return affine(a, 1, b);
  const y = raw.binary('add', a, b);
  record('add', [a, b], [y], {}, ([d]) => GRADS.add(d!, a.shape, b.shape));
  return y;
}

/** a - b with broadcasting. */
export function sub(a: Tensor, b: Operand): Tensor {
  if (typeof b === 'number') return affine(a, 1, -b);
  const y = raw.binary('sub', a, b);
  record('sub', [a, b], [y], {}, ([d]) => GRADS.sub(d!, a.shape, b.shape));
  return y;
}

/** a * b with broadcasting. */
export function mul(a: Tensor, b: Operand): Tensor {
  if (typeof b === 'number') return affine(a, b, 0);
  const y = raw.binary('mul', a, b);
  record('mul', [a, b], [y], { a, b }, ([d], saved, needs) => GRADS.mul(d!, saved.a, saved.b, needs));
  return y;
}

/** a / b with broadcasting. */
export function div(a: Tensor, b: Operand): Tensor {
  if (typeof b === 'number') return affine(a, 1 / b, 0);
  const y = raw.binary('div', a, b);
  record('div', [a, b], [y], { a, b }, ([d], saved, needs) => GRADS.div(d!, saved.a, saved.b, needs));
  return y;
}

/** The larger of a and b, elementwise with broadcasting; ties share the gradient. */
export function maximum(a: Tensor, b: Operand): Tensor {
  return select('max', a, asTensor(b, a));
}

/** The smaller of a and b, elementwise with broadcasting; ties share the gradient. */
export function minimum(a: Tensor, b: Operand): Tensor {
  return select('min', a, asTensor(b, a));
}

function select(op: 'max' | 'min', a: Tensor, b: Tensor): Tensor {
  const y = raw.binary(op, a, b);
  record(op, [a, b], [y], { a, b }, ([d], saved) => GRADS.select(op, d!, saved.a, saved.b));
  return y;
}

/**
 * x within [low, high], which may be infinite. Outside there is no gradient, at the borders all of it, as in
 * torch.clamp.
 */
export function clamp(x: Tensor, low: number, high: number): Tensor {
  if (!(low <= high)) throw new ConfigError(`clamp: expected low <= high, got [${low}, ${high}].`);
  const y = raw.binary('min', raw.binary('max', x, asTensor(low, x)), asTensor(high, x));
  record('clamp', [x], [y], { x, y }, ([d], saved) => GRADS.clamp(d!, saved.x, saved.y));
  return y;
}

/** x * scale + shift. */
export function affine(x: Tensor, scale: number, shift: number): Tensor {
  const y = raw.affine(x, scale, shift);
  record('affine', [x], [y], {}, ([d]) => GRADS.affine(d!, scale));
  return y;
}

/** Applies one of UNARY elementwise. */
export function unary(op: UnaryOp, x: Tensor): Tensor {
  if (!UNARY.includes(op))
    throw new ShapeError(`unary: expected one of ${UNARY.join(', ')}, got ${String(op)}.`);
  const y = raw.unary(op, x);
  record(op, [x], [y], { x, y }, ([d], saved) => GRADS.unary(op, d!, saved.x, saved.y));
  return y;
}

export const neg = (x: Tensor): Tensor => unary('neg', x);
export const exp = (x: Tensor): Tensor => unary('exp', x);
export const log = (x: Tensor): Tensor => unary('log', x);
export const sigmoid = (x: Tensor): Tensor => unary('sigmoid', x);
export const silu = (x: Tensor): Tensor => unary('silu', x);
export const softplus = (x: Tensor): Tensor => unary('softplus', x);

/** Sum over one axis, or over everything when `axis` is omitted. */
export function sum(x: Tensor, axis?: number, keepDim = false): Tensor {
  if (axis === undefined) return sum(reshape(x, [x.size]), 0);
  const at = axisOf('sum', axis, x.shape.length);
  const y = raw.reduce('sum', x, at);
  record('sum', [x], [y], {}, ([d]) => GRADS.sum(d!, x.shape, at));
  return keepDim
    ? reshape(
        y,
        x.shape.map((extent, i) => (i === at ? 1 : extent)),
      )
    : y;
}

/** Mean over one axis, or over everything. */
export function mean(x: Tensor, axis?: number, keepDim = false): Tensor {
  const count = axis === undefined ? x.size : x.shape[axisOf('mean', axis, x.shape.length)]!;
  return mul(sum(x, axis, keepDim), 1 / count);
}

/** The largest element along an axis; equal ones share the gradient. */
export function amax(x: Tensor, axis: number): Tensor {
  const at = axisOf('amax', axis, x.shape.length);
  const y = raw.reduce('max', x, at);
  record('amax', [x], [y], { x, y }, ([d], saved) => GRADS.amax(d!, saved.x, saved.y, at));
  return y;
}

/** Index of the first largest element along an axis, as i32. */
export function argmax(x: Tensor, axis: number): Tensor {
  return raw.argmax(x, axisOf('argmax', axis, x.shape.length));
}

/** The same elements under another shape; one extent may be -1. */
export function reshape(x: Tensor, shape: Shape): Tensor {
  const known = shape.reduce((size, extent) => (extent === -1 ? size : size * extent), 1);
  const resolved = shape.map((extent) => (extent === -1 ? x.size / known : extent));
  if (sizeOf(resolved) !== x.size || resolved.some((extent) => !Number.isInteger(extent) || extent < 0)) {
    throw new ShapeError(
      `reshape: expected ${x.size} elements, got ${showShape(shape)} from ${showShape(x.shape)}.`,
    );
  }
  const y = x.alias(resolved);
  record('reshape', [x.dtype === 'f32' ? x : null], [y], {}, ([d]) => GRADS.reshape(d!, x.shape));
  return y;
}

/** Repeats x along broadcast axes until it has `shape`. */
export function broadcastTo(x: Tensor, shape: Shape): Tensor {
  if (!sameShape(broadcastShapes('broadcastTo', x.shape, shape), shape)) {
    throw new ShapeError(
      `broadcastTo: expected a shape that ${showShape(x.shape)} broadcasts to, got ${showShape(shape)}.`,
    );
  }
  const y = raw.broadcastTo(x, shape);
  record('broadcastTo', [x], [y], {}, ([d]) => GRADS.broadcastTo(d!, x.shape));
  return y;
}

/** Reorders the axes: output axis i is input axis axes[i]. */
export function permute(x: Tensor, axes: readonly number[]): Tensor {
  const order = axes.map((axis) => axisOf('permute', axis, x.shape.length));
  if (order.length !== x.shape.length || new Set(order).size !== order.length) {
    throw new ShapeError(`permute: expected each of ${x.shape.length} axes once, got [${axes.join(', ')}].`);
  }
  const y = raw.permute(x, order);
  record('permute', [x.dtype === 'f32' ? x : null], [y], {}, ([d]) => GRADS.permute(d!, order));
  return y;
}

/** Swaps the last two axes. */
export function transpose(x: Tensor): Tensor {
  const rank = x.shape.length;
  const axes = x.shape.map((_, i) => (i === rank - 1 ? rank - 2 : i === rank - 2 ? rank - 1 : i));
  return permute(x, axes);
}

/** Elements [start, end) along an axis; negative bounds count from the end. A view on axis 0. */
export function slice(x: Tensor, axis: number, start: number, end = x.shape.at(axis) ?? 0): Tensor {
  const at = axisOf('slice', axis, x.shape.length);
  const extent = x.shape[at]!;
  const from = start < 0 ? start + extent : start;
  const to = end < 0 ? end + extent : end;
  if (!(from >= 0 && from <= to && to <= extent)) {
    throw new ShapeError(
      `slice: expected 0 <= start <= end <= ${extent} on axis ${axis}, got [${start}, ${end}).`,
    );
  }
  const y = raw.slice(x, at, from, to);
  record('slice', [x.dtype === 'f32' ? x : null], [y], {}, ([d]) => GRADS.slice(d!, x.shape, at, from));
  return y;
}

/** Consecutive parts of the given extents along an axis, each contiguous: slices with one gradient. */
export function split(x: Tensor, axis: number, extents: readonly number[]): Tensor[] {
  const at = axisOf('split', axis, x.shape.length);
  if (extents.reduce((a, b) => a + b, 0) !== x.shape[at])
    throw new ShapeError(
      `split: expected extents that add up to ${x.shape[at]}, got [${extents.join(', ')}].`,
    );
  let end = 0;
  const parts = extents.map((extent) => {
    end += extent;
    return raw.slice(x, at, end - extent, end);
  });
  const shapes = parts.map(({ shape }) => shape);
  const { device } = x; // x itself may be gone by then
  record('split', [x.dtype === 'f32' ? x : null], parts, {}, (ds) => GRADS.split(ds, shapes, at, device));
  return parts;
}

/** Joins tensors along an axis; other extents must agree. */
export function concat(parts: readonly Tensor[], axis: number): Tensor {
  const first = parts[0];
  if (!first) throw new ShapeError('concat: expected at least one tensor, got none.');
  const at = axisOf('concat', axis, first.shape.length);
  for (const part of parts) {
    if (part.dtype !== first.dtype)
      throw new DTypeError(`concat: expected ${first.dtype}, got ${part.dtype}.`);
    const fits =
      part.shape.length === first.shape.length &&
      part.shape.every((n, i) => i === at || n === first.shape[i]);
    if (!fits) {
      throw new ShapeError(
        `concat: expected shapes equal but for axis ${axis}, got ${showShape(first.shape)} and ${showShape(part.shape)}.`,
      );
    }
  }
  const y = raw.concat(parts, at);
  const extents = parts.map((part) => part.shape[at]!);
  record('concat', first.dtype === 'f32' ? parts : [], [y], {}, ([d]) => GRADS.concat(d!, extents, at));
  return y;
}

/** Joins tensors of one shape along a new axis. */
export function stack(parts: readonly Tensor[], axis: number): Tensor {
  return concat(
    parts.map((part) => reshape(part, part.shape.toSpliced(axis, 0, 1))),
    axis,
  );
}

/**
 * Rows of `table` (rows, d), which may be narrow, chosen by `ids` (any shape, i32) ->
 * (..., d) f32. Ids must be in range.
 */
export function gatherRows(table: Tensor, ids: Tensor): Tensor {
  if (ids.dtype !== 'i32') throw new DTypeError(`gatherRows: expected i32 ids, got ${ids.dtype}.`);
  table.dims(2);
  raw.requireFrozen('gatherRows', table);
  const y = raw.gatherRows(table, ids);
  record('gatherRows', [table], [y], { ids }, ([d], saved, _needs, [sum]) =>
    GRADS.gatherRows(d!, table.shape, saved.ids, sum ?? null),
  );
  return y;
}

/** a (m, k) or (batch, m, k) times b (k, n) or (batch, k, n). */
export function matmul(a: Tensor, b: Tensor): Tensor {
  raw.requireF32('matmul', a, b);
  const ranks =
    a.shape.length >= 2 && a.shape.length <= 3 && b.shape.length >= 2 && b.shape.length <= a.shape.length;
  const fits =
    ranks && a.shape.at(-1) === b.shape.at(-2) && (b.shape.length === 2 || a.shape[0] === b.shape[0]);
  if (!fits) {
    throw new ShapeError(
      `matmul: expected (batch?, m, k) and (batch?, k, n), got ${showShape(a.shape)} and ${showShape(b.shape)}.`,
    );
  }
  const y = raw.matmul(a, b);
  record('matmul', [a, b], [y], { a, b }, ([d], saved, needs) => GRADS.matmul(d!, saved.a, saved.b, needs));
  return y;
}

/**
 * Widens the storage types to f32 (exactly), or rounds f32 to bf16 or f16 (to
 * nearest even). Not differentiable.
 */
export function cast(x: Tensor, dtype: DType): Tensor {
  return raw.cast(x, dtype);
}
