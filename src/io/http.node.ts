/**
 * HTTP requests that outlive a bad network: deadlines, pauses, repetition. Used for
 * files and for answers of a hub.
 */
import { setTimeout as pause } from 'node:timers/promises';
import { MambaError } from '../base/errors.ts';

/** The server or the network refused a download. `cause` is the underlying error, if there is one. */
export class DownloadError extends MambaError {
  readonly code = 'ERR_DOWNLOAD';
}

export interface RequestOptions {
  /** The pause before the first repetition; it doubles each time. Default 500. */
  retryDelayMs?: number;
  /** Attempts in a row without new bytes before giving up. Default 5. */
  maxAttempts?: number;
  /** An attempt that receives nothing for this long is dropped. Default 60,000. */
  stallMs?: number;
  /** Ends everything with the signal's reason. */
  signal?: AbortSignal;
}

/** A server that wants a longer pause than this is told to the user instead of waited for. */
const MAX_PAUSE_MS = 120_000;

/** An attempt that is worth repeating. */
export class Dropped extends Error {
  readonly retryAfterMs: number;

  constructor(message: string, options: { cause?: unknown; retryAfterMs?: number } = {}) {
    super(message, options);
    this.retryAfterMs = options.retryAfterMs ?? 0;
  }
}

/**
 * Runs `attempt` again while it throws Dropped, with growing pauses that are at least as long as the server
 * asks for. `what` completes "download: expected …"; `measure` gives the bytes that have arrived so far:
 * progress starts the count anew.
 */
export async function repeat<T>(
  what: string,
  options: RequestOptions,
  attempt: () => Promise<T>,
  measure: () => Promise<number> = async () => 0,
): Promise<T> {
  const { retryDelayMs = 500, maxAttempts = 5, signal } = options;
  let mostBytes = await measure();
  for (let failures = 0; ; ) {
    try {
      signal?.throwIfAborted();
      return await attempt();
    } catch (error) {
      signal?.throwIfAborted();
      if (!(error instanceof Dropped)) throw error;
      const bytes = await measure();
      failures = bytes > mostBytes ? 1 : failures + 1;
      mostBytes = Math.max(mostBytes, bytes);
      const { message, retryAfterMs, cause } = error;
      if (retryAfterMs > MAX_PAUSE_MS) {
        throw new DownloadError(
          `download: expected ${what}, got ${message} and the wish for a pause of ${Math.ceil(retryAfterMs / 1000)} s. ` +
            'Run again after that; what has arrived is kept.',
          { cause },
        );
      }
      if (failures >= maxAttempts) {
        const times = failures === 1 ? '1 attempt' : `${failures} attempts`;
        throw new DownloadError(
          `download: expected ${what}, got ${message} after ${times}. ` +
            'Check the network and run again; what has arrived is kept.',
          { cause },
        );
      }
      const pauseMs = Math.max(retryAfterMs, retryDelayMs * 2 ** (failures - 1));
      await pause(pauseMs, undefined, { signal }).catch(() => signal?.throwIfAborted());
    }
  }
}

/** One GET. `use` calls `alive` whenever bytes arrive; without that for `stallMs` the request is dropped. */
export async function request<T>(
  url: string,
  headers: Record<string, string>,
  { stallMs = 60_000, signal }: RequestOptions,
  use: (response: Response, alive: () => void) => Promise<T>,
): Promise<T> {
  const controller = new AbortController();
  const abort = (): void => controller.abort(signal?.reason);
  signal?.addEventListener('abort', abort);
  const timer = setTimeout(() => controller.abort(new Error('no answer')), stallMs);
  try {
    // Under fetch a redirect to another host goes without the authorization header.
    const response = await fetch(url, { headers, signal: controller.signal }).catch(dropped);
    return await use(response, () => void timer.refresh());
  } finally {
    clearTimeout(timer);
    signal?.removeEventListener('abort', abort);
  }
}

/** Throws Dropped for a status that may pass: overload, a limit, a broken server. */
export function dropIfPassing({ status, headers }: Response): void {
  if (status < 500 && status !== 408 && status !== 429) return;
  throw new Dropped(`status ${status}`, { retryAfterMs: retryAfterMs(headers) });
}

/** Retry-After in seconds or as a date, else the `t` of a RateLimit header; 0 without either. */
function retryAfterMs(headers: Headers): number {
  const after = headers.get('retry-after')?.trim();
  if (after && /^\d+$/.test(after)) return 1000 * Number(after);
  const date = after ? Date.parse(after) : Number.NaN;
  if (!Number.isNaN(date)) return Math.max(0, date - Date.now());
  return 1000 * Number(/;\s*t=(\d+)/.exec(headers.get('ratelimit') ?? '')?.[1] ?? 0);
}

/** The pieces of the body; a break is Dropped. */
export async function* bodyOf(response: Response): AsyncGenerator<Uint8Array> {
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
