import { readFileSync } from 'node:fs';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { bf16ToF32 } from '../../src/base/dtype.ts';
import { DTypeError, FormatError } from '../../src/base/errors.ts';
import { type ByteSource, memorySource } from '../../src/base/source.ts';
import { openSafetensors } from '../../src/io/safetensors.ts';
import { encodeSafetensors, safetensorsChunks, type TensorEntry } from '../../src/io/safetensors-write.ts';
import type { StoredArray } from '../../src/io/tensor-file.ts';

const MODELS = new URL('../fixtures/models/', import.meta.url);
const fixture = (path: string) => new Uint8Array(readFileSync(new URL(path, MODELS)));

/** A file from a header (text or value) and the number of data bytes behind it. */
function file(header: unknown, dataBytes = 0): Uint8Array {
  const json = new TextEncoder().encode(typeof header === 'string' ? header : JSON.stringify(header));
  const out = new Uint8Array(8 + json.length + dataBytes);
  new DataView(out.buffer).setBigUint64(0, BigInt(json.length), true);
  out.set(json, 8);
  return out;
}

function withLength(bytes: Uint8Array, length: bigint): Uint8Array {
  const out = bytes.slice();
  new DataView(out.buffer).setBigUint64(0, length, true);
  return out;
}

const f32 = (shape: unknown, offsets: unknown, dtype: unknown = 'F32') => ({
  dtype,
  shape,
  data_offsets: offsets,
});
const good = file({ a: f32([2], [0, 8]), b: f32([3], [8, 20]) }, 20);

describe('malformed files end in a FormatError that names file, place and cause', () => {
  const cases: [name: string, bytes: Uint8Array, message: string][] = [
    ['empty', new Uint8Array(0), 'got a file of 0'],
    ['shorter than the length field', new Uint8Array(7), 'got a file of 7'],
    [
      'header length 10 GB',
      withLength(good, 10_000_000_000n),
      'at most 100000000 bytes, got length 10000000000',
    ],
    ['header length 2^64 - 1', withLength(good, 2n ** 64n - 1n), 'at most 100000000 bytes'],
    ['header longer than the file', withLength(good, 5000n), 'a header of 5000 bytes, got a file of'],
    ['header length 0', withLength(good, 0n), 'start with "{"'],
    [
      'not safetensors: a pickle',
      Uint8Array.from({ length: 64 }, (_, i) => (i === 0 ? 0x80 : 0x01)),
      'at most 100000000',
    ],
    ['truncated data', good.slice(0, -4), 'tensor b: expected data_offsets inside the 16 data bytes'],
    ['trailing bytes', Uint8Array.from([...good, 1, 2, 3]), 'got 3 more bytes'],
    ['broken JSON', file('{"a": [}'), 'byte 15'],
    ['broken JSON behind a wide character', file('{"é": [}'), 'byte 16'],
    ['header cut inside', file('{"a": {"dtype": "F32"'), 'the end of the text'],
    ['header is an array', file('[]'), 'start with "{"'],
    ['header not UTF-8', withLength(Uint8Array.from([...new Uint8Array(8), 0x7b, 0xff, 0x7d]), 3n), 'UTF-8'],
    [
      'duplicate name',
      file('{"a":{"dtype":"U8","shape":[0],"data_offsets":[0,0]},"a":1}'),
      'the key "a" once',
    ],
    ['entry is no object', file({ a: 3 }), 'tensor a: expected an object'],
    ['entry is null', file({ a: null }), 'tensor a: expected an object'],
    ['no dtype', file({ a: { shape: [], data_offsets: [0, 4] } }, 4), 'tensor a: expected dtype'],
    ['unknown dtype', file({ a: f32([1], [0, 4], 'F31') }, 4), 'got F31'],
    ['dtype from the prototype', file({ a: f32([1], [0, 4], 'constructor') }, 4), 'got constructor'],
    ['negative extent', file({ a: f32([-1], [0, 4]) }, 4), 'integers >= 0, got [-1]'],
    ['fractional extent', file({ a: f32([0.5], [0, 2]) }, 2), 'integers >= 0, got [0.5]'],
    ['extent beyond 2^53', file({ a: f32([2 ** 53], [0, 4]) }, 4), 'integers >= 0'],
    ['extents that overflow', file({ a: f32([2 ** 52, 2 ** 52], [0, 4]) }, 4), 'tensor a: expected'],
    ['extent as text', file({ a: f32(['1'], [0, 4]) }, 4), 'integers >= 0'],
    ['shape is a number', file({ a: f32(1, [0, 4]) }, 4), 'a shape'],
    ['offsets: one number', file({ a: f32([1], [0]) }, 4), 'two integers'],
    ['offsets: negative', file({ a: f32([1], [-4, 0]) }, 4), 'two integers'],
    ['offsets: fractional', file({ a: f32([1], [0.5, 4.5]) }, 5), 'two integers'],
    ['offsets: reversed', file({ a: f32([1], [4, 0]) }, 4), 'inside the 4 data bytes'],
    ['offsets outside the file', file({ a: f32([1], [100, 104]) }, 4), 'inside the 4 data bytes'],
    ['bytes do not fit shape', file({ a: f32([3], [0, 8]) }, 8), '12 bytes for F32 [3], got 8 bytes'],
    ['overlap', file({ a: f32([2], [0, 8]), b: f32([2], [4, 12]) }, 12), 'an overlap of 4'],
    ['the same bytes twice', file({ a: f32([2], [0, 8]), b: f32([2], [0, 8]) }, 8), 'an overlap of 8'],
    ['hole', file({ a: f32([1], [0, 4]), b: f32([1], [8, 12]) }, 12), 'a hole of 4'],
    ['hole in front', file({ a: f32([1], [4, 8]) }, 8), 'a hole of 4'],
    ['metadata is no object', file({ __metadata__: 'pt' }), '__metadata__ to be an object'],
    ['metadata holds a number', file({ __metadata__: { format: 1 } }), '__metadata__.format to be a string'],
  ];
  test.each(cases)('%s', async (_, bytes, message) => {
    const opening = openSafetensors(memorySource(bytes, 'dir/model.safetensors'));
    await expect(opening).rejects.toThrow(FormatError);
    await expect(opening).rejects.toThrow(message);
    await expect(opening).rejects.toThrow('dir/model.safetensors');
    await expect(opening).rejects.toThrow(/byte \d+/);
    await expect(opening).rejects.toThrow(/\. [A-Z].*\.$/); // says what to do
  });
});

test('a lying header length is refused before anything large is read', async () => {
  const reads: number[] = [];
  const source: ByteSource = {
    name: 'huge',
    sizeBytes: 50_000_000_000,
    read: async (start, end) => {
      reads.push(end - start);
      return withLength(new Uint8Array(8), 20_000_000_000n);
    },
    close: async () => {},
  };
  await expect(openSafetensors(source)).rejects.toThrow(FormatError);
  expect(reads).toEqual([8]);
});

test('more tensors than any model has are counted, not parsed', async () => {
  const entry = '{"dtype":"F32","shape":[0],"data_offsets":[0,0]}';
  const headerOf = (count: number) =>
    new TextEncoder().encode(`{${Array.from({ length: count }, (_, i) => `"t${i}":${entry}`).join(',')}}`);
  const open = (count: number) => {
    const header = headerOf(count);
    const file = new Uint8Array(8 + header.length);
    file.set(header, 8);
    return openSafetensors(memorySource(withLength(file, BigInt(header.length))));
  };
  expect((await open(1000)).tensors.size).toBe(1000);
  await expect(open(20_000)).rejects.toThrow('expected at most 16384 tensors, got 20001');
});

test('opening reads the header only, reading a tensor reads its bytes only', async () => {
  const whole = memorySource(fixture('mamba1-tied/hf/model.safetensors'));
  let bytesRead = 0;
  const source: ByteSource = {
    ...whole,
    read: (start, end) => {
      bytesRead += end - start;
      return whole.read(start, end);
    },
  };
  const opened = await openSafetensors(source);
  const header = bytesRead;
  expect(header).toBeLessThan(3000);
  await opened.readAsF32('backbone.layers.1.mixer.D');
  expect(bytesRead - header).toBe(128 * 4);
});

const rawBytes = (array: StoredArray) => new Uint8Array(array.buffer, array.byteOffset, array.byteLength);
const FILES = [
  'mamba1-tied/hf/model.safetensors',
  'mamba1-odd/hf/model.safetensors',
  'mamba1-bf16/hf/model-00002-of-00003.safetensors',
  'mamba1-tied/train.safetensors',
  'mamba1-tied/expected.safetensors',
];
test.each(FILES)('%s: written again gives the same tensors', async (path) => {
  const bytes = fixture(path);
  const opened = await openSafetensors(memorySource(bytes));
  const entries = [...opened.tensors].map(([name, { dtype, shape }]) => ({
    name,
    dtype,
    shape,
    data: () => opened.read(name),
  }));
  const again = await encodeSafetensors(entries, opened.metadata);
  const reopened = await openSafetensors(memorySource(again));
  expect(reopened.metadata).toEqual(opened.metadata);
  expect([...reopened.tensors.keys()].sort()).toEqual([...opened.tensors.keys()].sort());
  for (const name of opened.tensors.keys()) {
    expect(Buffer.compare(rawBytes(await reopened.read(name)), rawBytes(await opened.read(name)))).toBe(0);
  }
  // The reference implementation wrote the weights.
  if (path.includes('/hf/')) expect(Buffer.compare(again, bytes)).toBe(0);
});

test('BF16, F16 and F64 widen or round as their definition says', async () => {
  const entries: TensorEntry[] = [
    { name: 'bf16', dtype: 'BF16', shape: [3], data: Uint16Array.of(0x3f80, 0xc049, 0x0001) },
    { name: 'f16', dtype: 'F16', shape: [3], data: Uint16Array.of(0x3c00, 0xc000, 0x0001) },
    { name: 'f64', dtype: 'F64', shape: [2], data: Float64Array.of(1 / 3, -1e300) },
    { name: 'rounded', dtype: 'BF16', shape: [2], data: Float32Array.of(1 / 3, 1.00390625) },
    { name: 'i32', dtype: 'I32', shape: [1], data: Int32Array.of(7) },
  ];
  const opened = await openSafetensors(memorySource(await encodeSafetensors(entries)));
  expect(await opened.readAsF32('bf16')).toEqual(Float32Array.of(1, -3.140625, 2 ** -133));
  expect(await opened.readAsF32('f16')).toEqual(Float32Array.of(1, -2, 2 ** -24));
  expect(await opened.readAsF32('f64')).toEqual(Float32Array.of(1 / 3, Number.NEGATIVE_INFINITY));
  expect(await opened.readAsF32('rounded')).toEqual(Float32Array.of(bf16ToF32(0x3eab), 1));
  await expect(opened.readAsF32('i32')).rejects.toThrow(DTypeError);
  await expect(opened.read('nothing')).rejects.toThrow('got the name nothing');
});

test('I64 reads as numbers, and refuses what a number cannot hold', async () => {
  const bytes = file({ ok: f32([2], [0, 16], 'I64'), big: f32([1], [16, 24], 'I64') }, 24);
  const view = new DataView(bytes.buffer, bytes.length - 24);
  view.setBigInt64(0, -5n, true);
  view.setBigInt64(8, 2n ** 53n - 1n, true);
  view.setBigInt64(16, 2n ** 53n, true);
  const opened = await openSafetensors(memorySource(bytes, 'ids.safetensors'));
  expect(await opened.read('ok')).toEqual(Float64Array.of(-5, 2 ** 53 - 1));
  await expect(opened.read('big')).rejects.toThrow(
    /9007199254740992 at element 0 \(ids.safetensors, tensor big\)/,
  );
});

test('what is read is a copy: changing it leaves the source alone', async () => {
  const bytes = await encodeSafetensors([
    { name: 'a', dtype: 'F32', shape: [2], data: Float32Array.of(1, 2) },
  ]);
  const opened = await openSafetensors(memorySource(bytes));
  (await opened.readAsF32('a'))[0] = 9;
  expect(await opened.readAsF32('a')).toEqual(Float32Array.of(1, 2));
  const fromBuffer = await openSafetensors(memorySource(Buffer.from(bytes)));
  expect(await fromBuffer.readAsF32('a')).toEqual(Float32Array.of(1, 2));
});

describe('writing', () => {
  test('the order of the entries does not matter, the header is aligned', async () => {
    const entries: TensorEntry[] = [
      { name: 'b', dtype: 'F32', shape: [], data: Float32Array.of(1) },
      { name: 'a', dtype: 'F32', shape: [1, 1], data: Float32Array.of(2) },
      { name: 'z', dtype: 'F64', shape: [1], data: Float64Array.of(3) },
      { name: 'c', dtype: 'U8', shape: [3], data: Uint8Array.of(4, 5, 6) },
    ];
    const bytes = await encodeSafetensors(entries, { b: '1', a: '2' });
    expect(await encodeSafetensors([...entries].reverse(), { a: '2', b: '1' })).toEqual(bytes);
    expect(new DataView(bytes.buffer).getUint32(0, true) % 8).toBe(0);
    const opened = await openSafetensors(memorySource(bytes));
    for (const { dtype, start } of opened.tensors.values()) {
      expect(start % { F64: 8, F32: 4, U8: 1, I64: 8, I32: 4, F16: 2, BF16: 2 }[dtype]).toBe(0);
    }
  });

  test('a tensor is asked for only after the one before was taken', async () => {
    const asked: string[] = [];
    const data = (name: string) => async () => {
      asked.push(name);
      return Float32Array.of(1);
    };
    const entries = ['a', 'b'].map((name) => ({ name, dtype: 'F32' as const, shape: [1], data: data(name) }));
    const chunks = safetensorsChunks(entries);
    await chunks.next();
    expect(asked).toEqual([]);
    await chunks.next();
    expect(asked).toEqual(['a']);
    await chunks.next();
    expect(asked).toEqual(['a', 'b']);
  });

  test('wrong entries are refused', async () => {
    const data = Float32Array.of(1);
    const one = { name: 'a', dtype: 'F32', shape: [1], data } as const;
    await expect(encodeSafetensors([one, one])).rejects.toThrow('got a again');
    await expect(encodeSafetensors([{ ...one, shape: [2] }])).rejects.toThrow('expected 2 elements');
    await expect(encodeSafetensors([{ ...one, shape: [-1] }])).rejects.toThrow('extents >= 0');
    await expect(encodeSafetensors([{ ...one, dtype: 'I32' }])).rejects.toThrow(DTypeError);
    await expect(encodeSafetensors([{ ...one, name: '__metadata__' }])).rejects.toThrow('__metadata__');
  });
});

const ARRAYS: { [K in TensorEntry['dtype']]: (bytes: Uint8Array, count: number) => StoredArray } = {
  F64: (b, n) => Float64Array.from({ length: n }, (_, i) => b[i % b.length]! / 7),
  F32: (b, n) => Float32Array.from({ length: n }, (_, i) => b[i % b.length]! / 7),
  F16: (b, n) => Uint16Array.from({ length: n }, (_, i) => b[i % b.length]! * 257),
  BF16: (b, n) => Uint16Array.from({ length: n }, (_, i) => b[i % b.length]! * 255),
  I64: (b, n) => Float64Array.from({ length: n }, (_, i) => b[i % b.length]! * 2 ** 44 - 2 ** 45),
  I32: (b, n) => Int32Array.from({ length: n }, (_, i) => b[i % b.length]! * 2 ** 22 - 2 ** 23),
  U8: (b, n) => Uint8Array.from({ length: n }, (_, i) => b[i % b.length]!),
};
const anyEntry = fc
  .record({
    name: fc.string({ unit: 'binary' }).filter((name) => name !== '__metadata__'),
    dtype: fc.constantFrom(...(Object.keys(ARRAYS) as TensorEntry['dtype'][])),
    shape: fc.array(fc.integer({ min: 0, max: 4 }), { maxLength: 4 }),
    seed: fc.uint8Array({ minLength: 1, maxLength: 20 }),
  })
  .map(({ name, dtype, shape, seed }) => ({
    name,
    dtype,
    shape,
    data: ARRAYS[dtype](
      seed,
      shape.reduce((a, b) => a * b, 1),
    ),
  }));
const anyFile = fc.record({
  entries: fc.uniqueArray(anyEntry, { selector: ({ name }) => name, maxLength: 6 }),
  metadata: fc.dictionary(fc.string(), fc.string(), { maxKeys: 3 }),
});

test('any tensors come back as they were', async () => {
  await fc.assert(
    fc.asyncProperty(anyFile, async ({ entries, metadata }) => {
      const opened = await openSafetensors(memorySource(await encodeSafetensors(entries, metadata)));
      expect(opened.metadata).toEqual({ ...metadata });
      expect(opened.tensors.size).toBe(entries.length);
      for (const { name, dtype, shape, data } of entries) {
        expect(opened.tensors.get(name)).toMatchObject({ dtype, shape });
        expect(await opened.read(name)).toEqual(data);
      }
    }),
    { numRuns: 200 },
  );
});

test('random damage is either harmless or a FormatError', async () => {
  const damage = fc.record({
    cut: fc.option(fc.nat(), { nil: undefined }),
    pokes: fc.array(fc.tuple(fc.nat(), fc.integer({ min: 0, max: 255 })), { maxLength: 4 }),
  });
  await fc.assert(
    fc.asyncProperty(anyFile, damage, async ({ entries, metadata }, { cut, pokes }) => {
      let bytes = await encodeSafetensors(entries, metadata);
      for (const [at, value] of pokes) bytes[at % bytes.length] = value;
      if (cut !== undefined) bytes = bytes.slice(0, cut % (bytes.length + 1));
      try {
        const opened = await openSafetensors(memorySource(bytes));
        for (const name of opened.tensors.keys()) await opened.read(name);
      } catch (error) {
        expect(error).toBeInstanceOf(FormatError);
      }
    }),
    { numRuns: 1000 },
  );
});
