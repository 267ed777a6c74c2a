/**
 * Writing pytorch_model.bin as `torch.save` of a state dict does, piece by piece: a zip archive of a pickle
 * that names every tensor, and one entry per storage. The same tensors give the same bytes. Sources:
 * torch/serialization.py (_save), CPython, Lib/pickle.py.
 */
import { ConfigError, ShapeError } from '../base/errors.ts';
import { type Shape, showShape, sizeOf, stridesOf } from '../base/shape.ts';
import { STORED_BYTES } from './tensor-file.ts';
import { type ZipContent, zipChunks } from './zip-write.ts';

/** The element types of weights in these files. */
export type TorchDType = 'F32' | 'BF16' | 'F16';

export interface TorchEntry {
  name: string;
  dtype: TorchDType;
  shape: Shape;
  /** Row-major, little-endian, in any pieces. Called when the tensor is written. */
  bytes: () => AsyncIterable<Uint8Array>;
}

/**
 * Another name of a tensor that stands before it, as of tied weights: torch.load gives one tensor for both.
 */
export interface TorchAlias {
  name: string;
  sameAs: string;
}

/** torch.save calls the folder inside the archive after the file; readers take any. */
const FOLDER = 'pytorch_model';
const STORAGES: Readonly<Record<TorchDType, string>> = {
  F32: 'FloatStorage',
  BF16: 'BFloat16Storage',
  F16: 'HalfStorage',
};

/** The bytes of a file, piece by piece; use each before asking for the next. */
export async function* torchChunks(entries: Iterable<TorchEntry | TorchAlias>): AsyncGenerator<Uint8Array> {
  const state = [...entries];
  const tensors = state.filter((entry): entry is TorchEntry => 'shape' in entry);
  const text = (name: string, content: string | Uint8Array): ZipContent => {
    const bytes = typeof content === 'string' ? new TextEncoder().encode(content) : content;
    return { name: `${FOLDER}/${name}`, sizeBytes: bytes.length, bytes: () => [bytes] };
  };
  yield* zipChunks([
    text('data.pkl', stateDictPickle(state)),
    text('byteorder', 'little'),
    ...tensors.map(({ dtype, shape, bytes }, key) => ({
      name: `${FOLDER}/data/${key}`,
      sizeBytes: sizeOf(shape) * STORED_BYTES[dtype],
      bytes,
    })),
    text('version', '3\n'),
  ]);
}

/** Python's pickler fills containers in batches of this many. */
const BATCH = 1000;

/**
 * The pickle (protocol 2) of an OrderedDict: the tensors have the storages '0', '1', ... in their order.
 * Opcode by opcode as Python's own pickler writes it, with its memo of what may come again.
 */
function stateDictPickle(entries: readonly (TorchEntry | TorchAlias)[]): Uint8Array {
  const out = new Pickle();
  out.op(0x80, 2); // PROTO
  out.global('collections', 'OrderedDict');
  out.op(0x29, 0x52); // EMPTY_TUPLE REDUCE
  out.remember();
  const tensors = new Map<string, number>();
  let key = 0;
  for (let start = 0; start < entries.length; start += BATCH) {
    const batch = entries.slice(start, start + BATCH);
    if (batch.length > 1) out.op(0x28); // MARK
    for (const entry of batch) {
      const { name } = entry;
      if (tensors.has(name))
        throw new ConfigError(`writeTorch: expected every name once, got ${name} again. Rename the tensor.`);
      out.text(name);
      if ('shape' in entry) tensors.set(name, tensor(out, entry, key++));
      else tensors.set(name, alias(out, entry, tensors));
    }
    out.op(batch.length > 1 ? 0x75 : 0x73); // SETITEMS SETITEM
  }
  out.op(0x2e); // STOP
  return out.bytes();
}

/** Its place in the memo. */
function tensor(out: Pickle, { name, dtype, shape }: TorchEntry, key: number): number {
  if (!shape.every((extent) => Number.isSafeInteger(extent) && extent >= 0))
    throw new ShapeError(`writeTorch: expected extents >= 0, got ${showShape(shape)} for ${name}.`);
  out.global('torch._utils', '_rebuild_tensor_v2');
  out.op(0x28, 0x28); // MARK MARK
  out.word('storage');
  out.global('torch', STORAGES[dtype]);
  out.text(String(key));
  out.word('cpu');
  out.integer(sizeOf(shape));
  out.op(0x74); // TUPLE
  out.remember();
  out.op(0x51); // BINPERSID
  out.integer(0); // offset in the storage
  out.tuple(shape);
  out.tuple(stridesOf(shape));
  out.op(0x89); // NEWFALSE: requires_grad
  out.global('collections', 'OrderedDict'); // of hooks
  out.op(0x29, 0x52); // EMPTY_TUPLE REDUCE
  out.remember();
  out.op(0x74); // TUPLE
  out.remember();
  out.op(0x52); // REDUCE
  return out.remember();
}

function alias(out: Pickle, { name, sameAs }: TorchAlias, tensors: ReadonlyMap<string, number>): number {
  const place = tensors.get(sameAs);
  if (place === undefined)
    throw new ConfigError(
      `writeTorch: expected a tensor before ${name} that it is the same as, got ${sameAs}.`,
    );
  out.recall(place);
  return place;
}

/** Opcodes in a row. */
class Pickle {
  readonly #bytes: number[] = [];
  #remembered = 0;
  /** What is written once and recalled from then on. */
  readonly #known = new Map<string, number>();

  bytes(): Uint8Array {
    return Uint8Array.from(this.#bytes);
  }

  op(...bytes: number[]): void {
    this.#bytes.push(...bytes);
  }

  #number(opcode: number, value: number, bytes: 1 | 2 | 4): void {
    this.op(opcode);
    for (let i = 0; i < bytes; i++) this.op((value >>> (8 * i)) & 255);
  }

  /** Puts the top of the stack into the memo. */
  remember(): number {
    const place = this.#remembered++;
    if (place < 256)
      this.#number(0x71, place, 1); // BINPUT
    else this.#number(0x72, place, 4); // LONG_BINPUT
    return place;
  }

  recall(place: number): void {
    if (place < 256)
      this.#number(0x68, place, 1); // BINGET
    else this.#number(0x6a, place, 4); // LONG_BINGET
  }

  text(text: string): void {
    const bytes = new TextEncoder().encode(text);
    this.#number(0x58, bytes.length, 4); // BINUNICODE
    this.op(...bytes);
    this.remember();
  }

  /** A text that comes again. */
  word(text: string): void {
    this.#once(text, () => this.text(text));
  }

  global(module: string, name: string): void {
    const line = `${module}\n${name}\n`;
    this.#once(line, () => {
      this.op(0x63, ...new TextEncoder().encode(line)); // GLOBAL
      this.remember();
    });
  }

  #once(key: string, write: () => void): void {
    const place = this.#known.get(key);
    if (place === undefined) {
      this.#known.set(key, this.#remembered);
      write();
    } else {
      this.recall(place);
    }
  }

  integer(value: number): void {
    if (value < 2 ** 8)
      this.#number(0x4b, value, 1); // BININT1
    else if (value < 2 ** 16)
      this.#number(0x4d, value, 2); // BININT2
    else if (value < 2 ** 31)
      this.#number(0x4a, value, 4); // BININT
    else this.#long(value);
  }

  #long(value: number): void {
    const bytes: number[] = [];
    for (let rest = BigInt(value); rest > 0n; rest >>= 8n) bytes.push(Number(rest & 255n));
    if (bytes.at(-1)! > 127) bytes.push(0); // the highest bit is the sign
    this.op(0x8a, bytes.length, ...bytes); // LONG1
  }

  tuple(values: readonly number[]): void {
    if (values.length > 3) this.op(0x28); // MARK
    for (const value of values) this.integer(value);
    this.op([0x29, 0x85, 0x86, 0x87][values.length] ?? 0x74); // EMPTY_TUPLE TUPLE1 TUPLE2 TUPLE3 TUPLE
    if (values.length > 0) this.remember();
  }
}
