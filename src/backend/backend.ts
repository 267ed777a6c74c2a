/**
 * What a device offers: buffers, a table of kernels, and reading back. Backends know buffers and numbers;
 * they do not know tensors, gradients or models.
 */
import type { DType, HostArray, TypedArray } from '../base/dtype.ts';
import { ConfigError, UnsupportedError } from '../base/errors.ts';
import type { KERNELS } from './kernels.ts';

export type DeviceName = 'native' | 'wasm' | 'webgpu' | 'reference';

/** A device allocation. Opaque outside its backend. */
export interface Storage {
  readonly sizeBytes: number;
}

/** Where an operand starts: `offset` elements into a storage (q8, q4: units of 16 bits). A Tensor is one. */
export interface BufferRef {
  readonly storage: Storage;
  readonly offset: number;
}

type Spec = typeof KERNELS;
type Operand<K> = K extends 'int' | 'num' ? number : K extends `${string}?` ? BufferRef | null : BufferRef;

export type KernelName = keyof Spec;
/** The arguments of one kernel, by name; see kernels.ts for their meaning. */
export type KernelArgs<N extends KernelName> = { [P in keyof Spec[N]]: Operand<Spec[N][P]> };
/** One entry per kernel. `reference` has them all; other backends may lack some. */
export type Kernels = { [N in KernelName]: (args: KernelArgs<N>) => void };

export interface MemoryStats {
  /** Bytes handed out and not yet freed. */
  liveBytes: number;
  /** The largest liveBytes since the last resetPeak(). */
  peakBytes: number;
  /** Buffers that had to be made because the pool had none of their size. A steady loop adds none. */
  newBuffers: number;
  /** Bytes the pool holds, live or idle. */
  reservedBytes: number;
}

/**
 * The kernels that ran inside Backend.record(). It owns the buffers that were made there until it is
 * disposed, also those that were freed, and gives them back then; what is still in use then belongs to its
 * user alone.
 */
export interface Recording {
  /**
   * False from the moment on at which a buffer that it reads is freed, or one that does not vary is written.
   */
  readonly isCurrent: boolean;
  /** Runs the kernels again, in one call of the device. Throws StateError when it is not current. */
  replay(): void;
  /**
   * A replay with the buffers of each pair in each other's place: what was read from the one is read from the
   * other. Throws StateError for buffers of different sizes.
   */
  exchanged(pairs: readonly (readonly [Storage, Storage])[]): () => void;
  /**
   * A replay that leaves in the first buffer of each pair what replay() leaves in the second, which then may
   * hold anything. Throws StateError for buffers of different sizes.
   */
  inPlace(pairs: readonly (readonly [Storage, Storage])[]): () => void;
  dispose(): void;
}

export interface Backend {
  readonly name: DeviceName;
  /** One line for people: instruction set, threads. */
  readonly description: string;
  readonly kernels: Partial<Kernels>;
  /** A buffer of at least `sizeBytes` bytes; contents undefined. */
  alloc(sizeBytes: number): Storage;
  /** Returns the buffer to the pool. */
  free(storage: Storage): void;
  /** bf16 and f16 as raw bits (Uint16Array), q8 and q4 as the bytes of their blocks (Uint8Array). */
  write(target: BufferRef, dtype: DType, data: TypedArray | readonly number[]): void;
  /**
   * Copies `count` elements into a host array of the same forms: `into`, which is
   * exactly as long, or a fresh one.
   */
  read(source: BufferRef, dtype: DType, count: number, into?: HostArray): Promise<HostArray>;
  /**
   * Runs `fn` (synchronous) and notes its kernels, to run them again. `varying` are the buffers whose
   * contents will be others then. Kernels that depend on nothing else run once; so do host writes. Throws
   * StateError for a recording or a read inside `fn`.
   */
  record<T>(varying: readonly Storage[], fn: () => T): { result: T; recording: Recording };
  readonly memory: MemoryStats;
  resetPeak(): void;
}

/** How to make a device; `open` throws UnsupportedError with what was tried and what to do. */
export interface BackendFactory {
  readonly name: DeviceName;
  open(): Backend | Promise<Backend>;
}

const factories = new Map<DeviceName, BackendFactory>();
const opened = new Map<DeviceName, Backend>();
let current: Backend | null = null;
let chooseDefault: (() => Backend) | null = null;

export function registerBackend(factory: BackendFactory): void {
  factories.set(factory.name, factory);
}

/** Set by an entry point that can open its best device synchronously (Node). */
export function setDefaultDevice(choose: () => Backend): void {
  chooseDefault = choose;
}

export function registeredDevices(): DeviceName[] {
  return [...factories.keys()];
}

/**
 * Opens a device (once) without making it the current one.
 * Throws ConfigError for an unknown name, UnsupportedError when it cannot run here.
 */
export async function openDevice(name: DeviceName): Promise<Backend> {
  const known = opened.get(name);
  if (known) return known;
  const factory = factories.get(name);
  if (!factory) {
    const names = registeredDevices().join(', ');
    throw new ConfigError(`device: expected one of ${names}, got ${String(name)}. Choose one of these.`);
  }
  return remember(await factory.open());
}

/** Records an opened device so that openDevice finds it. */
export function remember(backend: Backend): Backend {
  opened.set(backend.name, backend);
  return backend;
}

/** Makes a device the one on which new tensors live. Accepts a name or an opened backend. */
export async function useDevice(device: DeviceName | Backend): Promise<Backend> {
  current = typeof device === 'string' ? await openDevice(device) : device;
  return current;
}

/** The device of new tensors. In Node the best one opens by itself; in a browser call useDevice() first. */
export function currentDevice(): Backend {
  if (current) return current;
  if (chooseDefault) {
    current = chooseDefault();
    return current;
  }
  throw new ConfigError(`device: none is open. Call \`await useDevice('wasm')\` before making tensors.`);
}

/** Runs `fn` (synchronous) with another device as the current one. */
export function withDevice<T>(backend: Backend, fn: () => T): T {
  const previous = current;
  current = backend;
  try {
    return fn();
  } finally {
    current = previous;
  }
}

/** The kernel, or an UnsupportedError that names kernel, backend and remedy. */
export function kernelOf<N extends KernelName>(backend: Backend, name: N): Kernels[N] {
  const kernel = backend.kernels[name];
  if (!kernel) {
    throw new UnsupportedError(
      `${name}: the ${backend.name} device has no such kernel. Use the native, wasm or reference device for this model.`,
    );
  }
  return kernel as Kernels[N];
}
