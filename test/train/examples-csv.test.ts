/** CSV and TSV: every table survives papaparse's own writer, lines are counted right, and bad records are named. */
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import papa from 'papaparse';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { ConfigError, FormatError } from '../../src/base/errors.ts';
import { type ReadExamplesOptions, readExamples } from '../../src/train/examples.node.ts';

let folder: string;
let path: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'mamba-csv-'));
  path = join(folder, 'a.csv');
});
afterAll(() => rm(folder, { recursive: true, force: true }));

async function read(content: string | Uint8Array, options: ReadExamplesOptions = {}, name = 'a.csv') {
  await writeFile(join(folder, name), content);
  return readExamples([join(folder, name)], options);
}

const lines = async (content: string) =>
  (await read(content)).map(({ text, label, where }) => [text, label, Number(where.split(':').at(-1))]);

describe('records', () => {
  it('have the line where they begin', async () => {
    const content =
      'id,label,text\n1,x,one\n\n2,y,"two\nlines, and ""quotes"""\n3, x ,three\n4,y,"a\n\n\nb"\n5,x,five';
    const expected = [
      ['one', 'x', 2],
      ['two\nlines, and "quotes"', 'y', 4],
      ['three', 'x', 6],
      ['a\n\n\nb', 'y', 7],
      ['five', 'x', 11],
    ];
    expect(await lines(content)).toEqual(expected);
    const windows = expected.map(([text, ...rest]) => [String(text).replaceAll('\n', '\r\n'), ...rest]);
    expect(await lines(content.replaceAll('\n', '\r\n'))).toEqual(windows);
    expect(await lines(`\ufeff${content}\n`)).toEqual(expected);
  });

  it('may end as on old systems, or in both ways', async () => {
    expect(await lines('text,label\rone,x\r"tw\ro",y\rthree,x')).toEqual([
      ['one', 'x', 2],
      ['tw\ro', 'y', 3],
      ['three', 'x', 5],
    ]);
    expect(await lines('text,label\r\none,x\ntwo,"y"\r\nthree,x\n')).toEqual([
      ['one', 'x', 2],
      ['two', 'y', 3],
      ['three', 'x', 4],
    ]);
  });

  it('are separated by tabs in TSV', async () => {
    const found = await read('label\ttext\nx\tone, "two"\ny\t"tab\there"\n', {}, 'a.tsv');
    expect(found.map(({ text }) => text)).toEqual(['one, "two"', 'tab\there']);
  });

  it('are separated by semicolons where the names of the columns are', async () => {
    const excel = '\ufeff"a, b";label;text\r\n1;x;"one; ""two"",\r\nthree"\r\n2;y;four, five\r\n';
    expect(await lines(excel)).toEqual([
      ['one; "two",\r\nthree', 'x', 2],
      ['four, five', 'y', 4],
    ]);
    expect(await lines('\ntext,a;b,label\none;two,,x\n')).toEqual([['one;two', 'x', 3]]);
    expect(await lines('text,label\none;two,x\n')).toEqual([['one;two', 'x', 2]]);
  });

  it('survive the cuts between pieces', async () => {
    // Records of 97 characters with quotes everywhere: 2 MB, so that piece ends fall on all kinds of places.
    const text = (i: number) => `"${String(i).padStart(6, '0')}",\n"",${'ä'.repeat(30)}\r\n"`;
    const rows = Array.from({ length: 24_000 }, (_, i) => ({ text: text(i), label: i % 2 ? 'a' : 'b' }));
    const found = await read(papa.unparse(rows, { newline: '\n' }));
    expect(found.length).toBe(rows.length);
    for (const [i, one] of found.entries())
      if (one.text !== rows[i]!.text || one.label !== rows[i]!.label || one.where !== `${path}:${2 + 3 * i}`)
        expect([i, one]).toEqual([i, rows[i]]);
  });

  it('come back as they were written', async () => {
    const field = fc.string({ unit: fc.constantFrom(...'ab",\n;\t é'), maxLength: 12 });
    const text = field.filter((value) => value.trim() !== '');
    const label = fc.constantFrom('x', 'y', 'a "quoted", label');
    const row = fc.record({ other: field, text, label });
    await fc.assert(
      fc.asyncProperty(
        fc.array(row, { minLength: 1 }),
        fc.constantFrom('\n', '\r\n'),
        async (rows, newline) => {
          const found = await read(papa.unparse(rows, { newline }));
          expect(found.map(({ text, label }) => ({ text, label }))).toEqual(
            rows.map(({ text, label }) => ({ text, label })),
          );
        },
      ),
    );
  });
});

describe('bad tables', () => {
  it('with columns that are not there, or twice', async () => {
    for (const [content, message] of [
      ['review,score\nfine,1\n', /a\.csv:1: expected the column "text", got "review", "score"\. Name/],
      ['\n\ntext|label\nfine|1\n', /a\.csv:3: expected the column "text", got "text\|label"/],
      ['text,label,text\na,b,c\n', /expected the column "text" once, got "text", "label", "text"/],
    ] as const) {
      await expect(read(content)).rejects.toThrow(ConfigError);
      await expect(read(content)).rejects.toThrow(message);
    }
    const [first] = await read('review,score\nfine,1\n', { textFields: ['review'], labelField: 'score' });
    expect(first).toEqual({ text: 'fine', label: '1', where: `${path}:2` });
  });

  it('with unequal columns, empty texts and labels', async () => {
    const bad = read('text,label\none\n"t\nwo",x\na,b,c\n,x\n  ,x\nfive,\nsix, \n\n');
    await expect(bad).rejects.toThrow(FormatError);
    for (const part of [
      `2 with other than 2 columns (${path}:2, ${path}:5)`,
      `2 with an empty text (${path}:6, ${path}:7)`,
      `2 with an empty label (${path}:8, ${path}:9)`,
    ])
      await expect(bad).rejects.toThrow(part);
  });

  it.each([
    ['a quote that is never closed', 'text,label\none,x\n"two,y\nthree,x\n', 3],
    ['letters behind a quote', 'text,label\none,x\nfine,y\n"two" and more,y\n"three",x\n', 4],
  ])('with %s', async (_, content, line) => {
    await expect(read(content)).rejects.toThrow(FormatError);
    await expect(read(content)).rejects.toThrow(`${path}:${line}: expected a quote at the end of each field`);
  });

  it('give up on an open quote long before the end', async () => {
    const content = `text,label\none,x\n"two,y\n${'three,x\n'.repeat(3_000_000)}`;
    await expect(read(content)).rejects.toThrow(/a\.csv:3: expected a record of at most .* quote not closed/);
  });
});
