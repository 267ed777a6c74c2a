/** Downloads a file over HTTP: resumes after a drop or a restart, retries with growing pauses, renames when complete. */
import { closeSync, fsyncSync, openSync, rmSync, writeFileSync, writeSync } from 'node:fs';
import { mkdir, rename, rm, stat } from 'node:fs/promises';
import { dirname } from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';
import { MambaError } from '../base/errors.ts';
import { fileError, readTextIfPresent } from './file.ts';

/** The server or the network refused a download. `cause` is the underlying error, if there is one. */
export class DownloadError extends MambaError {
  readonly code = 'ERR_DOWNLOAD';
}

export interface DownloadOptions {
  onProgress?: (progress: { doneBytes: number; totalBytes: number | null }) => void;
  /** The pause before the first retry; it doubles each time. Default 500. */
  retryDelayMs?: number;
  /** Attempts in a row without new bytes before giving up. Default 5. */
  maxAttempts?: number;
  /** An attempt that receives nothing for this long is dropped. Default 60,000. */
  stallMs?: number;
}

/**
 * Fetches `url` into `path`. What has arrived stays in `path.part` when an attempt or the process ends, with the
 * server's ETag or date in `path.part.json`; the next attempt asks for the rest (Range, If-Range) and starts over if
 * the file has changed. Throws DownloadError for an unreachable server, a status such as 404, or too many
 * drops; FileError when the disk refuses.
 */
export async function downloadFile(url: string, path: string, options: DownloadOptions = {}): Promise<void> {
  const { retryDelayMs = 500, maxAttempts = 5 } = options;
  const part = `${path}.part`;
  let mostBytes = await sizeOf(part);
  for (let failures = 0; ; ) {
    try {
      await attempt(url, part, options);
      await rename(part, path);
      await rm(`${part}.json`, { force: true });
      return;
    } catch (error) {
      if (!(error instanceof Dropped)) throw fileError('download', `to write ${path}`, error);
      const bytes = await sizeOf(part);
      failures = bytes > mostBytes ? 1 : failures + 1;
      mostBytes = Math.max(mostBytes, bytes);
      if (failures >= maxAttempts) {
        throw new DownloadError(
          `download: expected all of ${url}, got ${error.message} after ${failures} attempts. ` +
            'Check the network and run again; what has arrived is kept.',
          { cause: error.cause },
        );
      }
      await pause(retryDelayMs * 2 ** (failures - 1));
    }
  }
}

/** An attempt that is worth repeating. */
class Dropped extends Error {}

/**
 * Writes synchronously: when a connection breaks, the stream forgets what nobody has read yet, so nothing may make the
 * reader wait.
 */
async function attempt(url: string, part: string, options: DownloadOptions): Promise<void> {
  const resume = await resumePoint(url, part);
  const controller = new AbortController();
  const timer = setTimeout(() => controller.abort(new Error('no answer')), options.stallMs ?? 60_000);
  try {
    const headers: Record<string, string> = { 'accept-encoding': 'identity' };
    if (resume) Object.assign(headers, { range: `bytes=${resume.bytes}-`, 'if-range': resume.validator });
    const response = await fetch(url, { headers, signal: controller.signal }).catch(dropped);
    const { start, total } = await plan(response, url, part, resume?.bytes ?? 0);
    if (start === 0) rememberValidator(url, part, response.headers);
    const file = openSync(part, start === 0 ? 'w' : 'a');
    try {
      let doneBytes = start;
      for await (const chunk of bodyOf(response)) {
        timer.refresh();
        for (let at = 0; at < chunk.length; ) at += writeSync(file, chunk, at);
        doneBytes += chunk.length;
        options.onProgress?.({ doneBytes, totalBytes: total });
      }
      if (total !== null && doneBytes !== total) throw new Dropped(`${doneBytes} of ${total} bytes`);
      fsyncSync(file);
    } finally {
      closeSync(file);
    }
  } finally {
    clearTimeout(timer);
  }
}

/** Where the body starts in the file and how long the file will be; throws for every other answer. */
async function plan(
  response: Response,
  url: string,
  part: string,
  have: number,
): Promise<{ start: number; total: number | null }> {
  const { status, headers } = response;
  const length = headers.get('content-length');
  if (status === 200) return { start: 0, total: length === null ? null : Number(length) };
  const range = /^bytes (\d+)-\d+\/(\d+)$/.exec(headers.get('content-range') ?? '');
  if (status === 206 && range && Number(range[1]) === have) return { start: have, total: Number(range[2]) };
  await response.body?.cancel();
  if (status === 206 || status === 416) {
    await rm(part, { force: true }); // not what was asked for: start over
    throw new Dropped(`status ${status} for a range`);
  }
  if (status >= 500 || status === 408 || status === 429) throw new Dropped(`status ${status}`);
  throw new DownloadError(`download: expected a file at ${url}, got status ${status}. Check the address.`);
}

async function* bodyOf(response: Response): AsyncGenerator<Uint8Array> {
  if (response.body === null) return;
  const reader = response.body.getReader();
  try {
    for (;;) {
      const { done, value } = await reader.read().catch(dropped);
      if (done) return;
      yield value;
    }
  } finally {
    await reader.cancel().catch(() => {});
  }
}

/** fetch hides the reason in `cause`. */
function dropped(error: unknown): never {
  const { message, cause } = error as Error;
  const reason = cause instanceof Error && cause.message !== '' ? cause.message : message;
  throw new Dropped(reason, { cause: error });
}

interface Validator {
  url: string;
  validator: string;
}

async function resumePoint(url: string, part: string): Promise<{ bytes: number; validator: string } | null> {
  await mkdir(dirname(part), { recursive: true });
  const text = await readTextIfPresent(`${part}.json`);
  const bytes = await sizeOf(part);
  if (text === null || bytes === 0) return null;
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

async function sizeOf(path: string): Promise<number> {
  return stat(path).then(
    (found) => found.size,
    () => 0,
  );
}
