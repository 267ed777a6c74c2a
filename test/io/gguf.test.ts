/** Malformed GGUF files: a table of lies, and mutations. Always a MambaError, never memory beyond the file's size. */
import fc from 'fast-check';
import { describe, expect, it, test } from 'vitest';
import { FormatError, MambaError, UnsupportedError } from '../../src/base/errors.ts';
import { type ByteSource, memorySource } from '../../src/base/source.ts';
import { expectedTensors } from '../../src/io/expected-tensors.ts';
import { openGguf } from '../../src/io/gguf.ts';
import { ggufContent } from '../../src/io/gguf-export.ts';
import { openGgufModel } from '../../src/io/gguf-model.ts';
import { type GgufEntry, type GgufField, ggufChunks } from '../../src/io/gguf-write.ts';
import { resolveConfig } from '../../src/models/config.ts';

const TOKENIZER = JSON.stringify({
  model: { type: 'BPE', vocab: { a: 0, b: 1, ab: 2 }, merges: ['a b'] },
  pre_tokenizer: { type: 'ByteLevel' },
  added_tokens: [{ id: 3, content: '<|endoftext|>', special: true }],
});

type Part = number | bigint | string | Uint8Array;
const encoder = new TextEncoder();

/** Numbers are u32, bigints u64, texts strings with their length. */
function bytesOf(parts: readonly Part[]): Uint8Array {
  const out: number[] = [];
  for (const part of parts) {
    if (typeof part === 'number') out.push(...new Uint8Array(Uint32Array.of(part).buffer));
    else if (typeof part === 'bigint') out.push(...new Uint8Array(BigUint64Array.of(part).buffer));
    else if (part instanceof Uint8Array) out.push(...part);
    else {
      const text = encoder.encode(part);
      out.push(...bytesOf([BigInt(text.length)]), ...text);
    }
  }
  return Uint8Array.from(out);
}

const MAGIC = encoder.encode('GGUF');
/** A file of one key and one F32 tensor `t` of 8 elements, with parts of it replaced. */
function file(change: {
  version?: number;
  tensors?: bigint;
  keys?: bigint;
  key?: readonly Part[];
  tensor?: readonly Part[];
  dataBytes?: number;
}): Uint8Array {
  const { version = 3, tensors = 1n, keys = 1n, key = ['k', 4, 7], dataBytes = 32 } = change;
  const tensor = change.tensor ?? ['t', 1, 8n, 0, 0n];
  const header = bytesOf([MAGIC, version, tensors, keys, ...key, ...tensor]);
  const out = new Uint8Array(Math.ceil(header.length / 32) * 32 + dataBytes);
  out.set(header);
  return out;
}

const open = (bytes: Uint8Array) => openGguf(memorySource(bytes, 'f.gguf'));

test.each([2, 3])('version %i: values, extents in reverse, data', async (version) => {
  const bytes = file({ version, tensor: ['t', 2, 4n, 2n, 0, 0n] });
  bytes.set(new Uint8Array(Float32Array.from({ length: 8 }, (_, i) => i).buffer), bytes.length - 32);
  const opened = await open(bytes);
  expect(opened.version).toBe(version);
  expect(opened.metadata.get('k')).toBe(7);
  expect(opened.tensors.get('t')?.shape).toEqual([2, 4]);
  expect(await opened.readAsF32('t')).toEqual(Float32Array.of(0, 1, 2, 3, 4, 5, 6, 7));
  await expect(opened.readAsF32('u')).rejects.toThrow(/got the name u/);
});

test.each<[string, Part[], unknown]>([
  ['u8', [0, Uint8Array.of(200)], 200],
  ['i8', [1, Uint8Array.of(200)], -56],
  ['u16', [2, Uint8Array.of(1, 2)], 513],
  ['i16', [3, Uint8Array.of(255, 255)], -1],
  ['u32', [4, 4294967295], 4294967295],
  ['i32', [5, 4294967295], -1],
  ['f32', [6, new Uint8Array(Float32Array.of(0.5).buffer)], 0.5],
  ['bool', [7, Uint8Array.of(1)], true],
  ['string', [8, 'é🙂'], 'é🙂'],
  ['u64', [10, 5n], 5],
  ['u64 beyond 2^53', [10, 2n ** 64n - 1n], 2n ** 64n - 1n],
  ['i64', [11, 2n ** 64n - 2n], -2],
  ['f64', [12, new Uint8Array(Float64Array.of(0.1).buffer)], 0.1],
  ['strings', [9, 8, 2n, 'a', ''], ['a', '']],
  ['i32s', [9, 5, 2n, 1, 4294967295], Int32Array.of(1, -1)],
  ['u16s', [9, 2, 2n, Uint8Array.of(1, 0, 2, 0)], Uint16Array.of(1, 2)],
  ['bools', [9, 7, 2n, Uint8Array.of(1, 0)], Uint8Array.of(1, 0)],
  ['f64s', [9, 12, 1n, new Uint8Array(Float64Array.of(0.1).buffer)], Float64Array.of(0.1)],
  ['empty', [9, 8, 0n], []],
])('a value of type %s', async (_, parts, expected) => {
  const { metadata } = await open(file({ key: ['k', ...parts] }));
  expect(metadata.get('k')).toEqual(expected);
});

describe('a lying file ends in a FormatError that names file, byte and cause', () => {
  const HUGE = 2n ** 63n;
  const cases: [name: string, bytes: Uint8Array, message: RegExp][] = [
    ['empty', new Uint8Array(0), /end of the file at 0 .*byte 0/],
    ['another format', encoder.encode('PK\x03\x04 and more'), /letters GGUF.*not a GGUF file/],
    ['version 1', file({ version: 1 }), /version 1 .*byte 4.*recent llama.cpp/],
    ['big-endian', file({ version: 0x03000000 }), /big-endian/],
    ['2^63 tensors', file({ tensors: HUGE }), /at most \d+ tensors in a file of this size.*byte 8/],
    ['2^63 keys', file({ keys: HUGE }), /at most \d+ metadata keys.*byte 16/],
    ['a key of 2^63 bytes', file({ key: [HUGE] }), /a metadata key of at most 65535 bytes/],
    ['a key that is not UTF-8', file({ key: [1n, Uint8Array.of(255), 4, 7] }), /UTF-8.*byte 24/],
    ['a key twice', file({ keys: 2n, key: ['k', 4, 7, 'k', 4, 8] }), /every metadata key once, got k again/],
    ['a value of type 13', file({ key: ['k', 13, 7] }), /known value type for k, got number 13/],
    ['a text of 2^40 bytes', file({ key: ['k', 8, 2n ** 40n] }), /the text of k .*end of the file/],
    ['2^40 numbers', file({ key: ['k', 9, 4, 2n ** 40n] }), /at most \d+ values in k/],
    ['2^40 texts', file({ key: ['k', 9, 8, 2n ** 40n] }), /at most \d+ texts in k/],
    ['arrays in an array', file({ key: ['k', 9, 9, 1n, 9, 9, 1n] }), /plain values, got arrays/],
    ['an array of an unknown type', file({ key: ['k', 9, 99, 1n] }), /known value type/],
    ['alignment 0', file({ key: ['general.alignment', 4, 0] }), /power of two, got 0/],
    ['alignment 24', file({ key: ['general.alignment', 4, 24] }), /power of two, got 24/],
    ['alignment as text', file({ key: ['general.alignment', 8, 'wide'] }), /power of two, got wide/],
    ['5 axes', file({ tensor: ['t', 5, 1n, 1n, 1n, 1n, 1n, 0, 0n] }), /tensor t: at most 4 axes, got 5/],
    ['extent 0', file({ tensor: ['t', 1, 0n, 0, 0n] }), /tensor t: extents from 1/],
    ['extents that overflow', file({ tensor: ['t', 2, 2n ** 40n, 2n ** 40n, 0, 0n] }), /size below 2\^53/],
    ['an unknown type', file({ tensor: ['t', 1, 8n, 77, 0n] }), /known element type, got number 77/],
    ['half a block', file({ tensor: ['t', 1, 8n, 8, 0n] }), /whole blocks of 32 for Q8_0, got 8/],
    ['unaligned', file({ tensor: ['t', 1, 8n, 0, 4n] }), /offset that is a multiple of 32, got 4/],
    ['data outside the file', file({ tensor: ['t', 1, 9n, 0, 0n] }), /tensor t \(F32\) inside the file/],
    ['an offset of 2^63', file({ tensor: ['t', 1, 8n, 0, HUGE] }), /inside the file/],
    ['cut data', file({ dataBytes: 31 }), /inside the file, got bytes 96\.\.128 of 127/],
    [
      'a tensor twice',
      file({ tensors: 2n, tensor: ['t', 1, 8n, 0, 0n, 't', 1, 8n, 0, 32n], dataBytes: 64 }),
      /every tensor once, got t again/,
    ],
    [
      'tensors that overlap',
      file({ tensors: 2n, tensor: ['t', 1, 9n, 0, 0n, 'u', 1, 8n, 0, 32n], dataBytes: 64 }),
      /tensor u behind t, got an overlap of 4 bytes/,
    ],
  ];
  it.each(cases)('%s', async (_, bytes, message) => {
    const opening = open(bytes);
    await expect(opening).rejects.toThrow(FormatError);
    await expect(opening).rejects.toThrow(message);
    await expect(opening).rejects.toThrow(/f\.gguf, byte \d+\)/);
  });

  it('a type that cannot be read is refused when it is read, by name', async () => {
    const opened = await open(file({ tensor: ['t', 1, 256n, 16, 0n], dataBytes: 66 }));
    await expect(opened.readAsF32('t')).rejects.toThrow(UnsupportedError);
    await expect(opened.readAsF32('t')).rejects.toThrow(/IQ2_XXS for t of f\.gguf/);
  });
});

/** Counts what is asked of a source: nothing may be read, and so held, far beyond the file. */
function metered(bytes: Uint8Array): { source: ByteSource; largest: () => number; total: () => number } {
  const inner = memorySource(bytes, 'f.gguf');
  let [largest, total] = [0, 0];
  return {
    source: {
      ...inner,
      read: async (start, end) => {
        largest = Math.max(largest, end - start);
        total += end - start;
        return (await inner.read(start, end)).slice();
      },
    },
    largest: () => largest,
    total: () => total,
  };
}

const SMALL = { vocab_size: 40, d_model: 32, n_layer: 2, d_state: 4 };
const CONFIGS = [
  resolveConfig({ ...SMALL, dt_rank: 3 }),
  resolveConfig({ ...SMALL, model_type: 'mamba2', headdim: 16, ngroups: 2 }),
];

describe.each(CONFIGS)('mutations of a whole model, $model_type', async (config) => {
  const shapes = expectedTensors(config);
  const { metadata, entries } = ggufContent(
    {
      config,
      tokenizer: { 'tokenizer.json': TOKENIZER },
      weight: (name) => {
        const size = shapes.get(name)!.reduce((a, b) => a * b, 1);
        const data = Float32Array.from({ length: size }, (_, i) => Math.sin(i + 1));
        return {
          dtype: 'f32',
          size,
          storedBytes: data.byteLength,
          async *pieces() {
            yield { at: 0, count: size, data };
          },
        };
      },
    },
    'q8_0',
    'fuzz',
  );
  const good = await encode(metadata, entries);

  /** Opens, reads everything, and gives the error, which must be one of ours. */
  async function outcome(bytes: Uint8Array): Promise<MambaError | null> {
    const { source, largest, total } = metered(bytes);
    let result: MambaError | null = null;
    try {
      const model = await openGgufModel(source);
      for (const name of model.tensors.keys()) await model.tensor(name);
    } catch (error) {
      if (!(error instanceof MambaError)) throw error;
      result = error;
    }
    expect(largest()).toBeLessThanOrEqual(bytes.length);
    // The header in windows, where a field that did not fit is read again, and every tensor once.
    expect(total()).toBeLessThanOrEqual(3 * bytes.length);
    return result;
  }

  it('the model itself opens', async () => {
    expect(await outcome(good)).toBe(null);
  });

  it('every truncation is refused', async () => {
    const cut = fc.asyncProperty(fc.integer({ min: 0, max: good.length - 33 }), async (length) => {
      expect(await outcome(good.slice(0, length))).toBeInstanceOf(FormatError);
    });
    await fc.assert(cut, { numRuns: 150 });
  });

  it('flipped bytes in the header', async () => {
    const headerBytes = (await openGguf(memorySource(good))).tensors.get('token_embd.weight')!.start;
    const edit = fc.tuple(fc.integer({ min: 0, max: headerBytes - 1 }), fc.integer({ min: 0, max: 255 }));
    const flipped = fc.asyncProperty(fc.array(edit, { minLength: 1, maxLength: 4 }), async (edits) => {
      const bytes = good.slice();
      for (const [at, value] of edits) bytes[at] = value;
      await outcome(bytes);
    });
    await fc.assert(flipped, { numRuns: 400 });
  });

  it('huge numbers over any eight bytes', async () => {
    const value = fc.constantFrom(2n ** 64n - 1n, 2n ** 63n, 2n ** 53n, 2n ** 40n, 2n ** 32n, 2n ** 31n, 0n);
    const overwritten = fc.asyncProperty(fc.integer({ min: 8, max: 2500 }), value, async (at, number) => {
      const bytes = good.slice();
      new DataView(bytes.buffer).setBigUint64(at, number, true);
      await outcome(bytes);
    });
    await fc.assert(overwritten, { numRuns: 400 });
  });

  it('random bytes behind the magic', async () => {
    const random = fc.asyncProperty(fc.uint8Array({ maxLength: 300 }), async (tail) => {
      expect(await outcome(Uint8Array.of(...MAGIC, 3, 0, 0, 0, ...tail))).toBeInstanceOf(FormatError);
    });
    await fc.assert(random, { numRuns: 200 });
  });
});

async function encode(metadata: ReadonlyMap<string, GgufField>, entries: GgufEntry[]): Promise<Uint8Array> {
  const parts: Uint8Array[] = [];
  for await (const part of ggufChunks(metadata, entries)) parts.push(part.slice());
  return new Uint8Array(await new Blob(parts as Uint8Array<ArrayBuffer>[]).arrayBuffer());
}
