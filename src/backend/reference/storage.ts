/**
 * Host buffers of the reference backend. With 32-bit floats all views share the same bytes, as on any device.
 * With 64-bit floats (for finite differences) floats, ints and 16-bit values cannot share bytes: each has its
 * own array, and `holds` remembers which was written last, so that `copy` and `scatter` move the right one.
 */
import { StateError } from '../../base/errors.ts';
import type { BufferRef, Storage } from '../backend.ts';

export type Floats = Float32Array | Float64Array;

export class HostStorage implements Storage {
  readonly sizeBytes: number;
  readonly wide: boolean;
  holds: 'floats' | 'ints' = 'floats';
  freed = false;
  readonly #floats: Floats;
  #ints: Int32Array | null = null;
  #bits: Uint16Array | null = null;

  constructor(sizeBytes: number, wide: boolean) {
    this.sizeBytes = sizeBytes;
    this.wide = wide;
    this.#floats = wide ? new Float64Array(sizeBytes / 4) : new Float32Array(sizeBytes / 4);
  }

  /** Contents of a fresh buffer are undefined: NaN shows every read of an element that was never written. */
  poison(): void {
    this.#floats.fill(Number.NaN);
    this.holds = 'floats';
    if (this.wide) {
      this.#ints = null;
      this.#bits = null;
    }
  }

  get floats(): Floats {
    return this.#floats;
  }

  get ints(): Int32Array {
    this.#ints ??= this.wide ? new Int32Array(this.sizeBytes / 4) : new Int32Array(this.#floats.buffer);
    return this.#ints;
  }

  get bits(): Uint16Array {
    this.#bits ??= this.wide ? new Uint16Array(this.sizeBytes / 2) : new Uint16Array(this.#floats.buffer);
    return this.#bits;
  }
}

/** The live buffer behind an operand. */
export function hostStorage(ref: BufferRef): HostStorage {
  const { storage } = ref;
  if (!(storage instanceof HostStorage)) {
    throw new StateError('reference: expected a buffer of this device, got one of another. Copy it first.');
  }
  if (storage.freed)
    throw new StateError('reference: expected a live buffer, got a freed one. Keep it longer.');
  return storage;
}

/** A float operand that is read. */
export function input(ref: BufferRef): Floats {
  return hostStorage(ref).floats.subarray(ref.offset);
}

export function optionalInput(ref: BufferRef | null): Floats | null {
  return ref && input(ref);
}

/** A float operand that is written (and perhaps read). */
export function output(ref: BufferRef): Floats {
  const storage = hostStorage(ref);
  storage.holds = 'floats';
  return storage.floats.subarray(ref.offset);
}

export function optionalOutput(ref: BufferRef | null): Floats | null {
  return ref && output(ref);
}

/** An int32 operand that is read. */
export function ids(ref: BufferRef): Int32Array {
  return hostStorage(ref).ints.subarray(ref.offset);
}

export function optionalIds(ref: BufferRef | null): Int32Array | null {
  return ref && ids(ref);
}

/** An int32 operand that is written. */
export function idsOutput(ref: BufferRef): Int32Array {
  const storage = hostStorage(ref);
  storage.holds = 'ints';
  return storage.ints.subarray(ref.offset);
}

/** An operand of narrow storage, in units of 16 bits. */
export function bits(ref: BufferRef): Uint16Array {
  return hostStorage(ref).bits.subarray(ref.offset);
}

/** The same as bytes: what blocks consist of. */
export function bytes(ref: BufferRef): Uint8Array {
  const units = bits(ref);
  return new Uint8Array(units.buffer, units.byteOffset, units.byteLength);
}

/** Source and target of a move of 4-byte elements, whose dtype the kernel does not know. */
export function words(from: BufferRef, to: BufferRef): [Floats | Int32Array, Floats | Int32Array] {
  const source = hostStorage(from);
  const target = hostStorage(to);
  target.holds = source.holds;
  // 32-bit: through int views, so that the bits of a NaN survive. 64-bit: whichever array is current.
  const asInts = !source.wide || source.holds === 'ints';
  return asInts
    ? [source.ints.subarray(from.offset), target.ints.subarray(to.offset)]
    : [source.floats.subarray(from.offset), target.floats.subarray(to.offset)];
}
