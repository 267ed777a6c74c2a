/**
 * Modules: plain classes whose Tensor fields are parameters and whose Module fields (or arrays of
 * them) are children. A parameter's path is its path of field names, so fields carry the
 * checkpoint's names (`in_proj`, `A_log`).
 */
import { ConfigError, UnsupportedError } from '../base/errors.ts';
import { expectShape } from '../base/shape.ts';
import { isNarrow } from '../base/weight-types.ts';
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

  /** Every module below this one with its path, in field order, each before those inside it. */
  *namedModules(prefix = ''): Generator<[string, Module]> {
    for (const [field, value] of Object.entries(this) as [string, unknown][]) {
      const items: [string, unknown][] = Array.isArray(value)
        ? value.map((item, i) => [`${field}.${i}`, item])
        : [[field, value]];
      for (const [name, item] of items) {
        if (!(item instanceof Module)) continue;
        yield [`${prefix}${name}`, item];
        yield* item.namedModules(`${prefix}${name}.`);
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

  /**
   * Collects gradients (training) or not (inference). New modules collect them. Throws UnsupportedError for
   * narrow weights: a step of an optimizer is smaller than their rounding.
   */
  requireGrad(on: boolean): this {
    const narrow = [...this.namedParameters()].find(([, { dtype }]) => isNarrow(dtype));
    if (on && narrow) {
      throw new UnsupportedError(
        `requireGrad: expected f32 weights for training, got ${narrow[1].dtype} for ${narrow[0]}. Load the model with weights: 'f32'.`,
      );
    }
    for (const tensor of this.parameters()) tensor.requiresGrad = on;
    return this;
  }

  /**
   * Puts another tensor of the same shape, of any floating point type, in the place of
   * a parameter, which is disposed.
   */
  replaceParameter(path: string, tensor: Tensor): void {
    const names = path.split('.');
    const field = names.pop()!;
    let owner: unknown = this;
    for (const name of names) owner = (owner as Record<string, unknown> | undefined)?.[name];
    const fields = owner as Record<string, unknown>;
    const value = owner instanceof Module ? fields[field] : undefined;
    if (!(value instanceof Tensor)) {
      throw new ConfigError(`replaceParameter: expected the path of a parameter, got ${path}.`);
    }
    expectShape('replaceParameter', path, tensor.shape, value.shape);
    value.dispose();
    fields[field] = tensor;
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
