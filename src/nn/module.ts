/**
 * Modules: plain classes whose Tensor fields are parameters and whose Module fields (or arrays of them) are children.
 * A parameter's path is its path of field names, so fields carry the checkpoint's names (`in_proj`, `A_log`).
 */
import { TENSORS, type TensorOwner } from '../tensor/scope.ts';
import { Tensor } from '../tensor/tensor.ts';

export abstract class Module implements TensorOwner {
  /** Every parameter with its path, in field order. */
  *namedParameters(prefix = ''): Generator<[string, Tensor]> {
    for (const [field, value] of Object.entries(this) as [string, unknown][]) {
      const path = `${prefix}${field}`;
      if (value instanceof Tensor) yield [path, value];
      else if (value instanceof Module) yield* value.namedParameters(`${path}.`);
      else if (Array.isArray(value)) {
        for (const [i, item] of value.entries()) {
          if (item instanceof Module) yield* item.namedParameters(`${path}.${i}.`);
        }
      }
    }
  }

  parameters(): Tensor[] {
    return [...this.namedParameters()].map(([, tensor]) => tensor);
  }

  /** Number of parameters. */
  get parameterCount(): number {
    return this.parameters().reduce((sum, tensor) => sum + tensor.size, 0);
  }

  /** Collects gradients (training) or not (inference). New modules collect them. */
  requireGrad(on: boolean): this {
    for (const tensor of this.parameters()) tensor.requiresGrad = on;
    return this;
  }

  /** Drops the collected gradients. */
  zeroGrad(): void {
    for (const tensor of this.parameters()) {
      tensor.grad?.dispose();
      tensor.grad = null;
    }
  }

  /** Frees the parameters. */
  dispose(): void {
    for (const tensor of this.parameters()) tensor.dispose();
  }

  [TENSORS](): Iterable<Tensor> {
    return this.parameters();
  }
}
