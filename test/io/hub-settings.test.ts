/** What counts as a hub id, and what the environment says. */
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { homedir, tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { formatBytes } from '../../src/io/hub-choice.ts';
import { checkRevision, hubSettings, parseHubId } from '../../src/io/hub-settings.node.ts';

describe('parseHubId', () => {
  it.each([
    ['state-spaces/mamba-130m-hf', null],
    ['org/model_1.5', null],
    ['org/model/a/b.gguf', 'a/b.gguf'],
    ['out/moby-dick', null], // looks like one; a path that exists is asked for first
  ])('%s is one', (text, path) => {
    const [org, name] = text.split('/');
    expect(parseHubId(text)).toEqual({ repo: `${org}/${name}`, path });
  });
  it.each([
    '',
    'model',
    './org/model',
    '../org/model',
    '/org/model',
    '~/org/model',
    'org/',
    'org//model',
    'org/model/',
    'org/model/../x',
    'org/a..b',
    'org/a--b',
    '.org/model',
    'org/model-',
    'org\\model',
    'C:/models',
    'https://huggingface.co/org/model',
    `org/${'a'.repeat(97)}`,
  ])('%s is none', (text) => {
    expect(parseHubId(text)).toBe(null);
  });
});

describe('checkRevision', () => {
  it.each(['main', 'v1.0', 'refs/pr/9', 'a'.repeat(40)])('%s', (text) => {
    expect(checkRevision(text)).toBe(text);
  });
  it.each(['', '..', 'a/../b', '/main', 'a b', '-x', 'a:b', 'a\nb'])('refuses %j', (text) => {
    expect(() => checkRevision(text)).toThrow('expected a branch, tag or commit');
  });
});

describe('hubSettings', () => {
  let folder: string;
  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), 'mamba-settings-'));
    await writeFile(join(folder, 'token'), ' hf_file\n');
    await writeFile(join(folder, 'other'), 'hf_other');
  });
  afterAll(() => rm(folder, { recursive: true, force: true }));

  it.each([
    [{}, join(homedir(), '.cache/huggingface/hub')],
    [{ XDG_CACHE_HOME: '/x' }, '/x/huggingface/hub'],
    [{ XDG_CACHE_HOME: '/x', HF_HOME: '/h' }, '/h/hub'],
    [{ HF_HOME: '/h', HUGGINGFACE_HUB_CACHE: '/old' }, '/old'],
    [{ HF_HOME: '/h', HUGGINGFACE_HUB_CACHE: '/old', HF_HUB_CACHE: '/c' }, '/c'],
    [{ HF_HOME: '~/models' }, join(homedir(), 'models/hub')],
    [{ HF_HOME: '', HF_HUB_CACHE: '' }, join(homedir(), '.cache/huggingface/hub')],
  ])('%j: the cache is %s', async (env, expected) => {
    expect((await hubSettings({ HF_TOKEN_PATH: '/none', ...env })).cacheFolder).toBe(expected);
  });

  it('the token: a variable, then a file', async () => {
    const token = async (env: Record<string, string>) => (await hubSettings(env)).token;
    const env = { HF_HOME: folder };
    expect(await token({ ...env, HF_TOKEN: 'hf_env', HUGGING_FACE_HUB_TOKEN: 'hf_old' })).toBe('hf_env');
    expect(await token({ ...env, HUGGING_FACE_HUB_TOKEN: 'hf_old' })).toBe('hf_old');
    expect(await token(env)).toBe('hf_file');
    expect(await token({ ...env, HF_TOKEN_PATH: join(folder, 'other') })).toBe('hf_other');
    expect(await token({ ...env, HF_TOKEN_PATH: join(folder, 'none') })).toBe(null);
    await expect(token({ HF_TOKEN: 'two words' })).rejects.toThrow('expected one word as token');
    await expect(token({ HF_TOKEN: 'two words' })).rejects.not.toThrow('two words');
  });

  it('the endpoint, offline and links', async () => {
    const settings = async (env: Record<string, string>) => hubSettings({ HF_HOME: folder, ...env });
    expect(await settings({})).toMatchObject({
      endpoint: 'https://huggingface.co',
      isOffline: false,
      useSymlinks: true,
    });
    expect((await settings({ HF_ENDPOINT: 'http://mirror:80/hf//' })).endpoint).toBe('http://mirror:80/hf');
    await expect(settings({ HF_ENDPOINT: 'mirror' })).rejects.toThrow(
      'expected HF_ENDPOINT to be an address',
    );
    await expect(settings({ HF_ENDPOINT: 'file:///x' })).rejects.toThrow('expected HF_ENDPOINT');
    for (const value of ['1', 'true', 'YES', 'on']) {
      expect((await settings({ HF_HUB_OFFLINE: value })).isOffline).toBe(true);
      expect((await settings({ TRANSFORMERS_OFFLINE: value })).isOffline).toBe(true);
      expect((await settings({ HF_HUB_DISABLE_SYMLINKS: value })).useSymlinks).toBe(false);
    }
    for (const value of ['0', 'false', '']) {
      expect((await settings({ HF_HUB_OFFLINE: value })).isOffline).toBe(false);
    }
  });
});

it.each([
  [0, '0 B'],
  [999, '999 B'],
  [1000, '1.0 kB'],
  [99_960, '100 kB'],
  [999_999, '1.0 MB'],
  [5_552_881_664, '5.6 GB'],
  [2e15, '2000 TB'],
])('%d bytes are %s', (bytes, text) => {
  expect(formatBytes(bytes)).toBe(text);
});
