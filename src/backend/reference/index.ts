/**
 * The reference backend: every kernel as plain loops with float64 sums, beside which the paper can be read.
 * It is what all other backends are tested against, and it runs wherever JavaScript runs. It is slow.
 */
import { type DType, type HostArray, rawStorage, storageBytes, type TypedArray } from '../../base/dtype.ts';
import type {
  Backend,
  BackendFactory,
  BufferRef,
  KernelName,
  Kernels,
  MemoryStats,
  Storage,
} from '../backend.ts';
import { type CallArgs, Recorder } from '../recording.ts';
import { attention } from './attention.ts';
import { conv } from './conv.ts';
import { copy } from './copy.ts';
import { elementwise } from './elementwise.ts';
import { loss } from './loss.ts';
import { matmul } from './matmul.ts';
import { narrow } from './narrow.ts';
import { norm } from './norm.ts';
import { reduce } from './reduce.ts';
import { rotation } from './rotation.ts';
import { heads } from './rotation-heads.ts';
import { scan } from './scan.ts';
import { ssd } from './ssd.ts';
import { bits, bytes, HostStorage, hostStorage, ids, idsOutput, input, output } from './storage.ts';

/** All of them: a missing kernel is a type error here. */
const kernels: Kernels = {
  ...elementwise,
  ...reduce,
  ...copy,
  ...matmul,
  ...narrow,
  ...norm,
  ...conv,
  ...scan,
  ...rotation,
  ...heads,
  ...ssd,
  ...attention,
  ...loss,
};

/** Buffer sizes are rounded up to this, so that the pool has few classes. */
const GRANULE_BYTES = 64;

const roundUp = (sizeBytes: number) => Math.max(1, Math.ceil(sizeBytes / GRANULE_BYTES)) * GRANULE_BYTES;

export interface ReferenceOptions {
  /** `f64` keeps f32 tensors in 64 bits, for gradient checks by finite differences. Default `f32`. */
  storage?: 'f32' | 'f64';
}

export interface ReferenceBackend extends Backend {
  readonly kernels: Kernels;
  /** The floats in full precision. */
  readF64(source: BufferRef, count: number): Float64Array;
}

export function createReference(options: ReferenceOptions = {}): ReferenceBackend {
  const wide = options.storage === 'f64';
  const idle = new Map<number, HostStorage[]>();
  const stats = { liveBytes: 0, peakBytes: 0, newBuffers: 0, reservedBytes: 0 };

  /** `rounded` to granules. */
  function take(rounded: number): Storage {
    let storage = idle.get(rounded)?.pop();
    if (!storage) {
      storage = new HostStorage(rounded, wide);
      stats.newBuffers++;
      stats.reservedBytes += rounded;
    }
    storage.freed = false;
    stats.liveBytes += rounded;
    stats.peakBytes = Math.max(stats.peakBytes, stats.liveBytes);
    return storage;
  }
  function release(storage: Storage): void {
    const host = hostStorage({ storage, offset: 0 });
    host.freed = true;
    stats.liveBytes -= host.sizeBytes;
    const pool = idle.get(host.sizeBytes);
    if (pool) pool.push(host);
    else idle.set(host.sizeBytes, [host]);
  }
  const run = (kernel: KernelName, args: CallArgs) => (kernels[kernel] as (args: CallArgs) => void)(args);
  const recorder = new Recorder({
    compile: (calls) => () => {
      for (const { kernel, args } of calls) run(kernel, args);
    },
    alloc: (sizeBytes) => take(roundUp(sizeBytes)),
    release,
  });
  const noted = Object.keys(kernels).map((name) => [
    name,
    (args: CallArgs) => {
      run(name as KernelName, args);
      recorder.called(name as KernelName, args);
    },
  ]);

  const backend: ReferenceBackend = {
    name: 'reference',
    description: `plain TypeScript, float64 sums, ${wide ? 'float64' : 'float32'} storage`,
    kernels: Object.fromEntries(noted) as Kernels,

    alloc(sizeBytes: number): Storage {
      const storage = recorder.alloc(roundUp(sizeBytes)) as HostStorage;
      storage.poison();
      return storage;
    },

    free(storage: Storage): void {
      hostStorage({ storage, offset: 0 });
      if (!recorder.keeps(storage)) release(storage);
    },

    write(target: BufferRef, dtype: DType, data: TypedArray | readonly number[]): void {
      if (recorder.uploads(backend, target, dtype, data)) return;
      if (dtype === 'f32') output(target).set(data);
      else if (dtype === 'i32') idsOutput(target).set(data);
      else if (dtype === 'q8' || dtype === 'q4') bytes(target).set(rawStorage(dtype, data));
      else bits(target).set(rawStorage(dtype, data));
    },

    record: (varying, fn) => recorder.record(varying, fn),

    async read(source: BufferRef, dtype: DType, count: number, into?: HostArray) {
      recorder.refuse('read');
      if (into) {
        into.set(await backend.read(source, dtype, count));
        return into;
      }
      if (dtype === 'f32') return Float32Array.from(input(source).subarray(0, count));
      if (dtype === 'i32') return ids(source).slice(0, count);
      if (dtype === 'q8' || dtype === 'q4') return bytes(source).slice(0, storageBytes(dtype, count));
      return bits(source).slice(0, count);
    },

    readF64: (source: BufferRef, count: number) => Float64Array.from(input(source).subarray(0, count)),

    get memory(): MemoryStats {
      return { ...stats };
    },

    resetPeak(): void {
      stats.peakBytes = stats.liveBytes;
    },
  };
  return backend;
}

/** For registerBackend(). */
export const referenceFactory: BackendFactory = { name: 'reference', open: () => createReference() };
