/** Models of a hub: what is fetched, where it is kept, and what is done without a network. */
import { lstat, mkdir, readdir, readFile, readlink, rm, symlink, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { DownloadError } from '../../src/index.node.ts';
import { fetchModel, type HubOptions, type LoadEvent } from '../../src/io/hub.node.ts';
import { parseHubId } from '../../src/io/hub-settings.node.ts';
import { COMMIT, COMMIT_2, etagOf, type FakeHub, fakeHub } from '../support/hub.ts';

const ID = 'org/model';
const weights = Buffer.alloc(50_000, 'weights ');
/** Comparing large buffers element by element takes seconds. */
const is = (expected: Buffer) => (content: Buffer) => content.equals(expected);
const shard = (i: number): Buffer => Buffer.alloc(20_000 + i, `shard ${i} `);
const index = (stem: string, extension: string): string =>
  JSON.stringify({
    weight_map: { a: `${stem}-1.${extension}`, b: `${stem}-2.${extension}`, c: `${stem}-1.${extension}` },
  });
const texts = { 'config.json': '{}', 'tokenizer.json': '{"a":1}', 'tokenizer_config.json': '{"b":2}' };

let hub: FakeHub;
let repoFolder: string;
let events: LoadEvent[];
beforeEach(async () => {
  hub = await fakeHub();
  repoFolder = join(hub.settings.cacheFolder, 'models--org--model');
  events = [];
});
afterEach(async () => {
  await hub.close();
});

const onProgress = (event: LoadEvent): void => void events.push(event);
const notices = (): string[] => events.flatMap((event) => (event.kind === 'notice' ? [event.message] : []));
const fetch = (id = ID, options: HubOptions = {}, settings = hub.settings): Promise<string> =>
  fetchModel(parseHubId(id)!, { onProgress, ...options }, settings);
const offline = (id = ID, options: HubOptions = {}): Promise<string> =>
  fetch(id, options, { ...hub.settings, isOffline: true });

describe('the cache', () => {
  it('has the layout that Python reads, and the files a model needs', async () => {
    const files = { ...texts, 'model.safetensors': weights };
    hub.add(ID, {
      'README.md': 'no',
      'pytorch_model.bin': weights,
      'vocab.json': '{}',
      'merges.txt': '',
      ...files,
    });
    const path = await fetch();
    const snapshot = join(repoFolder, 'snapshots', COMMIT);
    expect(path).toBe(join(snapshot, 'model.safetensors'));
    expect(hub.fetched()).toEqual(Object.keys(files));
    expect((await readdir(snapshot)).sort()).toEqual(Object.keys(files).sort());
    expect(await readFile(join(repoFolder, 'refs/main'), 'utf8')).toBe(COMMIT);
    for (const [name, content] of Object.entries(files)) {
      const etag = etagOf(Buffer.from(content));
      expect(await readlink(join(snapshot, name))).toBe(join('../../blobs', etag));
      expect(await readFile(join(snapshot, name))).toEqual(Buffer.from(content));
    }
    const blobs = new Set(Object.values(files).map((content) => etagOf(Buffer.from(content))));
    expect((await readdir(join(repoFolder, 'blobs'))).sort()).toEqual([...blobs].sort());
    expect(await readdir(join(hub.settings.cacheFolder, '.locks/models--org--model'))).toEqual([]);
  });

  it('is asked first: a second time only the revision is looked up, and a commit needs no network', async () => {
    hub.add(ID, { ...texts, 'model.safetensors': weights });
    const path = await fetch();
    events = [];
    hub.seen = [];
    expect(await fetch()).toBe(path);
    expect(hub.fetched()).toEqual([]);
    expect(hub.seen.every(({ path: asked }) => asked.startsWith('/api/'))).toBe(true);
    expect(events).toEqual([]);
    hub.seen = [];
    expect(await fetch(ID, { revision: COMMIT })).toBe(path);
    expect(hub.seen).toEqual([]);
    await hub.stop();
    expect(await offline()).toBe(path);
  });

  it('what Python has left there is used', async () => {
    const snapshot = join(repoFolder, 'snapshots', COMMIT);
    for (const folder of [snapshot, join(repoFolder, 'refs'), join(repoFolder, 'blobs')])
      await mkdir(folder, { recursive: true });
    await writeFile(join(repoFolder, 'refs/main'), COMMIT);
    for (const [name, content] of Object.entries({ ...texts, 'pytorch_model.bin': weights })) {
      const etag = etagOf(Buffer.from(content));
      await writeFile(join(repoFolder, 'blobs', etag), content);
      await symlink(`../../blobs/${etag}`, join(snapshot, name));
    }
    expect(await offline()).toBe(join(snapshot, 'pytorch_model.bin'));
    // Online, too: weights that are there win over better ones that are not.
    hub.add(ID, { ...texts, 'pytorch_model.bin': weights, 'model.safetensors': shard(1) });
    expect(await fetch()).toBe(join(snapshot, 'pytorch_model.bin'));
    expect(hub.fetched()).toEqual([]);
  });

  it('files of the wrong size are fetched again', async () => {
    hub.add(ID, { ...texts, 'model.safetensors': weights });
    const path = await fetch();
    await writeFile(join(repoFolder, 'blobs', etagOf(weights)), weights.subarray(0, 100));
    expect(await readFile(await fetch())).toSatisfy(is(weights));
    expect(path).toBe(await fetch());
  });

  it('a new commit keeps what is the same; the old one serves until the new one is complete', async () => {
    const repo = hub.add(ID, { ...texts, 'model.safetensors': weights });
    const old = await fetch();
    repo.refs.main = COMMIT_2;
    repo.commits[COMMIT_2] = {
      ...repo.commits[COMMIT],
      'config.json': Buffer.from('{ }'),
      'model.safetensors': shard(1),
    };
    hub.seen = [];
    hub.mischief = ({ host }, response) => host === 'cdn' && !!response.writeHead(404).end();
    expect(await fetch()).toBe(old);
    expect(notices()[0]).toContain('got status 404');
    expect(await offline()).toBe(old);
    hub.mischief = () => false;
    expect(await fetch()).toBe(join(repoFolder, 'snapshots', COMMIT_2, 'model.safetensors'));
    expect(new Set(hub.fetched())).toEqual(new Set(['config.json', 'model.safetensors']));
    expect(await readFile(join(repoFolder, 'refs/main'), 'utf8')).toBe(COMMIT_2);
  });

  it('without symbolic links the files themselves stand in the snapshot', async () => {
    hub.add(ID, { ...texts, 'model.safetensors': weights });
    const path = await fetch(ID, {}, { ...hub.settings, useSymlinks: false });
    expect((await lstat(path)).isFile()).toBe(true);
    expect(await readFile(path)).toSatisfy(is(weights));
    expect(await offline()).toBe(path);
  });

  it('branches, tags and pull requests', async () => {
    const { commits } = hub.add(ID, { ...texts, 'model.safetensors': weights });
    commits[COMMIT_2] = { ...commits[COMMIT], 'model.safetensors': shard(2) };
    const more = { commits, refs: { main: COMMIT, 'v1.0': COMMIT_2, 'refs/pr/1': COMMIT_2 } };
    hub.repos.set(ID, more);
    for (const revision of ['v1.0', 'refs/pr/1', COMMIT_2]) {
      expect(await readFile(await fetch(ID, { revision }))).toSatisfy(is(shard(2)));
    }
    expect(await readFile(join(repoFolder, 'refs/refs/pr/1'), 'utf8')).toBe(COMMIT_2);
    expect((await readdir(join(repoFolder, 'refs'))).sort()).toEqual(['refs', 'v1.0']);
    expect(await readFile(await offline(ID, { revision: 'v1.0' }))).toSatisfy(is(shard(2)));
    await expect(offline()).rejects.toThrow(join(repoFolder, 'refs/main'));
  });
});

describe('which files', () => {
  const bin = { 'pytorch_model.bin': weights };
  const binShards = {
    'pytorch_model.bin.index.json': index('pytorch_model', 'bin'),
    'pytorch_model-1.bin': shard(1),
    'pytorch_model-2.bin': shard(2),
  };
  const shards = {
    'model.safetensors.index.json': index('model', 'safetensors'),
    'model-1.safetensors': shard(1),
    'model-2.safetensors': shard(2),
  };
  const single = { 'model.safetensors': weights };
  const gguf = { 'model.Q8_0.gguf': weights };
  const codestral = { 'params.json': '{"dim": 8}', 'consolidated.safetensors': weights };
  it.each([
    ['safetensors first', { ...gguf, ...bin, ...binShards, ...shards, ...single }, single],
    ['then their shards', { ...gguf, ...bin, ...binShards, ...shards }, shards],
    ['then torch weights', { ...gguf, ...binShards, ...bin }, bin],
    ['then their shards', { ...gguf, ...binShards, 'pytorch_model-3.bin': shard(3) }, binShards],
    ['then the layout of Codestral', { ...gguf, ...codestral }, codestral],
    ['whose params.json is not needed otherwise', { ...codestral, ...shards }, shards],
    ['then a GGUF file, without config.json', { ...gguf, 'notes.txt': 'x' }, gguf],
  ])('%s', async (_, files, wanted) => {
    hub.add(ID, { ...texts, ...files });
    const path = await fetch();
    const isGguf = path.endsWith('.gguf');
    const beside = Object.keys(texts).filter((name) => !isGguf || name !== 'config.json');
    expect(hub.fetched()).toEqual([...beside, ...Object.keys(wanted)]);
    hub.seen = [];
    expect(await offline()).toBe(path);
    await fetch();
    expect(hub.fetched()).toEqual([]);
  });

  it('a file or a folder behind the id', async () => {
    hub.add(ID, {
      'a/m.Q4_0.gguf': shard(1),
      'a/m.Q8_0.gguf': shard(2),
      'b/config.json': '{}',
      'b/model.safetensors': weights,
      'x y.gguf': shard(3),
    });
    expect(await readFile(await fetch(`${ID}/a/m.Q8_0.gguf`))).toSatisfy(is(shard(2)));
    expect(await readFile(await fetch(`${ID}/b`))).toSatisfy(is(weights));
    expect(await readFile(await fetch(`${ID}/x y.gguf`))).toSatisfy(is(shard(3)));
    expect(hub.fetched()).toEqual(['a/m.Q8_0.gguf', 'b/config.json', 'b/model.safetensors', 'x%20y.gguf']);
    expect(await readFile(await offline(`${ID}/a/m.Q8_0.gguf`))).toSatisfy(is(shard(2)));
    await expect(fetch()).rejects.toThrow(
      'got 3 GGUF files: a/m.Q4_0.gguf (20.0 kB), a/m.Q8_0.gguf (20.0 kB), x y.gguf (20.0 kB). Name one, as in org/model/a/m.Q4_0.gguf.',
    );
    await expect(fetch(`${ID}/c.gguf`)).rejects.toThrow('expected a file or folder c.gguf in org/model');
    await expect(offline(`${ID}/a/m.Q4_0.gguf`)).rejects.toThrow('a/m.Q4_0.gguf');
  });

  it('none: the files that are there are listed', async () => {
    hub.add(ID, { 'config.json': '{}', 'tf_model.h5': weights });
    await expect(fetch()).rejects.toThrow('got config.json (2 B), tf_model.h5 (50.0 kB)');
    expect(hub.fetched()).toEqual([]);
  });

  it('an index that names a file that is not there, or one elsewhere', async () => {
    hub.add(ID, { ...texts, ...shards, 'model.safetensors.index.json': index('other', 'safetensors') });
    await expect(fetch()).rejects.toThrow('expected other-1.safetensors in org/model, as its index says');
    const outside = JSON.stringify({ weight_map: { a: '../../evil.safetensors' } });
    hub.add('org/evil', { ...texts, 'model.safetensors.index.json': outside });
    await fetch('org/evil'); // not followed; the reader refuses the index
    expect(hub.fetched().some((name) => name.includes('evil'))).toBe(false);
  });
});

describe('without network', () => {
  it('offline: nothing is asked, and the message names the place and what is missing', async () => {
    hub.add(ID, { ...texts, 'model.safetensors': weights });
    const nothing = offline();
    await expect(nothing).rejects.toThrow(DownloadError);
    await expect(nothing).rejects.toThrow('HF_HUB_OFFLINE is set, got nothing of it');
    await expect(nothing).rejects.toThrow(join(repoFolder, 'refs/main'));
    expect(hub.seen).toEqual([]);
    await rm(await fetch());
    await expect(offline()).rejects.toThrow(/expected model\.safetensors, .* got config\.json/);
    await expect(offline()).rejects.toThrow(join(repoFolder, 'snapshots', COMMIT));
  });

  it('a missing shard is named', async () => {
    hub.add(ID, {
      ...texts,
      'model.safetensors.index.json': index('model', 'safetensors'),
      'model-1.safetensors': shard(1),
      'model-2.safetensors': shard(2),
    });
    const folder = dirname(await fetch());
    await rm(join(folder, 'model-2.safetensors'));
    await expect(offline()).rejects.toThrow('a part of it without model-2.safetensors');
  });

  it('unreachable: a complete cache is used with a notice, anything else is an error that says both', async () => {
    hub.add(ID, { ...texts, 'model.safetensors': weights });
    const path = await fetch();
    hub.add('org/other', { ...texts, 'model.safetensors': weights });
    await hub.stop();
    events = [];
    expect(await fetch()).toBe(path);
    expect(notices()).toHaveLength(1);
    expect(notices()[0]).toContain('ECONNREFUSED');
    expect(notices()[0]).toContain(`Going on with the files in ${dirname(path)}`);
    const other = fetch('org/other');
    await expect(other).rejects.toThrow(/ECONNREFUSED.* after 3 attempts.*The cache has nothing of it/);
    await rm(path);
    await expect(fetch()).rejects.toThrow(/ECONNREFUSED.*The cache has a part of it/);
  });

  it('a hub that has lost the model, or wants a token now, is no reason to stop', async () => {
    hub.add(ID, { ...texts, 'model.safetensors': weights });
    const path = await fetch();
    hub.repos.delete(ID);
    expect(await fetch()).toBe(path);
    expect(notices()[0]).toContain('expected a model org/model');
  });
});
