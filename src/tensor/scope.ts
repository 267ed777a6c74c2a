/**
 * Lifetimes: `scope(fn)` disposes every tensor made inside `fn`, except those it returns (alone, in arrays,
 * in plain objects or in anything that lists its tensors under TENSORS) and those passed to keep().
 */
import { StateError } from '../base/errors.ts';
import { scopes, Tensor } from './tensor.ts';

/** Objects that own tensors list them here, so that scope() can let them leave. */
export const TENSORS: unique symbol = Symbol.for('mamba-ts.tensors');

export interface TensorOwner {
  [TENSORS](): Iterable<Tensor>;
}

const kept = new WeakSet<Tensor>();

/** Takes a tensor out of the open scopes: it lives until it is disposed. */
export function keep<T extends Tensor>(tensor: T): T {
  kept.add(tensor);
  return tensor;
}

function collect(value: unknown, into: Set<Tensor>): void {
  if (value instanceof Tensor) into.add(value);
  else if (Array.isArray(value)) for (const item of value) collect(item, into);
  else if (typeof value === 'object' && value !== null) {
    if (TENSORS in value) for (const tensor of (value as TensorOwner)[TENSORS]()) into.add(tensor);
    else if (Object.getPrototypeOf(value) === Object.prototype) {
      for (const item of Object.values(value)) collect(item, into);
    }
  }
}

/** Runs `fn` (synchronous) and disposes the tensors it made but did not return. */
export function scope<T>(fn: () => T): T {
  const parent = scopes.current;
  const own: Tensor[] = [];
  scopes.current = own;
  const leaving = new Set<Tensor>();
  try {
    const result = fn();
    if (result instanceof Promise) {
      throw new StateError('scope: expected a synchronous function, got a Promise. Await outside the scope.');
    }
    collect(result, leaving);
    return result;
  } finally {
    scopes.current = parent;
    for (const tensor of own) {
      if (kept.has(tensor)) continue;
      if (leaving.has(tensor)) parent?.push(tensor);
      else tensor.dispose();
    }
  }
}
