/**
 * Models of a hub as files in the cache. With network: the revision's commit and listing, then what is
 * missing of the files that make the model. Without: what the cache has. A revision is noted in refs/ when
 * its files are complete, or at once if it is the first.
 */
import { join } from 'node:path';
import { MambaError } from '../base/errors.ts';
import { readText } from './file.ts';
import { DownloadError } from './http.node.ts';
import { listRevision, type RemoteFile } from './hub-api.node.ts';
import { fetchFile } from './hub-blob.node.ts';
import { type HubCache, type HubFile, hubCache } from './hub-cache.node.ts';
import { type Choice, chooseModel, chooseTokenizer, isIndex } from './hub-choice.ts';
import { checkRevision, type HubId, type HubSettings, isCommit } from './hub-settings.node.ts';
import { shardNames } from './shards.ts';

/** What loading a model of a hub tells. Files that are in the cache already are not told. */
export type LoadEvent =
  | {
      kind: 'file';
      /** The name inside the repository. */
      name: string;
      repo: string;
      doneBytes: number;
      totalBytes: number;
      /** `checking`: complete, its checksum is computed. */
      stage: 'downloading' | 'checking' | 'done';
    }
  /**
   * Something the user should know: the hub is unreachable and the cache is used, a
   * tokenizer comes from elsewhere.
   */
  | { kind: 'notice'; message: string }
  /** Nothing more will be downloaded: all is there, or it failed. */
  | { kind: 'end' };

export interface HubOptions {
  /** A branch, tag or commit. Default: main. */
  revision?: string;
  onProgress?: (event: LoadEvent) => void;
  /** Ends a download with the signal's reason; what has arrived is kept. */
  signal?: AbortSignal;
}

/** A set of files in a snapshot folder; `main` is the one that decides whether the set is complete. */
interface Wanted extends Choice {
  /** Files beside an index. */
  shards: readonly string[];
}

/** The path of a model's weights, or of their index, in the cache; its other files stand beside it. */
export async function fetchModel(id: HubId, options: HubOptions, settings: HubSettings): Promise<string> {
  const { repo, path } = id;
  const choose = (files: readonly HubFile[]): Choice => chooseModel(files, repo, path);
  const { folder, main } = await fetchSet(repo, choose, path !== null, options, settings);
  return join(folder, main);
}

/** The folder of a tokenizer in the cache. Throws DownloadError if the repository has none. */
export async function fetchTokenizer(
  repo: string,
  options: HubOptions,
  settings: HubSettings,
): Promise<string> {
  const choose = (files: readonly HubFile[]): Choice => {
    const [main, ...texts] = chooseTokenizer(files);
    if (main !== undefined) return { main, texts };
    throw new DownloadError(`hub: expected a tokenizer.json in ${repo}, got none. Name another tokenizer.`);
  };
  return (await fetchSet(repo, choose, true, options, settings)).folder;
}

/**
 * `isNamed`: the same choice whatever the cache has; else weights that are there win
 * over better ones that are not.
 */
async function fetchSet(
  repo: string,
  choose: (files: readonly HubFile[]) => Choice,
  isNamed: boolean,
  options: HubOptions,
  settings: HubSettings,
): Promise<{ folder: string; main: string }> {
  const { signal, onProgress: tell = () => {} } = options;
  const revision = checkRevision(options.revision ?? 'main');
  const cache = hubCache(settings, repo);
  const known = await cache.commitOf(revision);
  const local = await inCache(cache, known, choose);
  const found = (commit: string, { main }: Wanted) => ({ folder: cache.snapshot(commit), main });

  if (known !== null && local.set && (settings.isOffline || (isCommit(revision) && hasTokenizer(local.set))))
    return found(known, local.set);
  const whereItLooked = known === null ? cache.ref(revision) : cache.snapshot(known);
  if (settings.isOffline) {
    throw new DownloadError(
      `hub: expected ${repo} in the cache because HF_HUB_OFFLINE is set, got ${local.lack} (looked at ${whereItLooked}). ` +
        'Unset HF_HUB_OFFLINE, or copy the cache folder of a machine that has the model.',
    );
  }
  const requests = { ...settings.requests, signal };
  try {
    const remote = await listRevision(repo, revision, settings, {
      ...requests,
      ...(local.set ? { maxAttempts: 1, stallMs: 10_000, ...settings.requests } : {}),
    });
    const { commit } = remote;
    if (known === null) await cache.note(revision, commit);
    const set = await complete(repo, remote, choose, isNamed, cache, settings, options);
    await cache.note(revision, commit);
    return found(commit, set);
  } catch (error) {
    if (!(error instanceof DownloadError)) throw error;
    if (known !== null && local.set) {
      tell({ kind: 'notice', message: `${error.message} Going on with the files in ${whereItLooked}.` });
      return found(known, local.set);
    }
    throw new DownloadError(`${error.message} The cache has ${local.lack} (looked at ${whereItLooked}).`, {
      cause: error,
    });
  }
}

/** Downloads what the snapshot lacks. */
async function complete(
  repo: string,
  { commit, files }: { commit: string; files: RemoteFile[] },
  choose: (files: readonly HubFile[]) => Choice,
  isNamed: boolean,
  cache: HubCache,
  settings: HubSettings,
  { signal, onProgress: tell = () => {} }: HubOptions,
): Promise<Wanted> {
  const byName = new Map(files.map((file) => [file.name, file]));
  const isWhole = ({ name, sizeBytes }: HubFile): boolean => byName.get(name)?.sizeBytes === sizeBytes;
  const present = (await cache.list(commit)).filter(isWhole);
  const have = new Set(present.map(({ name }) => name));
  const get = async (name: string): Promise<void> => {
    const file = byName.get(name);
    if (!file) {
      throw new DownloadError(
        `hub: expected ${name} in ${repo}, as its index says, got no such file. Tell its owner.`,
      );
    }
    if (have.has(name)) return;
    const totalBytes = file.sizeBytes;
    let isTold = false;
    const report = (doneBytes: number, stage: 'downloading' | 'checking' | 'done'): void =>
      tell({ kind: 'file', name, repo, doneBytes, totalBytes, stage });
    await fetchFile(repo, commit, file, cache, settings, {
      ...settings.requests,
      signal,
      onProgress: (done) => {
        isTold = true;
        report(done, done < totalBytes ? 'downloading' : 'checking');
      },
      onNotice: (message) => tell({ kind: 'notice', message }),
    });
    have.add(name);
    if (isTold) report(totalBytes, 'done');
  };
  const choice = choose(files);
  const cached = isNamed ? null : (await inCache(cache, commit, choose, present)).set;
  const main = cached?.main ?? choice.main;
  for (const name of choice.texts) await get(name);
  await get(main);
  const shards = await shardsOf(cache, commit, main);
  for (const name of shards) await get(name);
  return { texts: choice.texts, main, shards };
}

/** What the cache has of the model at a commit: all of it, or what is lacking in words. */
async function inCache(
  cache: HubCache,
  commit: string | null,
  choose: (files: readonly HubFile[]) => Choice,
  files?: readonly HubFile[],
): Promise<{ set: Wanted | null; lack: string }> {
  if (commit === null) return { set: null, lack: 'nothing of it' };
  files ??= await cache.list(commit);
  const names = new Set(files.map(({ name }) => name));
  try {
    const choice = choose(files);
    const shards = await shardsOf(cache, commit, choice.main);
    const missing = shards.filter((name) => !names.has(name));
    if (missing.length === 0) return { set: { ...choice, shards }, lack: '' };
    return { set: null, lack: `a part of it without ${missing.join(', ')}` };
  } catch (error) {
    if (!(error instanceof MambaError)) throw error;
    const lack = files.length === 0 ? 'nothing of it' : `a part of it (${error.message})`;
    return { set: null, lack };
  }
}

/** Names inside the repository. */
async function shardsOf(cache: HubCache, commit: string, main: string): Promise<string[]> {
  if (!isIndex(main)) return [];
  const path = join(cache.snapshot(commit), main);
  const folder = main.slice(0, main.lastIndexOf('/') + 1);
  return shardNames(await readText(path), path).map((name) => folder + name);
}

const hasTokenizer = ({ texts, main }: Wanted): boolean =>
  /\.gguf$/i.test(main) || texts.some((name) => name.endsWith('tokenizer.json'));
