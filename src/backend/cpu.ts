/**
 * What the native and the WebAssembly device share: buffers as ranges of one arena, a pool of
 * size classes, and the passing of arguments by the order of kernels.ts. The hosts only move
 * bytes and run kernels by index.
 */
import { type DType, hostArray, LAYOUTS, rawStorage, type TypedArray } from '../base/dtype.ts';
import { StateError, UnsupportedError } from '../base/errors.ts';
import type { Backend, BufferRef, KernelName, MemoryStats, Storage } from './backend.ts';
import { KERNELS } from './kernels.ts';
import { type Call, type CallArgs, Recorder } from './recording.ts';

/** The machine under a CPU device. Byte offsets count from the start of its arena. */
export interface CpuHost {
  readonly name: 'native' | 'wasm';
  readonly description: string;
  readonly kernels: readonly { readonly name: string; readonly operands: number }[];
  /** Where `run` finds its operands: buffers as byte offsets (-1 = null), numbers as they are. */
  readonly operands: Float64Array;
  /** Makes bytes [0, sizeBytes) of the arena usable, or throws StateError. */
  reserve(sizeBytes: number): void;
  run(kernel: number): void;
  /**
   * Runs kernels in order, with the operands of all of them one behind the other. Without it, run() is called
   * for each.
   */
  runAll?(kernels: Int32Array, operands: Float64Array): void;
  write(byteOffset: number, data: TypedArray): void;
  read(byteOffset: number, into: TypedArray): void;
}

class CpuStorage implements Storage {
  readonly pool: CpuPool;
  readonly byteOffset: number;
  readonly sizeBytes: number;
  live = true;

  constructor(pool: CpuPool, byteOffset: number, sizeBytes: number) {
    this.pool = pool;
    this.byteOffset = byteOffset;
    this.sizeBytes = sizeBytes;
  }
}

/** Cache lines: no two buffers share one. */
const ALIGNMENT = 64;

/** Sizes with two bits behind the leading one (4, 5, 6, 7, 8, 10, 12, ...): at most a quarter is wasted. */
export function sizeClass(sizeBytes: number): number {
  let step = ALIGNMENT;
  while (step * 8 <= sizeBytes) step *= 2;
  return Math.max(1, Math.ceil(sizeBytes / step)) * step;
}

class CpuPool {
  readonly stats: MemoryStats = { liveBytes: 0, peakBytes: 0, newBuffers: 0, reservedBytes: 0 };
  readonly #host: CpuHost;
  readonly #idle = new Map<number, number[]>();

  constructor(host: CpuHost) {
    this.#host = host;
  }

  alloc(requested: number): CpuStorage {
    const sizeBytes = sizeClass(requested);
    const byteOffset = this.#idle.get(sizeBytes)?.pop() ?? this.#extend(sizeBytes);
    this.stats.liveBytes += sizeBytes;
    this.stats.peakBytes = Math.max(this.stats.peakBytes, this.stats.liveBytes);
    return new CpuStorage(this, byteOffset, sizeBytes);
  }

  free(storage: Storage): void {
    const { byteOffset, sizeBytes } = this.check('free', storage);
    (storage as CpuStorage).live = false;
    this.stats.liveBytes -= sizeBytes;
    const idle = this.#idle.get(sizeBytes);
    if (idle) idle.push(byteOffset);
    else this.#idle.set(sizeBytes, [byteOffset]);
  }

  /** The storage, if it is a live one of this device. */
  check(op: string, storage: Storage): CpuStorage {
    if (!(storage instanceof CpuStorage) || storage.pool !== this) {
      throw new StateError(
        `${op}: expected a buffer of this ${this.#host.name} device, got one of another. Copy it over first.`,
      );
    }
    if (!storage.live) {
      throw new StateError(
        `${op}: expected a live buffer, got one that was freed. Keep it until its last use.`,
      );
    }
    return storage;
  }

  /** The byte offset of an operand. */
  locate(op: string, ref: BufferRef, bytesPerElement: number): number {
    const storage = this.check(op, ref.storage);
    const start = ref.offset * bytesPerElement;
    if (!(start >= 0 && start <= storage.sizeBytes)) {
      throw new StateError(
        `${op}: expected an offset within ${storage.sizeBytes} bytes, got element ${ref.offset} of ${bytesPerElement} bytes.`,
      );
    }
    return storage.byteOffset + start;
  }

  #extend(sizeBytes: number): number {
    const byteOffset = this.stats.reservedBytes;
    this.#host.reserve(byteOffset + sizeBytes);
    this.stats.reservedBytes += sizeBytes;
    this.stats.newBuffers++;
    return byteOffset;
  }
}

/** One operand of a kernel: its name and how it is passed. */
interface Slot {
  readonly name: string;
  /** Element size of a buffer; 0 for a number. */
  readonly bytes: number;
  readonly optional: boolean;
}

function slotsOf(spec: Readonly<Record<string, string>>): Slot[] {
  return Object.entries(spec).map(([name, kind]) => {
    const base = kind.replace('?', '');
    const bytes = base === 'int' || base === 'num' ? 0 : base.startsWith('bits') ? 2 : 4;
    return { name, bytes, optional: kind.endsWith('?') };
  });
}

/** How a kernel of this host is called. */
interface Signature {
  readonly name: KernelName;
  readonly index: number;
  readonly slots: readonly Slot[];
}

/** One operand as the kernels take it. */
function operandOf(pool: CpuPool, kernel: string, slot: Slot, value: CallArgs[string] | undefined): number {
  if (typeof value === 'number') {
    if (slot.bytes !== 0) throw badOperand(kernel, slot, value);
    return value;
  }
  if (value) {
    if (slot.bytes === 0) throw badOperand(kernel, slot, value);
    return pool.locate(kernel, value, slot.bytes);
  }
  if (slot.optional && value === null) return -1;
  throw badOperand(kernel, slot, value);
}

/** Called thousands of times a second: one pass over the operands. */
function bindKernel(host: CpuHost, pool: CpuPool, recorder: Recorder, { name, index, slots }: Signature) {
  const count = slots.length;
  return (args: CallArgs): void => {
    for (let i = 0; i < count; i++) {
      const slot = slots[i]!;
      const operand = operandOf(pool, name, slot, args[slot.name]); // may allocate, and so move the operands
      host.operands[i] = operand;
    }
    host.run(index);
    recorder.called(name, args);
  };
}

/** A function that runs these calls, which are checked and put into one list of numbers now. */
function compile(
  host: CpuHost,
  pool: CpuPool,
  signatures: ReadonlyMap<string, Signature>,
  calls: readonly Call[],
) {
  const all = calls.map(({ kernel, args }) => ({ signature: signatures.get(kernel)!, args }));
  const kernels = Int32Array.from(all, ({ signature }) => signature.index);
  const operands = Float64Array.from(
    all.flatMap(({ signature: { name, slots }, args }) =>
      slots.map((slot) => operandOf(pool, name, slot, args[slot.name])),
    ),
  );
  const { runAll } = host;
  if (runAll) return () => runAll.call(host, kernels, operands);
  const counts = all.map(({ signature }) => signature.slots.length);
  return () => {
    let at = 0;
    for (let i = 0; i < kernels.length; i++) {
      const count = counts[i]!;
      for (let j = 0; j < count; j++) host.operands[j] = operands[at + j]!;
      at += count;
      host.run(kernels[i]!);
    }
  };
}

function badOperand(kernel: string, slot: Slot, value: unknown): StateError {
  const kind = slot.bytes === 0 ? 'a number' : slot.optional ? 'a buffer or null' : 'a buffer';
  const got = value === null ? 'null' : typeof value;
  return new StateError(`${kernel}: expected ${slot.name} to be ${kind}, got ${got}. Pass every operand.`);
}

/** Matches what was compiled with what kernels.ts says; a stale build must not run. */
function signaturesOf(host: CpuHost): Map<string, Signature> {
  const stale = (what: string) =>
    new UnsupportedError(`${host.name}: ${what}. The build is stale: run \`npm run build\`.`);
  const entries = host.kernels.map(({ name, operands }, index): [string, Signature] => {
    const spec = (KERNELS as Readonly<Record<string, Readonly<Record<string, string>>>>)[name];
    if (!spec) throw stale(`expected a known kernel, got ${name}`);
    const slots = slotsOf(spec);
    if (slots.length !== operands) {
      throw stale(`expected ${name} with ${slots.length} operands, got ${operands}`);
    }
    return [name, { name: name as KernelName, index, slots }];
  });
  return new Map(entries);
}

/** The array to copy from: `data` itself where its type is already right. */
function encode(dtype: DType, data: TypedArray | readonly number[]): TypedArray {
  if (dtype === 'f32') return data instanceof Float32Array ? data : Float32Array.from(data);
  if (dtype === 'i32') return data instanceof Int32Array ? data : Int32Array.from(data);
  return rawStorage(dtype, data);
}

/** A Backend over a host. Throws UnsupportedError when the host was built from other kernel definitions. */
export function cpuBackend(host: CpuHost): Backend {
  const pool = new CpuPool(host);
  const signatures = signaturesOf(host);
  const recorder = new Recorder({
    compile: (calls) => compile(host, pool, signatures, calls),
    alloc: (sizeBytes) => pool.alloc(sizeBytes),
    release: (storage) => pool.free(storage),
  });
  const transfer = (op: string, ref: BufferRef, dtype: DType, data: TypedArray): number => {
    const start = pool.locate(op, ref, LAYOUTS[dtype].block > 1 ? 2 : LAYOUTS[dtype].bytes);
    const room = ref.storage.sizeBytes + (ref.storage as CpuStorage).byteOffset - start;
    if (data.byteLength > room) {
      throw new StateError(
        `${op}: expected at most ${room} bytes from there on, got ${data.byteLength} of ${dtype}.`,
      );
    }
    return start;
  };
  const backend: Backend = {
    name: host.name,
    description: host.description,
    kernels: Object.fromEntries(
      [...signatures].map(([name, signature]) => [name, bindKernel(host, pool, recorder, signature)]),
    ),
    alloc: (sizeBytes) => recorder.alloc(sizeClass(sizeBytes)),
    free(storage) {
      pool.check('free', storage);
      if (!recorder.keeps(storage)) pool.free(storage);
    },
    write(target, dtype, data) {
      const elements = encode(dtype, data);
      const start = transfer('write', target, dtype, elements);
      if (!recorder.uploads(backend, target, dtype, elements)) host.write(start, elements);
    },
    record: (varying, fn) => recorder.record(varying, fn),
    async read(source, dtype, count, into) {
      recorder.refuse('read');
      const out = into ?? hostArray(dtype, count);
      host.read(transfer('read', source, dtype, out), out);
      return out;
    },
    get memory() {
      return { ...pool.stats };
    },
    resetPeak() {
      pool.stats.peakBytes = pool.stats.liveBytes;
    },
  };
  return backend;
}
