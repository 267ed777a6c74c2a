/**
 * Affine maps with the weight stored as checkpoints have it, (out, in): y = x W^T + bias. splitLinear gives
 * several row blocks of one weight as separate contiguous results: `[x, z] = in_proj(u)` needs no copy
 * forward or backward, and `[dt, B, C] = x_proj(x)` only that of its few columns. The weight may be narrow
 * (bf16, f16, q8, q4) and is widened as it is read; gradients then flow to x and bias only. Under
 * withPrecision('bf16') the products round their operands, the two of the backward pass as well; the bias
 * and its gradient stay float32.
 */
import type { Backend } from '../backend/backend.ts';
import type { DType } from '../base/dtype.ts';
import { ShapeError } from '../base/errors.ts';
import { expectShape, showShape, sizeOf } from '../base/shape.ts';
import { isNarrow } from '../base/weight-types.ts';
import { currentPrecision, type Precision } from '../tensor/precision.ts';
import { add, cast, matmul, slice, transpose } from '../tensor/primitives.ts';
import * as raw from '../tensor/raw.ts';
import { record } from '../tensor/tape.ts';
import { Tensor } from '../tensor/tensor.ts';

/** x (..., k), weight (n, k), bias (n) or null -> (..., n). */
export function linear(x: Tensor, weight: Tensor, bias: Tensor | null = null): Tensor {
  return splitLinear(x, weight, [weight.shape[0] ?? 0], bias)[0]!;
}

/** The twin of splitLinear from primitives. */
export function splitLinearRef(
  x: Tensor,
  weight: Tensor,
  sizes: readonly number[],
  bias: Tensor | null = null,
): Tensor[] {
  const wide = isNarrow(weight.dtype) ? cast(weight, 'f32') : weight;
  const product = matmul(x, transpose(wide));
  const y = bias ? add(product, bias) : product;
  return startsOf(sizes).map((start, i) => slice(y, -1, start, start + sizes[i]!));
}

/**
 * x (..., k), weight (n, k) with n = sum of sizes -> one (..., size) per size, in row order of the weight.
 */
export function splitLinear(
  x: Tensor,
  weight: Tensor,
  sizes: readonly number[],
  bias: Tensor | null = null,
): Tensor[] {
  const [n, k] = checkLinear(x, weight, sizes, bias);
  const { device } = x;
  const precision = precisionWith(weight.dtype);
  // int8 is for weights in blocks, which the backward pass widens.
  const widePrecision = precision === 'int8' ? 'f32' : precision;
  const lead = x.shape.slice(0, -1);
  const rows = sizeOf(lead);
  // Parts much narrower than x are computed together, and then moved apart: x is read once,
  // and the product is a better one. Those of a single row need no moving.
  const isJoint = sizes.length > 1 && (n < k || rows === 1);
  const blocks = isJoint ? [n] : sizes;
  const starts = startsOf(blocks);
  const part = (t: Tensor, i: number) => raw.slice(t, 0, starts[i]!, starts[i]! + blocks[i]!);
  const flat = x.alias([rows, k]);
  const products = blocks.map((size, i) => {
    const b = bias && part(bias, i);
    return isNarrow(weight.dtype)
      ? raw.linearNarrow(flat, weight, starts[i]!, size, { bias: b, precision })
      : raw.matmul(flat, part(weight, i), { transB: true, bias: b, precision: widePrecision });
  });
  const outputs = (isJoint ? columnsOf(products[0]!, sizes) : products).map((y, i) =>
    y.alias([...lead, sizes[i]!]),
  );
  record('linear', [x, weight, bias], outputs, { flat, weight }, (douts, saved, needs, sums) => {
    const each = douts.map((d, i) => d?.alias([rows, sizes[i]!]) ?? null);
    const zeros = (i: number) => raw.full([rows, sizes[i]!], 0, device);
    const dy = isJoint
      ? [
          raw.concat(
            each.map((d, i) => d ?? zeros(i)),
            1,
          ),
        ]
      : each;
    const into = (c: Tensor, offset: number, accumulate: boolean) => ({ c, offset, accumulate });
    const wide = needs[0] ? raw.cast(saved.weight, 'f32') : saved.weight;
    let dx = sums[0] ?? null;
    const dweight = needs[1] ? (sums[1] ?? zeroUnless(dy, [n, k], device)) : null;
    const dbias = needs[2] ? (sums[2] ?? zeroUnless(dy, [n], device)) : null;
    dy.forEach((d, i) => {
      if (!d) return;
      if (needs[0]) {
        const accumulate = dx !== null;
        dx ??= Tensor.empty(x.shape, 'f32', device);
        raw.matmul(d, part(wide, i), { into: into(dx, 0, accumulate), precision: widePrecision });
      }
      if (dweight) {
        const to = into(dweight, starts[i]! * k, Boolean(sums[1]));
        raw.matmul(d, saved.flat, { transA: true, into: to, precision: widePrecision });
      }
      if (dbias) raw.scatterStrided(raw.reduce('sum', d, 0), dbias, [1], starts[i]!, Boolean(sums[2]));
    });
    return [dx, dweight, dbias];
  });
  return outputs;
}

/**
 * What products with a weight of this type compute in: rounded to bf16, what q8 and q4 say would be
 * lost; int8 is for those alone.
 */
function precisionWith(dtype: DType): Precision {
  const precision = currentPrecision();
  const isBlocked = dtype === 'q8' || dtype === 'q4';
  return precision === (isBlocked ? 'int8' : 'bf16') ? precision : 'f32';
}

/**
 * The columns of y (rows, n) in parts of the given sizes, each contiguous; of a single row they are views.
 */
function columnsOf(y: Tensor, sizes: readonly number[]): Tensor[] {
  const starts = startsOf(sizes);
  if (y.shape[0] === 1) return sizes.map((size, i) => y.alias([1, size], y.offset + starts[i]!));
  return sizes.map((size, i) => raw.slice(y, 1, starts[i]!, starts[i]! + size));
}

function startsOf(sizes: readonly number[]): number[] {
  return sizes.map((_, i) => sizes.slice(0, i).reduce((sum, size) => sum + size, 0));
}

/** Room for a gradient whose row blocks are all written, or zeros when some output got none. */
function zeroUnless(dy: readonly (Tensor | null)[], shape: number[], device: Backend): Tensor {
  return dy.every((d) => d !== null) ? Tensor.empty(shape, 'f32', device) : raw.full(shape, 0, device);
}

function checkLinear(
  x: Tensor,
  weight: Tensor,
  sizes: readonly number[],
  bias: Tensor | null,
): [number, number] {
  const [n, k] = weight.dims(2);
  raw.requireWeight('linear', x, weight);
  if (x.shape.length < 1 || x.shape.at(-1) !== k) {
    throw new ShapeError(
      `linear: expected x (..., ${k}) for a weight of ${showShape(weight.shape)}, got ${showShape(x.shape)}.`,
    );
  }
  const total = sizes.reduce((sum, size) => sum + size, 0);
  if (total !== n)
    throw new ShapeError(`linear: expected sizes that sum to ${n} rows, got ${showShape(sizes)}.`);
  if (bias) expectShape('linear', 'bias (n)', bias.shape, [n]);
  return [n, k];
}
