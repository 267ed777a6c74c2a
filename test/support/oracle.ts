/** The stored float64 results of tiny models (test/fixtures/models): inputs, logits, states, gradients. */
import { readFileSync } from 'node:fs';
import { memorySource } from '../../src/base/source.ts';
import { openSafetensors } from '../../src/io/safetensors.ts';
import type { TensorFile } from '../../src/io/tensor-file.ts';

const root = new URL('../fixtures/models/', import.meta.url);

export interface Stored {
  shape: readonly number[];
  data: Float32Array | Int32Array | Float64Array;
}

export async function openFixture(path: string): Promise<TensorFile> {
  return openSafetensors(memorySource(readFileSync(new URL(path, root)), path));
}

/** Every tensor of a fixture file, in memory. */
export async function readFixture(path: string): Promise<(name: string) => Stored> {
  const file = await openFixture(path);
  const tensors = new Map<string, Stored>();
  for (const [name, { shape }] of file.tensors) {
    tensors.set(name, { shape, data: (await file.read(name)) as Stored['data'] });
  }
  return (name) => {
    const stored = tensors.get(name);
    if (!stored) throw new Error(`fixture ${path} has no ${name}; it has ${[...tensors.keys()].join(' ')}`);
    return stored;
  };
}

export function fixturePath(path: string): string {
  return new URL(path, root).pathname;
}

/** Rows of an integer tensor (b, l). */
export function rowsOf({ shape, data }: Stored): number[][] {
  const [b, l] = shape as [number, number];
  return Array.from({ length: b }, (_, i) => Array.from(data.subarray(i * l, (i + 1) * l)));
}

export function maxAbsDiff(actual: ArrayLike<number>, expected: ArrayLike<number>): number {
  if (actual.length !== expected.length)
    throw new Error(`lengths ${actual.length} and ${expected.length} differ`);
  let worst = 0;
  for (let i = 0; i < actual.length; i++) {
    const difference = Math.abs(actual[i]! - expected[i]!);
    if (!(difference <= worst)) worst = Number.isNaN(difference) ? Number.POSITIVE_INFINITY : difference;
  }
  return worst;
}

/** max |a - b| / max |b|: the relative error of a whole tensor. */
export function relativeError(actual: ArrayLike<number>, expected: ArrayLike<number>): number {
  const scale = Array.from(expected).reduce((top, x) => Math.max(top, Math.abs(x)), 0);
  return maxAbsDiff(actual, expected) / (scale || 1);
}
