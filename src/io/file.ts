/**
 * Files in Node: ranged reads, texts, and writes that leave either the old or the new file,
 * never a half. A file is written under a temporary name in the same folder, flushed to the
 * disk, and renamed over the old one.
 */
import { constants, mkdirSync, type Stats, statSync } from 'node:fs';
import { type FileHandle, open, readdir, readFile, realpath, rename, rm, stat } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { FormatError, MambaError } from '../base/errors.ts';
import type { ByteSource } from '../base/source.ts';
import { type JsonObject, parseJsonObject } from './json.ts';

/** The operating system refused a path: missing, a folder, no permission, disk full. `cause` is its error. */
export class FileError extends MambaError {
  readonly code = 'ERR_FILE';
}

/** What a file consists of; pieces are written in order, one at a time. */
export type FileContent = string | Uint8Array | Iterable<Uint8Array> | AsyncIterable<Uint8Array>;

const REASONS: Record<string, [reason: string, remedy: string]> = {
  ENOENT: ['nothing at this path', 'Check the path.'],
  EEXIST: ['a file in the place of a folder', 'Give the path of a folder.'],
  ENOTDIR: ['a path that leads through a file', 'Check the path.'],
  EISDIR: ['a folder', 'Give the path of a file.'],
  EACCES: ['no permission', 'Change the permissions or choose another path.'],
  EPERM: ['no permission', 'Change the permissions or choose another path.'],
  EROFS: ['a read-only file system', 'Choose another path.'],
  ENOSPC: [
    'no space left on the device',
    'Free some space and try again; what was there before is untouched.',
  ],
  EDQUOT: ['the disk quota used up', 'Free some space and try again; what was there before is untouched.'],
  EFBIG: ['the file size limit reached', 'Raise the limit (ulimit -f); what was there before is untouched.'],
  EMFILE: ['too many open files', 'Close some, or raise the limit (ulimit -n).'],
};

export function errorCode(error: unknown): string {
  return error instanceof Error && 'code' in error ? String(error.code) : '';
}

/** An error of the operating system as a FileError; errors of this library pass unchanged. */
export function fileError(op: string, expected: string, error: unknown): Error {
  if (error instanceof MambaError) return error;
  const code = errorCode(error);
  if (code === '' && error instanceof Error) return error; // not the system's: a bug or a caller's own error
  const [reason, remedy] = REASONS[code] ?? [String(error), 'Check the path and the device.'];
  return new FileError(`${op}: expected ${expected}, got ${reason}. ${remedy}`, { cause: error });
}

/** Node reads and writes at most 2 GiB per call. */
const MAX_CALL_BYTES = 1 << 30;

/** A file for ranged reads; nothing is read before it is asked for. Close it. */
export async function fileSource(path: string): Promise<ByteSource> {
  const op = 'openFile';
  const refuse = (error: unknown): never => {
    throw fileError(op, `a readable file ${path}`, error);
  };
  const kind = await stat(path).catch(refuse);
  if (!kind.isFile()) {
    // Before opening: that of a pipe would wait for a writer.
    const got = kind.isDirectory() ? 'a folder' : 'a device or pipe';
    throw new FileError(`${op}: expected a file at ${path}, got ${got}. Give the path of a file.`);
  }
  const file = await open(path, 'r').catch(refuse);
  const info = await file.stat();
  return {
    name: path,
    sizeBytes: info.size,
    read: async (start, end) => {
      if (!(start >= 0 && start <= end && end <= info.size)) {
        throw new FormatError(`${path}: expected bytes ${start}..${end}, got a file of ${info.size} bytes.`);
      }
      const out = new Uint8Array(end - start);
      for (let at = 0; at < out.length; ) {
        const length = Math.min(out.length - at, MAX_CALL_BYTES);
        const { bytesRead } = await file.read(out, at, length, start + at).catch((error) => {
          throw fileError('readFile', `bytes ${start}..${end} of ${path}`, error);
        });
        if (bytesRead === 0) {
          throw new FormatError(
            `${path}: expected bytes ${start}..${end}, got the end at ${start + at}. It was cut.`,
          );
        }
        at += bytesRead;
      }
      return out;
    },
    close: () => file.close(),
  };
}

/** Throws FileError unless something is at `path`. */
export async function expectPath(op: string, what: string, path: string): Promise<Stats> {
  return stat(path).catch((error) => {
    throw fileError(op, `${what} at ${path}`, error);
  });
}

export async function isPresent(path: string): Promise<boolean> {
  return stat(path).then(
    () => true,
    () => false,
  );
}

/** A UTF-8 text without its byte order mark; other bytes are a FormatError. */
export async function readText(path: string): Promise<string> {
  const bytes = await readFile(path).catch((error) => {
    throw fileError('readText', `a readable file ${path}`, error);
  });
  try {
    return new TextDecoder('utf-8', { fatal: true }).decode(bytes);
  } catch (error) {
    throw new FormatError(`readText: expected UTF-8 in ${path}, got other bytes. Save it as UTF-8.`, {
      cause: error,
    });
  }
}

/** Like readText; null if there is no such file. */
export async function readTextIfPresent(path: string): Promise<string | null> {
  try {
    return await readText(path);
  } catch (error) {
    if (error instanceof FileError && errorCode(error.cause) === 'ENOENT') return null;
    throw error;
  }
}

/** A JSON object; NaN and Infinity are allowed, errors name line and column. */
export async function readJson(path: string): Promise<JsonObject> {
  return parseJsonObject(await readText(path), path);
}

/** Creates `path` with `content` and flushes it to the disk; whatever was there is overwritten in place. */
export async function writeFileSynced(path: string, content: FileContent): Promise<void> {
  const file = await open(path, 'w');
  try {
    for await (const piece of pieces(content)) await writeFully(file, piece);
    await file.sync();
  } finally {
    await file.close();
  }
}

function pieces(content: FileContent): Iterable<Uint8Array> | AsyncIterable<Uint8Array> {
  if (typeof content === 'string') return [new TextEncoder().encode(content)];
  return content instanceof Uint8Array ? [content] : content;
}

async function writeFully(file: FileHandle, bytes: Uint8Array): Promise<void> {
  for (let at = 0; at < bytes.length; ) {
    const length = Math.min(bytes.length - at, MAX_CALL_BYTES);
    at += (await file.write(bytes, at, length)).bytesWritten;
  }
}

/** Makes the renames in a folder durable. Windows cannot open folders and needs no such call. */
export async function syncFolder(folder: string): Promise<void> {
  if (process.platform === 'win32') return;
  const handle = await open(folder, constants.O_RDONLY);
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
}

let counter = 0;
const active = new Set<string>();

/**
 * A temporary name in `folder` that tells whose it is: `.name.tmp-PID-N`. Before that, names whose process is
 * gone are removed with what they hold. Call `release` when the name is renamed or deleted.
 */
export async function claimTemporary(
  folder: string,
  name: string,
): Promise<{ path: string; release: () => void }> {
  const prefix = `.${name}.tmp-`;
  for (const entry of await readdir(folder)) {
    const owner = entry.startsWith(prefix) ? /^(\d+)-\d+$/.exec(entry.slice(prefix.length))?.[1] : undefined;
    const path = join(folder, entry);
    if (owner !== undefined && !active.has(path) && !isOtherLiveProcess(Number(owner))) {
      await rm(path, { recursive: true, force: true });
    }
  }
  const path = join(folder, `${prefix}${process.pid}-${counter++}`);
  active.add(path);
  return { path, release: () => active.delete(path) };
}

/** Own names that are not active stem from an earlier process with the same id (usual in containers). */
export function isOtherLiveProcess(pid: number): boolean {
  if (pid === process.pid) return false;
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return errorCode(error) === 'EPERM';
  }
}

/**
 * Makes a folder and those above it, unless they are there. Node's own recursive mkdir never returns where a
 * parent exists and yet nothing can be made in it, as in /proc.
 */
export function makeFolder(path: string): void {
  const isThere = () => statSync(path, { throwIfNoEntry: false })?.isDirectory() ?? false;
  if (isThere()) return;
  const parent = dirname(path);
  if (parent !== path) makeFolder(parent);
  try {
    mkdirSync(path);
  } catch (error) {
    if (!isThere()) throw error; // another process may have been faster
  }
}

/** The place a path stands for: writing through a symbolic link keeps the link. */
export async function resolveLinks(path: string): Promise<string> {
  return realpath(path).catch(() => path);
}

/**
 * Replaces or creates the file `path`, and its folder if needed. On any failure (disk full, kill, an
 * error thrown by `content`) the previous file is intact; the temporary file is removed at once or,
 * after a kill, by the next write.
 */
export async function writeFileAtomic(path: string, content: FileContent): Promise<void> {
  const expected = `to write ${path}`;
  try {
    makeFolder(dirname(path));
    const target = await resolveLinks(path);
    const folder = dirname(target);
    const temporary = await claimTemporary(folder, basename(target));
    try {
      await writeFileSynced(temporary.path, content);
      await rename(temporary.path, target);
    } catch (error) {
      await rm(temporary.path, { force: true });
      throw error;
    } finally {
      temporary.release();
    }
    await syncFolder(folder);
  } catch (error) {
    throw fileError('writeFileAtomic', expected, error);
  }
}
