/**
 * Softmax cross-entropy, fused: only log-sum-exp is kept for the backward pass, and the gradient overwrites
 * the logits when nobody else holds them, so a second (rows, v) never exists in a training step.
 */
import { kernelOf } from '../backend/backend.ts';
import { DTypeError, ShapeError } from '../base/errors.ts';
import { showShape, sizeOf } from '../base/shape.ts';
import { add, amax, div, exp, log, maximum, mul, neg, reshape, sub, sum } from '../tensor/primitives.ts';
import * as raw from '../tensor/raw.ts';
import { record } from '../tensor/tape.ts';
import { Tensor } from '../tensor/tensor.ts';

/** Targets with this value do not count (PyTorch's convention). */
export const IGNORE_INDEX = -100;

/**
 * Mean of -log softmax(logits)[target] over the targets that are not `ignoreIndex`, in nats; 0 when all are
 * ignored. logits (..., v) f32; targets (...) i32. Throws ShapeError for a target outside the vocabulary.
 */
export function crossEntropy(
  logits: Tensor,
  targets: Tensor,
  options: { ignoreIndex?: number } = {},
): Tensor {
  const { loss, valid } = tokenLosses(logits, targets, options);
  return div(sum(loss), maximum(sum(valid), 1));
}

/** Per token: its loss (0 where ignored) and whether it counts (1 or 0); both of the shape of `targets`. */
export function tokenLosses(
  logits: Tensor,
  targets: Tensor,
  options: { ignoreIndex?: number } = {},
): { loss: Tensor; valid: Tensor } {
  const { ignoreIndex: ignore = IGNORE_INDEX } = options;
  const { rows, v } = check(logits, targets, ignore);
  const { device } = logits;
  if (!device.kernels.crossEntropy) return tokenLossesRef(logits, targets, options);
  const make = () => Tensor.empty(targets.shape, 'f32', device);
  const [loss, lse, valid] = [make(), make(), make()];
  if (rows > 0) device.kernels.crossEntropy({ logits, targets, loss, lse, valid, rows, v, ignore });
  record('crossEntropy', [logits], [loss], { logits, targets, lse }, ([dloss], saved) => {
    const reuse = saved.logits.block.refs === 1;
    const dlogits = reuse ? saved.logits.alias() : Tensor.empty(logits.shape, 'f32', device);
    if (rows > 0) kernelOf(device, 'crossEntropyGrad')({ ...saved, dloss: dloss!, dlogits, rows, v, ignore });
    return [dlogits];
  });
  return { loss, valid };
}

/** The same from primitives. */
export function tokenLossesRef(
  logits: Tensor,
  targets: Tensor,
  options: { ignoreIndex?: number } = {},
): { loss: Tensor; valid: Tensor } {
  const { ignoreIndex: ignore = IGNORE_INDEX } = options;
  const { rows, v } = check(logits, targets, ignore);
  const host = targets.host;
  if (!host) throw new DTypeError('crossEntropy: expected targets made with Tensor.from(Int32Array).');
  const { device } = logits;
  const flat = reshape(logits, [rows, v]);
  const top = reshape(amax(flat.detach(), 1), [rows, 1]);
  const shifted = sub(flat, top);
  const lse = log(sum(exp(shifted), 1, true)); // (rows, 1)
  const onehot = new Float32Array(rows * v);
  host.forEach((target, row) => {
    if (target !== ignore) onehot[row * v + target] = 1;
  });
  const hot = Tensor.from(onehot, [rows, v], { device });
  const loss = neg(sum(mul(add(shifted, neg(lse)), hot), 1));
  const valid = Tensor.from(
    Float32Array.from(host, (target) => (target === ignore ? 0 : 1)),
    targets.shape,
    { device },
  );
  return { loss: reshape(loss, targets.shape), valid };
}

function check(logits: Tensor, targets: Tensor, ignore: number): { rows: number; v: number } {
  const v = logits.shape.at(-1) ?? 0;
  const rows = sizeOf(logits.shape.slice(0, -1));
  raw.requireF32('crossEntropy', logits);
  if (targets.dtype !== 'i32')
    throw new DTypeError(`crossEntropy: expected i32 targets, got ${targets.dtype}.`);
  if (v === 0 || targets.size !== rows) {
    throw new ShapeError(
      `crossEntropy: expected logits (..., v) and targets (...), got ${showShape(logits.shape)} and ${showShape(targets.shape)}.`,
    );
  }
  const bad = targets.host?.find((target) => target !== ignore && (target < 0 || target >= v));
  if (bad !== undefined)
    throw new ShapeError(`crossEntropy: expected targets in [0, ${v}) or ${ignore}, got ${bad}.`);
  return { rows, v };
}
