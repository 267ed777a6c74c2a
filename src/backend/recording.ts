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
  type KernelArgs,
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

/** Kernels that may write what leaves to where it entered: see kernels-sequence.ts and kernels-heads.ts. */
const IN_PLACE: { readonly [kernel in KernelName]?: readonly [enters: string, leaves: string] } = {
  causalConv: ['window', 'windowOut'],
  selectiveScan: ['state', 'stateOut'],
  ssd: ['state', 'stateOut'],
  angleScan: ['state', 'stateOut'],
};

/** What is known of a buffer that was made during a recording. */
interface Made {
  /** Holds something that is written once. */
  isFixed: boolean;
  /** Written by the program. */
  varies: boolean;
}

type Pair = readonly [Storage, Storage];

function isBuffer(value: CallArgs[string]): value is BufferRef {
  return value !== null && typeof value === 'object';
}

const at = (storage: Storage): BufferRef => ({ storage, offset: 0 });

/** y = x, of `count` numbers of 4 bytes. */
function copyOf(x: BufferRef, y: BufferRef, count: number): Call {
  const ones = { d0: 1, d1: 1, d2: 1, d3: 1, d4: 1, s0: 0, s1: 0, s2: 0, s3: 0, s4: 0 };
  return { kernel: 'copy', args: { x, y, ...ones, d5: count, s5: 1 } };
}

function expectPairs(op: string, pairs: readonly Pair[]): void {
  const odd = pairs.find(([a, b]) => a.sizeBytes !== b.sizeBytes);
  if (!odd) return;
  const sizes = `${odd[0].sizeBytes} and ${odd[1].sizeBytes} bytes`;
  throw new StateError(`${op}: expected pairs of buffers of one size, got ${sizes}.`);
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
      isBuffer(value) ? { storage: value.storage, offset: value.offset } : value,
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

  exchanged(pairs: readonly Pair[]): () => void {
    expectPairs('exchanged', pairs);
    return this.#compiled(this.calls, [...pairs, ...pairs.map(([a, b]): Pair => [b, a])]);
  }

  inPlace(pairs: readonly Pair[]): () => void {
    expectPairs('inPlace', pairs);
    const shared = pairs.filter((pair) => this.#mayShare(pair));
    const copied = pairs.filter((pair) => !shared.includes(pair));
    const copies = copied.map(([x, y]) => copyOf(at(y), at(x), x.sizeBytes / 4));
    return this.#compiled(
      [...this.calls, ...copies],
      shared.map(([a, b]): Pair => [b, a]),
    );
  }

  /** Whether `b` is only written where `a` is read, by a kernel that can do so in place. */
  #mayShare([a, b]: Pair): boolean {
    const uses = ({ args }: Call, storage: Storage) =>
      Object.values(args).filter((value) => isBuffer(value) && value.storage === storage).length;
    const readers = this.calls.filter((call) => uses(call, a) > 0);
    const call = readers[0]!;
    const names = readers.length === 1 ? IN_PLACE[call.kernel] : null;
    if (!names || call !== this.calls.find((other) => uses(other, b) > 0)) return false;
    const [enters, leaves] = names.map((name) => call.args[name] as BufferRef | null);
    const isThis = enters?.storage === a && leaves?.storage === b && enters.offset === leaves.offset;
    return isThis && uses(call, a) === 1 && uses(call, b) === 1;
  }

  /** The calls with other buffers in the place of some. */
  #compiled(calls: readonly Call[], instead: readonly Pair[]): () => void {
    const places = new Map(instead);
    const place = (value: CallArgs[string]) =>
      isBuffer(value) ? { ...value, storage: places.get(value.storage) ?? value.storage } : value;
    const run = this.#recorder.host.compile(
      calls.map(({ kernel, args }) => ({
        kernel,
        args: Object.fromEntries(Object.entries(args).map(([name, value]) => [name, place(value)])),
      })),
    );
    return () => this.#checked(run)();
  }

  #checked(run: () => void): () => void {
    if (this.isCurrent) return run;
    throw new StateError(
      'replay: expected the buffers that were recorded, got some that were freed or overwritten. Record again.',
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
    const own = at(this.#adopt(this.host.alloc(4 * data.length)));
    backend.write(own, dtype, data as TypedArray);
    kernelOf(backend, 'copy')(copyOf(own, target, data.length).args as KernelArgs<'copy'>);
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
