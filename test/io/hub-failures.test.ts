/** A hub and a network that misbehave: nothing wrong reaches the cache, what has arrived is kept, and messages say what to do. */
import { spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import { mkdir, readdir, readFile, stat, symlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { FormatError } from '../../src/base/errors.ts';
import { FileError } from '../../src/io/file.ts';
import { DownloadError } from '../../src/io/http.node.ts';
import { fetchModel, type HubOptions, type LoadEvent } from '../../src/io/hub.node.ts';
import { parseHubId } from '../../src/io/hub-settings.node.ts';
import { bundle } from '../support/bundle.ts';
import { COMMIT, etagOf, type FakeHub, fakeHub } from '../support/hub.ts';

const ID = 'org/model';
const weights = Buffer.from(Array.from({ length: 300_000 }, (_, i) => (i * i) % 251));
const etag = etagOf(weights);
const damaged = Buffer.from(weights);
damaged[1000] = 255;
const files = { 'config.json': '{}', 'model.safetensors': weights };

let hub: FakeHub;
let blobs: string;
let part: string;
let events: LoadEvent[];
beforeEach(async () => {
  hub = await fakeHub();
  blobs = join(hub.settings.cacheFolder, 'models--org--model/blobs');
  part = join(blobs, `${etag}.mamba-ts.incomplete`);
  events = [];
  hub.add(ID, files);
});
afterEach(() => hub.close());

const fetch = (options: HubOptions = {}, settings = hub.settings, id = ID): Promise<string> =>
  fetchModel(parseHubId(id)!, { onProgress: (event) => events.push(event), ...options }, settings);
const notices = (): string[] => events.flatMap((event) => (event.kind === 'notice' ? [event.message] : []));
const ranges = (): (string | undefined)[] =>
  hub.seen.filter(({ host }) => host === 'cdn').map(({ range }) => range);
const expectWeights = async (path: string): Promise<void> => {
  expect((await readFile(path)).equals(weights)).toBe(true);
};
/** Nothing that claims to be whole, and the next attempt succeeds. */
async function expectRecovery(): Promise<void> {
  expect(existsSync(join(blobs, etag))).toBe(false);
  hub.mischief = () => false;
  hub.breakAfter = Number.POSITIVE_INFINITY;
  await expectWeights(await fetch());
  expect((await readdir(blobs)).sort()).toEqual([etag, etagOf(Buffer.from('{}'))].sort());
}

/** Opens the model in a process of its own and prints the events. */
const program = (): Promise<string> =>
  bundle(
    `import { openPretrained } from './src/index.node.ts';
     await openPretrained('${ID}', { onProgress: (event) => console.log(JSON.stringify(event)) });`,
    hub.folder,
  );
const start = (path: string) =>
  spawn(process.execPath, [path], {
    env: {
      ...process.env,
      HF_ENDPOINT: hub.endpoint,
      HF_HOME: hub.folder,
      HF_HUB_CACHE: hub.settings.cacheFolder,
    },
  });

describe('a connection that breaks', () => {
  it('goes on where it broke', async () => {
    hub.breakAfter = 70_000;
    await expectWeights(await fetch());
    expect(ranges()).toEqual([undefined, ...[70, 140, 210, 280].map((kB) => `bytes=${kB}000-`)]);
    const done = events.flatMap((event) =>
      event.kind === 'file' && event.name.startsWith('model') ? [event.doneBytes] : [],
    );
    expect(done).toEqual([...done].sort((a, b) => a - b));
    expect(done.at(-1)).toBe(weights.length);
  });

  it('that always breaks without a byte ends with an error, and the next run goes on', async () => {
    hub.breakAfter = 70_000;
    hub.mischief = ({ range }, response) => range !== undefined && !!response.destroy();
    await expect(fetch()).rejects.toThrow(/after 3 attempts.*what has arrived is kept/);
    expect((await stat(part)).size).toBe(70_000);
    hub.seen = [];
    await expectRecovery();
    expect(ranges()).toEqual(['bytes=70000-']);
  });

  it('a killed process: the next one goes on, whatever lock it left', async () => {
    // Sends a part and falls silent.
    hub.mischief = ({ host }, response) => {
      if (host === 'cdn')
        response.writeHead(200, { 'content-length': weights.length }).write(weights.subarray(0, 90_000));
      return host === 'cdn';
    };
    const child = start(await program());
    const ended = new Promise((resolve) => child.once('close', resolve));
    await new Promise<void>((resolve, reject) => {
      let output = '';
      child.stderr.on('data', (data) => reject(new Error(String(data))));
      child.stdout.on('data', (data) => {
        output += data;
        if (output.includes('"doneBytes":90000,')) resolve();
      });
    });
    child.kill('SIGKILL');
    await ended;
    expect((await stat(part)).size).toBe(90_000);
    const locks = join(hub.settings.cacheFolder, '.locks/models--org--model');
    expect(await readdir(locks)).toHaveLength(1);
    hub.seen = [];
    await expectRecovery();
    expect(ranges()).toEqual(['bytes=90000-']);
    expect(await readdir(locks)).toEqual([]);
  });

  it('a signal ends it with its reason', async () => {
    const controller = new AbortController();
    hub.breakAfter = 50_000;
    const stopped = fetch({
      signal: controller.signal,
      onProgress: (event) => {
        if (event.kind === 'file' && event.doneBytes >= 50_000) controller.abort(new Error('enough'));
      },
    });
    await expect(stopped).rejects.toThrow('enough');
    expect((await stat(part)).size).toBe(50_000);
    await expect(fetch({ signal: AbortSignal.abort(new Error('never')) })).rejects.toThrow('never');
    await expectRecovery();
  });
});

describe('content that is not what the listing says', () => {
  const sendAs = (content: Buffer, headers = {}): void => {
    hub.mischief = ({ host, range }, response) => {
      const start = Number(/\d+/.exec(range ?? '')?.[0] ?? 0);
      if (host !== 'cdn') return false;
      const rest =
        start > 0 ? { 'content-range': `bytes ${start}-${content.length - 1}/${content.length}` } : {};
      response.writeHead(start > 0 ? 206 : 200, { ...rest, ...headers }).end(content.subarray(start));
      return true;
    };
  };

  it.each([
    ['a large file', 'model.safetensors', 'sha256', etag],
    ['a small file', 'config.json', 'git sha1', etagOf(Buffer.from('{}'))],
  ])('another content of the same size: %s', async (_, name, kind, expected) => {
    if (kind === 'sha256') sendAs(damaged);
    else
      hub.mischief = ({ path }, response) =>
        path.endsWith('/config.json') && !!response.writeHead(200).end('[]');
    const failed = fetch();
    await expect(failed).rejects.toThrow(FormatError);
    await expect(failed).rejects.toThrow(`expected ${kind} ${expected} for ${name} of org/model`);
    expect((await readdir(blobs)).filter((file) => file.startsWith(expected))).toEqual([]);
    await expectRecovery();
  });

  it('a damaged rest of an earlier run is thrown away once', async () => {
    await mkdir(blobs, { recursive: true });
    await writeFile(part, damaged.subarray(0, 100_000));
    await expectWeights(await fetch());
    expect(ranges()).toEqual(['bytes=100000-', undefined]);
    expect(notices()).toEqual([expect.stringContaining('is damaged, starting over')]);
  });

  it('a whole file of an earlier run that only lacks its name needs no request; one too long is thrown away', async () => {
    await mkdir(blobs, { recursive: true });
    await writeFile(part, weights);
    await fetch();
    expect(ranges()).toEqual([]);
    await writeFile(join(blobs, etag), '');
    await writeFile(part, Buffer.concat([weights, weights]));
    await expectWeights(await fetch());
    expect(ranges()).toEqual([undefined]);
  });

  it.each([
    [
      'a longer one by its length',
      Buffer.concat([weights, weights]),
      { 'content-length': 2 * weights.length },
      '600000',
    ],
    ['a shorter one by its length', weights.subarray(1), { 'content-length': weights.length - 1 }, '299999'],
    ['a longer one without length', Buffer.concat([weights, weights]), {}, 'more'],
  ])('%s', async (_, content, headers, got) => {
    sendAs(content, headers);
    const failed = fetch();
    await expect(failed).rejects.toThrow(DownloadError);
    await expect(failed).rejects.toThrow(`expected 300000 bytes at ${hub.endpoint}`);
    await expect(failed).rejects.toThrow(`got a server that sends ${got}`);
    await expectRecovery();
  });

  it('one that ends early without length is asked for its rest', async () => {
    let isFirst = true;
    hub.mischief = ({ host }, response) => {
      if (host !== 'cdn' || !isFirst) return false;
      isFirst = false;
      response.writeHead(200).end(weights.subarray(0, 80_000));
      return true;
    };
    await expectWeights(await fetch());
    expect(ranges()).toEqual([undefined, 'bytes=80000-']);
  });
});

describe('a disk that refuses', () => {
  it.skipIf(process.platform !== 'linux')('full: a FileError that says so; what is there stays', async () => {
    await mkdir(blobs, { recursive: true });
    await symlink('/dev/full', part);
    const failed = fetch();
    await expect(failed).rejects.toThrow(FileError);
    await expect(failed).rejects.toThrow('no space left on the device');
    expect(await readFile(join(blobs, '../snapshots', COMMIT, 'config.json'), 'utf8')).toBe('{}');
  });

  it('a file in the place of a folder', async () => {
    await mkdir(join(blobs, '..'), { recursive: true });
    await writeFile(blobs, '');
    await expect(fetch()).rejects.toThrow(FileError);
    const cacheFolder = join(hub.folder, 'file');
    await writeFile(cacheFolder, '');
    await expect(fetch({}, { ...hub.settings, cacheFolder })).rejects.toThrow(FileError);
  });
});

it('two at once: one downloads, the other waits, both have it', async () => {
  const [a, b] = await Promise.all([fetch(), fetch()]);
  expect(a).toBe(b);
  await expectWeights(a);
  expect(ranges()).toEqual([undefined]);
  expect(notices().some((message) => message.includes('another process downloads it'))).toBe(true);
});

it('two processes at once: one downloads', async () => {
  const path = await program();
  const errors = await Promise.all(
    [start(path), start(path)].map(async ({ stderr }) => (await stderr.toArray()).join('')),
  );
  // Their configuration is none: that is told after the download.
  for (const text of errors) expect(text).toContain('configFromJson: expected');
  expect((await readFile(join(blobs, etag))).equals(weights)).toBe(true);
  expect(ranges()).toEqual([undefined]);
});
