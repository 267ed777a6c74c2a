/** A small stand-in for enwik8, served by a server of our own that can misbehave in every way we know of. */
import { createHash } from 'node:crypto';
import { mkdir, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { FormatError } from '../../src/base/errors.ts';
import { Rng } from '../../src/base/rng.ts';
import { DownloadError } from '../../src/io/http.node.ts';
import { byteTokenizer } from '../../src/text/index.ts';
import { openCorpus } from '../../src/train/corpus.node.ts';
import { type Enwik8, type Enwik8Options, openEnwik8 } from '../../src/train/enwik8.node.ts';
import { zip } from '../support/zip.ts';

const rng = new Rng(8);
const content = Buffer.from(Array.from({ length: 200_000 }, () => 97 + rng.below(20)));
const sha1 = createHash('sha1').update(content).digest('hex');

const archive = zip([
  ['readme', Buffer.from('hello'), 0],
  ['enwik8', content, 8],
]);

let folder: string;
let server: Server;
let url: string;
let requests: IncomingMessage[];
let answer: (request: IncomingMessage, response: ServerResponse) => void;

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'mamba-enwik8-'));
  requests = [];
  server = createServer((request, response) => {
    requests.push(request);
    answer(request, response);
  });
  await new Promise<void>((listening) => server.listen(0, '127.0.0.1', listening));
  url = `http://127.0.0.1:${(server.address() as AddressInfo).port}/enwik8.zip`;
});
afterEach(async () => {
  server.closeAllConnections();
  if (server.listening) await new Promise((closed) => server.close(closed));
  await rm(folder, { recursive: true, force: true });
});

const open = (more: Enwik8Options = {}): Promise<Enwik8> =>
  openEnwik8({ folder, url, sizeBytes: content.length, sha1, retryDelayMs: 1, ...more });

/** Serves `body` with ranges; at most `limit` bytes per answer before the connection breaks. */
function serve(
  body: Buffer,
  { limit = Number.POSITIVE_INFINITY, etag = '"one"' as string | null } = {},
): typeof answer {
  return (request, response) => {
    const range = /^bytes=(\d+)-$/.exec(request.headers.range ?? '');
    const start = range && request.headers['if-range'] === etag ? Number(range[1]) : 0;
    if (etag !== null) response.setHeader('etag', etag);
    response.setHeader('content-length', body.length - start);
    if (start > 0) response.setHeader('content-range', `bytes ${start}-${body.length - 1}/${body.length}`);
    response.writeHead(start > 0 ? 206 : 200);
    if (body.length - start <= limit) response.end(body.subarray(start));
    else response.write(body.subarray(start, start + limit), () => response.destroy());
  };
}

async function checkParts(parts: Enwik8): Promise<void> {
  const cuts = [0, 180_000, 190_000, 200_000];
  for (const [i, part] of [parts.train, parts.valid, parts.test].entries()) {
    const tokens = await openCorpus([part], { tokenizer: byteTokenizer() });
    const ids = Buffer.from(await tokens.read(0, tokens.length));
    await tokens.close();
    expect(ids.equals(content.subarray(cuts[i], cuts[i + 1]))).toBe(true);
  }
  expect(await readdir(folder)).toEqual(['enwik8']);
}

describe('openEnwik8', () => {
  it('downloads, checks, unpacks and splits 90/5/5; the second time without network', async () => {
    answer = serve(archive);
    const seen: (number | null)[][] = [];
    await checkParts(
      await open({ onProgress: ({ doneBytes, totalBytes }) => seen.push([doneBytes, totalBytes]) }),
    );
    expect(seen.at(-1)).toEqual([archive.length, archive.length]);
    await checkParts(await open());
    expect(requests.length).toBe(1);
  });

  it('finds the address in MAMBA_ENWIK8_URL', async () => {
    answer = serve(archive);
    vi.stubEnv('MAMBA_ENWIK8_URL', url);
    await checkParts(await open({ url: undefined }));
    vi.unstubAllEnvs();
  });

  it('takes up a dropped connection where it broke', async () => {
    answer = serve(archive, { limit: 40_000 });
    await checkParts(await open());
    const ranges = requests.map(({ headers }) => headers.range);
    expect(ranges[0]).toBeUndefined();
    expect(ranges.length).toBe(Math.ceil(archive.length / 40_000));
    for (const [i, range] of ranges.entries()) if (i > 0) expect(range).toBe(`bytes=${40_000 * i}-`);
  });

  it('takes up an earlier run that gave up', async () => {
    answer = serve(archive, { limit: 50_000 });
    await expect(open({ maxAttempts: 1 })).rejects.toThrow(DownloadError);
    answer = serve(archive);
    await checkParts(await open());
    expect(requests[1]!.headers.range).toBe('bytes=50000-');
    expect(requests[1]!.headers['if-range']).toBe('"one"');
  });

  it('starts over when the file has changed, or cannot be told apart', async () => {
    const other = Buffer.alloc(archive.length, 7);
    for (const etag of ['"two"', null]) {
      answer = serve(other, { limit: 50_000, etag });
      await expect(open({ maxAttempts: 1 })).rejects.toThrow(DownloadError);
      answer = serve(archive);
      await checkParts(await open());
      await rm(join(folder, 'enwik8'));
    }
  });

  it('gives up on a connection that always breaks at the same place, and keeps what came', async () => {
    answer = serve(archive, { limit: 30_000, etag: null });
    await expect(open({ maxAttempts: 3 })).rejects.toThrow(/after 3 attempts/);
    expect((await readFile(join(folder, 'enwik8.zip.part'))).length).toBe(30_000);
  });

  it('repeats after 503 and 429, starts over after a refused range', async () => {
    const statuses = [503, 429];
    answer = (request, response) => {
      const status = statuses.shift();
      if (status === undefined) serve(archive)(request, response);
      else response.writeHead(status).end();
    };
    await checkParts(await open());
    expect(requests.length).toBe(3);

    await rm(join(folder, 'enwik8'));
    await writeFile(join(folder, 'enwik8.zip.part'), Buffer.alloc(archive.length + 9));
    await writeFile(join(folder, 'enwik8.zip.part.json'), JSON.stringify({ url, validator: '"one"' }));
    answer = (request, response) => {
      if (request.headers.range)
        response.writeHead(416, { 'content-range': `bytes */${archive.length}` }).end();
      else serve(archive)(request, response);
    };
    await checkParts(await open());
  });

  it('drops a server that falls silent', async () => {
    answer = () => {};
    await expect(open({ stallMs: 30, maxAttempts: 2 })).rejects.toThrow(/no answer after 2 attempts/);
  });

  it('reports 404 at once and says which file to put where', async () => {
    answer = (_, response) => {
      response.writeHead(404).end('no');
    };
    const opened = open();
    await expect(opened).rejects.toThrow(DownloadError);
    await expect(opened).rejects.toThrow(/status 404/);
    await expect(opened).rejects.toThrow(join(folder, 'enwik8.zip'));
    expect(requests.length).toBe(1);
  });

  it('without a server says which file to put where', async () => {
    server.closeAllConnections();
    await new Promise((closed) => server.close(closed));
    const opened = open({ maxAttempts: 2 });
    await expect(opened).rejects.toThrow(/ECONNREFUSED.*after 2 attempts/);
    await expect(opened).rejects.toThrow(`put it at ${join(folder, 'enwik8.zip')}`);
    await expect(opened).rejects.toThrow(`(200000 bytes, SHA-1 ${sha1}) at ${join(folder, 'enwik8')}`);
  });

  it.each([
    ['the archive placed by hand', 'enwik8.zip', archive],
    ['the content placed by hand', 'enwik8', content],
  ])('uses %s', async (_, name, file) => {
    await writeFile(join(folder, name), file);
    const parts = await open();
    expect(requests.length).toBe(0);
    await rm(join(folder, 'enwik8.zip'), { force: true });
    await checkParts(parts);
  });

  const wrong = Buffer.from(content);
  wrong[100] = 65;
  it.each([
    ['a truncated archive', archive.subarray(0, archive.length - 30), /expected a whole zip archive/],
    ['half an archive', archive.subarray(0, archive.length >> 1), /expected a whole zip archive/],
    ['a page instead of an archive', Buffer.from('<html>sign in</html>'), /expected a whole zip archive/],
    ['nothing', Buffer.alloc(0), /expected a whole zip archive/],
    ['another entry', zip([['enwik9', content, 8]]), /only enwik9 and not enwik8/],
    ['another content', zip([['enwik8', wrong, 8]]), /expected enwik8 .*got 200000 bytes, SHA-1/],
    ['too little content', zip([['enwik8', content.subarray(1), 8]]), /got 199999 bytes/],
    ['too much content', zip([['enwik8', Buffer.alloc(10_000_000), 8]]), /got more than 200000 bytes/],
    ['damaged data', zip([['enwik8', content, 8]]).fill(0xff, 60, 90), /damaged data/],
    [
      'a directory outside',
      Buffer.from(archive).fill(0xff, archive.length - 6, archive.length - 2),
      /ends at byte/,
    ],
  ] as [string, Buffer, RegExp][])('refuses %s and keeps nothing of it', async (_, body, message) => {
    answer = serve(body);
    const opened = open();
    await expect(opened).rejects.toThrow(message);
    await expect(opened).rejects.toThrow(FormatError);
    expect(await readdir(folder)).toEqual([]);
    answer = serve(archive);
    await checkParts(await open());
  });

  it('does not touch a wrong file that was placed by hand', async () => {
    await writeFile(join(folder, 'enwik8'), wrong);
    await expect(open()).rejects.toThrow(FormatError);
    expect((await readFile(join(folder, 'enwik8'))).equals(wrong)).toBe(true);
    await rm(join(folder, 'enwik8'));
    await mkdir(join(folder, 'enwik8'));
    await expect(open()).rejects.toThrow(/something else/);
  });

  it('reads stored entries and archives with a comment', async () => {
    answer = serve(zip([['enwik8', content, 0]], { comment: 'a comment with PK inside' }));
    await checkParts(await open());
  });
});
