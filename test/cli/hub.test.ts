/** `--model org/name`: every command fetches it, tells so on stderr, and Ctrl-C ends the download. */
import { spawn } from 'node:child_process';
import { readdir, readFile, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { downloadProgress } from '../../src/cli/download-progress.ts';
import type { LoadEvent } from '../../src/index.node.ts';
import { bundle } from '../support/bundle.ts';
import { COMMIT, type FakeHub, fakeHub } from '../support/hub.ts';
import { cli } from './cli.ts';

const fixture = fileURLToPath(new URL('../fixtures/models/mamba1-tied/hf/', import.meta.url));
let hub: FakeHub;
beforeEach(async () => {
  hub = await fakeHub();
  vi.stubEnv('HF_ENDPOINT', hub.endpoint);
  vi.stubEnv('HF_HUB_CACHE', hub.settings.cacheFolder);
  vi.stubEnv('HF_HOME', hub.folder);
  vi.stubEnv('HF_TOKEN', '');
  vi.stubEnv('HF_HUB_OFFLINE', '');
  hub.add('org/model', {
    'config.json': await readFile(join(fixture, 'config.json')),
    'model.safetensors': await readFile(join(fixture, 'model.safetensors')),
    'mamba_tokenizer.json': '{"type":"bytes"}',
  });
});
afterEach(async () => {
  vi.unstubAllEnvs();
  await hub.close();
});

describe('--model org/name', () => {
  it('is fetched once, with a line per file; then commands are silent about it', async () => {
    const info = await cli(['info', '--model', 'org/model', '--revision', 'main', '--json']);
    expect(info.code).toBe(0);
    expect(JSON.parse(info.stdout).model.path).toContain(COMMIT);
    expect(info.stderr.split('\n').map((line) => line.replace(/ +.*/, ''))).toEqual([
      'downloading',
      'config.json',
      'mamba_tokenizer.json',
      'model.safetensors',
      '',
    ]);
    const at = (name: string) => join(hub.folder, name);
    const model = ['--model', 'org/model'];
    for (const argv of [
      ['generate', ...model, '--prompt', 'a', '--max-tokens', '2'],
      ['logits', ...model, '--ids', '1,2', '--out', at('logits')],
      ['convert', ...model, '--format', 'gguf', '--out', at('m.gguf')],
      ['eval', ...model, '--data', join(fixture, 'config.json'), '--tokenizer', 'org/model'],
    ]) {
      const { code, stderr } = await cli(argv);
      expect(stderr, argv[0]).not.toContain('downloading');
      expect(code, argv[0]).toBe(0);
    }
  });

  it('a revision that is not there, offline, a revision of a folder: exit code 1 and what to do', async () => {
    const wrong = await cli(['info', '--model', 'org/model', '--revision', 'v2']);
    expect(wrong).toMatchObject({ code: 1 });
    expect(wrong.stderr).toContain('expected a revision v2 of org/model');
    expect((await cli(['info', '--model', fixture, '--revision', 'v2'])).stderr).toContain(
      'Leave the revision out',
    );
    vi.stubEnv('HF_HUB_OFFLINE', '1');
    const offline = await cli(['generate', '--model', 'org/model', '--prompt', 'a']);
    expect(offline).toMatchObject({ code: 1 });
    expect(offline.stderr).toContain(hub.settings.cacheFolder);
  });

  it('Ctrl-C ends a download with 130, and the next command goes on', async () => {
    const controller = new AbortController();
    hub.mischief = ({ path }, response) => {
      if (!path.endsWith('/model.safetensors')) return false;
      controller.abort();
      response.writeHead(200); // and nothing more
      return true;
    };
    const { code, stderr } = await cli(['info', '--model', 'org/model'], { signal: controller.signal });
    expect(stderr).toContain('interrupted; what has arrived is kept');
    expect(code).toBe(130);
    hub.mischief = () => false;
    hub.seen = [];
    expect((await cli(['info', '--model', 'org/model'])).code).toBe(0);
    expect(hub.fetched()).toEqual(['model.safetensors']);
  });
});

it('SIGINT during a download: the process says so, exits with 130 and leaves the part', async () => {
  const program = await bundle("import './src/cli/main.ts';", hub.folder);
  hub.mischief = ({ host }, response) => {
    if (host === 'cdn') response.writeHead(200).write('x'.repeat(1000)); // and nothing more
    return host === 'cdn';
  };
  const child = spawn(process.execPath, [program, 'info', '--model', 'org/model']);
  let stderr = '';
  child.stderr.on('data', (data) => (stderr += data));
  const ended = new Promise((resolve) => child.once('close', resolve));
  const blobs = join(hub.settings.cacheFolder, 'models--org--model/blobs');
  const part = async (): Promise<number> => {
    const name = (await readdir(blobs).catch(() => [])).find((file) => file.endsWith('.incomplete'));
    return name === undefined ? 0 : (await stat(join(blobs, name))).size;
  };
  await vi.waitFor(async () => expect(await part()).toBe(1000), { timeout: 10_000 });
  child.kill('SIGINT');
  expect(await ended).toBe(130);
  expect(stderr).toContain('interrupted; what has arrived is kept');
  expect(await part()).toBe(1000);
});

describe('downloadProgress', () => {
  const file = (name: string, doneBytes: number, stage: 'downloading' | 'checking' | 'done'): LoadEvent => ({
    kind: 'file',
    repo: 'org/model',
    name,
    doneBytes,
    totalBytes: 5_600_000_000,
    stage,
  });
  const told = (isTTY: boolean): string => {
    let text = '';
    let now = 0;
    const show = downloadProgress({ isTTY, columns: 120, write: (more) => void (text += more) }, () => now);
    show(file('model.safetensors', 1_000_000_000, 'downloading')); // the rest of an earlier run
    now = 1000;
    show(file('model.safetensors', 1_050_000_000, 'downloading'));
    now = 1001; // too soon
    show(file('model.safetensors', 1_050_100_000, 'downloading'));
    now = 6000;
    show(file('model.safetensors', 1_300_000_000, 'downloading'));
    show(file('model.safetensors', 5_600_000_000, 'checking'));
    now = 92_000;
    show(file('model.safetensors', 5_600_000_000, 'done'));
    show({ kind: 'notice', message: 'note' });
    show({ kind: 'end' });
    return text;
  };

  it('elsewhere: a line every few seconds', () => {
    expect(told(false).split('\n')).toEqual([
      'downloading org/model',
      'model.safetensors         23 % of 5.6 GB  50.0 MB/s  1:26 left',
      'model.safetensors         5.6 GB  in 1:32',
      'note',
      '',
    ]);
  });

  it('on a terminal: one line that changes', () => {
    const clear = '\r\u001b[2K';
    expect(told(true).split(clear)).toEqual([
      '',
      'downloading org/model\n',
      'model.safetensors         [###-----------------]  17 % of 5.6 GB',
      'model.safetensors         [###-----------------]  18 % of 5.6 GB  50.0 MB/s  1:31 left',
      'model.safetensors         [####----------------]  23 % of 5.6 GB  50.0 MB/s  1:26 left',
      'model.safetensors         5.6 GB  checking',
      'model.safetensors         5.6 GB  in 1:32\n',
      'note\n',
    ]);
  });
});
