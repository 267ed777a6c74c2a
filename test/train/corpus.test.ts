import {
  mkdir,
  mkdtemp,
  readdir,
  readFile,
  rm,
  symlink,
  truncate,
  utimes,
  writeFile,
} from 'node:fs/promises';
import { homedir, tmpdir } from 'node:os';
import { join, relative } from 'node:path';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { ConfigError, FormatError } from '../../src/base/errors.ts';
import type { Tokenizer } from '../../src/base/tokenizer.ts';
import { byteTokenizer, tokenizerFromJson, trainBpe } from '../../src/text/index.ts';
import { openCorpus } from '../../src/train/corpus.node.ts';
import { cacheFolder } from '../../src/train/corpus-cache.node.ts';
import { listCorpusFiles } from '../../src/train/corpus-files.node.ts';
import type { TokenData } from '../../src/train/data-tokens.ts';

let folder: string;
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'mamba-corpus-'));
});
afterEach(async () => {
  await rm(folder, { recursive: true, force: true });
});

async function put(files: Record<string, string | Uint8Array>): Promise<void> {
  for (const [name, content] of Object.entries(files)) {
    await mkdir(join(folder, name, '..'), { recursive: true });
    await writeFile(join(folder, name), content);
  }
}
const at = (...names: string[]): string => join(folder, ...names);
const tokenFolder = (): string => at('.tokens');

const bytes = byteTokenizer();
const trained = trainBpe(['the whale and the sea, the sea and the whale '.repeat(20)], { vocabSize: 300 });
const bpe = tokenizerFromJson(trained.tokenizerJson, trained.tokenizerConfig);

async function contents(tokens: TokenData): Promise<{ ids: number[]; starts: number[] }> {
  const ids = [...(await tokens.read(0, tokens.length))];
  const starts = await tokens.documentStarts(0, tokens.length);
  await tokens.close();
  return { ids, starts };
}
const textOf = async (tokens: TokenData): Promise<string> => bytes.decode((await contents(tokens)).ids);

describe('listCorpusFiles', () => {
  const list = async (...patterns: string[]): Promise<string[]> =>
    (await listCorpusFiles(patterns.map((pattern) => join(folder, pattern)))).map(({ path }) =>
      relative(folder, path),
    );

  beforeEach(() =>
    put({
      'b.txt': 'b',
      'a.txt': 'a',
      'a10.txt': 'a',
      'notes.md': 'm',
      '.hidden.txt': 'h',
      'sub/c.txt': 'c',
      'sub/deep/d.txt': 'd',
      'sub/.git/x.txt': 'x',
      'other/lines.jsonl': '',
      'star*.txt': 's',
      'plus+(1).txt': 'p',
    }),
  );

  it('walks folders in the order of names and leaves hidden ones out', async () => {
    expect(await list('sub')).toEqual(['sub/c.txt', 'sub/deep/d.txt']);
    expect(await list('.')).toEqual([
      'a.txt',
      'a10.txt',
      'b.txt',
      'notes.md',
      'other/lines.jsonl',
      'plus+(1).txt',
      'star*.txt',
      'sub/c.txt',
      'sub/deep/d.txt',
    ]); // prettier-ignore
  });

  it.each([
    ['*.txt', ['a.txt', 'a10.txt', 'b.txt', 'plus+(1).txt', 'star*.txt']],
    ['?.txt', ['a.txt', 'b.txt']],
    ['a*.txt', ['a.txt', 'a10.txt']],
    ['*/*.txt', ['sub/c.txt']],
    ['s*/**/*.txt', ['sub/c.txt', 'sub/deep/d.txt']],
    ['**/d.txt', ['sub/deep/d.txt']],
    ['**/deep/*', ['sub/deep/d.txt']],
    ['sub/**', ['sub/c.txt', 'sub/deep/d.txt']],
    ['.*.txt', ['.hidden.txt']],
    ['plus+(?).txt', ['plus+(1).txt']],
  ])('expands %s', async (pattern, expected) => {
    expect(await list(pattern)).toEqual(expected);
  });

  it('takes a path that exists literally and every file once, in the order given', async () => {
    expect(await list('star*.txt')).toEqual(['star*.txt']);
    expect(await list('sub', 'b.txt', '*.txt')).toEqual([
      'sub/c.txt',
      'sub/deep/d.txt',
      'b.txt',
      'a.txt',
      'a10.txt',
      'plus+(1).txt',
      'star*.txt',
    ]); // prettier-ignore
  });

  it('tells JSONL from text by the extension', async () => {
    const kinds = (await listCorpusFiles([at('other'), at('a.txt')])).map(({ kind }) => kind);
    expect(kinds).toEqual(['jsonl', 'text']);
  });

  it('ends where links go in a circle', async () => {
    await symlink(at('sub'), at('sub', 'deep', 'loop'));
    expect(await list('sub')).toEqual(['sub/c.txt', 'sub/deep/d.txt']);
    expect(await list('sub/**/d.txt')).toEqual(['sub/deep/d.txt']);
  });

  it.each([['missing.txt'], ['*.csv'], ['empty'], ['a.txt/x'], ['**/nothing']])(
    'refuses %s: nothing there',
    async (path) => {
      await mkdir(at('empty'));
      await expect(list(path)).rejects.toThrow(ConfigError);
    },
  );

  it('refuses an empty list', async () => {
    await expect(listCorpusFiles([])).rejects.toThrow(ConfigError);
  });
});

describe('openCorpus with bytes', () => {
  it('uses a single text file in place, whatever its bytes', async () => {
    const content = Uint8Array.from({ length: 3000 }, (_, i) => (i * 7919) & 255);
    await put({ 'any.bin': content });
    const tokens = await openCorpus([at('any.bin')], { tokenizer: bytes, tokenFolder: tokenFolder() });
    expect(tokens.severalDocuments).toBe(false);
    expect(await contents(tokens)).toEqual({ ids: [...content], starts: [0] });
    expect(await readdir(folder)).toEqual(['any.bin']);
  });

  it('reads a range of a file', async () => {
    await put({ 'x.txt': '0123456789' });
    const part = { path: at('x.txt'), kind: 'text', startBytes: 3, endBytes: 7 } as const;
    expect(await textOf(await openCorpus([part], { tokenizer: bytes }))).toBe('3456');
  });

  it('joins files by a line break where there is none and knows where each begins', async () => {
    await put({ 'a.txt': 'one', 'b.txt': 'two\n', 'c.txt': '', 'd.txt': new Uint8Array([255, 254]) });
    const tokens = await openCorpus([at('*.txt')], { tokenizer: bytes, tokenFolder: tokenFolder() });
    expect(tokens.severalDocuments).toBe(true);
    const { ids, starts } = await contents(tokens);
    expect(ids).toEqual([...Buffer.from('one\ntwo\n'), 255, 254]);
    expect(starts).toEqual([0, 4, 8]);
  });

  it('takes each JSONL line as a document', async () => {
    const lines = [
      '{"text": "first"}',
      '',
      '{"n": 1, "text": "zweite Zeile é😀"}\r',
      '{"text": ""}',
      '{"text":"last\\n"}',
    ];
    await put({ 'x.jsonl': lines.join('\n') });
    const tokens = await openCorpus([at('x.jsonl')], { tokenizer: bytes, tokenFolder: tokenFolder() });
    const { ids, starts } = await contents(tokens);
    expect(bytes.decode(ids)).toBe('first\nzweite Zeile é😀\nlast\n');
    expect(starts).toEqual([0, 6, 6 + Buffer.byteLength('zweite Zeile é😀\n')]);
  });

  it('reads another text field, and lines longer than a chunk', async () => {
    const long = 'déjà '.repeat(200_000);
    await put({ 'x.ndjson': `${JSON.stringify({ body: 'a' })}\n${JSON.stringify({ body: long })}\n` });
    const options = { tokenizer: bytes, textField: 'body', tokenFolder: tokenFolder() };
    expect(await textOf(await openCorpus([at('x.ndjson')], options))).toBe(`a\n${long}`);
  });

  it.each([
    ['no JSON', 'oops', /x\.jsonl:2: .*oops/],
    ['another value', '[1]', /x\.jsonl:2: .*another JSON value/],
    ['no text', '{"body": "x", "id": 1}', /x\.jsonl:2: .*"text".*the fields body, id/],
    ['text that is none', '{"text": 5}', /x\.jsonl:2: .*type number/],
    ['bytes that are not UTF-8', new Uint8Array([0x22, 0xff, 0x22]), /x\.jsonl:2: .*not UTF-8/],
  ])('refuses a JSONL line with %s and names it, leaving no cache', async (_, line, message) => {
    const content = Buffer.concat([
      Buffer.from('{"text":"fine"}\n'),
      Buffer.from(line),
      Buffer.from('\n{"text":"x"}'),
    ]);
    await put({ 'x.jsonl': content });
    const opened = openCorpus([at('x.jsonl')], { tokenizer: bytes, tokenFolder: tokenFolder() });
    await expect(opened).rejects.toThrow(message);
    await expect(opened).rejects.toThrow(FormatError);
    expect(await readdir(tokenFolder())).toEqual([]);
  });

  it.each([
    ['an empty file', { 'x.txt': '' }],
    ['empty files', { 'x.txt': '', 'y.txt': '' }],
    ['JSONL without lines', { 'x.jsonl': '\n\n' }],
    ['JSONL with empty texts', { 'x.jsonl': '{"text":""}\n' }],
  ])('refuses %s', async (_, files) => {
    await put(files as Record<string, string>);
    const opened = openCorpus([folder], { tokenizer: bytes, tokenFolder: tokenFolder() });
    await expect(opened).rejects.toThrow(/expected text, got only empty documents/);
    await expect(opened).rejects.toThrow(ConfigError);
  });
});

describe('openCorpus with BPE', () => {
  it('ends each document in end-of-text', async () => {
    await put({ 'a.txt': 'the whale', 'x.jsonl': '{"text":"the sea"}\n{"text":"and é😀"}' });
    const tokens = await openCorpus([at('a.txt'), at('x.jsonl')], {
      tokenizer: bpe,
      tokenFolder: tokenFolder(),
    });
    const rows = ['the whale', 'the sea', 'and é😀'].map((text) => [...bpe.encode(text), bpe.eosId!]);
    const starts = [0, rows[0]!.length, rows[0]!.length + rows[1]!.length];
    expect(await contents(tokens)).toEqual({ ids: rows.flat(), starts });
  });

  it.each([
    ['lines', 'The whale — the sea;\n\n  and é😀 中文 \n \tsea\n'],
    ['one line', 'the whale  and the sea, 中文 é '],
    ['no break at all', 'sea中文é😀'],
  ])('encodes a long text of %s piece by piece as if at once', async (_, unit) => {
    const text = unit.repeat(Math.ceil(300_000 / unit.length));
    await put({ 'long.txt': text });
    const tokens = await openCorpus([at('long.txt')], { tokenizer: bpe, tokenFolder: tokenFolder() });
    const { ids } = await contents(tokens);
    expect(bpe.decode(ids.slice(0, -1))).toBe(text);
    if (unit.includes(' ')) expect(Buffer.from(ids)).toEqual(Buffer.from([...bpe.encode(text), bpe.eosId!]));
  });

  it('reads bytes that are not UTF-8 as U+FFFD', async () => {
    await put({ 'a.txt': new Uint8Array([0x61, 0xff, 0x62]) });
    const { ids } = await contents(
      await openCorpus([at('a.txt')], { tokenizer: bpe, tokenFolder: tokenFolder() }),
    );
    expect(bpe.decode(ids)).toBe('a\ufffdb<|endoftext|>');
  });
});

describe('the token cache', () => {
  const open = async (
    tokenizer: Tokenizer = bpe,
  ): Promise<{ ids: number[]; phases: string[]; fingerprint: string }> => {
    const phases = new Set<string>();
    const tokens = await openCorpus([at('in')], {
      tokenizer,
      tokenFolder: tokenFolder(),
      onProgress: ({ phase }) => phases.add(phase),
    });
    const { ids } = await contents(tokens);
    return { ids, phases: [...phases], fingerprint: tokens.fingerprint };
  };
  const cachePath = async (): Promise<string> => join(tokenFolder(), (await readdir(tokenFolder()))[0]!);
  beforeEach(() => put({ 'in/a.txt': 'the whale and the sea', 'in/b.txt': 'the sea' }));

  it('encodes once, and again only when contents or tokenizer change', async () => {
    const first = await open();
    expect(first.phases).toEqual(['hash', 'encode']);
    await utimes(at('in/a.txt'), 1, 1);
    expect(await open()).toEqual({ ...first, phases: ['hash', 'verify'] });

    await writeFile(at('in/b.txt'), 'the see');
    const edited = await open();
    expect(edited.phases).toEqual(['hash', 'encode']);
    expect(edited.fingerprint).not.toBe(first.fingerprint);
    expect((await open(bytes)).phases).toEqual(['hash', 'encode']);
    expect((await readdir(tokenFolder())).length).toBe(3);
  });

  it('is a flat file of little-endian ids from the first byte on', async () => {
    const { ids } = await open();
    const file = await readFile(await cachePath());
    expect(ids.map((_, i) => file.readUInt16LE(2 * i))).toEqual(ids);
  });

  it.each([
    ['a flipped id', (file: Buffer) => file.fill(file[3]! ^ 1, 3, 4)],
    [
      'a flipped document start',
      (file: Buffer) => file.fill(1, file.length - 64 - 16, file.length - 64 - 15),
    ],
    [
      'a flipped count',
      (file: Buffer) => file.fill(file[file.length - 48]! ^ 1, file.length - 48, file.length - 47),
    ],
    ['a flipped checksum', (file: Buffer) => file.fill(file[file.length - 1]! ^ 1, file.length - 1)],
    ['another version', (file: Buffer) => file.fill(9, file.length - 56, file.length - 55)],
    ['half of it missing', (file: Buffer) => file.subarray(0, file.length >> 1)],
    ['one byte missing', (file: Buffer) => file.subarray(0, file.length - 1)],
    ['nothing in it', () => Buffer.alloc(0)],
    ['zeros', (file: Buffer) => Buffer.alloc(file.length)],
  ])('is built anew after damage: %s', async (_, damage) => {
    const first = await open();
    const path = await cachePath();
    const good = await readFile(path);
    await writeFile(path, damage(Buffer.from(good)));
    const again = await open();
    expect(again.ids).toEqual(first.ids);
    expect(again.phases).toContain('encode');
    expect(await readFile(path)).toEqual(good);
    expect((await open()).phases).toEqual(['hash', 'verify']);
  });

  it('notices that the file in place was cut', async () => {
    await put({ 'x.txt': 'x'.repeat(1000) });
    const tokens = await openCorpus([at('x.txt')], { tokenizer: bytes });
    await truncate(at('x.txt'), 10);
    await expect(tokens.read(500, 600)).rejects.toThrow(FormatError);
    await tokens.close();
  });
});

describe('cacheFolder', () => {
  afterEach(() => {
    vi.unstubAllEnvs();
  });

  it.each([
    ['/own', '/xdg', '/own'],
    ['', '/xdg', join('/xdg', 'mamba-ts')],
    ['', '', join(homedir(), '.cache', 'mamba-ts')],
  ])('with MAMBA_CACHE %j and XDG_CACHE_HOME %j is %s', (own, xdg, expected) => {
    vi.stubEnv('MAMBA_CACHE', own);
    vi.stubEnv('XDG_CACHE_HOME', xdg);
    expect(cacheFolder()).toBe(expected);
  });
});
