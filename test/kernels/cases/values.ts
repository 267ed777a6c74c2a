/** Deterministic operand values for the case table. */
import type { KernelName } from '../../../src/backend/backend.ts';
import { Rng } from '../../../src/base/rng.ts';
import type { Case, Operands } from '../harness.ts';

/** Names a case and gives it its own random stream. */
export function define<N extends KernelName>(
  kernel: N,
  name: string,
  operands: (values: Values) => Operands<N>,
): Case {
  const test: Case<N> = { kernel, name, operands: operands(new Values(`${kernel} ${name}`)) };
  return test as unknown as Case;
}

export class Values {
  readonly rng: Rng;

  constructor(name: string) {
    this.rng = new Rng(1).fork(name);
  }

  normal(count: number, scale = 1, offset = 0): Float32Array {
    return Float32Array.from({ length: count }, () => offset + scale * this.rng.normal());
  }

  uniform(count: number, low: number, high: number): Float32Array {
    return Float32Array.from({ length: count }, () => this.rng.uniform(low, high));
  }

  /** Magnitudes spread evenly over the exponents from low to high. */
  logUniform(count: number, low: number, high: number): Float32Array {
    return this.uniform(count, Math.log(low), Math.log(high)).map(Math.exp);
  }

  ids(count: number, below: number): Int32Array {
    return Int32Array.from({ length: count }, () => this.rng.below(below));
  }

  /** (b, l) document ids that change at about every `every`-th token. */
  documents(b: number, l: number, every: number): Int32Array {
    let id = 0;
    return Int32Array.from({ length: b * l }, () => (this.rng.below(every) === 0 ? ++id : id));
  }
}

/** One of several values in turn. */
export function pick<T>(values: readonly T[], i: number): T {
  return values[i % values.length]!;
}
