/**
 * Reads the fields of a GGUF header one after another through a window, and
 * refuses what cannot be in the file.
 */
import { FormatError } from '../base/errors.ts';
import type { ByteSource } from '../base/source.ts';

/** Headers are read in steps of this size. */
const WINDOW_BYTES = 1 << 18;
const AGAIN = 'The file is damaged or incomplete: download or convert it again.';

/** 64-bit integers beyond 2^53 are bigint; arrays of booleans are bytes 0 and 1. */
export type GgufValue =
  | number
  | bigint
  | boolean
  | string
  | string[]
  | Uint8Array
  | Int8Array
  | Uint16Array
  | Int16Array
  | Uint32Array
  | Int32Array
  | Float32Array
  | Float64Array
  | BigUint64Array
  | BigInt64Array;

interface NumberType {
  bytes: number;
  read: (view: DataView, at: number) => number | bigint;
  array: new (buffer: ArrayBuffer) => Exclude<GgufValue, number | bigint | boolean | string | string[]>;
}

/** By the number in the file; 7 is a boolean. */
const NUMBER_TYPES: ReadonlyMap<number, NumberType> = new Map<number, NumberType>([
  [0, { bytes: 1, read: (v, at) => v.getUint8(at), array: Uint8Array }],
  [1, { bytes: 1, read: (v, at) => v.getInt8(at), array: Int8Array }],
  [2, { bytes: 2, read: (v, at) => v.getUint16(at, true), array: Uint16Array }],
  [3, { bytes: 2, read: (v, at) => v.getInt16(at, true), array: Int16Array }],
  [4, { bytes: 4, read: (v, at) => v.getUint32(at, true), array: Uint32Array }],
  [5, { bytes: 4, read: (v, at) => v.getInt32(at, true), array: Int32Array }],
  [6, { bytes: 4, read: (v, at) => v.getFloat32(at, true), array: Float32Array }],
  [7, { bytes: 1, read: (v, at) => v.getUint8(at), array: Uint8Array }],
  [10, { bytes: 8, read: (v, at) => v.getBigUint64(at, true), array: BigUint64Array }],
  [11, { bytes: 8, read: (v, at) => v.getBigInt64(at, true), array: BigInt64Array }],
  [12, { bytes: 8, read: (v, at) => v.getFloat64(at, true), array: Float64Array }],
]);
const BOOLEAN = 7;

export class GgufCursor {
  /** The byte of the file that comes next. */
  at = 0;
  readonly #source: ByteSource;
  #window: DataView = new DataView(new ArrayBuffer(0));
  #start = 0;

  constructor(source: ByteSource) {
    this.#source = source;
  }

  damaged(expected: string, got: string, byte: number, remedy = AGAIN): FormatError {
    return new FormatError(
      `openGguf: expected ${expected}, got ${got} (${this.#source.name}, byte ${byte}). ${remedy}`,
    );
  }

  /** Makes the next `bytes` bytes readable and steps over them; gives their place in the window. */
  async #take(bytes: number, what: string): Promise<number> {
    const { at } = this;
    const end = at + bytes;
    const { sizeBytes } = this.#source;
    if (!(end <= sizeBytes)) {
      throw this.damaged(`${what} (${bytes} bytes)`, `the end of the file at ${sizeBytes}`, at);
    }
    if (end > this.#start + this.#window.byteLength) {
      const read = await this.#source.read(at, Math.min(sizeBytes, at + Math.max(bytes, WINDOW_BYTES)));
      this.#window = new DataView(read.buffer, read.byteOffset, read.byteLength);
      this.#start = at;
    }
    this.at = end;
    return at - this.#start;
  }

  async u32(what: string): Promise<number> {
    const at = await this.#take(4, what);
    return this.#window.getUint32(at, true);
  }

  async u64(what: string): Promise<bigint> {
    const at = await this.#take(8, what);
    return this.#window.getBigUint64(at, true);
  }

  /** A count of things that take at least `leastBytes` each. */
  async count(what: string, leastBytes: number, most: number): Promise<number> {
    const at = this.at;
    const count = Number(await this.u64(`the number of ${what}`));
    const room = Math.min(most, Math.floor((this.#source.sizeBytes - this.at) / leastBytes));
    if (count <= room) return count;
    throw this.damaged(`at most ${room} ${what} in a file of this size`, String(count), at);
  }

  /** Names longer than `mostBytes` or not in UTF-8 are refused; in other texts wrong bytes become U+FFFD. */
  async string(what: string, mostBytes?: number): Promise<string> {
    const start = this.at;
    const length = Number(await this.u64(`the length of ${what}`));
    if (mostBytes !== undefined && length > mostBytes) {
      throw this.damaged(`${what} of at most ${mostBytes} bytes`, String(length), start);
    }
    const at = await this.#take(length, what);
    const { buffer, byteOffset } = this.#window;
    try {
      const decoder = mostBytes === undefined ? LENIENT : STRICT;
      return decoder.decode(new Uint8Array(buffer, byteOffset + at, length));
    } catch {
      throw this.damaged(`${what} in UTF-8`, 'other bytes', start);
    }
  }

  async scalar(type: number, key: string, byte: number): Promise<number | bigint | boolean> {
    const { bytes, read } = this.#numberType(type, key, byte);
    const at = await this.#take(bytes, `the value of ${key}`);
    const value = read(this.#window, at);
    if (type === BOOLEAN) return value !== 0;
    return typeof value === 'bigint' && Number.isSafeInteger(Number(value)) ? Number(value) : value;
  }

  async numbers(type: number, key: string, byte: number): Promise<GgufValue> {
    const { bytes, array: Elements } = this.#numberType(type, key, byte);
    const count = await this.count(`values in ${key}`, bytes, Number.MAX_SAFE_INTEGER);
    const at = await this.#take(count * bytes, `the values of ${key}`);
    const start = this.#window.byteOffset + at;
    return new Elements(this.#window.buffer.slice(start, start + count * bytes) as ArrayBuffer);
  }

  #numberType(type: number, key: string, byte: number): NumberType {
    const found = NUMBER_TYPES.get(type);
    if (found) return found;
    throw this.damaged(`a known value type for ${key}`, `number ${type}`, byte);
  }
}

const STRICT = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });
const LENIENT = new TextDecoder('utf-8', { ignoreBOM: true });
