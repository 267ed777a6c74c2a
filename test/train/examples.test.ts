/** Labelled texts: order of labels, the split, every reader, and bad data named with file and line. */
import { mkdir, mkdtemp, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { ConfigError, FormatError } from '../../src/base/errors.ts';
import { FileError } from '../../src/io/file.ts';
import { type ExamplesEvent, openExamples, readExamples } from '../../src/train/examples.node.ts';
import {
  checkLabels,
  type Example,
  inferLabels,
  missingLabels,
  sortLabels,
  splitExamples,
} from '../../src/train/examples.ts';

let folder: string;
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'mamba-examples-'));
});
afterEach(() => rm(folder, { recursive: true, force: true }));

async function put(name: string, content: string | Uint8Array): Promise<string> {
  const path = join(folder, name);
  await mkdir(dirname(path), { recursive: true });
  await writeFile(path, content);
  return path;
}

/** Files of a folder per class: `pos/a.txt`. */
async function putAll(...names: string[]): Promise<void> {
  for (const name of names) await put(name, `text of ${name}`);
}

const examples = (...labels: string[]): Example[] =>
  labels.map((label, i) => ({ text: `text ${i}`, label, where: `memory:${i + 1}` }));
const brief = (list: readonly Example[]) => list.map(({ text, label }) => [text, label]);

describe('labels', () => {
  it('are sorted as people count', () => {
    expect(sortLabels(['10', '9', '-1', '2.5'])).toEqual(['-1', '2.5', '9', '10']);
    expect(sortLabels(['class 10', 'class 9', 'b', 'a10b', 'a10', 'a9', '7'])).toEqual([
      '7',
      'a9',
      'a10',
      'a10b',
      'b',
      'class 9',
      'class 10',
    ]);
    expect(sortLabels(['1', '01', '1.0'])).toEqual(['01', '1', '1.0']);
  });

  it('must be two at least', () => {
    expect(inferLabels(examples('b', 'a', 'b'))).toEqual(['a', 'b']);
    expect(() => inferLabels(examples('a', 'a'))).toThrow(/two classes, got only "a"/);
    expect(() => inferLabels([])).toThrow(ConfigError);
  });

  it('must be known', () => {
    checkLabels('test data', examples('a', 'b'), ['a', 'b']);
    const check = () => checkLabels('test data', examples('a', 'c', 'B', 'c'), ['a', 'b']);
    expect(check).toThrow(ConfigError);
    expect(check).toThrow(
      /in the test data only the labels "a", "b", got "B" \(memory:3\), "c" \(memory:2\)\./,
    );
    const many = Array.from({ length: 30 }, (_, i) => `label ${i}`);
    expect(() => checkLabels('data', examples(...many), ['a'])).toThrow(
      /"label 9" \(memory:10\) and 20 more/,
    );
    expect(missingLabels(examples('a'), ['a', 'b'])).toEqual(['b']);
  });
});

describe('splitExamples', () => {
  const all = examples(
    ...Array.from({ length: 100 }, (_, i) => (i < 60 ? 'a' : i < 97 ? 'b' : i < 99 ? 'c' : 'd')),
  );
  const count = (list: readonly Example[], label: string) => list.filter((one) => one.label === label).length;

  it('takes a share of each class, one at least, never all', () => {
    const { train, valid } = splitExamples(all, 0.1, 1);
    expect(['a', 'b', 'c', 'd'].map((label) => count(valid, label))).toEqual([6, 4, 1, 0]);
    expect(['a', 'b', 'c', 'd'].map((label) => count(train, label))).toEqual([54, 33, 1, 1]);
    const positions = (list: readonly Example[]) => list.map((one) => all.indexOf(one));
    for (const part of [train, valid]) expect(positions(part)).toEqual(positions(part).sort((x, y) => x - y));
    expect(new Set([...train, ...valid]).size).toBe(100);
    expect(splitExamples(all, 0.99, 1).train.length).toBe(4);
  });

  it('depends on the seed alone', () => {
    expect(splitExamples(all, 0.2, 5)).toEqual(splitExamples(all, 0.2, 5));
    expect(splitExamples(all, 0.2, 5).valid).not.toEqual(splitExamples(all, 0.2, 6).valid);
    const of = (label: string, list: Example[]) =>
      splitExamples(list, 0.2, 5).valid.filter((one) => one.label === label);
    const others = all.filter(({ label }) => label !== 'a');
    expect(of('b', others)).toEqual(of('b', all));
  });

  it('refuses other shares and classes of one', () => {
    for (const share of [0, 1, -1, Number.NaN])
      expect(() => splitExamples(all, share, 1)).toThrow(ConfigError);
    expect(() => splitExamples(examples('a', 'b'), 0.5, 1)).toThrow(/got one example of each/);
  });
});

describe('JSON', () => {
  it('reads lines, arrays, and lines in a file called .json', async () => {
    const lines =
      '\ufeff{"text":"fine","label":1}\r\n\n{"label":true,"text":"b\\nc"}\n{"text":"d","label":" x "}';
    const expected = [
      { text: 'fine', label: '1', line: 1 },
      { text: 'b\nc', label: 'true', line: 3 },
      { text: 'd', label: 'x', line: 4 },
    ];
    for (const name of ['a.jsonl', 'a.ndjson', 'lines.json']) {
      const path = await put(name, lines);
      const wanted = expected.map(({ line, ...rest }) => ({ ...rest, where: `${path}:${line}` }));
      expect(await readExamples([path])).toEqual(wanted);
    }
    const path = await put('array.json', ' [{"text":"a","label":"x"},\n {"text":"b","label":2.5}]');
    expect(await readExamples([path])).toEqual([
      { text: 'a', label: 'x', where: `${path}[0]` },
      { text: 'b', label: '2.5', where: `${path}[1]` },
    ]);
  });

  it('joins text columns and leaves out empty ones', async () => {
    const path = await put('a.jsonl', '{"t":"title","b":"body","y":1}\n{"t":null,"b":"alone","y":1}');
    const read = await readExamples([path], { textFields: ['t', 'b'], labelField: 'y' });
    expect(read.map(({ text }) => text)).toEqual(['title\nbody', 'alone']);
    await expect(readExamples([path], { textFields: ['t', 't'] })).rejects.toThrow(/each once/);
    expect((await readExamples([path], { textFields: ['b'], isLabelled: false }))[0]!.label).toBe('');
  });

  it('lists every problem with its lines', async () => {
    const path = await put(
      'a.jsonl',
      [
        '{"text":"fine","label":"x"}',
        '{"text":" \\n","label":"x"}',
        '{"text":"no label","label":""}',
        '{"text":"no label","label":null}',
        '{"text":"no label","label":NaN}',
        '{"text":"no label"}',
        '{"text":7,"label":"x"}',
        '{"text":"odd","label":["x"]}',
        '[1]',
        '{"text":',
        ...Array.from({ length: 5 }, () => '{"text":"","label":"x"}'),
      ].join('\n'),
    );
    const read = readExamples([path]);
    await expect(read).rejects.toThrow(FormatError);
    for (const part of [
      `6 with an empty text (${path}:2, ${path}:11, ${path}:12 and 3 more)`,
      `3 with an empty label (${path}:3, ${path}:4, ${path}:5)`,
      `1 with no "label" (${path}:6)`,
      `1 with a number as text (${path}:7)`,
      `1 with a list as label (${path}:8)`,
      `1 with a JSON value that is not an object (${path}:9)`,
      `1 with a line that is not JSON (${path}:10)`,
    ])
      await expect(read).rejects.toThrow(part);
  });

  it('names the columns there are', async () => {
    const path = await put('a.jsonl', '{"review":"fine","score":1}');
    const read = readExamples([path]);
    await expect(read).rejects.toThrow(ConfigError);
    await expect(read).rejects.toThrow(
      /:1: expected the column "text", got "review", "score"\. Name .*--text, --label/,
    );
  });

  it('names the place of broken arrays', async () => {
    const broken = await put('a.json', '[{"text":"a","label":1},\n{"text" "b"}]');
    await expect(readExamples([broken])).rejects.toThrow(/got "\\"b\\"}\]" at line 2, column 9 of .*a\.json/);
    const odd = await put('b.json', '[{"text":"a","label":1}, 3]');
    await expect(readExamples([odd])).rejects.toThrow(`not an object (${odd}[1])`);
  });
});

describe('bytes that are not UTF-8', () => {
  const good = '{"text":"schön","label":"x"}\n';
  it.each([
    [
      'Latin-1',
      Buffer.from(`${good}{"text":"sch\xf6n"}`, 'latin1'),
      /a\.jsonl:1: .*got the byte 0xf6 \(byte 12 of/,
    ],
    [
      'Latin-1 that looks like the beginning of a character',
      Buffer.from('{"text":"caf\xe9, 1"}', 'latin1'),
      /a\.jsonl:1: .*got the byte 0xe9 \(byte 12 of/,
    ],
    [
      'a byte in line 2',
      Buffer.concat([Buffer.from(good), Buffer.from([0x61, 0xff])]),
      /:2: .*0xff \(byte 31 of/,
    ],
    [
      'a cut character',
      Buffer.from(good).subarray(0, 13),
      /:1: expected UTF-8, got the end within a character/,
    ],
    ['UTF-16', Buffer.from(`\ufeff${good}`, 'utf16le'), /:1: .*a byte order mark of UTF-16/],
    [
      'UTF-16 without a mark',
      Buffer.from(`\n${good}`, 'utf16le'),
      /:2: expected UTF-8, got a NUL byte \(byte 1 /,
    ],
  ])('%s', async (_, bytes, message) => {
    const read = readExamples([await put('a.jsonl', bytes)]);
    await expect(read).rejects.toThrow(FormatError);
    await expect(read).rejects.toThrow(message);
  });

  it('are found where a piece of the file ends', async () => {
    const line = Buffer.from(`${'x'.repeat(99)}\n`);
    for (const shift of [0, 1, 2, 3]) {
      const start = Buffer.concat([Buffer.alloc((1 << 20) - 100, line), Buffer.alloc(98 + shift, 'y')]);
      const bytes = Buffer.concat([start, Buffer.from([0xe2, 0x82, 0x41])]);
      const at = start.length; // the character that does not go on
      const read = readExamples([await put('a.txt', bytes), await put('a.csv', bytes)], {
        isLabelled: false,
      });
      await expect(read).rejects.toThrow(`the byte 0xe2 (byte ${at} of`);
      const csv = readExamples([await put('a.csv', Buffer.concat([Buffer.from('text\n'), bytes]))], {
        isLabelled: false,
      });
      const lines = 1 + Math.floor(((1 << 20) - 100) / 100) + 1;
      await expect(csv).rejects.toThrow(
        `a.csv:${lines}: expected UTF-8, got the byte 0xe2 (byte ${at + 5} of`,
      );
    }
  });
});

describe('folders', () => {
  it('reads a folder per class, sorted, without what is not an example', async () => {
    await putAll('pos/b.txt', 'pos/a.txt', 'pos/README', 'pos/notes.md', 'neg/1', 'neg/2', 'neg/README.md');
    await putAll('urls.txt', '.hidden/x.txt', 'neg/.hidden');
    await symlink(join(folder, 'pos'), join(folder, 'linked'));
    const read = await readExamples([folder]);
    expect(brief(read)).toEqual([
      ['text of pos/a.txt', 'linked'],
      ['text of pos/b.txt', 'linked'],
      ['text of neg/1', 'neg'],
      ['text of neg/2', 'neg'],
      ['text of pos/a.txt', 'pos'],
      ['text of pos/b.txt', 'pos'],
    ]);
    expect(read[2]!.where).toBe(join(folder, 'neg/1'));
  });

  it('reads the layout of aclImdb as it is', async () => {
    for (const part of ['train', 'test']) {
      await putAll(`${part}/labeledBow.feat`, `${part}/urls_pos.txt`);
      for (let i = 0; i < 4; i++) await putAll(`${part}/pos/${i}_9.txt`, `${part}/neg/${i}_2.txt`);
    }
    await putAll('train/unsup/0_0.txt', 'README', 'imdb.vocab');
    const events: ExamplesEvent[] = [];
    const onProgress = (event: ExamplesEvent) => void events.push(event);
    const parts = await openExamples({ data: [folder], validShare: 0.25, seed: 1, onProgress });
    expect(parts.labels).toEqual(['neg', 'pos']);
    expect([parts.train.length, parts.valid.length, parts.test.length]).toEqual([6, 2, 8]);
    const message = `${join(folder, 'train/unsup')} is left out: its texts have no labels.`;
    expect(events).toEqual([
      { kind: 'notice', message },
      { kind: 'read', examples: 8 },
      { kind: 'read', examples: 8 },
    ]);
    expect((await readExamples([folder])).length).toBe(8);
    const unlabelled = await readExamples([join(folder, 'train/unsup')], { isLabelled: false });
    expect(brief(unlabelled)).toEqual([['text of train/unsup/0_0.txt', '']]);
  });

  it('takes a validation folder, and named data before its own', async () => {
    for (const part of ['train', 'valid', 'test']) await putAll(`${part}/a/1.txt`, `${part}/b/1.txt`);
    const parts = await openExamples({ data: [folder], seed: 0 });
    expect([parts.train.length, parts.valid.length, parts.test.length]).toEqual([2, 2, 2]);
    const other = await put('other.csv', 'text,label\nnew,a\n');
    expect(brief((await openExamples({ data: [folder], test: [other], seed: 0 })).test)).toEqual([
      ['new', 'a'],
    ]);
  });

  it('takes train for a class beside other classes', async () => {
    await putAll('train/1.txt', 'bus/1.txt');
    expect((await readExamples([folder])).map(({ label }) => label)).toEqual(['bus', 'train']);
  });

  it.each([
    [[], /expected a folder for each class, got an empty folder/],
    [
      ['a.csv', 'b.csv', 'c', 'd'],
      /got only files \(a\.csv, b\.csv, c and 1 more\)\..*name the files themselves/,
    ],
    [['unsup/1.txt'], /got only unsup/],
    [['pos/1.txt', 'neg/README'], /neg: expected the text files of the class "neg", got none/],
    [['pos/1.txt', 'neg/deep/1.txt'], /"neg", got only folders \(deep\)/],
  ] as [string[], RegExp][])('refuses %j', async (names, message) => {
    await putAll(...names);
    const read = readExamples([folder]);
    await expect(read).rejects.toThrow(FormatError);
    await expect(read).rejects.toThrow(message);
  });

  it('refuses a part that is not there, and names a bad text', async () => {
    await putAll('train/a/1.txt', 'train/b/1.txt');
    await expect(readExamples([folder])).rejects.toThrow(/expected a part test in .*, got train\./);
    const path = await put('train/b/2.txt', Buffer.from('fine\nsch\xf6n', 'latin1'));
    await expect(openExamples({ data: [folder], seed: 0 })).rejects.toThrow(`${path}:2: expected UTF-8`);
    await writeFile(path, ' \n');
    await expect(openExamples({ data: [folder], seed: 0 })).rejects.toThrow(`1 with an empty text (${path})`);
  });
});

describe('sources', () => {
  it('takes globs and several files, each once', async () => {
    await put('a.csv', 'text,label\none,x\n');
    await put('b.csv', 'text,label\ntwo,y\n');
    const read = await readExamples([join(folder, '*.csv'), join(folder, 'a.csv')]);
    expect(brief(read)).toEqual([
      ['one', 'x'],
      ['two', 'y'],
    ]);
  });

  it('refuses what is not there, not known or empty', async () => {
    await expect(readExamples([])).rejects.toThrow(ConfigError);
    await expect(readExamples([join(folder, 'no.csv')])).rejects.toThrow(
      /expected files at .*no\.csv, got none/,
    );
    await expect(readExamples([await put('a.xlsx', 'x')])).rejects.toThrow(/got .*a\.xlsx\. Convert it/);
    await expect(readExamples([await put('a.txt', 'x')])).rejects.toThrow(ConfigError);
    for (const name of ['a.csv', 'a.tsv', 'a.jsonl', 'a.json', 'a.parquet'])
      await expect(readExamples([await put(name, '')])).rejects.toThrow(/expected examples, got none/);
    await expect(readExamples([await put('b.csv', 'text,label\n')])).rejects.toThrow(/nothing but a header/);
    await expect(readExamples([await put('c.json', '[]')])).rejects.toThrow(/expected examples, got none/);
    await expect(readExamples(['/dev/null'])).rejects.toThrow(FileError);
  });

  it('checks the parts against each other', async () => {
    const train = await put('train.csv', 'text,label\none,x\ntwo,y\nthree,x\nfour,y\n');
    const other = await put('test.csv', 'text,label\none,X\ntwo,y\n');
    const only = await put('only.csv', 'text,label\none,x\n');
    const open = (more: object) => openExamples({ data: [train], seed: 0, ...more });
    await expect(open({ test: [other] })).rejects.toThrow(
      `test data only the labels "x", "y", got "X" (${other}:2)`,
    );
    await expect(open({ valid: [other] })).rejects.toThrow(/in the validation data only/);
    await expect(open({ data: [only] })).rejects.toThrow(/two classes, got only "x"/);
    const events: ExamplesEvent[] = [];
    const parts = await open({ valid: [only], onProgress: (event: ExamplesEvent) => events.push(event) });
    expect(parts).toMatchObject({ labels: ['x', 'y'], test: [] });
    expect([parts.train.length, parts.valid.length]).toEqual([4, 1]);
    const notices = events.flatMap((event) => (event.kind === 'notice' ? [event.message] : []));
    expect(notices).toEqual([
      'The validation data has no examples of y.',
      '1 of the 1 texts of the validation data are also in the training data: their scores flatter.',
    ]);
    const fresh = await put('fresh.csv', 'text,label\nfive,x\nsix,y\n');
    events.length = 0;
    await open({ test: [fresh], onProgress: (event: ExamplesEvent) => events.push(event) });
    expect(events.filter(({ kind }) => kind === 'notice')).toEqual([]);
  });
});
