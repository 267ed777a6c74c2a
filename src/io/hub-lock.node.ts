/**
 * One process at a time does a piece of work; the others wait and then find it done. A lock is a file that
 * tells its owner and is touched while the work goes on. It is taken over from an owner that has died on
 * this machine, or that has been silent for long. Should a takeover be wrong, only time is lost: blobs are
 * checked and renamed as a whole.
 */
import { open, readFile, rename, rm, stat, utimes } from 'node:fs/promises';
import { hostname } from 'node:os';
import { dirname } from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';
import { errorCode, fileError, isOtherLiveProcess, makeFolder } from './file.ts';

export interface LockOptions {
  signal?: AbortSignal;
  /** Called once if another owner is at work. */
  onWait?: () => void;
  /** An owner that has not touched its lock for this long has gone. Default 60,000. */
  silentMs?: number;
}

const POLL_MS = 100;
const TOUCH_MS = 5000;
/** Locks that somebody in this process holds or tries to get. */
const busy = new Set<string>();
let counter = 0;

/** Runs `work` while holding the lock file `path`. */
export async function withLock<T>(path: string, options: LockOptions, work: () => Promise<T>): Promise<T> {
  const wait = waiter(options);
  while (busy.has(path)) await wait();
  busy.add(path);
  try {
    await acquire(path, options, wait);
    const touch = setInterval(() => {
      const now = new Date();
      utimes(path, now, now).catch(() => {}); // taken over: see above
    }, TOUCH_MS).unref();
    try {
      return await work();
    } finally {
      clearInterval(touch);
      await rm(path, { force: true });
    }
  } finally {
    busy.delete(path);
  }
}

function waiter({ signal, onWait }: LockOptions): () => Promise<void> {
  let isFirst = true;
  return async () => {
    if (isFirst) onWait?.();
    isFirst = false;
    await pause(POLL_MS, undefined, { signal }).catch(() => signal?.throwIfAborted());
  };
}

async function acquire(path: string, { silentMs = 60_000 }: LockOptions, wait: () => Promise<void>) {
  let seen = '';
  let seenAt = 0;
  try {
    makeFolder(dirname(path));
    while (!(await create(path))) {
      const now = performance.now();
      const owner = await readFile(path, 'utf8').catch(() => '');
      const touched = await stat(path).catch(() => null);
      const looks = `${owner} ${touched?.mtimeMs}`;
      if (looks !== seen) [seen, seenAt] = [looks, now];
      if (hasDied(owner) || now - seenAt > silentMs) await takeAway(path, owner);
      else await wait();
    }
  } catch (error) {
    throw fileError('hub', `to write ${path}`, error);
  }
}

async function create(path: string): Promise<boolean> {
  try {
    const file = await open(path, 'wx');
    await file.writeFile(`${process.pid} ${hostname()}\n`);
    await file.close();
    return true;
  } catch (error) {
    if (errorCode(error) === 'EEXIST') return false;
    throw error;
  }
}

/** With the id of this process it stems from an earlier one (usual in containers): ours are `busy`. */
function hasDied(owner: string): boolean {
  const [pid, host] = owner.trim().split(' ');
  return host === hostname() && !isOtherLiveProcess(Number(pid));
}

/**
 * Of several that find the same dead lock, one removes it: renaming succeeds once. A fresh lock
 * that came between is put back.
 */
async function takeAway(path: string, owner: string): Promise<void> {
  const aside = `${path}.${process.pid}-${counter++}`;
  try {
    await rename(path, aside);
  } catch (error) {
    if (errorCode(error) === 'ENOENT') return;
    throw error;
  }
  if ((await readFile(aside, 'utf8').catch(() => '')) === owner) await rm(aside, { force: true });
  else await rename(aside, path);
}
