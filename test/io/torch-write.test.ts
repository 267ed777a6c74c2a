/** Files as torch.save writes them: against files that it wrote, and through our reader. */
import { copyFileSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, test } from 'vitest';
import { ConfigError, FormatError, ShapeError } from '../../src/base/errors.ts';
import { memorySource } from '../../src/base/source.ts';
import { readPickle } from '../../src/io/pickle.ts';
import { openPretrained } from '../../src/io/pretrained.node.ts';
import type { TensorFile, TensorInfo } from '../../src/io/tensor-file.ts';
import { openTorchBin } from '../../src/io/torch-bin.ts';
import { torchContent } from '../../src/io/torch-export.ts';
import { storageCollector, TORCH_GLOBALS } from '../../src/io/torch-state.ts';
import { type TorchAlias, type TorchDType, type TorchEntry, torchChunks } from '../../src/io/torch-write.ts';
import { PIECE_ELEMENTS, readFloats } from '../../src/io/weight-pieces.ts';
import { readZipDirectory } from '../../src/io/zip.ts';
import { fixturePath } from '../support/oracle.ts';

const root = mkdtempSync(join(tmpdir(), 'mamba-ts-torch-'));
afterAll(() => rmSync(root, { recursive: true, force: true }));

const open = (bytes: Uint8Array) => openTorchBin(memorySource(bytes, 'dir/model.bin'));

async function encode(entries: Iterable<TorchEntry | TorchAlias>): Promise<Uint8Array> {
  const chunks: Uint8Array[] = [];
  for await (const chunk of torchChunks(entries)) chunks.push(chunk.slice());
  return new Uint8Array(Buffer.concat(chunks));
}

function entryOf(name: string, shape: readonly number[], values: Float32Array): TorchEntry {
  return { name, dtype: 'F32', shape, bytes: () => bytesOf(values) };
}

async function* bytesOf(data: ArrayBufferView): AsyncGenerator<Uint8Array> {
  yield new Uint8Array(data.buffer, data.byteOffset, data.byteLength);
}

/** The state dict of a file, for writing it anew; what shares its place is an alias. */
async function entriesOf(file: TensorFile): Promise<(TorchEntry | TorchAlias)[]> {
  const first = new Map<TensorInfo, string>();
  const entries: (TorchEntry | TorchAlias)[] = [];
  for (const [name, info] of file.tensors) {
    const sameAs = first.get(info);
    const bytes = async function* () {
      yield* bytesOf(await file.read(name));
    };
    if (sameAs !== undefined) entries.push({ name, sameAs });
    else entries.push({ name, dtype: info.dtype as TorchDType, shape: info.shape, bytes });
    first.set(info, sameAs ?? name);
  }
  return entries;
}

/** Of an archive: each entry's content, checksum and the place where its content starts. */
async function contentsOf(
  bytes: Uint8Array,
): Promise<Map<string, [content: Buffer, checksum: number, start: number]>> {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const directory = await readZipDirectory(memorySource(bytes));
  const contents = new Map<string, [Buffer, number, number]>();
  let line = view.getUint32(bytes.length - 22 + 16, true);
  for (const { name, sizeBytes, headerOffset: at } of directory.values()) {
    const start = at + 30 + view.getUint16(at + 26, true) + view.getUint16(at + 28, true);
    const content = Buffer.from(bytes.slice(start, start + sizeBytes));
    contents.set(name, [content, view.getUint32(line + 16, true), start]);
    line += 46 + view.getUint16(line + 28, true) + view.getUint16(line + 30, true);
  }
  return contents;
}

const SAVED_BY_TORCH = [
  'mamba1-tied',
  'mamba1-bf16',
  'mamba1-odd',
  'mamba2-g2',
  'mamba2-hybrid',
  'mamba3-mimo-norm',
];

test.each(SAVED_BY_TORCH)('%s: every entry is the one torch.save wrote, byte for byte', async (name) => {
  const saved = new Uint8Array(readFileSync(fixturePath(`${name}/orig/pytorch_model.bin`)));
  const ours = await contentsOf(await encode(await entriesOf(await open(saved))));
  const theirs = await contentsOf(saved);
  expect(theirs.size).toBeGreaterThan(10);
  for (const [path, [content, checksum]] of theirs) {
    const [again, sum] = ours.get(path) ?? [];
    expect(again?.equals(content), path).toBe(true);
    expect(sum, path).toBe(checksum);
  }
  // Later versions of torch also write the byte order.
  expect([...ours.keys()].filter((path) => !theirs.has(path))).toEqual(['pytorch_model/byteorder']);
  for (const [path, [, , start]] of ours) expect(start % 64, path).toBe(0);
});

describe.each([
  ['mamba1-tied', 'hf'],
  ['mamba1-odd', 'hf'],
  ['mamba2-tied', 'hf'],
  ['mamba2-hybrid', 'orig'],
  ['mamba3-mimo-norm', 'orig'],
])('%s from %s', (name, layout) => {
  test.each(['F32', 'BF16', 'F16'] as const)('as %s', async (dtype) => {
    const folder = join(root, `${name}-${dtype}`);
    mkdirSync(folder);
    copyFileSync(fixturePath(`${name}/orig/config.json`), join(folder, 'config.json'));
    const source = await openPretrained(fixturePath(`${name}/${layout}`));
    const bytes = await encode(torchContent(source, dtype));
    expect(Buffer.compare(await encode(torchContent(source, dtype)), bytes)).toBe(0);
    writeFileSync(join(folder, 'pytorch_model.bin'), bytes);

    const back = await openPretrained(folder);
    expect(back.config.d_model).toBe(source.config.d_model);
    // A value in [2^k, 2^(k+1)) moves by half a unit of its last place at most; f16 has no finer unit than 2^-24.
    const [step, least] = { F32: [0, 0], BF16: [2 ** -8, 0], F16: [2 ** -11, 2 ** -25] }[dtype] as [
      number,
      number,
    ];
    for (const tensor of source.tensors.keys()) {
      const [x, y] = [await readFloats(source.weight(tensor)), await back.tensor(tensor)];
      expect(
        x.every((value, i) => Math.abs(value - y[i]!) <= Math.max(Math.abs(value) * step, least)),
        tensor,
      ).toBe(true);
    }
    await back.close();

    const file = await open(bytes);
    const [embedding, head] = [
      file.tensors.get('backbone.embedding.weight'),
      file.tensors.get('lm_head.weight'),
    ];
    expect(embedding?.dtype).toBe(dtype);
    expect(head === embedding).toBe(source.config.tie_embeddings);
    await source.close();
  });
});

test('any shape, any number of tensors', async () => {
  const shapes = [[], [1], [2, 3], [0, 3], [2, 1, 2], [1, 2, 1, 3], [2, 1, 1, 1, 300]];
  const values = (i: number, size: number) => Float32Array.from({ length: size }, (_, j) => i + j / 1024);
  const entries = Array.from({ length: 2001 }, (_, i) => {
    const shape = shapes[i % shapes.length]!;
    return entryOf(
      `größe.${i}`,
      shape,
      values(
        i,
        shape.reduce((a, b) => a * b, 1),
      ),
    );
  });
  const file = await open(await encode([...entries, { name: 'tied', sameAs: 'größe.2000' }]));
  expect([...file.tensors.keys()]).toEqual([...entries.map(({ name }) => name), 'tied']);
  expect(file.tensors.get('tied')).toBe(file.tensors.get('größe.2000'));
  for (let i = 0; i < entries.length; i += 97) {
    const { name, shape } = entries[i]!;
    expect(file.tensors.get(name)?.shape).toEqual(shape);
    expect(await file.read(name)).toEqual(
      values(
        i,
        shape.reduce((a, b) => a * b, 1),
      ),
    );
  }
});

test('an empty state dict', async () => expect((await open(await encode([]))).tensors.size).toBe(0));

test('more elements than 32 bits count', async () => {
  const shape = [3, 2 ** 31 + 5];
  const never = () => expect.fail('the pickle stands before the data');
  const chunks = torchChunks([{ name: 'w', dtype: 'BF16', shape, bytes: never }]);
  await chunks.next();
  const pickle = (await chunks.next()).value as Uint8Array;
  const { storages, persistent } = storageCollector();
  const options = { name: 'w.bin', offset: 0, globals: TORCH_GLOBALS, persistent };
  expect(readPickle(pickle, options).value).toMatchObject(
    new Map([['w', { shape, strides: [2 ** 31 + 5, 1] }]]),
  );
  expect(storages.get('0')).toEqual({ key: '0', dtype: 'BF16', count: 3 * (2 ** 31 + 5) });
});

test('tensors are read one after the other, and handed on in pieces', async () => {
  const source = await openPretrained(fixturePath('mamba1-tied/hf'));
  const asked: string[] = [];
  const weight = (name: string) => {
    asked.push(name);
    return source.weight(name);
  };
  let [chunks, largest] = [0, 0];
  for await (const chunk of torchChunks(torchContent({ config: source.config, weight }, 'F32'))) {
    chunks++;
    largest = Math.max(largest, chunk.length);
    // Header, pickle, checksum; the same of the byte order; then header, one piece and checksum per tensor.
    expect(asked.length).toBeLessThanOrEqual(Math.max(0, Math.ceil((chunks - 7) / 3) + 1));
  }
  expect(asked).toEqual([...source.tensors.keys()]);
  expect(largest).toBeLessThanOrEqual(4 * PIECE_ELEMENTS);
  await source.close();
});

describe('what is refused', () => {
  const one = entryOf('w', [2], Float32Array.of(1, 2));
  test.each<[string, (TorchEntry | TorchAlias)[], typeof ConfigError | typeof ShapeError, string]>([
    ['a name twice', [one, one], ConfigError, 'every name once, got w again'],
    ['an alias of nothing', [{ name: 'tied', sameAs: 'w' }, one], ConfigError, 'a tensor before tied'],
    [
      'fewer values than the shape',
      [entryOf('w', [3], Float32Array.of(1, 2))],
      ShapeError,
      '12 bytes for pytorch_model/data/0, got 8',
    ],
    ['no extent', [entryOf('w', [-1], Float32Array.of(1))], ShapeError, 'extents >= 0, got [-1] for w'],
  ])('%s', async (_, entries, type, message) => {
    const writing = encode(entries);
    await expect(writing).rejects.toThrow(type);
    await expect(writing).rejects.toThrow(message);
  });

  test('weights that the type cannot hold', async () => {
    const source = await openPretrained(fixturePath('mamba1-tied/hf'));
    const weight = (name: string) => {
      const stored = source.weight(name);
      const pieces = async function* () {
        for await (const piece of stored.pieces())
          yield { ...piece, data: (piece.data as Float32Array).map(() => 7e4) };
      };
      return { ...stored, pieces };
    };
    const content = (dtype: TorchDType) => encode(torchContent({ config: source.config, weight }, dtype));
    await expect(content('F16')).rejects.toThrow(FormatError);
    await expect(content('F16')).rejects.toThrow(
      /up to 65504 for f16 in backbone.embeddings.weight, got 70000/,
    );
    expect((await open(await content('BF16'))).tensors.size).toBeGreaterThan(10);
    await source.close();
  });
});
