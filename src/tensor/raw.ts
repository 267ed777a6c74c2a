/**
 * Dispatch without recording: shape arithmetic, output allocation and the kernel call of each primitive.
 * Gradient rules (grads.ts) compute with these; primitives.ts adds the checks and the tape.
 */
import { type Backend, kernelOf } from '../backend/backend.ts';
import { BINARY, type BinaryOp, NARROW, UNARY, type UnaryOp } from '../backend/kernels.ts';
import { type DType, LAYOUTS, type NarrowDType } from '../base/dtype.ts';
import { DTypeError, ShapeError, UnsupportedError } from '../base/errors.ts';
import {
  broadcastShapes,
  broadcastStrides,
  type Shape,
  sameShape,
  sizeOf,
  stridesOf,
} from '../base/shape.ts';
import { isNarrow } from '../base/weight-types.ts';
import { PRECISIONS, type Precision } from './precision.ts';
import { Tensor } from './tensor.ts';

export function full(shape: Shape, value: number, device: Backend): Tensor {
  const y = Tensor.empty(shape, 'f32', device);
  if (y.size > 0) kernelOf(device, 'fill')({ y, value, count: y.size });
  return y;
}

export function requireF32(op: string, ...operands: Tensor[]): void {
  for (const x of operands) {
    if (x.dtype !== 'f32')
      throw new DTypeError(`${op}: expected f32 operands, got ${x.dtype}. Cast it first.`);
    requireDevice(op, operands[0]!, x);
  }
}

function requireDevice(op: string, a: Tensor, b: Tensor): void {
  if (a.device === b.device) return;
  throw new UnsupportedError(
    `${op}: expected operands on one device, got ${a.device.name} and ${b.device.name}. Copy one over.`,
  );
}

/** A weight may be narrow, as long as nobody wants its gradient. */
export function requireWeight(op: string, x: Tensor, weight: Tensor): void {
  requireF32(op, ...(isNarrow(weight.dtype) ? [x] : [x, weight]));
  requireDevice(op, x, weight);
  requireFrozen(op, weight);
}

/** Throws UnsupportedError for a narrow tensor that collects gradients. */
export function requireFrozen(op: string, weight: Tensor): void {
  if (!isNarrow(weight.dtype) || !weight.tracksGrad) return;
  throw new UnsupportedError(
    `${op}: expected f32 weights for training, got ${weight.dtype}. Load the model with weights: 'f32'.`,
  );
}

/** Kernels that move elements move 32-bit ones. */
function requireWords(op: string, x: Tensor): void {
  if (isNarrow(x.dtype)) throw new DTypeError(`${op}: expected f32 or i32, got ${x.dtype}. Cast it first.`);
}

export function unary(op: UnaryOp, x: Tensor): Tensor {
  requireF32(op, x);
  const y = Tensor.empty(x.shape, 'f32', x.device);
  if (x.size > 0) kernelOf(x.device, 'unary')({ op: UNARY.indexOf(op), x, y, count: x.size });
  return y;
}

export function unaryGrad(op: UnaryOp, x: Tensor, y: Tensor, dy: Tensor): Tensor {
  const dx = Tensor.empty(x.shape, 'f32', x.device);
  if (x.size > 0) kernelOf(x.device, 'unaryGrad')({ op: UNARY.indexOf(op), x, y, dy, dx, count: x.size });
  return dx;
}

/** Merges neighbouring axes that all operands walk contiguously, then pads with leading ones to `rank`. */
function collapse(
  op: string,
  rank: number,
  shape: Shape,
  strides: readonly number[][],
): { dims: number[]; strides: number[][] } {
  const dims: number[] = [];
  const merged: number[][] = strides.map(() => []);
  for (let i = 0; i < shape.length; i++) {
    const extent = shape[i]!;
    if (extent === 1) continue;
    const last = dims.length - 1;
    const joins = last >= 0 && strides.every((s, j) => merged[j]![last] === s[i]! * extent);
    if (joins) {
      dims[last]! *= extent;
      strides.forEach((s, j) => {
        merged[j]![last] = s[i]!;
      });
    } else {
      dims.push(extent);
      strides.forEach((s, j) => {
        merged[j]!.push(s[i]!);
      });
    }
  }
  if (dims.length > rank) {
    throw new UnsupportedError(
      `${op}: expected at most ${rank} separate axes, got ${dims.length}. Reshape to fewer axes.`,
    );
  }
  const pad = rank - dims.length;
  return {
    dims: [...new Array<number>(pad).fill(1), ...dims],
    strides: merged.map((s) => [...new Array<number>(pad).fill(0), ...s]),
  };
}

export function binary(op: BinaryOp, a: Tensor, b: Tensor): Tensor {
  requireF32(op, a, b);
  const shape = broadcastShapes(op, a.shape, b.shape);
  const y = Tensor.empty(shape, 'f32', a.device);
  if (y.size === 0) return y;
  const { dims, strides } = collapse(op, 4, shape, [
    broadcastStrides(a.shape, shape),
    broadcastStrides(b.shape, shape),
  ]);
  const [d0, d1, d2, d3] = dims as [number, number, number, number];
  const [a0, a1, a2, a3] = strides[0] as [number, number, number, number];
  const [b0, b1, b2, b3] = strides[1] as [number, number, number, number];
  kernelOf(
    a.device,
    'binary',
  )({ op: BINARY.indexOf(op), a, b, y, d0, d1, d2, d3, a0, a1, a2, a3, b0, b1, b2, b3 });
  return y;
}

/** x * scale + shift. */
export function affine(x: Tensor, scale: number, shift: number): Tensor {
  requireF32('affine', x);
  const y = Tensor.empty(x.shape, 'f32', x.device);
  if (x.size > 0) kernelOf(x.device, 'affine')({ x, y, scale, shift, count: x.size });
  return y;
}

/** y += alpha * x, in place. */
export function axpy(x: Tensor, y: Tensor, alpha: number): void {
  if (x.size > 0) kernelOf(x.device, 'axpy')({ x, y, alpha, count: x.size });
}

type Reduction = 'sum' | 'max';

/** Reduces one axis, which is removed. */
export function reduce(op: Reduction, x: Tensor, axis: number): Tensor {
  requireF32(op, x);
  const { outer, extent, inner, shape } = splitAxis(x.shape, axis);
  if (op === 'max' && extent === 0) throw new ShapeError('max: expected a non-empty axis, got 0 elements.');
  const y = Tensor.empty(shape, 'f32', x.device);
  if (y.size > 0) kernelOf(x.device, op)({ x, y, outer, axis: extent, inner });
  return y;
}

export function argmax(x: Tensor, axis: number): Tensor {
  requireF32('argmax', x);
  const { outer, extent, inner, shape } = splitAxis(x.shape, axis);
  if (extent === 0) throw new ShapeError('argmax: expected a non-empty axis, got 0 elements.');
  const y = Tensor.empty(shape, 'i32', x.device);
  if (y.size > 0) kernelOf(x.device, 'argmax')({ x, y, outer, axis: extent, inner });
  return y;
}

function splitAxis(
  shape: Shape,
  axis: number,
): { outer: number; extent: number; inner: number; shape: number[] } {
  return {
    outer: sizeOf(shape.slice(0, axis)),
    extent: shape[axis]!,
    inner: sizeOf(shape.slice(axis + 1)),
    shape: [...shape.slice(0, axis), ...shape.slice(axis + 1)],
  };
}

/** Sums a broadcast gradient back to the shape of its operand. */
export function sumTo(x: Tensor, shape: Shape): Tensor {
  if (sameShape(x.shape, shape)) return x;
  let y = x;
  while (y.shape.length > shape.length) y = reduce('sum', y, 0);
  shape.forEach((extent, axis) => {
    if (extent === 1 && y.shape[axis] !== 1) {
      const kept = [...y.shape];
      kept[axis] = 1;
      y = reduce('sum', y, axis).alias(kept);
    }
  });
  return y;
}

type Six = [number, number, number, number, number, number];

/** y (shape), contiguous, read from x with element strides starting `start` elements in. */
export function gatherStrided(x: Tensor, shape: Shape, strides: readonly number[], start = 0): Tensor {
  requireWords('copy', x);
  const y = Tensor.empty(shape, x.dtype, x.device);
  if (y.size === 0) return y;
  const { dims, strides: merged } = collapse('copy', 6, shape, [[...strides]]);
  const [d0, d1, d2, d3, d4, d5] = dims as Six;
  const [s0, s1, s2, s3, s4, s5] = merged[0] as Six;
  const from = { storage: x.storage, offset: x.offset + start };
  kernelOf(x.device, 'copy')({ x: from, y, d0, d1, d2, d3, d4, d5, s0, s1, s2, s3, s4, s5 });
  return y;
}

/** Writes contiguous x into y at element strides from `start`; adds when `accumulate`. */
export function scatterStrided(
  x: Tensor,
  y: Tensor,
  strides: readonly number[],
  start: number,
  accumulate: boolean,
): void {
  requireWords('copy', x);
  if (x.size === 0) return;
  const { dims, strides: merged } = collapse('scatter', 6, x.shape, [[...strides]]);
  const [d0, d1, d2, d3, d4, d5] = dims as Six;
  const [s0, s1, s2, s3, s4, s5] = merged[0] as Six;
  const to = { storage: y.storage, offset: y.offset + start };
  kernelOf(
    x.device,
    'scatter',
  )({
    x,
    y: to,
    d0,
    d1,
    d2,
    d3,
    d4,
    d5,
    s0,
    s1,
    s2,
    s3,
    s4,
    s5,
    accumulate: accumulate ? 1 : 0,
  }); // prettier-ignore
}

export function permute(x: Tensor, axes: readonly number[]): Tensor {
  const strides = stridesOf(x.shape);
  return gatherStrided(
    x,
    axes.map((axis) => x.shape[axis]!),
    axes.map((axis) => strides[axis]!),
  );
}

/** Elements [start, end) along an axis: a view on axis 0, else a copy. */
export function slice(x: Tensor, axis: number, start: number, end: number): Tensor {
  const shape = x.shape.map((extent, i) => (i === axis ? end - start : extent));
  const strides = stridesOf(x.shape);
  if (LAYOUTS[x.dtype].block > 1)
    throw new DTypeError(`slice: expected single elements, got blocks of ${x.dtype}. Cast it first.`);
  if (axis === 0) return x.alias(shape, x.offset + start * strides[0]!);
  return gatherStrided(x, shape, strides, start * strides[axis]!);
}

export function broadcastTo(x: Tensor, shape: Shape): Tensor {
  return gatherStrided(x, shape, broadcastStrides(x.shape, shape));
}

export function concat(parts: readonly Tensor[], axis: number): Tensor {
  const first = parts[0]!;
  const shape = first.shape.map((extent, i) =>
    i === axis ? parts.reduce((sum, p) => sum + p.shape[axis]!, 0) : extent,
  );
  const y = Tensor.empty(shape, first.dtype, first.device);
  const strides = stridesOf(shape);
  let at = 0;
  for (const part of parts) {
    scatterStrided(part, y, strides, at * strides[axis]!, false);
    at += part.shape[axis]!;
  }
  return y;
}

/** y (..., d) = table (rows, d)[ids], as float32. Ids must be in range. */
export function gatherRows(table: Tensor, ids: Tensor): Tensor {
  const [rows, d] = table.dims(2);
  const y = Tensor.empty([...ids.shape, d], 'f32', table.device);
  const args = { table, ids, y, count: ids.size, rows, d };
  if (y.size === 0) return y;
  if (!isNarrow(table.dtype)) kernelOf(table.device, 'gatherRows')(args);
  else kernelOf(table.device, 'gatherRowsNarrow')({ ...args, format: NARROW.indexOf(table.dtype) });
  return y;
}

/** table[ids] += x, in place. */
export function scatterAddRows(x: Tensor, ids: Tensor, table: Tensor): void {
  const [rows, d] = table.dims(2);
  if (x.size > 0) kernelOf(table.device, 'scatterAddRows')({ x, ids, table, count: ids.size, rows, d });
}

export interface MatmulOptions {
  transA?: boolean;
  transB?: boolean;
  bias?: Tensor | null;
  /** Adds into this tensor instead of making one. */
  into?: { c: Tensor; offset: number; accumulate: boolean };
  /** Default f32. */
  precision?: Exclude<Precision, 'int8'>;
}

/** (batch?, m, n) = op(a) op(b): rank 2, or rank 3 with a batch axis that may be missing on b. No checks. */
export function matmul(a: Tensor, b: Tensor, options: MatmulOptions = {}): Tensor {
  const { transA = false, transB = false, bias = null, into, precision = 'f32' } = options;
  const batched = a.shape.length === 3;
  const batch = batched ? a.shape[0]! : 1;
  const [ar, ac] = a.shape.slice(-2) as [number, number];
  const [br, bc] = b.shape.slice(-2) as [number, number];
  const m = transA ? ac : ar;
  const k = transA ? ar : ac;
  const n = transB ? br : bc;
  const c = into?.c ?? Tensor.empty(batched ? [batch, m, n] : [m, n], 'f32', a.device);
  if (m * n * batch === 0) return c;
  kernelOf(
    a.device,
    'matmul',
  )({
    a,
    b,
    c: into ? { storage: c.storage, offset: c.offset + into.offset } : c,
    bias,
    batch,
    m,
    n,
    k,
    transA: transA ? 1 : 0,
    transB: transB ? 1 : 0,
    strideA: ar * ac,
    strideB: b.shape.length === 3 ? br * bc : 0,
    strideC: m * n,
    accumulate: into?.accumulate ? 1 : 0,
    precision: PRECISIONS.indexOf(precision),
  });
  return c;
}

/** c (m, n) = a (m, k) w[row .. row + n]^T + bias (n), w (rows, k) being narrow. No checks. */
export function linearNarrow(
  a: Tensor,
  w: Tensor,
  row: number,
  n: number,
  options: { bias: Tensor | null; precision: Precision },
): Tensor {
  const [m, k] = a.dims(2);
  const c = Tensor.empty([m, n], 'f32', a.device);
  const format = NARROW.indexOf(w.dtype as NarrowDType);
  const { bias } = options;
  const precision = PRECISIONS.indexOf(options.precision);
  if (c.size > 0) kernelOf(a.device, 'linearNarrow')({ a, w, c, bias, m, n, k, format, row, precision });
  return c;
}

/** Narrow -> f32, f32 -> bf16/f16. */
export function cast(x: Tensor, dtype: DType): Tensor {
  if (x.dtype === dtype) return x.alias();
  if (dtype === 'f32' ? !isNarrow(x.dtype) : x.dtype !== 'f32' || (dtype !== 'bf16' && dtype !== 'f16')) {
    throw new DTypeError(
      `cast: expected a narrow type to f32, or f32 to bf16 or f16, got ${x.dtype} to ${dtype}. Go through f32; blocks are encoded on the host.`,
    );
  }
  const y = Tensor.empty(x.shape, dtype, x.device);
  const count = x.size;
  if (count === 0) return y;
  if (dtype === 'f32') {
    const d = x.shape.at(-1) ?? 1;
    kernelOf(x.device, 'widen')({ x, y, format: NARROW.indexOf(x.dtype as NarrowDType), rows: count / d, d });
  } else kernelOf(x.device, 'narrow')({ x, y, format: NARROW.indexOf(dtype as NarrowDType), count });
  return y;
}
