/** Parquet files of another writer (test/fixtures/labelled/make.py), whole and damaged. */
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { ConfigError, FormatError } from '../../src/base/errors.ts';
import { readExamples } from '../../src/train/examples.node.ts';

const TEXTS = [
  'A warm, funny film.',
  'Dull from the first scene to the last.',
  'Zwei Stunden, die sich lohnen: schön!',
  'Not worth\na ticket.',
  '電影很好看',
  'I left early, and so did my neighbours.',
  'Quiet and lovely.',
  'Noise, noise, noise.',
];
const SIGNS = TEXTS.map((_, i) => (i % 2 === 0 ? 'pos' : 'neg'));
const NUMBERS = TEXTS.map((_, i) => (i % 2 === 0 ? '1' : '0'));

const fixture = (name: string) => join('test/fixtures/labelled', `${name}.parquet`);

let folder: string;
let damaged: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'mamba-parquet-'));
  damaged = join(folder, 'damaged.parquet');
});
afterAll(() => rm(folder, { recursive: true, force: true }));

describe('whole files', () => {
  it.each([
    ['none', SIGNS],
    ['snappy', SIGNS],
    ['gzip', SIGNS],
    ['zstd', SIGNS],
    ['v2-pages', SIGNS],
    ['plain-required', SIGNS],
    ['row-groups', SIGNS],
    ['many-pages', SIGNS],
    ['delta', SIGNS],
    ['class-names', SIGNS],
    ['booleans', NUMBERS.map((label) => String(label === '1'))],
    ['doubles', NUMBERS],
  ])('%s', async (name, labels) => {
    const path = fixture(name);
    const expected = TEXTS.map((text, i) => ({ text, label: labels[i], where: `${path}:${i + 1}` }));
    expect(await readExamples([path])).toEqual(expected);
  });

  it('joins columns, and numbers become labels', async () => {
    const options = { textFields: ['label', 'text'], labelField: 'id' };
    const [first] = await readExamples([fixture('row-groups')], options);
    expect(first).toMatchObject({ text: `pos\n${TEXTS[0]}`, label: '0' });
  });
});

describe('files that are refused', () => {
  it.each([
    ['nulls', /1 with an empty text \(.*nulls\.parquet:6\); 1 with an empty label \(.*nulls\.parquet:7\)/],
    ['lists', /expected text in the column "text", got a nested column/],
    ['latin1', /got: text that is not UTF-8/],
    ['delta-bytes', /the encoding DELTA_BYTE_ARRAY, which is not read here/],
    ['empty', /expected examples, got none/],
  ])('%s', async (name, message) => {
    const read = readExamples([fixture(name)]);
    await expect(read).rejects.toThrow(FormatError);
    await expect(read).rejects.toThrow(message);
  });

  it('a column that is not text, or not there', async () => {
    const options = { textFields: ['id'] };
    await expect(readExamples([fixture('row-groups')], options)).rejects.toThrow(
      /text in the column "id", got INT64/,
    );
    const missing = readExamples([fixture('row-groups')], { labelField: 'score' });
    await expect(missing).rejects.toThrow(ConfigError);
    await expect(missing).rejects.toThrow(/expected the column "score", got "id", "text", "label"/);
  });
});

describe('damaged files', () => {
  /** Either examples (a changed letter is still a text) or an error of ours; never another, never a hang. */
  async function readDamaged(bytes: Uint8Array): Promise<boolean> {
    await writeFile(damaged, bytes);
    try {
      await readExamples([damaged]);
      return true;
    } catch (error) {
      if (!(error instanceof FormatError || error instanceof ConfigError)) throw error;
      expect(error.message).toContain('damaged.parquet');
      return false;
    }
  }

  it.each(['snappy', 'v2-pages', 'row-groups'])('%s cut anywhere', async (name) => {
    const bytes = await readFile(fixture(name));
    for (let length = 0; length < bytes.length; length += 23)
      expect(await readDamaged(bytes.subarray(0, length))).toBe(false);
  });

  it('text in the place of Parquet', async () => {
    expect(await readDamaged(Buffer.from('text,label\nfine,pos\n'))).toBe(false);
  });

  it('a run that would fill the memory', async () => {
    const bytes = await readFile(fixture('none'));
    const levels = Buffer.from([2, 0, 0, 0, 16, 1]); // two bytes: a run of eight values, each there
    const at = bytes.indexOf(levels);
    expect(at).toBeGreaterThan(0);
    bytes.set([5, 0, 0, 0, 0xfe, 0xff, 0xff, 0xff, 0x0f], at); // a run of 2^31 - 1
    expect(await readDamaged(bytes)).toBe(false);
  });

  const names = [
    'none',
    'snappy',
    'gzip',
    'zstd',
    'v2-pages',
    'plain-required',
    'many-pages',
    'delta',
    'booleans',
  ];
  it.each(names)('%s with any bytes changed', async (name) => {
    const bytes = await readFile(fixture(name));
    const change = fc.tuple(fc.nat(bytes.length - 1), fc.integer({ min: 0, max: 255 }));
    const changes = fc.array(change, { minLength: 1, maxLength: 6 });
    await fc.assert(
      fc.asyncProperty(changes, async (list) => {
        const copy = Uint8Array.from(bytes);
        for (const [at, value] of list) copy[at] = value;
        await readDamaged(copy);
      }),
      { numRuns: 60 },
    );
  });
});
