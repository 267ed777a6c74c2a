/**
 * Damaged and hostile torch files: whatever the bytes, a file opens or ends in an error of this library that names it; nothing is read or
 * built that is larger than the file says and holds.
 */
import { readFileSync } from 'node:fs';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { MambaError } from '../../src/base/errors.ts';
import { type ByteSource, memorySource } from '../../src/base/source.ts';
import { readPickle } from '../../src/io/pickle.ts';
import { openTorchBin } from '../../src/io/torch-bin.ts';
import { storageCollector, TORCH_GLOBALS, TorchTensor } from '../../src/io/torch-state.ts';
import { openWeights } from '../../src/io/weights.ts';
import { readZipDirectory } from '../../src/io/zip.ts';
import { zip } from '../support/zip.ts';

const NAME = 'dir/model.bin';
const fixture = (name: string) =>
  new Uint8Array(readFileSync(new URL(`../fixtures/torch/${name}`, import.meta.url)));
const FILES = ['zoo.bin', 'zoo-protocol4.bin', 'zoo-legacy.bin'];

/** Every read is inside the file, so none is larger than it. */
function guarded(bytes: Uint8Array): ByteSource {
  const source = memorySource(bytes, NAME);
  return {
    ...source,
    read: (start, end) => {
      expect(start >= 0 && start <= end && end <= bytes.length, `read ${start}..${end}`).toBe(true);
      return source.read(start, end);
    },
  };
}

async function openAndReadAll(bytes: Uint8Array, open = openWeights): Promise<'read' | 'refused'> {
  try {
    const file = await open(guarded(bytes));
    for (const name of file.tensors.keys()) {
      expect((await file.read(name)).byteLength).toBeLessThanOrEqual(bytes.length);
    }
    return 'read';
  } catch (error) {
    if (!(error instanceof MambaError)) throw error;
    expect(error.message).toContain(NAME);
    return 'refused';
  }
}

type Mutation = (bytes: Uint8Array) => Uint8Array;
/** A share of the file; fc.double and fc.integer would favour its ends. */
const place = fc.noBias(fc.nat(65_535)).map((share) => share / 65_536);
const at = (bytes: Uint8Array, where: number) => Math.floor(where * bytes.length);
const WIDE = [0, 1, 0x7f, 0xff, 0x7fff, 0xffff, 0x7fffffff, 0x80000000, 0xffffffff];

const mutation: fc.Arbitrary<Mutation> = fc.oneof(
  place.map((where) => (bytes: Uint8Array) => bytes.slice(0, at(bytes, where))),
  fc.tuple(place, fc.nat(7)).map(([where, bit]) => (bytes: Uint8Array) => {
    const out = bytes.slice();
    out[at(bytes, where)]! ^= 1 << bit;
    return out;
  }),
  fc.tuple(place, fc.nat(255)).map(([where, value]) => (bytes: Uint8Array) => {
    const out = bytes.slice();
    out[at(bytes, where)] = value;
    return out;
  }),
  fc.tuple(place, fc.constantFrom(...WIDE)).map(([where, value]) => (bytes: Uint8Array) => {
    const out = bytes.slice();
    const start = Math.min(at(bytes, where), out.length - 4);
    if (start >= 0) new DataView(out.buffer).setUint32(start, value, true);
    return out;
  }),
  fc.tuple(place, place, fc.nat(64)).map(([from, to, length]) => (bytes: Uint8Array) => {
    const [start, target] = [at(bytes, from), at(bytes, to)];
    return Uint8Array.from([
      ...bytes.slice(0, target),
      ...bytes.slice(start, start + length),
      ...bytes.slice(target),
    ]);
  }),
  fc.tuple(place, fc.integer({ min: 1, max: 64 })).map(([where, length]) => (bytes: Uint8Array) => {
    const start = at(bytes, where);
    return Uint8Array.from([...bytes.slice(0, start), ...bytes.slice(start + length)]);
  }),
);

describe.each(FILES)('%s', (name) => {
  const original = fixture(name);

  test('undamaged it opens', async () => expect(await openAndReadAll(original)).toBe('read'));

  test('cut anywhere it is refused', async () => {
    for (let length = 0; length < original.length; length += 7)
      expect(await openAndReadAll(original.slice(0, length)), `${length} bytes`).toBe('refused');
  });

  test('any damage', async () => {
    const seen = { read: 0, refused: 0 };
    await fc.assert(
      fc.asyncProperty(fc.array(mutation, { minLength: 1, maxLength: 4 }), async (mutations) => {
        const damaged = mutations.reduce<Uint8Array>((bytes, change) => change(bytes), original);
        seen[await openAndReadAll(damaged, openTorchBin)]++;
      }),
      { numRuns: 2000, seed: 1 },
    );

    // Damage to numbers is not damage to the format; the legacy container has the smallest share of them.
    expect(seen.read).toBeGreaterThan(20);
    expect(seen.refused).toBeGreaterThan(20);
  });
});

/** Fragments of pickles, put together in any order. */
const ascii = (text: string) => Buffer.from(text, 'latin1');
const OPERATIONS = '.(012N\x88\x89)\x85\x86\x87t]lae}su\x93RbQ\x94';
const fragment: fc.Arbitrary<Buffer> = fc.oneof(
  { weight: 6, arbitrary: fc.constantFrom(...OPERATIONS.split('')).map(ascii) },
  { weight: 2, arbitrary: fc.nat(255).map((value) => Buffer.of(0x4b, value)) },
  { weight: 1, arbitrary: fc.nat(8).map((index) => Buffer.of(0x71, index)) },
  { weight: 2, arbitrary: fc.nat(8).map((index) => Buffer.of(0x68, index)) },
  {
    weight: 2,
    arbitrary: fc
      .constantFrom('storage', '0', 'cpu', '__proto__', 'constructor')
      .map((text) => Buffer.concat([Buffer.of(0x8c, text.length), ascii(text)])),
  },
  {
    weight: 3,
    arbitrary: fc
      .constantFrom(...TORCH_GLOBALS.keys(), 'posix.system', 'builtins.eval', 'Object.constructor')
      .map((name) => {
        const dot = name.lastIndexOf('.');
        return ascii(`c${name.slice(0, dot)}\n${name.slice(dot + 1)}\n`);
      }),
  },
  // A storage, and a tensor of it with any numbers.
  {
    weight: 3,
    arbitrary: fc.constant(ascii('(\x8c\x07storagectorch\nFloatStorage\n\x8c\x010\x8c\x03cpuK\x18tQ')),
  },
  { weight: 2, arbitrary: fc.uint8Array({ maxLength: 6 }).map((bytes) => Buffer.from(bytes)) },
  {
    weight: 2,
    arbitrary: fc
      .tuple(fc.constantFrom(0x58, 0x8a, 0x8b, 0x54, 0x42, 0x72, 0x6a, 0x8d, 0x8e), fc.constantFrom(...WIDE))
      .map(([operation, length]) => {
        const out = Buffer.alloc(9);
        out[0] = operation;
        out.writeUInt32LE(length, 1);
        return out;
      }),
  },
);
const anyPickle = fc
  .array(fragment, { maxLength: 40 })
  .map((fragments) => Buffer.concat([Buffer.of(0x80, 2), ...fragments, ascii('.')]));

test('any sequence of operations gives plain data or an error', () => {
  const ours = new Set(TORCH_GLOBALS.values());
  const checkPlain = (value: unknown, seen = new Set<unknown>()): void => {
    if (value === null || typeof value !== 'object') {
      if (typeof value === 'function') expect(ours).toContain(value);
      return;
    }
    if (seen.has(value)) return;
    seen.add(value);
    if (Array.isArray(value)) for (const item of value) checkPlain(item, seen);
    else if (value instanceof Map) for (const pair of value) checkPlain(pair, seen);
    else if (value instanceof TorchTensor)
      expect(value.offset + value.span).toBeLessThanOrEqual(value.storage.count);
  };
  let read = 0;
  fc.assert(
    fc.property(anyPickle, (bytes) => {
      const { persistent } = storageCollector();
      try {
        const options = { name: NAME, offset: 0, globals: TORCH_GLOBALS, persistent };
        checkPlain(readPickle(bytes, options).value);
        read++;
      } catch (error) {
        expect(error).toBeInstanceOf(MambaError);
        expect((error as Error).message).toMatch(/\(dir\/model\.bin, byte \d+\)/);
      }
    }),
    { numRuns: 5000, seed: 1 },
  );

  expect(read).toBeGreaterThan(50);
});

test('any tensor of any storage lies inside the file, or is refused', async () => {
  const number = fc.oneof(
    { weight: 12, arbitrary: fc.nat(5) },
    { weight: 2, arbitrary: fc.nat(30) },
    { weight: 1, arbitrary: fc.constantFrom(2 ** 31 - 1, -1) },
  );
  const size = fc.oneof({ weight: 9, arbitrary: fc.nat(99) }, { weight: 1, arbitrary: number });
  const push = (value: number) => {
    const out = Buffer.alloc(5);
    out[0] = 0x4a;
    out.writeInt32LE(value, 1);
    return out;
  };
  const tuple = (values: readonly number[]) => Buffer.concat([ascii('('), ...values.map(push), ascii('t')]);
  const tensor = fc.tuple(
    size,
    number,
    fc.array(number, { maxLength: 4 }),
    fc.array(number, { maxLength: 4 }),
  );
  const seen = { read: 0, refused: 0 };
  await fc.assert(
    fc.asyncProperty(tensor, fc.nat(400), async ([count, offset, shape, steps], bytes) => {
      const strides = shape.map((_, axis) => steps[axis] ?? 1);
      const pickle = Buffer.concat([
        ascii('\x80\x02}\x8c\x01tctorch._utils\n_rebuild_tensor_v2\n((\x8c\x07storagectorch\nFloatStorage\n'),
        ascii('\x8c\x010\x8c\x03cpu'),
        push(count),
        ascii('tQ'),
        push(offset),
        tuple(shape),
        tuple(strides),
        ascii('\x89}tRs.'),
      ]);
      const data = count >= 0 && count < 100 ? 4 * count : bytes;
      const file = zip([
        ['x/data.pkl', pickle, 0],
        ['x/data/0', new Uint8Array(data), 0],
      ]);
      seen[await openAndReadAll(new Uint8Array(file))]++;
    }),
    { numRuns: 500, seed: 1 },
  );

  expect(seen.read).toBeGreaterThan(20);
  expect(seen.refused).toBeGreaterThan(20);
});

describe('sizes that lie', () => {
  const archive = zip([['x/data.pkl', ascii('\x80\x02}.'), 0]], { zip64: true });
  const field = (signature: number) => archive.indexOf(Buffer.from(Uint32Array.of(signature).buffer));
  const places = {
    'the directory bytes': field(0x06064b50) + 40,
    'the place of the directory': field(0x06064b50) + 48,
    'the place of the end record': field(0x07064b50) + 8,
    'the bytes of an entry': field(0x02014b50) + 46 + 10 + 4,
    'the compressed bytes of an entry': field(0x02014b50) + 46 + 10 + 12,
    'the place of an entry': field(0x02014b50) + 46 + 10 + 20,
  };
  test('as written it opens', async () => expect(await openAndReadAll(new Uint8Array(archive))).toBe('read'));
  test.each(Object.entries(places))('%s', async (_, position) => {
    for (const value of [2n ** 64n - 1n, 2n ** 53n, 2n ** 40n, 2n ** 32n, BigInt(archive.length)]) {
      const bytes = new Uint8Array(archive);
      new DataView(bytes.buffer).setBigUint64(position, value, true);
      expect(await openAndReadAll(bytes), `${value}`).toBe('refused');
    }
  });
  test('a directory of nothing but entries is refused before it is read', async () => {
    const source: ByteSource = {
      ...memorySource(new Uint8Array(archive), NAME),
      sizeBytes: 2 ** 40,
      read: async (start, end) => {
        expect(end - start).toBeLessThan(1 << 17);
        const tail = new Uint8Array(end - start);
        if (end === 2 ** 40) {
          const view = new DataView(tail.buffer, tail.length - 22);
          view.setUint32(0, 0x06054b50, true);
          view.setUint32(12, 0xfffffffe, true);
        }
        return tail;
      },
    };
    await expect(readZipDirectory(source)).rejects.toThrow(
      'a directory of 4294967294 bytes, more than 16777216',
    );
  });
});
