/**
 * B and C of Mamba-3 become the keys and queries of its recurrence (arXiv 2603.15569; mamba3.py in
 * state-spaces/mamba): an RMS norm per group, one copy per head with that head's bias, turned by
 * that head's angles (rotation.ts).
 */
import { kernelOf } from '../backend/backend.ts';
import { turnHeadsPartialSize } from '../backend/kernels.ts';
import { ShapeError } from '../base/errors.ts';
import { expectShape, type Shape, showShape } from '../base/shape.ts';
import { add, mul, permute, reshape, slice } from '../tensor/primitives.ts';
import * as raw from '../tensor/raw.ts';
import { record } from '../tensor/tape.ts';
import { Tensor } from '../tensor/tensor.ts';
import { normRef, scalesAreConstant } from './norm.ts';
import { type RotateOptions, rotateRef } from './rotation.ts';

/** What the norm and the heads add to one of the two. */
export interface HeadParameters {
  /** Of the norm (n). */
  weight: Tensor;
  /** (h, r, n). */
  bias: Tensor;
}

export interface TurnHeadsOptions extends RotateOptions {
  /** Added to the mean square, default 1e-5. */
  eps?: number;
}

export interface KeysAndQueries {
  /** (b, l, r, h, n). */
  K: Tensor;
  Q: Tensor;
}

/**
 * BC (b, l, 2, r, g, n): B and C of every token; theta (b, l, h, s). Head i reads group floor(i / (h / g)).
 */
export function turnHeads(
  BC: Tensor,
  forB: HeadParameters,
  forC: HeadParameters,
  theta: Tensor,
  options: TurnHeadsOptions,
): KeysAndQueries {
  const sizes = check(BC, forB, forC, theta, options);
  const { device } = BC;
  const kernel = device.kernels.turnHeads;
  if (!kernel || scalesAreConstant()) return turnHeadsRef(BC, forB, forC, theta, options);
  const { tokens, r, h, n } = sizes;
  const [b, l] = theta.dims(4);
  const make = (shape: Shape) => Tensor.empty(shape, 'f32', device);
  const parameters = {
    bWeight: forB.weight,
    cWeight: forC.weight,
    bBias: forB.bias,
    cBias: forC.bias,
  };
  const operands = { x: BC, ...parameters, theta };
  const [K, Q] = [make([b, l, r, h, n]), make([b, l, r, h, n])];
  if (tokens > 0) kernel({ ...operands, K, Q, ...sizes });
  record('turnHeads', Object.values(operands), [K, Q], operands, ([dK, dQ], kept) => {
    const grads = {
      dx: make(BC.shape),
      dbWeight: make([n]),
      dcWeight: make([n]),
      dbBias: make([h, r, n]),
      dcBias: make([h, r, n]),
      dtheta: make(theta.shape),
    };
    const none = dK && dQ ? null : raw.full(K.shape, 0, device);
    kernelOf(
      device,
      'turnHeadsGrad',
    )({
      ...kept,
      dK: dK ?? none!,
      dQ: dQ ?? none!,
      ...grads,
      partial: make([turnHeadsPartialSize(h, r, n)]),
      ...sizes,
    });
    return Object.values(grads);
  });
  return { K, Q };
}

/** The twin from primitives. */
export function turnHeadsRef(
  BC: Tensor,
  forB: HeadParameters,
  forC: HeadParameters,
  theta: Tensor,
  options: TurnHeadsOptions,
): KeysAndQueries {
  const { r, h, g, n, eps } = check(BC, forB, forC, theta, options);
  const [b, l] = theta.dims(4);
  const turned = (kind: number, { weight, bias }: HeadParameters) => {
    const vectors = reshape(slice(BC, 2, kind, kind + 1), [b * l, r * g, 1, n]);
    const normed = mul(normRef(vectors, null, null, { eps }).y, weight);
    const heads = reshape(permute(bias, [1, 0, 2]), [r * g, h / g, n]);
    return rotateRef(reshape(add(normed, heads), [b, l, r, h, n]), theta, options);
  };
  return { K: turned(0, forB), Q: turned(1, forC) };
}

function check(
  BC: Tensor,
  forB: HeadParameters,
  forC: HeadParameters,
  theta: Tensor,
  { pairing, eps = 1e-5 }: TurnHeadsOptions,
) {
  const op = 'turnHeads';
  const [b, l, h, s] = theta.dims(4);
  const [r, g, n] = BC.shape.slice(3) as [number, number, number];
  expectShape(op, 'BC (b, l, 2, r, g, n)', BC.shape, [b, l, 2, r, g, n]);
  for (const { weight, bias } of [forB, forC]) {
    expectShape(op, 'weight (n)', weight.shape, [n]);
    expectShape(op, 'bias (h, r, n)', bias.shape, [h, r, n]);
  }
  const [step, gap] = pairing === 'adjacent' ? [2, 1] : [1, pairing];
  const fits = step === 2 ? 2 * s <= n : Number.isInteger(gap) && gap >= s && gap + s <= n;
  if (!fits || !(g > 0 && h % g === 0)) {
    throw new ShapeError(
      `${op}: expected ${s} pairs of pairing ${pairing} within ${n} elements, and groups that divide ${h} heads, got BC ` +
        `${showShape(BC.shape)} and theta ${showShape(theta.shape)}. 'adjacent' needs 2 s elements, a gap at least s and at most n - s.`,
    );
  }
  raw.requireF32(op, BC, forB.weight, forB.bias, forC.weight, forC.bias, theta);
  return { tokens: b * l, r, h, g, n, s, step, gap, eps };
}
