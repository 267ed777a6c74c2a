import { readFileSync } from 'node:fs';
import { describe, expect, test } from 'vitest';
import { ConfigError, FormatError } from '../../src/base/errors.ts';
import { type ByteSource, memorySource } from '../../src/base/source.ts';
import { encodeSafetensors } from '../../src/io/safetensors-write.ts';
import { openSharded } from '../../src/io/shards.ts';

const tensor = (name: string, value: number) => ({
  name,
  dtype: 'F32' as const,
  shape: [2],
  data: Float32Array.of(value, value),
});
const shardA = await encodeSafetensors([tensor('a', 1), tensor('b', 2)]);
const shardB = await encodeSafetensors([tensor('c', 3)]);
const indexOf = (value: unknown): ByteSource =>
  memorySource(
    new TextEncoder().encode(typeof value === 'string' ? value : JSON.stringify(value)),
    'index.json',
  );

/** Opens shards from memory and keeps count of what stays open. */
function folder(files: Record<string, Uint8Array>) {
  const open = new Set<string>();
  return {
    open,
    get: async (name: string): Promise<ByteSource> => {
      const bytes = files[name];
      if (!bytes) throw new ConfigError(`openFile: expected a file ${name}, got nothing.`);
      open.add(name);
      const source = memorySource(bytes, name);
      return {
        ...source,
        close: async () => {
          open.delete(name);
        },
      };
    },
  };
}

test('a set reads like one file', async () => {
  const files = folder({ A: shardA, B: shardB });
  const set = await openSharded(
    indexOf({ metadata: { total_size: 24 }, weight_map: { c: 'B', a: 'A', b: 'A' } }),
    files.get,
  );
  expect([...set.tensors.keys()].sort()).toEqual(['a', 'b', 'c']);
  expect(set.metadata).toEqual({ total_size: '24' });
  expect(await set.readAsF32('c')).toEqual(Float32Array.of(3, 3));
  expect(await set.read('b')).toEqual(Float32Array.of(2, 2));
  await expect(set.read('d')).rejects.toThrow('got the name d');
  expect(files.open).toEqual(new Set(['A', 'B']));
  await set.close();
  expect(files.open.size).toBe(0);
});

test('the three shards of the bf16 model', async () => {
  const root = new URL('../fixtures/models/mamba1-bf16/hf/', import.meta.url);
  const source = async (name: string) =>
    memorySource(new Uint8Array(readFileSync(new URL(name, root))), name);
  const set = await openSharded(await source('model.safetensors.index.json'), source);
  let bytes = 0;
  for (const { start, end } of set.tensors.values()) bytes += end - start;
  expect(String(bytes)).toBe(set.metadata.total_size);
  expect((await set.readAsF32('backbone.norm_f.weight')).length).toBe(64);
});

describe('everything that does not agree is in one error', () => {
  const all = { A: shardA, B: shardB };
  const map = { a: 'A', b: 'A', c: 'B' };
  const cases: [name: string, index: unknown, files: Record<string, Uint8Array>, messages: string[]][] = [
    ['shard missing', { weight_map: map }, { A: shardA }, ['shard B: openFile: expected a file B']],
    ['shards missing', { weight_map: map }, {}, ['shard A', 'shard B']],
    [
      'shard damaged',
      { weight_map: map },
      { A: shardA.slice(0, -1), B: shardB },
      ['shard A: openSafetensors', 'tensor b'],
    ],
    ['absent', { weight_map: { ...map, x: 'A', y: 'B' } }, all, ['x is absent from A', 'y is absent from B']],
    ['listed twice', '{"weight_map": {"a":"A","b":"A","c":"B","a":"B"}}', all, ['a is listed twice']],
    [
      'stored twice',
      { weight_map: map },
      { A: shardA, B: shardA },
      ['a is in B, but listed for A', 'c is absent from B'],
    ],
    ['not listed', { weight_map: { a: 'A', c: 'B' } }, all, ['b of A is not listed']],
    [
      'a path, not a name',
      { weight_map: { ...map, p: '../../etc/passwd' } },
      all,
      ['p names "../../etc/passwd"'],
    ],
    ['a number for a name', { weight_map: { ...map, p: 7 } }, all, ['p names 7']],
    ['no weight_map', { metadata: {} }, all, ['weight_map', 'undefined']],
    ['weight_map is a list', { weight_map: [] }, all, ['an array']],
    ['not JSON', '{"weight_map": ', all, ['line 1, column 16']],
  ];
  test.each(cases)('%s', async (_, index, files, messages) => {
    const shelf = folder(files);
    const error = await openSharded(indexOf(index), shelf.get).then(
      () => null,
      (reason) => reason as Error,
    );
    expect(error).toBeInstanceOf(FormatError);
    for (const message of messages) expect(error?.message).toContain(message);
    expect(error?.message).toContain('index.json');
    expect(shelf.open.size).toBe(0);
  });

  test('a long list ends in a count', async () => {
    const weight_map = Object.fromEntries(Array.from({ length: 500 }, (_, i) => [`t${i}`, 'A']));
    const opening = openSharded(indexOf({ weight_map }), folder(all).get);
    await expect(opening).rejects.toThrow('and 482 more');
  });
});
