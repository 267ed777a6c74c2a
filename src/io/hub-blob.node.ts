/**
 * One file of a hub into the cache: locked, resumed, checked against its name,
 * and only then visible to anybody.
 */
import { createHash } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { rm } from 'node:fs/promises';
import { FormatError } from '../base/errors.ts';
import { downloadFile, sizeOf } from './download.node.ts';
import { fileError } from './file.ts';
import type { RequestOptions } from './http.node.ts';
import { authorization, type RemoteFile, refusal } from './hub-api.node.ts';
import type { HubCache } from './hub-cache.node.ts';
import { withLock } from './hub-lock.node.ts';
import type { HubSettings } from './hub-settings.node.ts';

export interface BlobOptions extends RequestOptions {
  onProgress: (doneBytes: number) => void;
  onNotice: (message: string) => void;
}

/** Makes `file` of `repo` at `commit` a file of the cache's snapshot. */
export async function fetchFile(
  repo: string,
  commit: string,
  file: RemoteFile,
  cache: HubCache,
  settings: HubSettings,
  options: BlobOptions,
): Promise<void> {
  const { name, sizeBytes, etag } = file;
  const { signal, onNotice } = options;
  const lock = cache.lock(etag);
  const onWait = (): void => onNotice(`${name}: another process downloads it, waiting (${lock})`);
  await withLock(lock, { signal, onWait }, async () => {
    const part = cache.part(etag);
    if ((await sizeOf(cache.blob(etag))) !== sizeBytes || sizeBytes === 0) {
      const wasStarted = (await sizeOf(part)) > 0;
      try {
        await download(repo, commit, file, cache, settings, options);
      } catch (error) {
        if (!(error instanceof ChecksumError && wasStarted)) throw error;
        onNotice(`${name}: what an earlier download had left is damaged, starting over`);
        await download(repo, commit, file, cache, settings, options);
      }
    }
    await rm(part, { force: true }); // of no use if somebody else has brought the blob
    await cache.place(etag, commit, name);
  });
}

async function download(
  repo: string,
  commit: string,
  file: RemoteFile,
  cache: HubCache,
  settings: HubSettings,
  options: BlobOptions,
): Promise<void> {
  const { name, sizeBytes, etag } = file;
  const address = name.split('/').map(encodeURIComponent).join('/');
  const url = `${settings.endpoint}/${repo}/resolve/${commit}/${address}`;
  await downloadFile(url, cache.blob(etag), {
    ...options,
    part: cache.part(etag),
    exactBytes: sizeBytes,
    headers: authorization(url, settings),
    refuse: (response) => refusal(response, settings, repo, commit, name),
    check: (part) => checkContent(part, file, repo),
    onProgress: ({ doneBytes }) => options.onProgress(doneBytes),
  });
}

/** What arrived is not what the hub has listed. */
class ChecksumError extends FormatError {}

/** Large files are named by their sha256, small ones as git names them. */
async function checkContent(
  path: string,
  { name, sizeBytes, etag }: RemoteFile,
  repo: string,
): Promise<void> {
  const isLarge = etag.length === 64;
  const hash = createHash(isLarge ? 'sha256' : 'sha1');
  if (!isLarge) hash.update(`blob ${sizeBytes}\0`);
  try {
    for await (const chunk of createReadStream(path, { highWaterMark: 1 << 20 }))
      hash.update(chunk as Buffer);
  } catch (error) {
    throw fileError('hub', `to read ${path}`, error);
  }
  const digest = hash.digest('hex');
  if (digest === etag) return;
  throw new ChecksumError(
    `hub: expected ${isLarge ? 'sha256' : 'git sha1'} ${etag} for ${name} of ${repo}, got ${digest}. ` +
      'It was damaged on the way and has been deleted; run again.',
  );
}
