/**
 * A subset of Python's pickle that executes nothing: protocols 2 to 5 as `torch.save` writes them. Values
 * become plain data: numbers, strings, arrays (lists; frozen ones are tuples) and Maps (dicts). Every name a
 * pickle wants to import must be in a list the caller gives; the functions there are ours. Anything else is
 * refused with its name and place. No recursion, so no nesting is too deep, and at most MAX_OBJECTS objects
 * are built, whatever the bytes say.
 * Source: CPython, Lib/pickletools.py.
 */
import { FormatError, type MambaError, UnsupportedError } from '../base/errors.ts';

/** Reports what is wrong with arguments; the reader adds file and byte. */
export type PickleFail = (expected: string, got: string) => never;
/** Stands for a Python function or class that may be called. */
export type PickleFunction = (args: readonly unknown[], fail: PickleFail) => unknown;

export interface PickleOptions {
  /** The file, for messages. */
  name: string;
  /** Where bytes[0] stands in the file, for messages. */
  offset: number;
  /** What `module.name` stands for: a PickleFunction, or any other value, which cannot be called. */
  globals: ReadonlyMap<string, unknown>;
  /** The object of a persistent id. */
  persistent?: PickleFunction;
}

/** Containers, items and remembered values; a tensor needs about 18. */
const MAX_OBJECTS = 100_000;
/** Python's pickler fills containers in batches of 1000. */
const MAX_STACK = 10_000;
const MAX_INTEGER_BYTES = 32;
const UTF8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });

/** OrderedDict() and OrderedDict([[key, value], ...]). */
export const orderedDict: PickleFunction = (args, fail) => {
  const [pairs = []] = args;
  const isPair = (pair: unknown) => Array.isArray(pair) && pair.length === 2;
  if (args.length > 1 || !Array.isArray(pairs) || !pairs.every(isPair))
    return fail('OrderedDict of nothing or of pairs', describe(args));
  return new Map(pairs as [unknown, unknown][]);
};

/** A short description of any unpickled value, for messages. */
export function describe(value: unknown): string {
  if (Array.isArray(value)) return `${Object.isFrozen(value) ? 'a tuple' : 'a list'} of ${value.length}`;
  if (value instanceof Map) return `a dict of ${value.size}`;
  if (value instanceof Uint8Array) return `${value.length} bytes`;
  if (typeof value === 'string') return JSON.stringify(value.slice(0, 40));
  if (typeof value === 'function' || (typeof value === 'object' && value !== null)) return 'an object';
  return `${typeof value} ${String(value)}`;
}

/** Reads the pickle at the start of `bytes`; `end` is the number of bytes it took. */
export function readPickle(bytes: Uint8Array, options: PickleOptions): { value: unknown; end: number } {
  const reader = new Reader(bytes, options);
  return { value: reader.run(), end: reader.at };
}

class Reader {
  static readonly #operations = new Map<number, (r: Reader) => unknown>([
    [0x80, (r) => r.#protocol()], // PROTO
    [0x95, (r) => r.#frame()], // FRAME
    [0x28, (r) => r.#mark()], // MARK
    [0x30, (r) => r.#discard()], // POP
    [0x31, (r) => r.#popMark()], // POP_MARK
    [0x32, (r) => r.#push(r.#top())], // DUP
    [0x4e, (r) => r.#push(null)], // NONE
    [0x88, (r) => r.#push(true)], // NEWTRUE
    [0x89, (r) => r.#push(false)], // NEWFALSE
    [0x4a, (r) => r.#push(r.#view.getInt32(r.#take(4), true))], // BININT
    [0x4b, (r) => r.#push(r.#uint(1))], // BININT1
    [0x4d, (r) => r.#push(r.#uint(2))], // BININT2
    [0x8a, (r) => r.#push(r.#long(r.#uint(1)))], // LONG1
    [0x8b, (r) => r.#push(r.#long(r.#uint(4)))], // LONG4
    [0x47, (r) => r.#push(r.#view.getFloat64(r.#take(8), false))], // BINFLOAT
    [0x8c, (r) => r.#push(r.#text(r.#uint(1)))], // SHORT_BINUNICODE
    [0x58, (r) => r.#push(r.#text(r.#uint(4)))], // BINUNICODE
    [0x8d, (r) => r.#push(r.#text(r.#uint(8)))], // BINUNICODE8
    [0x55, (r) => r.#push(r.#text(r.#uint(1)))], // SHORT_BINSTRING, Python 2
    [0x54, (r) => r.#push(r.#text(r.#uint(4)))], // BINSTRING, Python 2
    [0x43, (r) => r.#push(r.#raw(r.#uint(1)))], // SHORT_BINBYTES
    [0x42, (r) => r.#push(r.#raw(r.#uint(4)))], // BINBYTES
    [0x8e, (r) => r.#push(r.#raw(r.#uint(8)))], // BINBYTES8
    [0x29, (r) => r.#push(r.#tuple([]))], // EMPTY_TUPLE
    [0x85, (r) => r.#push(r.#tuple(r.#popMany(1)))], // TUPLE1
    [0x86, (r) => r.#push(r.#tuple(r.#popMany(2)))], // TUPLE2
    [0x87, (r) => r.#push(r.#tuple(r.#popMany(3)))], // TUPLE3
    [0x74, (r) => r.#push(r.#tuple(r.#popMark()))], // TUPLE
    [0x5d, (r) => r.#push(r.#count([]))], // EMPTY_LIST
    [0x6c, (r) => r.#push(r.#count(r.#popMark()))], // LIST
    [0x61, (r) => r.#append(r.#popMany(1))], // APPEND
    [0x65, (r) => r.#append(r.#popMark())], // APPENDS
    [0x7d, (r) => r.#push(r.#count(new Map()))], // EMPTY_DICT
    [0x73, (r) => r.#setItems(r.#popMany(2))], // SETITEM
    [0x75, (r) => r.#setItems(r.#popMark())], // SETITEMS
    [0x71, (r) => r.#memoise(r.#uint(1))], // BINPUT
    [0x72, (r) => r.#memoise(r.#uint(4))], // LONG_BINPUT
    [0x94, (r) => r.#memoise(r.#memo.size)], // MEMOIZE
    [0x68, (r) => r.#recall(r.#uint(1))], // BINGET
    [0x6a, (r) => r.#recall(r.#uint(4))], // LONG_BINGET
    [0x63, (r) => r.#global(r.#line(), r.#line())], // GLOBAL
    [0x93, (r) => r.#stackGlobal()], // STACK_GLOBAL
    [0x52, (r) => r.#reduce()], // REDUCE
    [0x62, (r) => r.#build()], // BUILD
    [0x51, (r) => r.#persistent()], // BINPERSID
  ]);

  at = 0;
  #start = 0;
  #objects = 0;
  readonly #bytes: Uint8Array;
  readonly #view: DataView;
  readonly #options: PickleOptions;
  readonly #stack: unknown[] = [];
  readonly #marks: number[] = [];
  readonly #memo = new Map<number, unknown>();

  constructor(bytes: Uint8Array, options: PickleOptions) {
    this.#bytes = bytes;
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    this.#options = options;
  }

  run(): unknown {
    for (;;) {
      this.#start = this.at;
      const opcode = this.#uint(1);
      if (opcode === 0x2e) break; // STOP
      const operation = Reader.#operations.get(opcode);
      if (!operation) return this.#refuse(`the operation 0x${opcode.toString(16).padStart(2, '0')}`);
      operation(this);
      if (this.#stack.length > MAX_STACK) this.#fail('a shallower stack', `${MAX_STACK} values on it`);
    }
    const value = this.#pop();
    if (this.#stack.length > 0 || this.#marks.length > 0)
      this.#fail('one value', `${this.#stack.length} more and ${this.#marks.length} marks`);
    return value;
  }

  #where(): string {
    return `(${this.#options.name}, byte ${this.#options.offset + this.#start})`;
  }

  #fail(expected: string, got: string): never {
    throw this.#error(
      FormatError,
      expected,
      got,
      'The file is damaged or incomplete: download or save it again.',
    );
  }

  /** For what other programs may write in good faith, or in bad. */
  #refuse(got: string): never {
    const remedy =
      'Nothing of it was executed. Save a plain state dict of tensors, or convert it to safetensors.';
    throw this.#error(UnsupportedError, 'a state dict of tensors', got, remedy);
  }

  #error(
    type: new (message: string) => MambaError,
    expected: string,
    got: string,
    remedy: string,
  ): MambaError {
    return new type(`readPickle: expected ${expected}, got ${got} ${this.#where()}. ${remedy}`);
  }

  /** The position of `count` bytes, which exist. */
  #take(count: number): number {
    const start = this.at;
    if (count > this.#bytes.length - start)
      this.#fail(`${count} more bytes`, `the end of the pickle after ${this.#bytes.length - start}`);
    this.at += count;
    return start;
  }

  #uint(size: 1 | 2 | 4 | 8): number {
    const at = this.#take(size);
    if (size === 1) return this.#view.getUint8(at);
    if (size === 2) return this.#view.getUint16(at, true);
    return size === 4 ? this.#view.getUint32(at, true) : Number(this.#view.getBigUint64(at, true));
  }

  #raw(length: number): Uint8Array {
    const start = this.#take(length);
    return this.#count(this.#bytes.subarray(start, start + length));
  }

  #text(length: number): string {
    const start = this.#take(length);
    try {
      return UTF8.decode(this.#bytes.subarray(start, start + length));
    } catch {
      return this.#fail('text in UTF-8', 'other bytes');
    }
  }

  /** Text to the next line feed; names in a file that is no pickle may lack it, so the search is short. */
  #line(): string {
    const start = this.at;
    const end = this.#bytes.subarray(start, start + 256).indexOf(0x0a);
    if (end < 0) this.#fail('a name and a line feed', 'none within 256 bytes');
    const text = this.#text(end);
    this.at++;
    return text;
  }

  /** Little-endian two's complement; a bigint where a number is not exact. */
  #long(length: number): number | bigint {
    if (length > MAX_INTEGER_BYTES)
      this.#fail(`an integer of at most ${MAX_INTEGER_BYTES} bytes`, `one of ${length}`);
    const start = this.#take(length);
    let value = 0n;
    for (let i = length - 1; i >= 0; i--) value = (value << 8n) | BigInt(this.#bytes[start + i]!);
    const signed = BigInt.asIntN(8 * length, value);
    const plain = Number(signed);
    return Number.isSafeInteger(plain) ? plain : signed;
  }

  #protocol(): void {
    const version = this.#uint(1);
    if (version < 2 || version > 5) this.#refuse(`pickle protocol ${version}, not 2 to 5`);
  }

  /** The length of a frame is only a hint for reading ahead. */
  #frame(): void {
    this.#take(8);
  }

  #count<T>(container: T): T {
    if (++this.#objects > MAX_OBJECTS) this.#fail(`at most ${MAX_OBJECTS} objects`, 'more');
    return container;
  }

  #tuple(items: unknown[]): readonly unknown[] {
    return Object.freeze(this.#count(items));
  }

  #push(value: unknown): void {
    this.#stack.push(value);
  }

  #mark(): void {
    if (this.#marks.push(this.#stack.length) > MAX_STACK) this.#fail('fewer marks', `${MAX_STACK} of them`);
  }

  /** Values below the last mark belong to an unfinished container. */
  #floor(): number {
    return this.#marks.at(-1) ?? 0;
  }

  #popMany(count: number): unknown[] {
    if (this.#stack.length - count < this.#floor()) this.#fail(`${count} values on the stack`, 'fewer');
    return this.#stack.splice(this.#stack.length - count);
  }

  #pop(): unknown {
    return this.#popMany(1)[0];
  }

  #top(): unknown {
    if (this.#stack.length === this.#floor()) this.#fail('a value on the stack', 'none');
    return this.#stack.at(-1);
  }

  #popMark(): unknown[] {
    const start = this.#marks.pop();
    return start === undefined ? this.#fail('a mark', 'none') : this.#stack.splice(start);
  }

  #discard(): void {
    if (this.#stack.length === this.#marks.at(-1)) this.#marks.pop();
    else this.#pop();
  }

  #append(items: unknown[]): void {
    const list = this.#top();
    if (!Array.isArray(list) || Object.isFrozen(list)) this.#fail('a list to append to', describe(list));
    for (const item of items) list.push(this.#count(item));
  }

  #setItems(items: unknown[]): void {
    const dict = this.#top();
    if (!(dict instanceof Map)) this.#fail('a dict to fill', describe(dict));
    if (items.length % 2 !== 0) this.#fail('keys with values', `${items.length} items`);
    for (let i = 0; i < items.length; i += 2) dict.set(items[i], this.#count(items[i + 1]));
  }

  #memoise(index: number): void {
    this.#memo.set(index, this.#count(this.#top()));
  }

  #recall(index: number): void {
    if (!this.#memo.has(index)) this.#fail('a remembered value', `none at ${index}`);
    this.#push(this.#memo.get(index));
  }

  #stackGlobal(): void {
    const [module, name] = this.#popMany(2);
    if (typeof module !== 'string' || typeof name !== 'string')
      this.#fail('the name of a global', `${describe(module)} and ${describe(name)}`);
    this.#global(module, name);
  }

  #global(module: string, name: string): void {
    const full = `${module}.${name}`;
    if (!this.#options.globals.has(full)) this.#refuse(`the global ${JSON.stringify(full.slice(0, 200))}`);
    this.#push(this.#options.globals.get(full));
  }

  #reduce(): void {
    const [callee, args] = this.#popMany(2);
    if (typeof callee !== 'function') this.#refuse(`a call of ${describe(callee)}`);
    this.#push(this.#call(callee as PickleFunction, args));
  }

  #call(fn: PickleFunction, args: unknown): unknown {
    if (!Array.isArray(args)) return this.#fail('a tuple of arguments', describe(args));
    return this.#count(fn(args, (expected, got) => this.#fail(expected, got)));
  }

  /** State of a dict: attributes beside its items (`_metadata` of a state dict). They are not tensors. */
  #build(): void {
    this.#pop();
    if (!(this.#top() instanceof Map)) this.#refuse(`attributes of ${describe(this.#top())}`);
  }

  #persistent(): void {
    const id = this.#pop();
    const { persistent } = this.#options;
    this.#push(persistent ? this.#call(persistent, id) : this.#refuse('a persistent id'));
  }
}
