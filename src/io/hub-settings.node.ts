/**
 * What the environment says about the hub, under the names that Hugging Face's own
 * programs use; and what is a hub id.
 */
import { homedir } from 'node:os';
import { join } from 'node:path';
import { ConfigError } from '../base/errors.ts';
import { readTextIfPresent } from './file.ts';
import type { RequestOptions } from './http.node.ts';

export interface HubSettings {
  /** Without a slash at the end. */
  endpoint: string;
  /** The folder that holds models--org--name. */
  cacheFolder: string;
  token: string | null;
  /** Where a token would be read from, for messages. */
  tokenFile: string;
  isOffline: boolean;
  /** Whether snapshots link to blobs. Where links are impossible they are copied in any case. */
  useSymlinks: boolean;
  /** Times and counts of requests. */
  requests: RequestOptions;
}

type Environment = Readonly<Record<string, string | undefined>>;

/**
 * HF_ENDPOINT; HF_HUB_CACHE (or HUGGINGFACE_HUB_CACHE), else HF_HOME/hub, else
 * XDG_CACHE_HOME/huggingface/hub, else ~/.cache/huggingface/hub; HF_TOKEN (or HUGGING_FACE_HUB_TOKEN), else
 * the file HF_TOKEN_PATH, else HF_HOME/token; HF_HUB_OFFLINE or TRANSFORMERS_OFFLINE;
 * HF_HUB_DISABLE_SYMLINKS. An empty variable counts as unset.
 */
export async function hubSettings(env: Environment = process.env): Promise<HubSettings> {
  const caches = folder(env.XDG_CACHE_HOME) ?? join(homedir(), '.cache');
  const home = folder(env.HF_HOME) ?? join(caches, 'huggingface');
  const tokenFile = folder(env.HF_TOKEN_PATH) ?? join(home, 'token');
  const given = env.HF_TOKEN || env.HUGGING_FACE_HUB_TOKEN || (await readTextIfPresent(tokenFile)) || '';
  return {
    endpoint: checkEndpoint(env.HF_ENDPOINT || 'https://huggingface.co'),
    cacheFolder: folder(env.HF_HUB_CACHE) ?? folder(env.HUGGINGFACE_HUB_CACHE) ?? join(home, 'hub'),
    token: checkToken(given.trim(), tokenFile),
    tokenFile,
    isOffline: isTrue(env.HF_HUB_OFFLINE || env.TRANSFORMERS_OFFLINE),
    useSymlinks: !isTrue(env.HF_HUB_DISABLE_SYMLINKS),
    requests: {},
  };
}

const isTrue = (value: string | undefined): boolean => /^(1|on|yes|true)$/i.test(value ?? '');

/** Nobody expands the ~ of a variable that does not come from a shell. */
function folder(value: string | undefined): string | undefined {
  if (!value) return undefined;
  return value === '~' || /^~[/\\]/.test(value) ? join(homedir(), value.slice(1)) : value;
}

function checkEndpoint(text: string): string {
  const url = URL.canParse(text) ? new URL(text) : null;
  if (url && /^https?:$/.test(url.protocol)) return text.replace(/\/+$/, '');
  throw new ConfigError(
    `hub: expected HF_ENDPOINT to be an address such as https://huggingface.co, got ${JSON.stringify(text)}.`,
  );
}

/** A header takes printable ASCII only; the token itself is never shown. */
function checkToken(token: string, tokenFile: string): string | null {
  if (token === '') return null;
  if (/^[\x21-\x7e]+$/.test(token)) return token;
  throw new ConfigError(
    `hub: expected one word as token, got something else. Check HF_TOKEN and ${tokenFile}.`,
  );
}

/** A model on a hub: `org/name`, or a file in it: `org/name/path/file.gguf`. */
export interface HubId {
  /** org/name. */
  repo: string;
  /** The file, or a folder that holds a model; null for the model at the top. */
  path: string | null;
}

const PART = /^\w(?:[\w.-]*\w)?$/;
const MAX_PART = 96;

/** Null for what cannot be a hub id: absolute paths, `./x/y`, single words. */
export function parseHubId(text: string): HubId | null {
  const parts = text.split('/');
  const [org, name, ...path] = parts;
  if (org === undefined || name === undefined) return null;
  for (const part of [org, name]) {
    if (!PART.test(part) || part.length > MAX_PART || part.includes('--') || part.includes('..')) return null;
  }
  if (path.length > 0 && !isSafePath(path.join('/'))) return null;
  return { repo: `${org}/${name}`, path: path.length > 0 ? path.join('/') : null };
}

/** Whether a name from elsewhere stays below the folder it is put in, on every system. */
export function isSafePath(path: string): boolean {
  return path
    .split('/')
    .every((part) => part !== '' && part !== '.' && part !== '..' && !/[\\:*?"<>|]|\p{Cc}/u.test(part));
}

export const isCommit = (text: string): boolean => /^[0-9a-f]{40}$/.test(text);

/** Throws ConfigError for what can be no branch, tag or commit. */
export function checkRevision(revision: string): string {
  if (isSafePath(revision) && !/\s|^-|\.lock$/.test(revision)) return revision;
  throw new ConfigError(
    `hub: expected a branch, tag or commit as revision, got ${JSON.stringify(revision)}. Leave it out for main.`,
  );
}
