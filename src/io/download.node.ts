/**
 * Downloads a file over HTTP: resumes after a drop or a restart, retries with growing
 * pauses, renames when complete.
 */
import { closeSync, fsyncSync, openSync, rmSync, writeFileSync, writeSync } from 'node:fs';
import { rename, rm, stat } from 'node:fs/promises';
import { dirname } from 'node:path';
import { fileError, makeFolder, readTextIfPresent } from './file.ts';
import {
  bodyOf,
  DownloadError,
  Dropped,
  dropIfPassing,
  type RequestOptions,
  repeat,
  request,
} from './http.node.ts';

export interface DownloadOptions extends RequestOptions {
  onProgress?: (progress: { doneBytes: number; totalBytes: number | null }) => void;
  headers?: Readonly<Record<string, string>>;
  /** Where the part that has arrived is kept. Default: the path with `.part` behind it. */
  part?: string;
  /**
   * The exact size, for an address that stands for one content forever. Whatever is there of it
   * is taken up without asking whether the file has changed, and a server that speaks of another
   * size is refused. Default: unknown.
   */
  exactBytes?: number;
  /** Sees the complete file before it gets its name. When it throws, the file is deleted. */
  check?: (part: string) => Promise<void>;
  /** The error for a status that ends the download. Default: a DownloadError that tells the status. */
  refuse?: (response: Response) => Error;
}

/**
 * Fetches `url` into `path`. What has arrived stays in the part when an attempt or the process ends, with the
 * server's ETag or date in `part.json`; the next attempt asks for the rest (Range, If-Range) and starts over
 * if the file has changed. Throws DownloadError for an unreachable server, a status such as 404, a wrong
 * size, or too many drops; FileError when the disk refuses.
 */
export async function downloadFile(url: string, path: string, options: DownloadOptions = {}): Promise<void> {
  const { part = `${path}.part`, exactBytes } = options;
  try {
    makeFolder(dirname(part));
    const isComplete = exactBytes !== undefined && exactBytes > 0 && (await sizeOf(part)) === exactBytes;
    if (!isComplete) {
      await repeat(
        `all of ${url}`,
        options,
        () => attempt(url, part, options),
        () => sizeOf(part),
      );
    }
    await options.check?.(part).catch(async (error) => {
      await rm(part, { force: true });
      throw error;
    });
    await rename(part, path);
    await rm(`${part}.json`, { force: true });
  } catch (error) {
    throw fileError('download', `to write ${path}`, error);
  }
}

/**
 * Writes synchronously: when a connection breaks, the stream forgets what nobody has read yet, so
 * nothing may make the reader wait.
 */
async function attempt(url: string, part: string, options: DownloadOptions): Promise<void> {
  const { exactBytes } = options;
  const resume = await resumePoint(url, part, exactBytes);
  const headers: Record<string, string> = { ...options.headers, 'accept-encoding': 'identity' };
  if (resume) headers.range = `bytes=${resume.bytes}-`;
  if (resume?.validator) headers['if-range'] = resume.validator;
  await request(url, headers, options, async (response, alive) => {
    const { start, total } = await plan(response, url, part, resume?.bytes ?? 0, options);
    if (start === 0 && exactBytes === undefined) rememberValidator(url, part, response.headers);
    const file = openSync(part, start === 0 ? 'w' : 'a');
    try {
      let doneBytes = start;
      for await (const chunk of bodyOf(response)) {
        alive();
        if (exactBytes !== undefined && doneBytes + chunk.length > exactBytes) {
          rmSync(part, { force: true });
          throw wrongSize(url, exactBytes, 'more');
        }
        for (let at = 0; at < chunk.length; ) at += writeSync(file, chunk, at);
        doneBytes += chunk.length;
        options.onProgress?.({ doneBytes, totalBytes: total });
      }
      if (total !== null && doneBytes !== total) throw new Dropped(`${doneBytes} of ${total} bytes`);
      fsyncSync(file);
    } finally {
      closeSync(file);
    }
  });
}

/** Where the body starts in the file and how long the file will be; throws for every other answer. */
async function plan(
  response: Response,
  url: string,
  part: string,
  have: number,
  { exactBytes, refuse }: DownloadOptions,
): Promise<{ start: number; total: number | null }> {
  const { status } = response;
  const range = /^bytes (\d+)-\d+\/(\d+)$/.exec(response.headers.get('content-range') ?? '');
  const isRest = status === 206 && range !== null && Number(range[1]) === have;
  if (status === 200 || isRest) {
    const told = isRest ? Number(range[2]) : contentLength(response.headers);
    if (exactBytes === undefined || told === null || told === exactBytes)
      return { start: isRest ? have : 0, total: exactBytes ?? told };
    await response.body?.cancel();
    throw wrongSize(url, exactBytes, String(told));
  }
  await response.body?.cancel();
  if (status === 206 || status === 416) {
    await rm(part, { force: true }); // not what was asked for: start over
    throw new Dropped(`status ${status} for a range`);
  }
  dropIfPassing(response);
  if (refuse) throw refuse(response);
  throw new DownloadError(`download: expected a file at ${url}, got status ${status}. Check the address.`);
}

/** Null where the body is encoded all the same: then the length is not the file's. */
function contentLength(headers: Headers): number | null {
  const length = headers.get('content-length');
  const encoding = headers.get('content-encoding') ?? 'identity';
  return length === null || encoding !== 'identity' ? null : Number(length);
}

function wrongSize(url: string, expected: number, got: string): DownloadError {
  return new DownloadError(
    `download: expected ${expected} bytes at ${url}, got a server that sends ${got}. Try again later or use another mirror.`,
  );
}

interface Validator {
  url: string;
  validator: string;
}

async function resumePoint(
  url: string,
  part: string,
  exactBytes: number | undefined,
): Promise<{ bytes: number; validator: string | null } | null> {
  const bytes = await sizeOf(part);
  if (bytes === 0) return null;
  if (exactBytes !== undefined) return bytes < exactBytes ? { bytes, validator: null } : null;
  const text = await readTextIfPresent(`${part}.json`);
  if (text === null) return null;
  try {
    const known = JSON.parse(text) as Validator;
    return known.url === url ? { bytes, validator: known.validator } : null;
  } catch {
    return null; // not ours or damaged: start over
  }
}

/** Without a strong ETag or a date there is no safe way to resume, and nothing is remembered. */
function rememberValidator(url: string, part: string, headers: Headers): void {
  const etag = headers.get('etag');
  const validator = etag !== null && !etag.startsWith('W/') ? etag : headers.get('last-modified');
  rmSync(part, { force: true }); // before the validator changes, so that the two never mix
  rmSync(`${part}.json`, { force: true });
  if (validator !== null)
    writeFileSync(`${part}.json`, JSON.stringify({ url, validator } satisfies Validator));
}

/** 0 if there is no such file. */
export async function sizeOf(path: string): Promise<number> {
  return stat(path).then(
    (found) => found.size,
    () => 0,
  );
}
