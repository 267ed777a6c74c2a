/**
 * Depthwise causal convolution with a carried window: y[t] = f(bias + sum_j w[j] x[t - k + 1 + j]), f
 * = silu or identity. Source: Dao-AILab/causal-conv1d; here any width k >= 1, any length, and the
 * window goes in and out as a value.
 */
import { kernelOf } from '../backend/backend.ts';
import { CONV_CUT } from '../backend/kernels.ts';
import { DTypeError } from '../base/errors.ts';
import { expectShape, type Shape } from '../base/shape.ts';
import { add, concat, mul, reshape, silu, slice, split, stack } from '../tensor/primitives.ts';
import * as raw from '../tensor/raw.ts';
import { record } from '../tensor/tape.ts';
import { Tensor } from '../tensor/tensor.ts';

export interface CausalConvOptions {
  activation?: 'silu' | null;
  /** The last k inputs before x, oldest first: (b, e, k). Zeros when omitted. */
  window?: Tensor | null;
  /**
   * Document of each token, i32 (b, l): inputs of another document count as zero. The window belongs to token
   * 0's. A number must not come again within k tokens: equal numbers are one document here.
   */
  sequenceIds?: Tensor | null;
  /** Real tokens per row, i32 (b): later positions give 0 and leave the window alone. */
  lengths?: Tensor | null;
}

export interface CausalConvResult {
  /** (b, l, e). */
  y: Tensor;
  /** The last k inputs after the last token: (b, e, k). */
  window: Tensor;
}

/** x (b, l, e), weight (e, k), bias (e) or null. */
export function causalConv1d(
  x: Tensor,
  weight: Tensor,
  bias: Tensor | null = null,
  options: CausalConvOptions = {},
): CausalConvResult {
  const { parts, window } = run(x, weight, bias, [x.shape[2] ?? 0], options);
  return { y: parts[0]!, window };
}

/** The same with y as three parts of so many channels, each contiguous; that costs no copy where `sizes` are multiples of 16. */
export function splitCausalConv1d(
  x: Tensor,
  weight: Tensor,
  bias: Tensor | null,
  sizes: readonly [number, number, number],
  options: CausalConvOptions = {},
): { parts: Tensor[]; window: Tensor } {
  const [b, l] = x.dims(3);
  const isToken = b * l === 1; // its parts stand one behind the other anyway
  if (isToken || (l > 1 && sizes.every((size) => size % CONV_CUT === 0)))
    return run(x, weight, bias, sizes, options);
  const { y, window } = causalConv1d(x, weight, bias, options);
  return { parts: split(y, 2, sizes), window };
}

/** `sizes`: one for all channels, or three. */
function run(
  x: Tensor,
  weight: Tensor,
  bias: Tensor | null,
  sizes: readonly number[],
  options: CausalConvOptions,
): { parts: Tensor[]; window: Tensor } {
  const { activation = null, window = null, sequenceIds = null, lengths = null } = options;
  const { b, l, e, k } = check(x, weight, bias, options);
  const { device } = x;
  const kernel = device.kernels.causalConv;
  if (!kernel) {
    const twin = causalConv1dRef(x, weight, bias, options);
    return { parts: sizes.length > 1 ? split(twin.y, 2, sizes) : [twin.y], window: twin.window };
  }
  const flags = { b, l, e, k, silu: activation === 'silu' ? 1 : 0 };
  const starts = sizes.map((_, i) => sizes.slice(0, i).reduce((sum, size) => sum + size, 0));
  const [cut1, cut2] = b * l === 1 ? [e, e] : [starts[1] ?? e, starts[2] ?? e];
  const y = Tensor.empty([b, l, e], 'f32', device);
  const windowOut = Tensor.empty([b, e, k], 'f32', device);
  if (b * e > 0)
    kernel({ x, weight, bias, window, sequenceIds, lengths, y, windowOut, ...flags, cut1, cut2 });
  const parts = sizes.map((size, i) => y.alias([b, l, size], y.offset + b * l * starts[i]!));
  const saved = { x, weight, bias, window, sequenceIds, lengths };
  record('causalConv1d', [x, weight, bias, window], [...parts, windowOut], saved, (douts, kept, needs) => {
    const make = (shape: Shape) => Tensor.empty(shape, 'f32', device);
    const dparts = sizes.map((size, i) => douts[i] ?? raw.full([b, l, size], 0, device));
    const dy = dparts.length > 1 ? raw.concat(dparts, 2) : dparts[0]!;
    const dwindowOut = douts[sizes.length];
    const dx = make([b, l, e]);
    const dweight = make([e, k]);
    const dbias = bias ? make([e]) : null;
    const dwindow = needs[3] ? make([b, e, k]) : null;
    kernelOf(
      device,
      'causalConvGrad',
    )({
      ...kept,
      dy,
      dwindowOut: dwindowOut ?? null,
      dx,
      dweight,
      dbias,
      dwindow,
      partial: make([b * e * (k + 1)]),
      ...flags,
    });
    return [dx, dweight, dbias, dwindow];
  });
  return { parts, window: windowOut };
}

/** The same from primitives: k shifted products. Needs lengths and ids as host data when given. */
export function causalConv1dRef(
  x: Tensor,
  weight: Tensor,
  bias: Tensor | null = null,
  options: CausalConvOptions = {},
): CausalConvResult {
  const { activation = null, window = null, sequenceIds, lengths } = options;
  const { b, l, e, k } = check(x, weight, bias, options);
  const device = x.device;
  const past = window ? transposeWindow(window) : raw.full([b, k, e], 0, device); // (b, k, e)
  const padded = concat([past, x], 1); // (b, k + l, e); token t sits at k + t
  const ids = hostIds('sequenceIds', sequenceIds);
  const ends = hostIds('lengths', lengths) ?? new Int32Array(b).fill(l);
  // The document at position p of `padded`; the window belongs to token 0's.
  const document = (row: number, p: number) => (ids ? ids[row * l + Math.max(p - k, 0)]! : 0);
  const mask = (shape: Shape, keep: (row: number, i: number) => boolean) => {
    const host = Float32Array.from({ length: shape[0]! * shape[1]! }, (_, at) =>
      keep(Math.floor(at / shape[1]!), at % shape[1]!) ? 1 : 0,
    );
    return Tensor.from(host, [...shape, 1], { device });
  };
  let y = raw.full([b, l, e], 0, device);
  for (let j = 0; j < k; j++) {
    const tap = reshape(slice(weight, 1, j, j + 1), [e]);
    const visible = mask([b, l], (row, t) => document(row, t + 1 + j) === document(row, t + k));
    y = add(y, mul(mul(slice(padded, 1, 1 + j, 1 + j + l), visible), tap));
  }
  if (bias) y = add(y, bias);
  if (activation === 'silu') y = silu(y);
  y = mul(
    y,
    mask([b, l], (row, t) => t < ends[row]!),
  );
  const rows = Array.from({ length: b }, (_, row) => {
    const end = ends[row]!; // the window is padded[end .. end + k)
    const last = slice(slice(padded, 0, row, row + 1), 1, end, end + k);
    const same = mask([1, k], (_, j) => end === 0 || document(row, end + j) === document(row, end + k - 1));
    return mul(last, same);
  });
  return { y, window: transposeWindow(concat(rows, 0)) };
}

/** (b, e, k) <-> (b, k, e). */
function transposeWindow(window: Tensor): Tensor {
  const columns = Array.from({ length: window.shape[2]! }, (_, j) => slice(window, 2, j, j + 1));
  return stack(
    columns.map((column) => reshape(column, [window.shape[0]!, window.shape[1]!])),
    1,
  );
}

/** The host copy of an integer tensor, which the composed twins turn into masks. */
export function hostIds(what: string, ids: Tensor | null | undefined): Int32Array | null {
  if (!ids) return null;
  if (!ids.host)
    throw new DTypeError(`${what}: expected i32 made with Tensor.from(Int32Array), got ${ids.toString()}.`);
  return ids.host;
}

/** Checks shared by the sequence ops: ids (b, l) and lengths (b) as i32, each length within [0, l]. */
export function checkSequence(
  op: string,
  b: number,
  l: number,
  { sequenceIds, lengths }: { sequenceIds?: Tensor | null; lengths?: Tensor | null },
): void {
  if (sequenceIds) {
    expectShape(op, 'sequenceIds (b, l)', sequenceIds.shape, [b, l]);
    if (sequenceIds.dtype !== 'i32')
      throw new DTypeError(`${op}: expected i32 sequenceIds, got ${sequenceIds.dtype}.`);
  }
  if (!lengths) return;
  expectShape(op, 'lengths (b)', lengths.shape, [b]);
  const host = hostIds('lengths', lengths);
  if (host?.some((length) => length < 0 || length > l)) {
    throw new DTypeError(`${op}: expected lengths in [0, ${l}], got [${host.join(', ')}].`);
  }
}

function check(x: Tensor, weight: Tensor, bias: Tensor | null, options: CausalConvOptions) {
  const [b, l, e] = x.dims(3);
  const [channels, k] = weight.dims(2);
  expectShape(
    'causalConv1d',
    'weight (e, k)',
    [channels, k],
    [e, k],
    'A checkpoint stores (e, 1, k): reshape it.',
  );
  if (bias) expectShape('causalConv1d', 'bias (e)', bias.shape, [e]);
  if (options.window) expectShape('causalConv1d', 'window (b, e, k)', options.window.shape, [b, e, k]);
  checkSequence('causalConv1d', b, l, options);
  raw.requireF32(
    'causalConv1d',
    x,
    weight,
    ...[bias, options.window].filter((t) => t !== null && t !== undefined),
  );
  return { b, l, e, k };
}
