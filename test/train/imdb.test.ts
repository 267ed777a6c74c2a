/** A small stand-in for the archive of film reviews, served by a server of our own. */
import { createHash } from 'node:crypto';
import { mkdir, mkdtemp, readdir, rm, writeFile } from 'node:fs/promises';
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { gzipSync } from 'node:zlib';
import { packTar, type TarEntry } from 'modern-tar';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { FormatError } from '../../src/base/errors.ts';
import { DownloadError } from '../../src/io/http.node.ts';
import { type ExamplesEvent, openExamples, readExamples } from '../../src/train/examples.node.ts';
import { type Imdb, type ImdbOptions, openImdb } from '../../src/train/imdb.node.ts';

const FILES = ['train', 'test'].flatMap((part) =>
  ['pos/1_9', 'pos/0_10', 'neg/0_1', 'neg/10_2'].map((name) => `${part}/${name}.txt`),
);
const textOf = (name: string) => `The review ${name}: schön.`;

async function pack(names: readonly string[], more: readonly TarEntry[] = []): Promise<Buffer> {
  const entries = names.map((name) => file(`aclImdb/${name}`, textOf(name)));
  return gzipSync(await packTar([...entries, ...more]));
}

function file(name: string, body: string | Uint8Array): TarEntry {
  return { header: { name, size: Buffer.byteLength(body), type: 'file' }, body };
}

let folder: string;
let server: Server;
let url: string;
let requests: number;
let body: Buffer | null;

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'mamba-imdb-'));
  requests = 0;
  server = createServer((_, response) => {
    requests++;
    if (body === null) response.writeHead(404).end('no');
    else response.end(body);
  });
  await new Promise<void>((listening) => server.listen(0, '127.0.0.1', listening));
  url = `http://127.0.0.1:${(server.address() as AddressInfo).port}/aclImdb_v1.tar.gz`;
});
afterEach(async () => {
  vi.unstubAllEnvs();
  server.closeAllConnections();
  await new Promise((closed) => server.close(closed));
  await rm(folder, { recursive: true, force: true });
});

const open = (more: ImdbOptions = {}): Promise<Imdb> =>
  openImdb({ folder, url, examplesPerPart: 4, retryDelayMs: 1, ...more });

function checkParts(parts: Imdb, root: string): void {
  for (const part of ['train', 'test'] as const) {
    const names = ['neg/0_1', 'neg/10_2', 'pos/0_10', 'pos/1_9'].map((name) => `${part}/${name}.txt`);
    expect(parts[part]).toEqual(
      names.map((name) => ({
        text: textOf(name),
        label: name.includes('pos') ? 'pos' : 'neg',
        where: join(root, name),
      })),
    );
  }
}

describe('openImdb', () => {
  const extra = [
    file('aclImdb/README', 'x'),
    file('aclImdb/train/unsup/0_0.txt', 'x'),
    file('aclImdb/imdb.vocab', 'x'),
  ];

  it('downloads once, reads what has a label, in order', async () => {
    body = await pack(FILES, extra);
    const archive = join(folder, 'aclImdb_v1.tar.gz');
    const seen: number[] = [];
    checkParts(await open({ onProgress: ({ doneBytes }) => seen.push(doneBytes) }), join(archive, 'aclImdb'));
    expect(seen.at(-1)).toBe(body.length);
    checkParts(await open(), join(archive, 'aclImdb'));
    expect(requests).toBe(1);
    expect(await readdir(folder)).toEqual(['aclImdb_v1.tar.gz']);
  });

  it('checks the MD5 it is given, and finds the address in MAMBA_IMDB_URL', async () => {
    body = await pack(FILES);
    vi.stubEnv('MAMBA_IMDB_URL', url);
    await expect(open({ url: undefined, md5: '0'.repeat(32) })).rejects.toThrow(
      /with the MD5 0{32}, got [0-9a-f]{32}/,
    );
    expect(await readdir(folder)).toEqual([]);
    await open({ url: undefined, md5: createHash('md5').update(body).digest('hex') });
  });

  it('uses an archive or a folder that is there', async () => {
    body = null;
    await writeFile(join(folder, 'aclImdb_v1.tar.gz'), await pack(FILES, extra));
    checkParts(await open(), join(folder, 'aclImdb_v1.tar.gz', 'aclImdb'));
    for (const name of [...FILES, 'train/unsup/0_0.txt', 'train/urls_pos.txt', 'README']) {
      const path = join(folder, 'aclImdb', name);
      await mkdir(dirname(path), { recursive: true });
      await writeFile(path, textOf(name));
    }
    checkParts(await open(), join(folder, 'aclImdb'));
    expect(requests).toBe(0);
  });

  it('says which file to put where when it cannot be had', async () => {
    body = null;
    const opened = open();
    await expect(opened).rejects.toThrow(DownloadError);
    await expect(opened).rejects.toThrow(/status 404.*7c2ac02c03563afcf9b574c7e56c153a/);
    await expect(opened).rejects.toThrow(`put it at ${join(folder, 'aclImdb_v1.tar.gz')}`);
    await expect(opened).rejects.toThrow(`at ${join(folder, 'aclImdb')}.`);
  });

  const damagedHeader = async (): Promise<Buffer> => {
    const tar = await packTar(FILES.map((name) => file(`aclImdb/${name}`, textOf(name))));
    tar[1024 + 10] = 1;
    return gzipSync(tar);
  };
  it.each([
    ['a cut archive', async () => (await pack(FILES)).subarray(0, 200), /unexpected end of file/],
    ['a page', async () => Buffer.from('<html>sign in</html>'), /incorrect header check/],
    ['nothing', async () => Buffer.alloc(0), /got: |got 0 and 0/],
    [
      'a cut tar',
      async () =>
        gzipSync((await packTar([file('aclImdb/train/pos/1.txt', 'x'.repeat(2000))])).subarray(0, 1000)),
      /truncated/,
    ],
    ['a damaged header', damagedHeader, /checksum/],
    ['too few reviews', async () => pack(FILES.slice(1)), /expected 4 reviews to train .* got 3 and 4/],
    ['another archive', async () => gzipSync(await packTar([file('other/a.txt', 'x')])), /got 0 and 0/],
    [
      'a path that leads out',
      async () => pack(FILES, [file('aclImdb/../../evil.txt', 'x')]),
      /leads out: aclImdb\/\.\.\/\.\.\/evil/,
    ],
    ['a path from the root', async () => pack(FILES, [file('/etc/evil.txt', 'x')]), /leads out/],
    [
      'an empty review',
      async () => pack(FILES, [file('aclImdb/test/pos/9_9.txt', ' ')]),
      /1 with an empty text/,
    ],
    [
      'another encoding',
      async () => pack(FILES, [file('aclImdb/test/pos/9_9.txt', Buffer.from([0xf6]))]),
      /9_9\.txt:1: expected UTF-8/,
    ],
  ] as [string, () => Promise<Buffer>, RegExp][])(
    'refuses %s and keeps nothing of it',
    async (_, make, message) => {
      body = await make();
      const opened = open();
      await expect(opened).rejects.toThrow(message);
      await expect(opened).rejects.toThrow(FormatError);
      expect(await readdir(folder)).toEqual([]);
      await writeFile(join(folder, 'aclImdb_v1.tar.gz'), body);
      await expect(open()).rejects.toThrow(message);
      expect(await readdir(folder)).toEqual(['aclImdb_v1.tar.gz']); // placed by hand: not ours to remove
    },
  );
});

describe('imdb as a source', () => {
  it('gives both parts in one reading', async () => {
    body = await pack(FILES);
    const imdb = { folder, url, examplesPerPart: 4 };
    const kinds = new Set<string>();
    const onProgress = ({ kind }: ExamplesEvent) => void kinds.add(kind);
    const parts = await openExamples({ data: ['imdb'], validShare: 0.5, seed: 0, imdb, onProgress });
    expect(parts.labels).toEqual(['neg', 'pos']);
    expect([parts.train.length, parts.valid.length, parts.test.length]).toEqual([2, 2, 4]);
    expect(kinds).toEqual(new Set(['download', 'read']));
    const unlabelled = await readExamples(['imdb'], { isLabelled: false, imdb });
    expect(unlabelled.map(({ label }) => label)).toEqual(['', '', '', '']);
    await expect(readExamples(['imdb'], { part: 'valid', imdb })).rejects.toThrow(/a part valid in imdb/);
    expect(requests).toBe(1);
  });

  it('is kept in the cache folder and has 25,000 reviews in each part', async () => {
    body = await pack(FILES);
    vi.stubEnv('MAMBA_CACHE', folder);
    vi.stubEnv('MAMBA_IMDB_URL', url);
    const refused = openExamples({ data: ['imdb'], seed: 0 });
    await expect(refused).rejects.toThrow(/imdb.aclImdb_v1\.tar\.gz: expected 25000 reviews .* got 4 and 4/);
  });
});
