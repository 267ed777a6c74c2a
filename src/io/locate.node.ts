/**
 * From what a user names to files on disk: a path, or the id of a model on a hub, and the tokenizer that goes
 * with it. A path that exists always wins; `./x/y` and absolute paths are never ids.
 */
import { stat } from 'node:fs/promises';
import { dirname } from 'node:path';
import { ConfigError } from '../base/errors.ts';
import type { ModelConfig } from '../models/config.ts';
import { isPresent } from './file.ts';
import { DownloadError } from './http.node.ts';
import { fetchModel, fetchTokenizer, type HubOptions } from './hub.node.ts';
import { type HubId, type HubSettings, hubSettings, parseHubId } from './hub-settings.node.ts';

export interface LocateOptions extends HubOptions {
  /** Another tokenizer than the model's: a folder with tokenizer.json, that file, or a hub id. */
  tokenizer?: string;
}

export interface Place {
  path: string;
  isFromHub: boolean;
}

/** Throws DownloadError for an id that neither a path, nor the hub, nor the cache knows. */
export async function locateModel(idOrPath: string, options: LocateOptions): Promise<Place> {
  const { revision } = options;
  if (revision !== undefined && (parseHubId(idOrPath) === null || (await isPresent(idOrPath)))) {
    throw new ConfigError(
      `openPretrained: expected a hub id beside revision ${revision}, got the path ${idOrPath}. Leave the revision out.`,
    );
  }
  return locate(idOrPath, (id, settings) => fetchModel(id, options, settings));
}

/** The folder of a tokenizer. */
export async function locateTokenizer(idOrPath: string, options: LocateOptions): Promise<string> {
  // A revision is the model's.
  const { path } = await locate(idOrPath, ({ repo }, settings) =>
    fetchTokenizer(repo, { ...options, revision: undefined }, settings),
  );
  const found = await stat(path).catch(() => null);
  return found?.isFile() ? dirname(path) : path;
}

async function locate(
  idOrPath: string,
  fetch: (id: HubId, settings: HubSettings) => Promise<string>,
): Promise<Place> {
  const id = parseHubId(idOrPath);
  if (id === null || (await isPresent(idOrPath))) return { path: idOrPath, isFromHub: false };
  try {
    return { path: await fetch(id, await hubSettings()), isFromHub: true };
  } catch (error) {
    if (!(error instanceof DownloadError)) throw error;
    throw new DownloadError(
      `There is no file or folder ${idOrPath}, and as a model of a hub it could not be fetched: ${error.message}`,
      { cause: error },
    );
  }
}

/** Tokenizers of models whose repositories have none, by the rows of the embedding. */
const KNOWN_TOKENIZERS = [
  // The models of the Mamba papers: 50277 tokens, padded to a multiple of 8 or 16.
  { repo: 'EleutherAI/gpt-neox-20b', vocabularies: [50277, 50280, 50288] },
] as const;

/**
 * The folder of the tokenizer that a model from a hub was trained with; null, with a notice, where it
 * is not known or not to be had.
 */
export async function knownTokenizer(
  { vocab_size }: ModelConfig,
  name: string,
  options: LocateOptions,
): Promise<string | null> {
  const { onProgress: tell = () => {} } = options;
  const known = KNOWN_TOKENIZERS.find(({ vocabularies }) => vocabularies.some((size) => size === vocab_size));
  if (!known) return null;
  const { repo } = known;
  try {
    const folder = await locateTokenizer(repo, options);
    const message = `${name} has no tokenizer; its vocabulary of ${vocab_size} is that of ${repo}, which is used.`;
    tell({ kind: 'notice', message });
    return folder;
  } catch (error) {
    if (!(error instanceof DownloadError)) throw error;
    tell({
      kind: 'notice',
      message: `${name} has no tokenizer, and that of ${repo} is not to be had. ${error.message}`,
    });
    return null;
  }
}
