/** The lock of a download: exclusive, told, and not held by the dead. */
import { mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { hostname, tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { withLock } from '../../src/io/hub-lock.node.ts';

let folder: string;
let path: string;
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'mamba-lock-'));
  path = join(folder, 'deep/er/x.lock');
});
afterEach(() => rm(folder, { recursive: true, force: true }));

const tick = (): Promise<void> => new Promise((resolve) => setTimeout(resolve, 1));
const hold = async (content: string): Promise<void> => {
  await withLock(path, {}, async () => {});
  await writeFile(path, content);
};

it('one at a time, and gone afterwards, even after a failure', async () => {
  let inside = 0;
  let most = 0;
  const work = async (): Promise<void> => {
    most = Math.max(most, ++inside);
    await tick();
    inside--;
  };
  await Promise.all([1, 2, 3].map(() => withLock(path, {}, work)));
  expect(most).toBe(1);
  await expect(withLock(path, {}, () => Promise.reject(new Error('no')))).rejects.toThrow('no');
  expect(await readdir(join(path, '..'))).toEqual([]);
});

it('tells its owner', async () => {
  await withLock(path, {}, async () => {
    expect(await readFile(path, 'utf8')).toBe(`${process.pid} ${hostname()}\n`);
  });
});

it.each([
  ['a process that has ended', `${2 ** 22 + 1} ${hostname()}\n`], // above the largest id of a process
  ['an earlier process with the same id', `${process.pid} ${hostname()}\n`],
])('is taken from %s at once', async (_, content) => {
  await hold(content);
  let waits = 0;
  expect(await withLock(path, { onWait: () => waits++ }, async () => 'done')).toBe('done');
  expect(waits).toBe(0);
});

it.each([
  ['on another machine', '1 elsewhere\n'],
  ['that wrote nothing', ''],
])('is taken from an owner %s when it has been silent', async (_, content) => {
  await hold(content);
  let waits = 0;
  expect(await withLock(path, { silentMs: 150, onWait: () => waits++ }, async () => 'done')).toBe('done');
  expect(waits).toBe(1);
});

it('waiting ends with the signal', async () => {
  await hold('1 elsewhere\n');
  const controller = new AbortController();
  const onWait = (): void => controller.abort(new Error('enough'));
  await expect(withLock(path, { onWait, signal: controller.signal }, async () => {})).rejects.toThrow(
    'enough',
  );
  expect(await readFile(path, 'utf8')).toBe('1 elsewhere\n');
});
