/**
 * How the commands fetch a model: --revision, --tokenizer, a line of progress, and Ctrl-C that
 * ends a download and nothing else.
 */
import type { LoadEvent, OpenOptions } from '../index.node.ts';
import { downloadProgress } from './download-progress.ts';
import type { Output } from './output.ts';

/** What addSourceOption says. */
export type FetchOptions = Pick<OpenOptions, 'revision' | 'tokenizer' | 'config'>;

/** Ends the program with the exit code of a program that Ctrl-C ends. */
export class InterruptedError extends Error {
  readonly exitCode = 130;
}

/** For loadModel, openPretrained and convertModel. */
export function fetching({ io }: Output, { revision, tokenizer, config }: FetchOptions): OpenOptions {
  const show = downloadProgress(io.stderr);
  const download = new AbortController();
  let ended: AbortController | null = null;
  const interrupt = (): void =>
    download.abort(
      new InterruptedError('interrupted; what has arrived is kept, and the same command goes on from there.'),
    );
  const onProgress = (event: LoadEvent): void => {
    if (event.kind === 'file' && ended === null) {
      ended = new AbortController();
      const signal = io.interrupts(ended.signal);
      if (signal.aborted) interrupt();
      else signal.addEventListener('abort', interrupt, { once: true });
    }
    show(event);
    if (event.kind === 'end') ended?.abort();
  };
  return { revision, tokenizer, config, onProgress, signal: download.signal };
}
