/**
 * The cache folder of Hugging Face's programs, read and written the way they do it:
 *   models--org--name/refs/<revision>            the commit a branch or tag pointed to
 *   models--org--name/snapshots/<commit>/<file>  a relative link to
 *   models--org--name/blobs/<etag>               the content; etag is its sha256 (large files) or git blob id
 * Our own unfinished downloads are `<etag>.mamba-ts.incomplete`: a name that no other program appends to.
 */
import { copyFile, link, readdir, rename, rm, stat, symlink } from 'node:fs/promises';
import { basename, dirname, join, relative } from 'node:path';
import { claimTemporary, fileError, makeFolder, readTextIfPresent, writeFileAtomic } from './file.ts';
import { type HubSettings, isCommit } from './hub-settings.node.ts';

/** A file of a model at one commit. */
export interface HubFile {
  /** With slashes. */
  name: string;
  sizeBytes: number;
}

export interface HubCache {
  /** Where a snapshot is, whether or not it exists. */
  snapshot(commit: string): string;
  blob(etag: string): string;
  part(etag: string): string;
  lock(etag: string): string;
  /** Where the commit of a branch or tag is kept. */
  ref(revision: string): string;
  /** The commit behind a revision as far as the cache knows; null if it does not. */
  commitOf(revision: string): Promise<string | null>;
  /** Notes the commit of a revision. */
  note(revision: string, commit: string): Promise<void>;
  /** Complete files of a snapshot; empty if there is none. */
  list(commit: string): Promise<HubFile[]>;
  /** Makes a blob a file of the snapshot. */
  place(etag: string, commit: string, name: string): Promise<void>;
}

export function hubCache({ cacheFolder, useSymlinks }: HubSettings, repo: string): HubCache {
  const folderName = `models--${repo.replaceAll('/', '--')}`;
  const folder = join(cacheFolder, folderName);
  const snapshot = (commit: string): string => join(folder, 'snapshots', commit);
  const blob = (etag: string): string => join(folder, 'blobs', etag);
  const ref = (revision: string): string => join(folder, 'refs', revision);
  return {
    snapshot,
    blob,
    part: (etag) => `${blob(etag)}.mamba-ts.incomplete`,
    lock: (etag) => join(cacheFolder, '.locks', folderName, `${etag}.mamba-ts.lock`),
    ref,
    async commitOf(revision) {
      if (isCommit(revision)) return revision;
      const commit = (await readTextIfPresent(ref(revision)))?.trim() ?? '';
      return isCommit(commit) ? commit : null;
    },
    async note(revision, commit) {
      // The snapshot comes first: a ref without it is damage in the eyes of other programs.
      try {
        makeFolder(snapshot(commit));
      } catch (error) {
        throw fileError('hub', `to write ${snapshot(commit)}`, error);
      }
      if (revision === commit || (await readTextIfPresent(ref(revision))) === commit) return;
      await writeFileAtomic(ref(revision), commit);
    },
    list: (commit) => listFiles(snapshot(commit)),
    place: (etag, commit, name) => place(blob(etag), join(snapshot(commit), name), useSymlinks),
  };
}

/** Broken links and what else cannot be read count as absent. */
async function listFiles(root: string): Promise<HubFile[]> {
  const names = await readdir(root, { recursive: true }).catch(() => []);
  const found: HubFile[] = [];
  for (const name of names) {
    const info = await stat(join(root, name)).catch(() => null);
    if (info?.isFile()) found.push({ name: name.replaceAll('\\', '/'), sizeBytes: info.size });
  }
  return found;
}

/** Under a temporary name first, so that another process sees either the old pointer or the new one. */
async function place(blob: string, pointer: string, useSymlinks: boolean): Promise<void> {
  const folder = dirname(pointer);
  try {
    makeFolder(folder);
    const temporary = await claimTemporary(folder, basename(pointer));
    try {
      await pointTo(blob, temporary.path, useSymlinks);
      await rename(temporary.path, pointer);
    } catch (error) {
      await rm(temporary.path, { force: true });
      throw error;
    } finally {
      temporary.release();
    }
  } catch (error) {
    throw fileError('hub', `to write ${pointer}`, error);
  }
}

/** Windows grants symbolic links to few; a hard link costs no space either. */
async function pointTo(blob: string, path: string, useSymlinks: boolean): Promise<void> {
  const ways = [() => link(blob, path), () => copyFile(blob, path)];
  if (useSymlinks) ways.unshift(() => symlink(relative(dirname(path), blob), path));
  for (const [i, way] of ways.entries()) {
    try {
      return await way();
    } catch (error) {
      if (i === ways.length - 1) throw error;
    }
  }
}
