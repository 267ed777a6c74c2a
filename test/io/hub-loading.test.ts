/** loadModel and openPretrained with hub ids: the same models, their tokenizers, and paths first. */
import { existsSync } from 'node:fs';
import { mkdir, readFile, stat, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { loadModel, openPretrained } from '../../src/index.node.ts';
import { expectedTensors } from '../../src/io/expected-tensors.ts';
import type { LoadEvent } from '../../src/io/hub.node.ts';
import { encodeSafetensors } from '../../src/io/safetensors-write.ts';
import { resolveConfig } from '../../src/models/config.ts';
import { tokenizerFromFiles, trainBpe } from '../../src/text/index.ts';
import { etagOf, type FakeHub, fakeHub } from '../support/hub.ts';

const ID = 'org/model';
const weights = Buffer.alloc(50_000, 'weights ');

let hub: FakeHub;
let events: LoadEvent[];
beforeEach(async () => {
  hub = await fakeHub();
  events = [];
});
afterEach(async () => {
  vi.unstubAllEnvs();
  await hub.close();
});

const onProgress = (event: LoadEvent): void => void events.push(event);
const notices = (): string[] => events.flatMap((event) => (event.kind === 'notice' ? [event.message] : []));

describe('loading', () => {
  const fixture = (name: string): string =>
    fileURLToPath(new URL(`../fixtures/models/mamba1-tied/${name}`, import.meta.url));
  const modelFiles = async (): Promise<Record<string, Buffer>> => ({
    'config.json': await readFile(fixture('hf/config.json')),
    'model.safetensors': await readFile(fixture('hf/model.safetensors')),
  });
  beforeEach(() => {
    vi.stubEnv('HF_ENDPOINT', hub.endpoint);
    vi.stubEnv('HF_HOME', hub.folder);
    for (const name of ['HF_HUB_CACHE', 'HUGGINGFACE_HUB_CACHE', 'HF_TOKEN', 'HF_HUB_OFFLINE'])
      vi.stubEnv(name, '');
  });

  it('an id gives the model that the folder gives', async () => {
    hub.add(ID, await modelFiles());
    const model = await loadModel(ID, { onProgress });
    expect(model.fingerprint).toBe((await loadModel(fixture('hf'))).fingerprint);
    const large = events.filter((event) => event.kind === 'file' && event.name === 'model.safetensors');
    const totalBytes = (await stat(fixture('hf/model.safetensors'))).size;
    expect(large.at(-1)).toEqual({
      kind: 'file',
      name: 'model.safetensors',
      repo: ID,
      doneBytes: totalBytes,
      totalBytes,
      stage: 'done',
    });
    expect(large.at(-2)).toMatchObject({ doneBytes: totalBytes, stage: 'checking' });
    expect(events.at(-1)).toEqual({ kind: 'end' });
  });

  it('a repository in the layout of Codestral, with what its files do not record', async () => {
    const folder = fileURLToPath(new URL('../fixtures/models/mamba2-g2/codestral', import.meta.url));
    const files: Record<string, Buffer> = { 'README.md': Buffer.from('# x') };
    for (const name of ['params.json', 'consolidated.safetensors'])
      files[name] = await readFile(`${folder}/${name}`);
    hub.add(ID, files);
    const model = await loadModel(ID, { config: { norm_groups: 1 } });
    expect(hub.fetched().sort()).toEqual(['consolidated.safetensors', 'params.json']);
    expect(model.fingerprint).toBe((await loadModel(folder, { config: { norm_groups: 1 } })).fingerprint);
    expect(model.config).toMatchObject({ ngroups: 2, norm_groups: 1, vocab_size: 300 });
  });

  it('a path wins; what only looks like an id says both', async () => {
    const before = process.cwd();
    process.chdir(hub.folder);
    try {
      await mkdir('org/model', { recursive: true });
      for (const [name, content] of Object.entries(await modelFiles()))
        await writeFile(join(ID, name), content);
      await loadModel(ID);
      expect(hub.seen).toEqual([]);
      await expect(loadModel(ID, { revision: 'main' })).rejects.toThrow('Leave the revision out');
      await expect(loadModel('./org/other')).rejects.toThrow('got nothing at this path');
      expect(hub.seen).toEqual([]);
      const missing = loadModel('org/other');
      await expect(missing).rejects.toThrow(`expected a model org/other at ${hub.endpoint}`);
      await expect(missing).rejects.toThrow('There is no file or folder org/other, and');
    } finally {
      process.chdir(before);
    }
  });

  const { tokenizerJson, tokenizerConfig } = trainBpe(['ab ab abc'], { vocabSize: 262 });
  const tokenizer = {
    'tokenizer.json': JSON.stringify(tokenizerJson),
    'tokenizer_config.json': JSON.stringify(tokenizerConfig),
  };

  it('--tokenizer: a folder, a file or an id, for folders and hub models', async () => {
    hub.add('org/words', { ...tokenizer, 'model.safetensors': weights });
    const words = tokenizerFromFiles(tokenizer).vocabSize;
    const folder = join(hub.folder, 'words');
    await mkdir(folder);
    for (const [name, content] of Object.entries(tokenizer)) await writeFile(join(folder, name), content);
    for (const name of [folder, join(folder, 'tokenizer.json'), 'org/words']) {
      expect((await loadModel(fixture('hf'), { tokenizer: name })).tokenizer?.vocabSize, name).toBe(words);
    }
    expect(hub.fetched().sort()).toEqual(Object.keys(tokenizer).sort());
    await expect(loadModel(fixture('hf'), { tokenizer: fixture('hf') })).rejects.toThrow(
      'expected tokenizer.json in',
    );
    hub.add('org/nothing', { 'config.json': '{}' });
    await expect(loadModel(fixture('hf'), { tokenizer: 'org/nothing' })).rejects.toThrow(
      'expected a tokenizer.json',
    );
  });

  it('a model with the vocabulary of GPT-NeoX and no tokenizer gets that one', async () => {
    const NEOX = 'EleutherAI/gpt-neox-20b';
    const original = {
      d_model: 8,
      n_layer: 1,
      vocab_size: 50277,
      ssm_cfg: { d_state: 2, d_conv: 2, expand: 1 },
    };
    const config = resolveConfig({
      d_model: 8,
      n_layer: 1,
      vocab_size: 50277,
      d_state: 2,
      d_conv: 2,
      expand: 1,
    });
    const entries = [...expectedTensors(config)].map(([name, shape]) => ({
      name,
      dtype: 'F32' as const,
      shape,
      data: new Float32Array(shape.reduce((a, b) => a * b, 1)),
    }));
    const files = {
      'config.json': JSON.stringify(original),
      'model.safetensors': Buffer.from(await encodeSafetensors(entries)),
    };
    hub.add(ID, files);
    const without = await openPretrained(ID, { onProgress });
    await without.close();
    expect(without.tokenizer).toEqual({});
    expect(notices()[0]).toContain(`that of ${NEOX} is not to be had`);
    hub.add(NEOX, { ...tokenizer, 'model.safetensors': weights, 'vocab.json': '{}' });
    events = [];
    const found = await openPretrained(ID, { onProgress });
    await found.close();
    expect(found.tokenizer).toEqual(tokenizer);
    expect(notices()).toEqual([
      `${ID} has no tokenizer; its vocabulary of 50277 is that of ${NEOX}, which is used.`,
    ]);
    expect(existsSync(join(hub.folder, 'hub/models--EleutherAI--gpt-neox-20b/blobs', etagOf(weights)))).toBe(
      false,
    );
    // A folder on disk is what it is: nothing is fetched for it.
    hub.seen = [];
    const local = await openPretrained(dirname(found.path));
    await local.close();
    expect(local.tokenizer).toEqual({});
    expect(hub.seen).toEqual([]);
  });
});
