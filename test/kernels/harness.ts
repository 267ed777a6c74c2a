/**
 * Runs one kernel on one backend with host arrays as operands. Every buffer starts at an odd offset and ends before
 * its allocation does; the elements around it hold a guard value that must survive.
 */
import type { Backend, BufferRef, KernelArgs, KernelName } from '../../src/backend/backend.ts';
import { kernelOf } from '../../src/backend/backend.ts';
import { KERNELS } from '../../src/backend/kernels.ts';
import { createReference, type ReferenceBackend } from '../../src/backend/reference/index.ts';
import type { HostArray } from '../../src/base/dtype.ts';

export type Floats = Float32Array | Float64Array;
/** An output operand: a fresh buffer of `size` elements, or the buffer of another operand. */
export type Out = { readonly size: number; readonly alias?: string };
export const out = (size: number): Out => ({ size });
export const inPlace = (alias: string, size: number): Out => ({ size, alias });

type Value<K> = K extends 'int' | 'num'
  ? number
  : K extends 'in' | 'io'
    ? Floats
    : K extends 'in?'
      ? Floats | null
      : K extends 'ids'
        ? Int32Array
        : K extends 'ids?'
          ? Int32Array | null
          : K extends 'bits'
            ? Uint16Array
            : K extends 'out?'
              ? Out | null
              : Out; // prettier-ignore

/** Host values for the operands of a kernel. */
export type Operands<N extends KernelName> = {
  [P in keyof (typeof KERNELS)[N]]: Value<(typeof KERNELS)[N][P]>;
};

export interface Case<N extends KernelName = KernelName> {
  kernel: N;
  name: string;
  operands: Operands<N>;
}

export type Result = Record<string, Float64Array | HostArray>;

type AnyValue = number | null | Floats | Int32Array | Uint16Array | Out;
type ElementType = 'f32' | 'i32' | 'f16';

const GUARD = 3;
const GUARD_VALUE = { f32: -7777, i32: -7777, f16: 0x7777 } as const;

function elementType(kind: string): ElementType {
  return kind.startsWith('ids') ? 'i32' : kind.startsWith('bits') ? 'f16' : 'f32';
}

function hostArray(type: ElementType, length: number): Float64Array | Int32Array | Uint16Array {
  const array =
    type === 'f32'
      ? new Float64Array(length)
      : type === 'i32'
        ? new Int32Array(length)
        : new Uint16Array(length);
  return array.fill(GUARD_VALUE[type]);
}

/** The outputs by name. Throws when an element outside the operands has changed. */
export async function run<N extends KernelName>(backend: Backend, test: Case<N>): Promise<Result> {
  const kernel = kernelOf(backend, test.kernel);
  const refs: Record<string, BufferRef | number | null> = {};
  const written: { name: string; ref: BufferRef; type: ElementType; size: number }[] = [];
  const values = Object.entries(test.operands) as [string, AnyValue][];
  const kinds: Record<string, string> = KERNELS[test.kernel];

  for (const [name, value] of values) {
    if (value === null || typeof value === 'number') {
      refs[name] = value;
      continue;
    }
    const type = elementType(kinds[name]!);
    const isOut = 'size' in value;
    if (isOut && value.alias) continue;
    const size = isOut ? value.size : value.length;
    const padded = hostArray(type, size + 2 * GUARD);
    if (!isOut) padded.set(value, GUARD);
    const storage = backend.alloc(padded.length * 4);
    backend.write({ storage, offset: 0 }, type, padded);
    const ref = { storage, offset: GUARD };
    refs[name] = ref;
    if (isOut || kinds[name] === 'io') written.push({ name, ref, type, size });
  }
  for (const [name, value] of values) {
    if (value === null || typeof value === 'number' || !('alias' in value) || !value.alias) continue;
    const ref = refs[value.alias] as BufferRef;
    refs[name] = ref;
    written.push({ name, ref, type: elementType(kinds[name]!), size: value.size });
  }

  // The operand types were checked above, by the type of Case; here they are collected by name.
  kernel(refs as KernelArgs<N>);

  const result: Result = {};
  for (const { name, ref, type, size } of written) {
    const whole = { storage: ref.storage, offset: 0 };
    const length = size + 2 * GUARD;
    const all =
      'readF64' in backend && type === 'f32'
        ? (backend as ReferenceBackend).readF64(whole, length)
        : await backend.read(whole, type, length);
    for (let i = 0; i < GUARD; i++) {
      if (all[i] !== GUARD_VALUE[type] || all[length - 1 - i] !== GUARD_VALUE[type]) {
        throw new Error(`${test.kernel} (${test.name}): ${name} was written outside its ${size} elements`);
      }
    }
    // Scratch of the faster backends: only its surroundings matter.
    if (name !== 'partial') result[name] = all.slice(GUARD, GUARD + size);
  }
  const storages = new Set(
    Object.values(refs).flatMap((ref) => (ref && typeof ref === 'object' ? [ref.storage] : [])),
  );
  for (const storage of storages) backend.free(storage);
  return result;
}

const exact = createReference({ storage: 'f64' });

/** The float64 result, every output in a buffer of its own. */
export function truth<N extends KernelName>(test: Case<N>): Promise<Result> {
  return run(exact, { ...test, operands: mapOperands(test, separate) });
}

/** The float64 result for the absolute values of all float operands: what a sum would be if nothing cancelled. */
export function magnitude<N extends KernelName>(test: Case<N>): Promise<Result> {
  const absolute = (value: AnyValue) => {
    if (typeof value === 'number') return Math.abs(value);
    return value instanceof Float32Array ? value.map(Math.abs) : separate(value);
  };
  return run(exact, { ...test, operands: mapOperands(test, absolute) });
}

function separate(value: AnyValue): AnyValue {
  return value !== null && typeof value === 'object' && 'size' in value ? out(value.size) : value;
}

function mapOperands<N extends KernelName>(test: Case<N>, f: (value: AnyValue) => AnyValue): Operands<N> {
  return Object.fromEntries(
    Object.entries(test.operands).map(([name, value]) => [name, f(value as AnyValue)]),
  ) as Operands<N>;
}
