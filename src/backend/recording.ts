/**
 * Recordings: what kernels were called while a function ran, to run them again without the function. Shared
 * by all devices; a device says how calls become a program and takes buffers back.
 *
 * Kernels that depend on nothing that varies (exp(A_log), uploaded ids of rows) run once and are not part of
 * the program. Their results are `fixed`: such buffers are never handed out again inside the recording. All
 * others are, as they are without a recording.
 */
import type { DType, TypedArray } from '../base/dtype.ts';
import { StateError } from '../base/errors.ts';
import {
  type Backend,
  type BufferRef,
  type KernelName,
  kernelOf,
  type Recording,
  type Storage,
} from './backend.ts';
import { KERNELS } from './kernels.ts';

export type CallArgs = Readonly<Record<string, number | BufferRef | null>>;

export interface Call {
  readonly kernel: KernelName;
  readonly args: CallArgs;
}

/** What a device does for its recordings. */
export interface RecordingHost {
  /** A function that runs the calls. Their buffers stay live until the recording ends. */
  compile(calls: readonly Call[]): () => void;
  /** A buffer from the pool. */
  alloc(sizeBytes: number): Storage;
  /** Takes a buffer back that free() left to the recording. */
  release(storage: Storage): void;
}

/** Which operands of a kernel are buffers that it reads, and writes. */
const ROLES = new Map(
  Object.entries(KERNELS).map(([kernel, spec]) => {
    const names = Object.entries(spec).filter(([, kind]) => kind !== 'int' && kind !== 'num');
    const writes = names.filter(([, kind]) => /^(out|io)|Out/.test(kind)).map(([name]) => name);
    const reads = names.filter(([, kind]) => !/^out|Out/.test(kind)).map(([name]) => name);
    return [kernel, { reads, writes }];
  }),
);

/** What is known of a buffer that was made during a recording. */
interface Made {
  /** Holds something that is written once. */
  isFixed: boolean;
  /** Written by the program. */
  varies: boolean;
}

class Log implements Recording {
  isCurrent = true;
  readonly calls: Call[] = [];
  readonly made = new Map<Storage, Made>();
  /** Made here and freed: kept for the program. */
  readonly kept = new Set<Storage>();
  /** From outside, and varying. */
  readonly varying: Set<Storage>;
  /** From outside, read by the program or by what ran once. */
  readonly constants = new Set<Storage>();
  readonly #recorder: Recorder;
  readonly #idle = new Map<number, Storage[]>();
  #run: (() => void) | null = null;

  constructor(recorder: Recorder, varying: readonly Storage[]) {
    this.#recorder = recorder;
    this.varying = new Set(varying);
  }

  #varies(storage: Storage): boolean {
    return this.made.get(storage)?.varies ?? this.varying.has(storage);
  }

  add(kernel: KernelName, args: CallArgs): void {
    const { reads, writes } = ROLES.get(kernel)!;
    const storages = (names: readonly string[]) =>
      names.flatMap((name) => (args[name] ? [(args[name] as BufferRef).storage] : []));
    const inputs = storages(reads);
    const outputs = storages(writes);
    for (const storage of inputs) {
      if (!this.made.has(storage) && !this.varying.has(storage)) this.constants.add(storage);
    }
    const once =
      !inputs.some((storage) => this.#varies(storage)) &&
      outputs.every((storage) => this.made.get(storage)?.varies === false);
    for (const storage of outputs) {
      const made = this.made.get(storage);
      if (!made) this.varying.add(storage);
      else if (once) made.isFixed = true;
      else made.varies = true;
    }
    if (once) return;
    const entries = Object.entries(args).map(([name, value]) => [
      name,
      // A tensor may be disposed before the replay: only where it lies counts.
      value !== null && typeof value === 'object' ? { storage: value.storage, offset: value.offset } : value,
    ]);
    this.calls.push({ kernel, args: Object.fromEntries(entries) as CallArgs });
  }

  /** A buffer of this size that the program has no more use for. */
  reuse(sizeBytes: number): Storage | null {
    const storage = this.#idle.get(sizeBytes)?.pop();
    if (storage) this.kept.delete(storage);
    return storage ?? null;
  }

  keep(storage: Storage): void {
    if (this.kept.has(storage)) {
      throw new StateError(
        'free: expected a live buffer, got one that was freed. Keep it until its last use.',
      );
    }
    this.kept.add(storage);
    if (this.made.get(storage)!.isFixed) return;
    const idle = this.#idle.get(storage.sizeBytes);
    if (idle) idle.push(storage);
    else this.#idle.set(storage.sizeBytes, [storage]);
  }

  replay(): void {
    this.#run ??= this.#recorder.host.compile(this.calls);
    this.#checked(this.#run)();
  }

  exchanged(pairs: readonly (readonly [Storage, Storage])[]): () => void {
    const other = new Map(
      pairs.flatMap(([a, b]) => {
        if (a.sizeBytes === b.sizeBytes) return [[a, b] as const, [b, a] as const];
        throw new StateError(
          `exchanged: expected buffers of one size, got ${a.sizeBytes} and ${b.sizeBytes} bytes.`,
        );
      }),
    );
    const place = (value: CallArgs[string]) =>
      value !== null && typeof value === 'object'
        ? { ...value, storage: other.get(value.storage) ?? value.storage }
        : value;
    const calls = this.calls.map(({ kernel, args }) => ({
      kernel,
      args: Object.fromEntries(Object.entries(args).map(([name, value]) => [name, place(value!)])),
    }));
    const run = this.#recorder.host.compile(calls);
    return () => this.#checked(run)();
  }

  #checked(run: () => void): () => void {
    if (this.isCurrent) return run;
    throw new StateError(
      'replay: expected the buffers that were recorded, got some that were freed or overwritten since. Record again.',
    );
  }

  dispose(): void {
    this.isCurrent = false;
    this.#recorder.forget(this);
  }
}

export class Recorder {
  readonly host: RecordingHost;
  #current: Log | null = null;
  /** Recordings by the buffers they made. */
  readonly #owners = new Map<Storage, Log>();
  /** Recordings by the buffers from outside that they read. */
  readonly #watched = new Map<Storage, Set<Log>>();

  constructor(host: RecordingHost) {
    this.host = host;
  }

  record<T>(varying: readonly Storage[], fn: () => T): { result: T; recording: Recording } {
    this.refuse('record');
    const log = new Log(this, varying);
    this.#current = log;
    try {
      const result = fn();
      for (const storage of [...log.varying, ...log.constants]) {
        const logs = this.#watched.get(storage);
        if (logs) logs.add(log);
        else this.#watched.set(storage, new Set([log]));
      }
      return { result, recording: log };
    } catch (error) {
      log.dispose();
      throw error;
    } finally {
      this.#current = null;
    }
  }

  /** Throws StateError inside a recording. */
  refuse(op: string): void {
    if (!this.#current) return;
    throw new StateError(`${op}: expected no recording to be under way, got one. Do it before or after.`);
  }

  /**
   * A buffer of `sizeBytes`, a size of the pool. While recording, rather one that the program has no more use
   * for.
   */
  alloc(sizeBytes: number): Storage {
    return this.#current?.reuse(sizeBytes) ?? this.#adopt(this.host.alloc(sizeBytes));
  }

  #adopt(storage: Storage): Storage {
    if (this.#current) {
      this.#current.made.set(storage, { isFixed: false, varies: false });
      this.#owners.set(storage, this.#current);
    }
    return storage;
  }

  /** Whether a recording keeps the buffer that is being freed. */
  keeps(storage: Storage): boolean {
    const owner = this.#owners.get(storage);
    if (owner) owner.keep(storage);
    else {
      for (const log of this.#watched.get(storage) ?? []) log.isCurrent = false;
      const { varying, constants } = this.#current ?? {};
      if (varying?.has(storage) || constants?.has(storage)) this.#current!.isCurrent = false;
    }
    return owner !== undefined;
  }

  /** After a kernel has run. */
  called(kernel: KernelName, args: CallArgs): void {
    this.#current?.add(kernel, args);
    if (this.#watched.size === 0) return;
    for (const name of ROLES.get(kernel)!.writes) {
      const operand = args[name] as BufferRef | null;
      if (operand) this.#overwritten(operand.storage);
    }
  }

  /**
   * Before host data is written. What is written inside a recording is written once and stays, so it must not
   * lie where the program writes: then it goes into a buffer of its own, the program copies it from there,
   * and this returns true. Throws StateError for types other than f32 and i32, which is all that steps of
   * models upload.
   */
  uploads(backend: Backend, target: BufferRef, dtype: DType, data: ArrayLike<number>): boolean {
    this.#overwritten(target.storage);
    const made = this.#current?.made.get(target.storage);
    if (made && !made.varies) made.isFixed = true;
    if (!made?.varies) return false;
    if (dtype !== 'f32' && dtype !== 'i32') {
      throw new StateError(
        `write: expected f32 or i32 where a recording writes too, got ${dtype}. Upload it before the recording.`,
      );
    }
    const own = { storage: this.#adopt(this.host.alloc(4 * data.length)), offset: 0 };
    backend.write(own, dtype, data as TypedArray);
    const ones = { d0: 1, d1: 1, d2: 1, d3: 1, d4: 1, s0: 0, s1: 0, s2: 0, s3: 0, s4: 0 };
    kernelOf(backend, 'copy')({ x: own, y: target, ...ones, d5: data.length, s5: 1 });
    backend.free(own.storage);
    return true;
  }

  #overwritten(storage: Storage): void {
    for (const log of this.#watched.get(storage) ?? []) {
      if (!log.varying.has(storage)) log.isCurrent = false;
    }
  }

  /**
   * Ends a recording: what it kept goes back to the pool, what is still in use becomes like any other buffer.
   */
  forget(log: Log): void {
    for (const storage of log.made.keys()) {
      this.#owners.delete(storage);
      if (log.kept.has(storage)) this.host.release(storage);
    }
    for (const storage of [...log.varying, ...log.constants]) {
      const logs = this.#watched.get(storage);
      logs?.delete(log);
      if (logs?.size === 0) this.#watched.delete(storage);
    }
    log.made.clear();
    log.kept.clear();
    log.calls.length = 0;
  }
}
