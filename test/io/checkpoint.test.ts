import { execFileSync, spawn, spawnSync } from 'node:child_process';
import {
  chmod,
  mkdir,
  mkdtemp,
  readdir,
  readFile,
  rename,
  rm,
  stat,
  symlink,
  writeFile,
} from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeEach, describe, expect, test } from 'vitest';
import { loadCheckpoint, saveCheckpoint } from '../../src/io/checkpoint.node.ts';
import { expectedTensors } from '../../src/io/expected-tensors.ts';
import { openPretrained } from '../../src/io/pretrained.node.ts';
import { resolveConfig } from '../../src/models/config.ts';
import { bundleChild, generation } from './save-child.ts';

const scratch = await mkdtemp(join(tmpdir(), 'mamba-checkpoint-'));
const child = await bundleChild(scratch);
afterAll(() => rm(scratch, { recursive: true }));

let folder: string;
let folders = 0;
beforeEach(() => {
  folder = join(scratch, `run${folders++}`);
});

const FILES = ['config.json', 'model.safetensors', 'optimizer.safetensors', 'tokenizer.json', 'trainer.json'];

/** The generation of a checkpoint; fails if it is mixed from two. */
async function loadGeneration(path: string): Promise<number> {
  const { model, optimizer, trainer, close } = await loadCheckpoint(path);
  const seen = new Set<number>([
    Number(trainer?.step),
    JSON.parse(model.tokenizer['tokenizer.json']!).generation,
  ]);
  for (const name of model.tensors.keys()) for (const value of await model.tensor(name)) seen.add(value);
  for (const name of optimizer!.tensors.keys())
    for (const value of await optimizer!.readAsF32(name)) seen.add(value);
  await close();
  expect([...seen]).toHaveLength(1);
  return [...seen][0]!;
}

test('what is saved comes back, bit for bit', async () => {
  const config = resolveConfig({
    d_model: 12,
    n_layer: 2,
    vocab_size: 30,
    rms_norm: false,
    tie_embeddings: false,
  });
  const values = new Map(
    [...expectedTensors(config)].map(([name, shape], t) => {
      const size = shape.reduce((a, b) => a * b, 1);
      return [name, { shape, data: Float32Array.from({ length: size }, (_, i) => Math.sin(i + 100 * t)) }];
    }),
  );
  const trainer = {
    step: 7,
    rng: { data: [1, 2, 3, 4294967295] },
    best: Number.POSITIVE_INFINITY,
    loss: 0.1 + 0.2,
  };
  const tensors = [...values].map(([name, { shape, data }]) => ({ name, shape, data: async () => data }));
  await saveCheckpoint(folder, {
    config,
    tensors,
    optimizer: tensors,
    trainer,
    tokenizer: { 'mamba_tokenizer.json': '{}' },
    eosId: 3,
  });
  const loaded = await loadCheckpoint(folder);
  expect(loaded.model.config).toEqual(config);
  expect(loaded.model.configJson.eos_token_id).toBe(3);
  expect(loaded.model.tokenizer).toEqual({ 'mamba_tokenizer.json': '{}' });
  expect(loaded.trainer).toEqual(trainer);
  for (const [name, { data }] of values) {
    expect(await loaded.model.tensor(name)).toEqual(data);
    expect(await loaded.optimizer!.readAsF32(name)).toEqual(data);
  }
  await loaded.close();
});

test('one tensor at a time is in memory', async () => {
  const content = generation(1);
  let [alive, most] = [0, 0];
  const tensors = [...content.tensors].map((tensor) => ({
    ...tensor,
    data: async () => {
      alive++;
      most = Math.max(most, alive);
      const values = await tensor.data();
      alive--;
      return values;
    },
  }));
  await saveCheckpoint(folder, { ...content, tensors });
  expect(most).toBe(1);
});

test('a model without a trainer, in bf16, drops what belonged to the earlier checkpoint and nothing else', async () => {
  await saveCheckpoint(folder, generation(1));
  await writeFile(join(folder, 'metrics.jsonl'), '{}');
  await mkdir(join(folder, 'reports'));
  const { config, tensors } = generation(2);
  await saveCheckpoint(folder, { config, tensors, weights: 'BF16' });
  expect((await readdir(folder)).sort()).toEqual([
    'config.json',
    'metrics.jsonl',
    'model.safetensors',
    'reports',
  ]);
  const { model, optimizer, trainer, close } = await loadCheckpoint(folder);
  expect([optimizer, trainer]).toEqual([null, null]);
  expect(model.configJson.torch_dtype).toBe('bfloat16');
  expect((await model.tensor('backbone.norm_f.weight'))[0]).toBe(2);
  await close();
});

test('wrong contents are refused before anything is touched', async () => {
  await saveCheckpoint(folder, generation(1));
  const content = generation(2);
  const cases: [Partial<typeof content>, string][] = [
    [{ tensors: [...content.tensors].slice(1) }, 'backbone.embeddings.weight [256, 64] is missing'],
    [{ tokenizer: { 'trainer.json': '' } }, 'got trainer.json'],
    [{ tokenizer: { '../evil': '' } }, 'got ../evil'],
    [{ trainer: { rng: new Uint32Array(4) as never } }, '$.rng'],
    [
      { tensors: [...content.tensors].map((t) => ({ ...t, data: async () => new Float32Array(1) })) },
      'expected 16384 elements',
    ],
  ];
  for (const [change, message] of cases) {
    await expect(saveCheckpoint(folder, { ...content, ...change })).rejects.toThrow(message);
  }
  expect(await loadGeneration(folder)).toBe(1);
  expect((await readdir(folder)).sort()).toEqual(FILES);
});

test('a failure while the last tensor is written leaves the previous checkpoint', async () => {
  await saveCheckpoint(folder, generation(1));
  const content = generation(2);
  const optimizer = [...content.optimizer!];
  optimizer[2] = { ...optimizer[2]!, data: () => Promise.reject(new Error('device lost')) };
  await expect(saveCheckpoint(folder, { ...content, optimizer })).rejects.toThrow('device lost');
  expect(await loadGeneration(folder)).toBe(1);
  expect((await readdir(folder)).sort()).toEqual(FILES);
});

test('a folder in the place of a file is found before the change', async () => {
  await saveCheckpoint(folder, generation(1));
  await rm(join(folder, 'trainer.json'));
  await mkdir(join(folder, 'trainer.json'));
  await expect(saveCheckpoint(folder, generation(2))).rejects.toThrow('trainer.json, got a folder');
  expect((await readdir(folder)).sort()).toEqual(FILES);
});

describe('an interrupted save', () => {
  /** Leaves `folder` as a crash after `moved` of the renames of generation 2 over generation 1 would. */
  async function crashAfter(moved: number): Promise<void> {
    await saveCheckpoint(folder, generation(1));
    const other = `${folder}-new`;
    await saveCheckpoint(other, generation(2));
    await rename(other, join(folder, '.commit'));
    await writeFile(join(folder, '.commit', '.remove'), 'vocab.json\n../outside.txt');
    await writeFile(join(folder, 'vocab.json'), '{}');
    await writeFile(join(scratch, 'outside.txt'), 'keep');
    for (const name of FILES.slice(0, moved)) await rename(join(folder, '.commit', name), join(folder, name));
  }

  for (const moved of [0, 1, 3, 5]) {
    test(`after ${moved} of ${FILES.length} renames the reader completes it`, async () => {
      await crashAfter(moved);
      expect(await loadGeneration(folder)).toBe(2);
      expect((await readdir(folder)).sort()).toEqual(FILES);
      expect(await readFile(join(scratch, 'outside.txt'), 'utf8')).toBe('keep');
    });
  }

  test('openPretrained completes it too, and so does the next save', async () => {
    await crashAfter(2);
    const model = await openPretrained(folder);
    expect((await model.tensor('backbone.norm_f.weight'))[0]).toBe(2);
    await model.close();
    folder = `${folder}-again`;
    await crashAfter(2);
    await saveCheckpoint(folder, generation(3));
    expect(await loadGeneration(folder)).toBe(3);
    expect((await readdir(folder)).sort()).toEqual(FILES);
  });

  test('before the commit: the old one stays, the remains of the dead writer go with the next save', async () => {
    await saveCheckpoint(folder, generation(1));
    const dead = spawnSync(process.execPath, ['-e', '']).pid;
    await mkdir(join(folder, `.save.tmp-${dead}-0`));
    await writeFile(join(folder, `.save.tmp-${dead}-0`, 'model.safetensors'), 'half');
    expect(await loadGeneration(folder)).toBe(1);
    await saveCheckpoint(folder, generation(2));
    expect((await readdir(folder)).sort()).toEqual(FILES);
  });

  // The superuser may write everywhere.
  test.skipIf(process.platform === 'win32' || process.getuid?.() === 0)(
    'a reader who may not complete it gets an error, not the older model',
    async () => {
      await crashAfter(2);
      await chmod(folder, 0o500);
      await expect(loadCheckpoint(folder)).rejects.toThrow('to complete the interrupted save');
      await expect(loadCheckpoint(folder)).rejects.toThrow('got no permission');
      await chmod(folder, 0o700);
      expect(await loadGeneration(folder)).toBe(2);
    },
  );

  test.skipIf(process.platform === 'win32')('a .commit that is a link is not followed', async () => {
    await saveCheckpoint(folder, generation(1));
    await saveCheckpoint(`${folder}-private`, generation(2));
    await symlink(`${folder}-private`, join(folder, '.commit'));
    expect(await loadGeneration(folder)).toBe(1);
    expect(await loadGeneration(`${folder}-private`)).toBe(2);
  });
});

test('many readers while a writer saves: every one sees one generation', async () => {
  await saveCheckpoint(folder, generation(0));
  let saving = true;
  const writer = (async () => {
    for (let g = 1; g <= 12; g++) await saveCheckpoint(folder, generation(g));
    saving = false;
  })();
  const seen: number[] = [];
  while (saving) seen.push(await loadGeneration(folder));
  await writer;
  expect(seen).toEqual([...seen].sort((a, b) => a - b));
  expect(await loadGeneration(folder)).toBe(12);
});

test('killed in the middle of saving, again and again: the last or the next to come loads', async () => {
  await saveCheckpoint(folder, generation(0));
  const kills = 12;
  let unfinished = 0;
  for (let k = 0; k < kills; k++) {
    const saver = spawn(process.execPath, [child, 'loop', folder]);
    let output = '';
    const ended = new Promise((resolve) => saver.once('close', resolve));
    const started = new Promise<void>((resolve, reject) => {
      saver.once('exit', () => reject(new Error('the saver ended by itself')));
      saver.stdout.on('data', (data: Buffer) => {
        output += data.toString();
        if (output.includes('saved 2\n')) resolve();
      });
    });
    await started;
    // Waits for a different, short stretch each time, so that the kill falls on different places of a save.
    await new Promise((resolve) => setTimeout(resolve, k));
    saver.kill('SIGKILL');
    await ended;
    const reported = output.trim().split('\n').length; // `saved 1` to `saved N`
    const remains = (await readdir(folder)).filter((name) => name.startsWith('.'));
    if (remains.length > 0) unfinished++;
    const loaded = await loadGeneration(folder);
    // At most the save after the last reported one can have been committed.
    expect([reported, reported + 1]).toContain(loaded);
  }
  expect(unfinished).toBeGreaterThan(0); // some kills did fall into a save
  await saveCheckpoint(folder, generation(99));
  expect(await loadGeneration(folder)).toBe(99);
  expect((await readdir(folder)).sort()).toEqual(FILES);
});

describe('the disk is full', () => {
  test.skipIf(process.platform === 'win32')(
    'file size limit: clear error, previous checkpoint intact',
    async () => {
      await saveCheckpoint(folder, generation(1));
      const limited = [
        '-c',
        'ulimit -f 64; exec "$@"',
        'sh',
        process.execPath,
        child,
        'checkpoint',
        folder,
        '2',
      ];
      const { stdout } = spawnSync('sh', limited, { encoding: 'utf8' });
      expect(stdout).toContain('ERR_FILE');
      expect(stdout).toContain('got the file size limit reached');
      expect(await loadGeneration(folder)).toBe(1);
      expect((await readdir(folder)).sort()).toEqual(FILES);
    },
  );

  const mountable = (() => {
    try {
      const probe = join(scratch, 'probe');
      execFileSync('mkdir', [probe]);
      execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=64k', 'tmpfs', probe], { stdio: 'ignore' });
      execFileSync('umount', [probe], { stdio: 'ignore' });
      return true;
    } catch {
      return false;
    }
  })();

  test.skipIf(!mountable)('a real full disk, which is also the root of a mount', async () => {
    await mkdir(folder);
    // Room for one checkpoint of about 300 kB and a part of the next.
    execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=512k', 'tmpfs', folder]);
    try {
      await saveCheckpoint(folder, generation(1));
      const saving = saveCheckpoint(folder, generation(2));
      await expect(saving).rejects.toThrow('got no space left on the device. Free some space');
      await expect(saving).rejects.toHaveProperty('code', 'ERR_FILE');
      expect(await loadGeneration(folder)).toBe(1);
      expect((await readdir(folder)).sort()).toEqual(FILES);
    } finally {
      execFileSync('umount', [folder]);
    }
  });
});

test('folders that hold no checkpoint', async () => {
  await expect(loadCheckpoint(folder)).rejects.toThrow('a checkpoint folder at');
  await writeFile(`${folder}-file`, 'x');
  await expect(saveCheckpoint(`${folder}-file`, generation(1))).rejects.toThrow(
    'got a file in the place of a folder',
  );
  await mkdir(folder);
  await expect(loadCheckpoint(folder)).rejects.toThrow('got none of them. Is the download complete?');
  await saveCheckpoint(folder, generation(1));
  await writeFile(join(folder, 'trainer.json'), '{"step": }');
  await expect(loadCheckpoint(folder)).rejects.toThrow('line 1, column 10');
  await writeFile(join(folder, 'trainer.json'), '{}');
  await writeFile(join(folder, 'optimizer.safetensors'), 'x');
  await expect(loadCheckpoint(folder)).rejects.toThrow('optimizer.safetensors, byte 0');
  expect((await stat(folder)).isDirectory()).toBe(true);
});
