/**
 * Several files that belong together, replaced as one. The protocol, inside the folder itself:
 *   1. all new files are written and flushed in `.save.tmp-PID-N/`, with
 *   `.remove`, the list of files to drop;
 *   2. that folder is renamed to `.commit/`: this one rename is the moment of the change;
 *   3. roll forward: drop the listed files, move every file of `.commit/` to its place, delete `.commit/`.
 * A crash before 2 leaves the old set and a dead temporary; after 2, everything that is left of 3 can be
 * done by anyone, any number of times, and every reader does it first. Other files in the folder, the
 * folder itself (which may be a mount point or the working directory) and links to it are never touched.
 * One writer at a time, any readers.
 */
import { lstat, mkdir, readdir, rename, rm, rmdir, stat, unlink } from 'node:fs/promises';
import { join } from 'node:path';
import { ConfigError, StateError } from '../base/errors.ts';
import {
  claimTemporary,
  errorCode,
  type FileContent,
  FileError,
  fileError,
  makeFolder,
  readTextIfPresent,
  syncFolder,
  writeFileSynced,
} from './file.ts';

const COMMIT = '.commit';
const REMOVE = '.remove';
const MAX_ATTEMPTS = 10;
const PLAIN_NAME = /^[^./\\\n][^/\\\n]*$/;

export interface FolderFile {
  /** A plain file name. */
  name: string;
  content: FileContent;
}

/**
 * Writes `files` into `folder` (created if needed) as one change. `replaces` names files of an earlier set:
 * those that are not written again are dropped with the change. On any failure the previous set is intact.
 */
export async function writeFolderAtomic(
  folder: string,
  files: Iterable<FolderFile>,
  replaces: readonly string[] = [],
): Promise<void> {
  try {
    makeFolder(folder);
    await healFolder(folder);
    const stage = await claimTemporary(folder, 'save');
    try {
      await mkdir(stage.path);
      const written = new Set<string>();
      for (const { name, content } of files) {
        await checkName(folder, name, written);
        await writeFileSynced(join(stage.path, name), content);
        written.add(name);
      }
      const dropped = replaces.filter((name) => !written.has(name));
      await writeFileSynced(join(stage.path, REMOVE), dropped.join('\n'));
      await syncFolder(stage.path);
      await rename(stage.path, join(folder, COMMIT)).catch((error) => {
        throw isOccupied(error) ? otherWriter(folder, error) : error;
      });
    } catch (error) {
      await rm(stage.path, { recursive: true, force: true });
      throw error;
    } finally {
      stage.release();
    }
    await syncFolder(folder);
    await rollForward(folder);
  } catch (error) {
    throw fileError('writeFolderAtomic', `to write the files of ${folder}`, error);
  }
}

const isOccupied = (error: unknown): boolean => ['ENOTEMPTY', 'EEXIST'].includes(errorCode(error));

function otherWriter(folder: string, cause: unknown): StateError {
  return new StateError(
    `writeFolderAtomic: expected to be the only writer of ${folder}, got another one. Save to another folder.`,
    { cause },
  );
}

async function checkName(folder: string, name: string, written: ReadonlySet<string>): Promise<void> {
  if (!PLAIN_NAME.test(name) || written.has(name)) {
    throw new ConfigError(
      `writeFolderAtomic: expected different plain file names, got ${JSON.stringify(name)}. Rename the file.`,
    );
  }
  const there = await stat(join(folder, name)).catch(() => null);
  if (there?.isDirectory()) {
    throw new FileError(
      `writeFolderAtomic: expected a file at ${join(folder, name)}, got a folder. Remove it.`,
    );
  }
}

/** Completes a change that was interrupted after its commit. Cheap if there is none. */
export async function healFolder(folder: string): Promise<void> {
  try {
    await rollForward(folder);
  } catch (error) {
    throw fileError('healFolder', `to complete the interrupted save in ${folder}`, error);
  }
}

async function rollForward(folder: string): Promise<void> {
  const commit = join(folder, COMMIT);
  // A downloaded folder must not be able to reach outside itself: no link in the
  // place of .commit, plain names only.
  const found = await lstat(commit).catch(() => null);
  if (!found?.isDirectory()) return;
  const staged = await readdir(commit).catch((error) => ignore(error, []));
  const removals = (await readTextIfPresent(join(commit, REMOVE))) ?? '';
  for (const name of removals.split('\n')) {
    if (PLAIN_NAME.test(name)) await unlink(join(folder, name)).catch(ignoreMissing);
  }
  for (const name of staged) {
    if (PLAIN_NAME.test(name)) await rename(join(commit, name), join(folder, name)).catch(ignoreMissing);
  }
  await syncFolder(folder);
  await unlink(join(commit, REMOVE)).catch(ignoreMissing);
  await rmdir(commit).catch((error) => {
    if (!isOccupied(error)) ignoreMissing(error); // occupied: the next change was committed meanwhile
  });
  await syncFolder(folder);
}

/** Missing means that somebody else did this part already. */
function ignore<T>(error: unknown, value: T): T {
  if (errorCode(error) === 'ENOENT') return value;
  throw error;
}
const ignoreMissing = (error: unknown): void => ignore(error, undefined);

/**
 * Opens several files of a folder as one set while others may be saving: heals first, opens, and opens again
 * if any of `names` changed meanwhile. `close` undoes an `open` that came too late.
 */
export async function openFolderSet<T>(
  folder: string,
  names: readonly string[],
  open: () => Promise<T>,
  close: (opened: T) => Promise<void>,
): Promise<T> {
  for (let attempt = 0; attempt < MAX_ATTEMPTS; attempt++) {
    await healFolder(folder);
    const before = await identity(folder, names);
    const opened = await open().catch(async (error) => {
      if (before === (await identity(folder, names))) throw error;
      return null;
    });
    if (opened === null) continue;
    if (before === (await identity(folder, names))) return opened;
    await close(opened);
  }
  throw new StateError(
    `openFolder: expected ${folder} to hold still, got ${MAX_ATTEMPTS} changes while opening. Open it after the save.`,
  );
}

async function identity(folder: string, names: readonly string[]): Promise<string> {
  const parts = await Promise.all(
    [...names, COMMIT].map(async (name) => {
      const found = await stat(join(folder, name), { bigint: true }).catch(() => null);
      return found ? `${found.ino}:${found.size}:${found.mtimeNs}` : '-';
    }),
  );
  return parts.join(' ');
}
