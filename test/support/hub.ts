/**
 * A small stand-in for a model hub on this machine: the API for a revision and its tree, resolve addresses with the headers that the
 * real one sends, and large files on a second host behind a redirect. It can be told to misbehave.
 */
import { createHash } from 'node:crypto';
import { mkdtemp, rm } from 'node:fs/promises';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { HubSettings } from '../../src/io/hub-settings.node.ts';

/** Files from this size on are kept like those of git LFS. */
export const LARGE = 10_000;

export interface FakeRepo {
  /** Branch or tag to commit. */
  refs: Record<string, string>;
  /** Commit to files. */
  commits: Record<string, Record<string, Buffer>>;
  /** Needed to see it. */
  token?: string;
  gated?: boolean;
}

/** The part of a request that tests look at. */
export interface Seen {
  host: 'hub' | 'cdn';
  path: string;
  range: string | undefined;
  authorization: string | undefined;
}

/** Answers and returns true, or leaves the request to the hub. */
export type Mischief = (seen: Seen, response: ServerResponse, request: IncomingMessage) => boolean;

export interface FakeHub {
  endpoint: string;
  /** Of its own, deleted by `close`. */
  folder: string;
  settings: HubSettings;
  repos: Map<string, FakeRepo>;
  seen: Seen[];
  mischief: Mischief;
  /** At most this many bytes per answer with a file, then the connection breaks. */
  breakAfter: number;
  /** Files per page of a listing. */
  pageSize: number;
  /** Paths of files asked for, large ones once per redirect. */
  fetched(): string[];
  add(id: string, files: Record<string, string | Buffer>, more?: Partial<FakeRepo>): FakeRepo;
  stop(): Promise<void>;
  close(): Promise<void>;
}

export const COMMIT = 'a'.repeat(40);
export const COMMIT_2 = 'b'.repeat(40);

const isLarge = (content: Buffer): boolean => content.length >= LARGE;

/** What the content is called among the blobs. */
export function etagOf(content: Buffer): string {
  if (isLarge(content)) return createHash('sha256').update(content).digest('hex');
  return createHash('sha1').update(`blob ${content.length}\0`).update(content).digest('hex');
}

export async function fakeHub(): Promise<FakeHub> {
  const folder = await mkdtemp(join(tmpdir(), 'mamba-hub-'));
  const contents = new Map<string, Buffer>();
  const servers: Server[] = [];
  const listen = async (host: Seen['host'], answer: (seen: Seen, response: ServerResponse) => void) => {
    const server = createServer((request, response) => {
      const seen: Seen = {
        host,
        path: request.url ?? '',
        range: request.headers.range,
        authorization: request.headers.authorization,
      };
      hub.seen.push(seen);
      if (!hub.mischief(seen, response, request)) answer(seen, response);
    });
    servers.push(server);
    await new Promise<void>((listening) => server.listen(0, '127.0.0.1', listening));
    return `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  };

  const send = (content: Buffer, { range }: Seen, response: ServerResponse): void => {
    const start = Number(/^bytes=(\d+)-$/.exec(range ?? '')?.[1] ?? 0);
    response.setHeader('accept-ranges', 'bytes');
    response.setHeader('content-length', content.length - start);
    if (start > 0)
      response.setHeader('content-range', `bytes ${start}-${content.length - 1}/${content.length}`);
    response.writeHead(start > 0 ? 206 : 200);
    if (content.length - start <= hub.breakAfter) response.end(content.subarray(start));
    else response.write(content.subarray(start, start + hub.breakAfter), () => response.destroy());
  };

  const cdn = await listen('cdn', (seen, response) => {
    const content = contents.get(seen.path.slice(1));
    if (content) send(content, seen, response);
    else response.writeHead(404).end();
  });

  const refuse = (response: ServerResponse, status: number, code: string, message: string): void => {
    response.writeHead(status, { 'x-error-code': code, 'x-error-message': message }).end();
  };
  const endpoint = await listen('hub', (seen, response) => {
    const { pathname, searchParams } = new URL(seen.path, 'http://hub');
    const api = /^\/api\/models\/([^/]+\/[^/]+)\/(revision|tree)\/([^/]+)$/.exec(pathname);
    const file = /^\/([^/]+\/[^/]+)\/resolve\/([^/]+)\/(.+)$/.exec(pathname);
    const [, id = '', kind, encoded = ''] = api ?? (file ? [file[0], file[1], 'file', file[2]] : []);
    const repo = hub.repos.get(id);
    if (!repo || (repo.token !== undefined && seen.authorization !== `Bearer ${repo.token}`))
      return refuse(response, seen.authorization ? 404 : 401, 'RepoNotFound', 'Repository not found');
    const revision = decodeURIComponent(encoded);
    const commit = repo.refs[revision] ?? revision;
    const files = repo.commits[commit];
    if (!files) return refuse(response, 404, 'RevisionNotFound', `Invalid rev id: ${revision}`);
    const json = (value: unknown, headers = {}): void => {
      response.writeHead(200, { 'content-type': 'application/json', ...headers }).end(JSON.stringify(value));
    };
    if (kind === 'revision')
      return json({ _id: '1', id, sha: commit, lastModified: '2024-01-01T00:00:00.000Z' });
    if (kind === 'tree') {
      const all = Object.entries(files).map(([path, content]) => ({
        type: 'file',
        path,
        size: content.length,
        oid: isLarge(content) ? 'c'.repeat(40) : etagOf(content),
        ...(isLarge(content)
          ? { lfs: { oid: etagOf(content), size: content.length, pointerSize: 134 } }
          : {}),
      }));
      const at = Number(searchParams.get('cursor') ?? 0);
      const next =
        at + hub.pageSize < all.length ? `${endpoint}${pathname}?cursor=${at + hub.pageSize}` : null;
      const folder = { type: 'directory', path: 'folder', size: 0, oid: 'd'.repeat(40) };
      return json(
        [folder, ...all.slice(at, at + hub.pageSize)],
        next ? { link: `<${next}>; rel="next"` } : {},
      );
    }
    if (repo.gated) return refuse(response, 403, 'GatedRepo', `Access to model ${id} is restricted`);
    const content = files[decodeURIComponent(file?.[3] ?? '')];
    if (!content) return refuse(response, 404, 'EntryNotFound', 'Entry not found');
    response.setHeader('x-repo-commit', commit);
    if (!isLarge(content)) {
      response.setHeader('etag', `"${etagOf(content)}"`);
      return send(content, seen, response);
    }
    contents.set(etagOf(content), content);
    response.setHeader('x-linked-etag', `"${etagOf(content)}"`);
    response.setHeader('x-linked-size', content.length);
    response.writeHead(302, { location: `${cdn}/${etagOf(content)}` }).end();
  });

  const hub: FakeHub = {
    endpoint,
    folder,
    settings: {
      endpoint,
      cacheFolder: join(folder, 'hub'),
      token: null,
      tokenFile: join(folder, 'token'),
      isOffline: false,
      useSymlinks: true,
      requests: { retryDelayMs: 1, maxAttempts: 3 },
    },
    repos: new Map(),
    seen: [],
    mischief: () => false,
    breakAfter: Number.POSITIVE_INFINITY,
    pageSize: 2,
    fetched: () =>
      hub.seen
        .filter(({ host, path }) => host === 'hub' && path.includes('/resolve/'))
        .map(({ path }) => path.replace(/^.*\/resolve\/[^/]+\//, '')),
    add(id, files, more = {}) {
      const bytes = Object.entries(files).map(([name, content]) => [name, Buffer.from(content)] as const);
      const repo = { refs: { main: COMMIT }, commits: { [COMMIT]: Object.fromEntries(bytes) }, ...more };
      hub.repos.set(id, repo);
      return repo;
    },
    async stop() {
      for (const server of servers) {
        server.closeAllConnections();
        if (server.listening) await new Promise((closed) => server.close(closed));
      }
    },
    async close() {
      await hub.stop();
      await rm(folder, { recursive: true, force: true });
    },
  };
  return hub;
}
