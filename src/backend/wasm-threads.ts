/**
 * Workers of the WebAssembly device: each runs its own instance of the module over the shared memory and
 * never returns from `serve` (native/wasm-pool.h). Their program is a text, so that neither a bundler nor a
 * server has to know a further file.
 */
import { StateError } from '../base/errors.ts';

/** What a worker is started with. */
export interface WorkerStart {
  readonly module: WebAssembly.Module;
  readonly memory: WebAssembly.Memory;
  readonly thread: number;
  /** The top of its stack. */
  readonly stack: number;
}

/** Starts one worker; `onFailure` is told why it ended, whether it had begun or not. */
export type Spawn = (start: WorkerStart, onFailure: (reason: string) => void) => void;

/**
 * A function of WorkerStart. When a task traps, the caller must not wait for it:
 * `fail` comes before the error.
 */
export const WORKER_FUNCTION = `({ module, memory, thread, stack }) => {
  const { exports } = new WebAssembly.Instance(module, { env: { memory } });
  exports.__stack_pointer.value = stack;
  try {
    exports.serve(thread);
  } catch (error) {
    exports.fail();
    throw error;
  }
}`;

/** Of a page: waits until every worker has begun, or throws StateError with the reason why one did not. */
export async function spawnInPage(starts: readonly WorkerStart[], onFailure: (reason: string) => void) {
  const source = `onmessage = ({ data }) => { postMessage('ready'); (${WORKER_FUNCTION})(data); };`;
  const url = URL.createObjectURL(new Blob([source], { type: 'text/javascript' }));
  const workers: Worker[] = [];
  const begun = starts.map(
    (start) =>
      new Promise<void>((resolve, reject) => {
        const worker = new Worker(url);
        workers.push(worker);
        worker.onmessage = () => resolve();
        worker.onerror = ({ message }) => {
          reject(new StateError(`wasm: a worker did not start: ${message ?? 'refused by the page'}.`));
          onFailure(message);
        };
        worker.postMessage(start);
      }),
  );
  try {
    await Promise.all(begun);
  } catch (error) {
    for (const worker of workers) worker.terminate();
    throw error;
  } finally {
    URL.revokeObjectURL(url);
  }
}
