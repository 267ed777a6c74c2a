/**
 * What we ask of a hub: the commit behind a revision, and its files. `@huggingface/hub` knows the addresses
 * and pages; repetition, token and errors are ours. The token goes to the endpoint only.
 */
import { FormatError, MambaError } from '../base/errors.ts';
import { bodyOf, DownloadError, dropIfPassing, type RequestOptions, repeat, request } from './http.node.ts';
import type { HubFile } from './hub-cache.node.ts';
import { type HubSettings, isCommit, isSafePath } from './hub-settings.node.ts';

/** A file as the hub lists it. */
export interface RemoteFile extends HubFile {
  /** The name of its blob: sha256 of a large file, git blob id (sha1) of a small one. */
  etag: string;
}

export interface HubRevision {
  commit: string;
  files: RemoteFile[];
}

const MAX_FILES = 100_000;
const MAX_REQUESTS = 200;
const MAX_ANSWER_BYTES = 64_000_000;

/**
 * The files of a repository at a branch, tag or commit. Throws DownloadError when the hub cannot be reached
 * or refuses, FormatError for names that would lead out of the cache.
 */
export async function listRevision(
  repo: string,
  revision: string,
  settings: HubSettings,
  options: RequestOptions,
): Promise<HubRevision> {
  const { endpoint: hubUrl } = settings;
  const get = hubFetch(repo, revision, settings, options);
  try {
    const { listFiles, modelInfo } = await import('@huggingface/hub');
    const { sha } = await modelInfo({ name: repo, revision, hubUrl, fetch: get, additionalFields: ['sha'] });
    if (typeof sha !== 'string' || !isCommit(sha)) throw wrongAnswer(repo, hubUrl, `commit ${String(sha)}`);
    const files: RemoteFile[] = [];
    const repoId = { type: 'model', name: repo } as const;
    for await (const entry of listFiles({
      repo: repoId,
      revision: sha,
      recursive: true,
      hubUrl,
      fetch: get,
    })) {
      if (entry.type !== 'file') continue;
      if (files.length >= MAX_FILES) throw wrongAnswer(repo, hubUrl, `more than ${MAX_FILES} files`);
      files.push(checkEntry(entry, repo, hubUrl));
    }
    return { commit: sha, files };
  } catch (error) {
    options.signal?.throwIfAborted();
    if (error instanceof MambaError) throw error;
    throw wrongAnswer(repo, hubUrl, (error as Error).message); // JSON or fields the library stumbles over
  }
}

function wrongAnswer(repo: string, endpoint: string, got: string): DownloadError {
  return new DownloadError(
    `hub: expected an answer about ${repo} from ${endpoint}, got ${got}. Is that a hub, and the network free of a sign-in page?`,
  );
}

function checkEntry(
  { path, size, oid, lfs }: { path: string; size: number; oid?: string; lfs?: { oid: string; size: number } },
  repo: string,
  endpoint: string,
): RemoteFile {
  if (typeof path !== 'string' || !isSafePath(path)) {
    throw new FormatError(
      `hub: expected relative file names in ${repo}, got ${JSON.stringify(path)}. The repository is not safe to download.`,
    );
  }
  const etag = lfs?.oid ?? oid ?? '';
  const sizeBytes = lfs?.size ?? size;
  if (
    (lfs ? /^[0-9a-f]{64}$/ : /^[0-9a-f]{40}$/).test(etag) &&
    Number.isSafeInteger(sizeBytes) &&
    sizeBytes >= 0
  )
    return { name: path, sizeBytes, etag };
  throw wrongAnswer(repo, endpoint, `checksum ${etag} and size ${sizeBytes} for ${path}`);
}

/** The header that identifies the user; only for addresses of the endpoint. */
export function authorization(url: string, { endpoint, token }: HubSettings): Record<string, string> {
  const isOurs = new URL(url).origin === new URL(endpoint).origin;
  return token !== null && isOurs ? { authorization: `Bearer ${token}` } : {};
}

/** A fetch for the library: an answer comes whole or as one of our errors. */
function hubFetch(
  repo: string,
  revision: string,
  settings: HubSettings,
  options: RequestOptions,
): typeof fetch {
  let requests = 0;
  return async (input) => {
    const url = String(input);
    if (++requests > MAX_REQUESTS) throw wrongAnswer(repo, settings.endpoint, 'pages without end');
    const headers = { accept: 'application/json', ...authorization(url, settings) };
    return repeat(`an answer from ${url}`, options, () =>
      request(url, headers, options, async (response, alive) => {
        if (!response.ok) {
          await response.body?.cancel();
          dropIfPassing(response);
          throw refusal(response, settings, repo, revision);
        }
        const chunks: Uint8Array[] = [];
        let size = 0;
        for await (const chunk of bodyOf(response)) {
          alive();
          chunks.push(chunk);
          if ((size += chunk.length) > MAX_ANSWER_BYTES)
            throw wrongAnswer(repo, settings.endpoint, 'an answer without end');
        }
        return new Response(Buffer.concat(chunks), { headers: response.headers });
      }),
    );
  };
}

/** A final status of the hub in words; `file` for that of a file. */
export function refusal(
  { status, headers }: Response,
  { endpoint, token, tokenFile }: HubSettings,
  repo: string,
  revision: string,
  file?: string,
): Error {
  const reason = headers.get('x-error-code');
  const said = headers.get('x-error-message')?.replace(/\p{Cc}/gu, ' ');
  const got = `status ${status}${said ? ` (${said.slice(0, 300)})` : ''}`;
  const sent = token === null ? 'No token was sent.' : 'A token was sent.';
  const remedyForToken = `set HF_TOKEN, or put the token into ${tokenFile}`;
  if (reason === 'GatedRepo' || (status === 403 && /gated|restricted|awaiting/i.test(said ?? ''))) {
    return new DownloadError(
      `hub: expected access to ${repo}, got ${got}. The model is gated: accept its licence at ${endpoint}/${repo} and ${remedyForToken}. ${sent}`,
    );
  }
  if (reason === 'EntryNotFound') {
    return new DownloadError(`hub: expected ${file ?? 'a file'} in ${repo} at ${revision}, got ${got}.`);
  }
  if (reason === 'RevisionNotFound') {
    return new DownloadError(
      `hub: expected a revision ${revision} of ${repo}, got ${got}. Check the branch, tag or commit.`,
    );
  }
  if (token !== null && status === 401 && reason !== 'RepoNotFound') {
    return new DownloadError(
      `hub: expected ${endpoint} to accept the token, got ${got}. Check HF_TOKEN and ${tokenFile}.`,
    );
  }
  if (status === 401 || status === 404) {
    return new DownloadError(
      `hub: expected a model ${repo} at ${endpoint}, got ${got}. Check the name; if the model is private, ${remedyForToken}. ${sent}`,
    );
  }
  const remedy = status === 403 ? `Check the rights of your token. ${sent}` : 'Try again later.';
  return new DownloadError(
    `hub: expected ${file ?? 'the files'} of ${repo} from ${endpoint}, got ${got}. ${remedy}`,
  );
}
