import { readFileSync } from 'node:fs';
import { cp, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, describe, expect, test } from 'vitest';
import { FormatError, type MambaError, UnsupportedError } from '../../src/base/errors.ts';
import { type ByteSource, memorySource } from '../../src/base/source.ts';
import { openPretrained } from '../../src/io/pretrained.node.ts';
import { openSharded } from '../../src/io/shards.ts';
import type { StoredArray } from '../../src/io/tensor-file.ts';
import { openTorchBin } from '../../src/io/torch-bin.ts';
import { readZipDirectory } from '../../src/io/zip.ts';
import { zip } from '../support/zip.ts';

const FIXTURES = fileURLToPath(new URL('../fixtures/', import.meta.url));
const MODELS = join(FIXTURES, 'models');
const fixture = (path: string) => new Uint8Array(readFileSync(join(FIXTURES, path)));
const open = (bytes: Uint8Array) => openTorchBin(memorySource(bytes, 'dir/model.bin'));

/** What test/fixtures/torch/make.py put there. */
const ZOO: Record<string, [shape: number[], values: StoredArray]> = {
  w: [[4, 6], Float32Array.from({ length: 24 }, (_, i) => i)],
  tied: [[4, 6], Float32Array.from({ length: 24 }, (_, i) => i)],
  transposed: [[6, 4], Float32Array.from({ length: 24 }, (_, i) => (i % 4) * 6 + (i >> 2))],
  part: [[2, 4], Float32Array.of(8, 9, 10, 11, 14, 15, 16, 17)],
  every_second: [[4, 3], Float32Array.from({ length: 12 }, (_, i) => 2 * i)],
  parameter: [[2], Float32Array.of(1.5, -2.5)],
  half: [[3], Uint16Array.of(0x3c00, 0xc000, 0x0001)],
  brain: [[2, 2], Uint16Array.of(0x3f80, 0, 0xc049, 0x4000)],
  double: [[2], Float64Array.of(1 / 3, -1e300)],
  long: [[2], Float64Array.of(-5, 2 ** 53 - 1)],
  int: [[2], Int32Array.of(7, -8)],
  byte: [[2], Uint8Array.of(0, 255)],
  bool: [[2], Uint8Array.of(1, 0)],
  scalar: [[], Float32Array.of(2)],
  empty: [[0, 3], new Float32Array(0)],
  expanded: [[4], Float32Array.of(1, 1, 1, 1)],
};
const CONTAINERS = ['zoo.bin', 'zoo-protocol4.bin', 'zoo-protocol5.bin', 'zoo-legacy.bin'];

describe.each(CONTAINERS)('%s', (name) => {
  test('every tensor has the values torch saved, whatever its strides', async () => {
    const file = await open(fixture(`torch/${name}`));
    expect([...file.tensors.keys()]).toEqual(Object.keys(ZOO));
    for (const [tensor, [shape, values]] of Object.entries(ZOO)) {
      expect(file.tensors.get(tensor)?.shape, tensor).toEqual(shape);
      expect(await file.read(tensor), tensor).toEqual(values);
    }
    expect(await file.readAsF32('brain')).toEqual(Float32Array.of(1, 0, -3.140625, 2));
    expect(await file.readAsF32('half')).toEqual(Float32Array.of(1, -2, 2 ** -24));
    expect(await file.readAsF32('transposed')).toEqual(ZOO.transposed![1]);
    await expect(file.readAsF32('long')).rejects.toThrow('got I64 for long of dir/model.bin');
    await expect(file.read('nothing')).rejects.toThrow('got the name nothing');
  });

  test('tied tensors are the same bytes, other views of them are not', async () => {
    const { tensors } = await open(fixture(`torch/${name}`));
    expect(tensors.get('tied')).toBe(tensors.get('w'));
    expect(tensors.get('transposed')).not.toBe(tensors.get('w'));
  });
});

test('a zip64 archive, and one with a comment and no folder', async () => {
  const bytes = fixture('torch/zoo.bin');
  const entries = await entriesOf(bytes);
  const flat = entries.map(([path, data]) => [path.replace('zoo/', ''), data, 0] as const);
  for (const again of [zip(entries, { zip64: true }), zip(flat, { comment: 'PK\x05\x06'.repeat(8) })]) {
    const file = await open(new Uint8Array(again));
    for (const [tensor, [, values]] of Object.entries(ZOO)) expect(await file.read(tensor)).toEqual(values);
  }
});

/** The entries of an archive, for writing it anew. */
async function entriesOf(bytes: Uint8Array): Promise<[string, Uint8Array, 0][]> {
  const source = memorySource(bytes);
  const view = new DataView(bytes.buffer, bytes.byteOffset);
  return [...(await readZipDirectory(source)).values()].map(({ name, sizeBytes, headerOffset: at }) => {
    const start = at + 30 + view.getUint16(at + 26, true) + view.getUint16(at + 28, true);
    return [name, bytes.subarray(start, start + sizeBytes), 0];
  });
}

test('opening reads the directory and the pickle, reading a tensor its bytes only', async () => {
  for (const path of ['orig', 'legacy']) {
    const whole = memorySource(fixture(`models/mamba1-tied/${path}/pytorch_model.bin`));
    const reads: number[] = [];
    const source: ByteSource = {
      ...whole,
      read: (start, end) => {
        reads.push(end - start);
        return whole.read(start, end);
      },
    };
    const file = await openTorchBin(source);
    // The zip's end is searched in the last 64 KiB; the legacy pickle has no length, so the first 8 MiB are read.
    if (path === 'orig') expect(reads.reduce((a, b) => a + b)).toBeLessThan(65_557 + 8192);
    reads.length = 0;
    await file.readAsF32('backbone.layers.1.mixer.D');
    expect(reads).toEqual([128 * 4]);
  }
});

describe('a model folder', async () => {
  const scratch = await mkdtemp(join(tmpdir(), 'mamba-torch-'));
  afterAll(() => rm(scratch, { recursive: true }));

  test.each([
    ['mamba1-tied', 'orig'],
    ['mamba1-odd', 'orig'],
    ['mamba1-bf16', 'orig'],
    ['mamba1-tied', 'legacy'],
  ])('%s/%s has the weights of the safetensors folder', async (name, layout) => {
    const [a, b] = [
      await openPretrained(join(MODELS, name, layout)),
      await openPretrained(join(MODELS, name, 'hf')),
    ];
    expect(a.path).toMatch(/pytorch_model\.bin$/);
    for (const tensor of b.tensors.keys())
      expect(await a.tensor(tensor), tensor).toEqual(await b.tensor(tensor));
    await a.close();
    await b.close();
  });

  test('safetensors come first; a file of any name opens by its content', async () => {
    const folder = join(scratch, 'both');
    await cp(join(MODELS, 'mamba1-tied/orig'), folder, { recursive: true });
    await cp(join(MODELS, 'mamba1-tied/hf/model.safetensors'), join(folder, 'model.safetensors'));
    await cp(join(folder, 'pytorch_model.bin'), join(folder, 'step-100.pt'));
    for (const [path, found] of [
      ['', 'model.safetensors'],
      ['pytorch_model.bin', 'pytorch_model.bin'],
      ['step-100.pt', 'step-100.pt'],
    ] as const) {
      const model = await openPretrained(join(folder, path));
      expect(model.path).toBe(join(folder, found));
      await model.close();
    }
  });

  test('sharded', async () => {
    const folder = join(scratch, 'sharded');
    await cp(join(MODELS, 'mamba1-tied/orig'), folder, { recursive: true });
    await cp(join(folder, 'pytorch_model.bin'), join(folder, 'pytorch_model-00001-of-00001.bin'));
    await rm(join(folder, 'pytorch_model.bin'));
    const names = (await open(fixture('models/mamba1-tied/orig/pytorch_model.bin'))).tensors.keys();
    const weight_map = Object.fromEntries(
      [...names].map((name) => [name, 'pytorch_model-00001-of-00001.bin']),
    );
    await writeFile(
      join(folder, 'pytorch_model.bin.index.json'),
      JSON.stringify({ metadata: {}, weight_map }),
    );
    const model = await openPretrained(folder);
    expect(model.path).toBe(join(folder, 'pytorch_model.bin.index.json'));
    expect((await model.tensor('backbone.layers.1.mixer.D')).length).toBe(128);
    await model.close();
  });
});

test('a shard of each kind', async () => {
  const bytes: Record<string, Uint8Array> = { a: fixture('torch/zoo.bin') };
  const index = { weight_map: Object.fromEntries(Object.keys(ZOO).map((name) => [name, 'a'])) };
  const set = await openSharded(
    memorySource(new TextEncoder().encode(JSON.stringify(index)), 'i.json'),
    async (name) => memorySource(bytes[name]!, name),
  );
  expect(await set.read('part')).toEqual(ZOO.part![1]);
});

/** The pickle of zoo.bin with some text replaced by one of the same length, at its place in the archive. */
function patched(file: string, from: string, to: string): Uint8Array {
  const bytes = Buffer.from(fixture(file));
  const at = bytes.indexOf(Buffer.from(from, 'latin1'));
  expect(at).toBeGreaterThan(0);
  bytes.write(to, at, 'latin1');
  expect(to.length).toBe(from.length);
  return bytes;
}

describe('what is refused', () => {
  const zoo = fixture('torch/zoo.bin');
  const legacy = fixture('torch/zoo-legacy.bin');
  const longer = (bytes: Uint8Array, more: number) => Uint8Array.from([...bytes, ...new Uint8Array(more)]);
  // The shape (4, 6) of w with its strides (6, 1), as the pickle has them.
  const shape = 'K\x04K\x06\x86q\x09K\x06K\x01\x86';
  const cases: [name: string, bytes: Uint8Array, type: typeof MambaError, message: string | RegExp][] = [
    ['empty', new Uint8Array(0), FormatError, 'no directory'],
    ['a text', new TextEncoder().encode('<html>sign in</html>'), FormatError, 'no directory'],
    ['zip cut in the middle', zoo.subarray(0, zoo.length >> 1), FormatError, 'no directory'],
    [
      'a foreign global',
      patched('torch/zoo.bin', 'torch._utils\n_rebuild_tensor_v2', 'posix_______\nsystem____________'),
      UnsupportedError,
      'global "posix_______.system____________"',
    ],
    [
      'storage of another type',
      patched('torch/zoo.bin', 'FloatStorage', 'QInt8Storage'),
      UnsupportedError,
      'global "torch.QInt8Storage"',
    ],
    [
      'a tensor outside its storage',
      patched('torch/zoo.bin', shape, shape.replace('K\x04', 'K\x05')),
      FormatError,
      'inside storage 0 of 24 elements, got elements 0 to 30',
    ],
    [
      'strides outside',
      patched('torch/zoo.bin', shape, shape.replace('K\x01\x86', 'K\x09\x86')),
      FormatError,
      'got elements 0 to 64',
    ],
    [
      'fewer strides than extents',
      patched(
        'torch/zoo.bin',
        shape,
        shape.replace('K\x06K\x01\x86', 'K\x06]0\x85N0').slice(0, shape.length),
      ),
      FormatError,
      'expected 2 strides for shape [4,6], got 1 (',
    ],
    [
      'a legacy count that lies',
      legacyCount(legacy, 2n ** 40n),
      FormatError,
      /storage \d+: expected \d+ elements, got 1099511627776/,
    ],
    ['legacy, cut', legacy.subarray(0, legacy.length - 1), FormatError, 'expected to end at byte'],
    ['legacy, cut in the pickle', legacy.subarray(0, 600), FormatError, 'the end of the pickle'],
    ['legacy, more behind', longer(legacy, 5), FormatError, 'got 5 more bytes'],
    [
      'legacy, big-endian',
      patched('torch/zoo-legacy.bin', 'little_endianq\x02\x88', 'little_endianq\x02\x89'),
      UnsupportedError,
      'byte order "big"',
    ],
    [
      'legacy, another protocol',
      patched('torch/zoo-legacy.bin', 'M\xe9\x03', 'M\xea\x03'),
      FormatError,
      'protocol 1001, got 1002',
    ],
    [
      'a checkpoint around the state dict',
      fixture('torch/checkpoint.bin'),
      FormatError,
      '"epoch": number 3; "state_dict": a dict of 16',
    ],
  ];
  test.each(cases)('%s', async (_, bytes, type, message) => {
    const opening = open(bytes);
    await expect(opening).rejects.toThrow(type);
    await expect(opening).rejects.toThrow(message);
    await expect(opening).rejects.toThrow('dir/model.bin');
  });

  function legacyCount(bytes: Uint8Array, count: bigint): Uint8Array {
    const out = bytes.slice();
    // The storages are the last 8 + 1, ... bytes of the file: the first count follows the list of keys, which ends in "e.".
    const at = Buffer.from(out).lastIndexOf('e.') + 2;
    new DataView(out.buffer).setBigInt64(at, count, true);
    return out;
  }

  test('a shape that changes after it was checked', async () => {
    const text =
      '\x80\x02}\x8c\x01tctorch._utils\n_rebuild_tensor_v2\n((\x8c\x07storagectorch\nFloatStorage\n' +
      '\x8c\x010\x8c\x03cpuK\x02tQK\x00]q\x00K\x02a]q\x01K\x01a\x89}tRsh\x00M\xff\xffa0h\x01K\x00a0.';
    const file = await open(
      zip([
        ['x/data.pkl', Buffer.from(text, 'latin1'), 0],
        ['x/data/0', new Uint8Array(8), 0],
      ]),
    );
    expect(file.tensors.get('t')?.shape).toEqual([2]);
    expect(await file.read('t')).toEqual(new Float32Array(2));
  });

  test('archives that are not what torch writes', async () => {
    const entries = await entriesOf(zoo);
    const change = (name: string, data: Uint8Array, method: 0 | 8 = 0) =>
      open(zip(entries.map((entry) => (entry[0] === `zoo/${name}` ? [entry[0], data, method] : entry))));
    const data = entries.find(([name]) => name === 'zoo/data/0')![1];
    await expect(change('data/0', data, 8)).rejects.toThrow(
      'expected zoo/data/0 to be stored without compression',
    );
    await expect(change('data/0', data.subarray(4))).rejects.toThrow('storage 0: expected 96 bytes, got 92');
    await expect(change('byteorder', new TextEncoder().encode('big'))).rejects.toThrow('byte order "big"');
    await expect(open(zip(entries.filter(([name]) => name !== 'zoo/data/0')))).rejects.toThrow(
      'expected an entry zoo/data/0, got none',
    );
    await expect(open(zip([['a', data, 0]]))).rejects.toThrow(
      'an entry data.pkl in dir/model.bin, got 1 others',
    );
    await expect(open(zip([...entries, entries[0]!]))).rejects.toThrow('twice');
    await expect(open(zip([['data.pkl', new Uint8Array(9_000_000), 0]]))).rejects.toThrow(
      'a pickle of at most 8388608',
    );
  });
});
