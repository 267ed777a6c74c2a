/** The WebAssembly device in Node: the same kernels as in a browser, read from disk, with worker threads. */
import { existsSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { Worker } from 'node:worker_threads';
import { UnsupportedError } from '../base/errors.ts';
import type { Backend, BackendFactory } from './backend.ts';
import { chooseThreads } from './native.ts';
import { openWasmThreads } from './wasm.ts';
import { WORKER_FUNCTION, type WorkerStart } from './wasm-threads.ts';
import { chooseVariant, type WasmVariant } from './wasm-variant.ts';

export interface WasmFileOptions {
  /** Default: the best that this Node runs; `relaxed` needs Node 21 or --experimental-wasm-relaxed-simd. */
  variant?: WasmVariant;
  /**
   * Threads including the caller's. Default: MAMBA_THREADS, else one per
   * available core. Never changes a result.
   */
  threads?: number;
}

const FILES: Record<WasmVariant, string> = { simd128: 'kernels.wasm', relaxed: 'kernels-relaxed.wasm' };
const packageRoot = dirname(dirname(dirname(fileURLToPath(import.meta.url))));

function readModule(variant: WasmVariant): Uint8Array<ArrayBuffer> {
  const beside = fileURLToPath(new URL(`./${FILES[variant]}`, import.meta.url));
  const paths = [beside, join(packageRoot, 'dist', 'backend', FILES[variant])];
  const found = paths.find((path) => existsSync(path));
  if (found) return readFileSync(found);
  throw new UnsupportedError(
    `wasm: expected ${FILES[variant]}, got none. Tried\n  ${paths.join('\n  ')}\nRun \`npm run build\`.`,
  );
}

/** It never keeps the process alive, and needs nothing of the program that started it. */
export function spawnWorker(start: WorkerStart, onFailure: (reason: string) => void): Worker {
  const source = `(${WORKER_FUNCTION})(require('node:worker_threads').workerData)`;
  const worker = new Worker(source, {
    eval: true,
    workerData: start,
    execArgv: [],
    name: 'mamba-ts kernels',
  });
  worker.unref();
  worker.on('error', (error) => onFailure(error.message));
  worker.on('exit', (code) => onFailure(`exit code ${code}`));
  return worker;
}

/**
 * Opens the device with its own memory and workers; they last until the process (or worker) ends. Workers
 * begin a moment later, until then the caller does their part. Throws UnsupportedError without a built
 * module, ConfigError for a bad option.
 */
export function openWasmFile(options: WasmFileOptions = {}): Backend {
  const threads = chooseThreads('wasm', options.threads);
  return openWasmThreads(readModule(chooseVariant(options.variant)), threads, spawnWorker);
}

export const wasmFileFactory: BackendFactory = { name: 'wasm', open: () => openWasmFile() };
