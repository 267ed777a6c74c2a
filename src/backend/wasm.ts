/**
 * The WebAssembly device: the C++ kernels compiled for SIMD128, linear memory as the arena, shared with the
 * workers. Free of Node: browsers fetch the module, Node passes its bytes (wasm.node.ts).
 */
import type { TypedArray } from '../base/dtype.ts';
import { ConfigError, StateError, UnsupportedError } from '../base/errors.ts';
import type { Backend, BackendFactory } from './backend.ts';
import { type CpuHost, cpuBackend } from './cpu.ts';
import { type Spawn, spawnInPage, type WorkerStart } from './wasm-threads.ts';
import { chooseVariant } from './wasm-variant.ts';

/** See native/wasm.cc. */
interface WasmExports {
  /** Address of the name of what it was compiled for. */
  isa(): number;
  operands(): number;
  /** Address of a zero-terminated name, 0 past the last kernel. */
  kernel_name(index: number): number;
  kernel_operands(index: number): number;
  /** Returns where the arena begins. */
  open(threads: number, maySleep: number): number;
  stack_top(thread: number): number;
  /** Not 0 when a worker has failed. */
  run(index: number): number;
}

const MAX_OPERANDS = 64;
const PAGE_BYTES = 65536;
/** What the module declares: scripts/build-wasm.mjs. */
const FIRST_PAGES = 16;
/**
 * Address space to ask for, best first: shared memory must name its limit, and small devices refuse 4 GiB.
 */
const MOST_PAGES = [65536, 32768, 16384, 8192];
const MAX_THREADS = 64;

function makeMemory(): { memory: WebAssembly.Memory; pages: number } {
  let refused: unknown;
  for (const pages of MOST_PAGES) {
    try {
      return {
        memory: new WebAssembly.Memory({ initial: FIRST_PAGES, maximum: pages, shared: true }),
        pages,
      };
    } catch (error) {
      refused = error; // RangeError: less may be granted
    }
  }
  throw refused;
}

/** Whether this thread may sleep: the main thread of a page may not. */
function maySleep(memory: WebAssembly.Memory): boolean {
  try {
    Atomics.wait(new Int32Array(memory.buffer), 0, 1); // it holds 0: returns at once
    return true;
  } catch {
    return false;
  }
}

/**
 * Linear memory as an arena. A view keeps the length that the memory had, so
 * views are made again when it grows.
 */
class WasmHost implements CpuHost {
  readonly name = 'wasm';
  readonly description: string;
  readonly kernels: CpuHost['kernels'];
  operands: Float64Array;
  readonly #module: WebAssembly.Module;
  readonly #wasm: WasmExports;
  readonly #memory: WebAssembly.Memory;
  readonly #maxPages: number;
  readonly #threads: number;
  #start = 0;
  #bytes: Uint8Array;
  #failure: string | null = null;

  /** `why` there are no more threads, for the description. */
  constructor(module: WebAssembly.Module, threads: number, why = '') {
    const { memory, pages } = makeMemory();
    this.#module = module;
    this.#memory = memory;
    this.#maxPages = pages;
    this.#threads = threads;
    this.#wasm = new WebAssembly.Instance(module, { env: { memory } }).exports as unknown as WasmExports;
    this.#bytes = new Uint8Array(memory.buffer);
    this.operands = this.#viewOperands();
    this.kernels = this.#readKernels();
    this.description = `wasm ${this.#text(this.#wasm.isa())}, ${threads} ${threads === 1 ? 'thread' : 'threads'}${why && ` (${why})`}`;
    this.#start = this.#wasm.open(threads, maySleep(memory) ? 1 : 0);
    this.reserve(0);
  }

  /** What each worker is to be started with; the first thread is the caller's. */
  get workers(): WorkerStart[] {
    return Array.from({ length: this.#threads - 1 }, (_, i) => ({
      module: this.#module,
      memory: this.#memory,
      thread: i + 1,
      stack: this.#wasm.stack_top(i + 1),
    }));
  }

  /** A worker ended: what it was to do may be missing. */
  fail(reason: string): void {
    this.#failure ??= reason; // the first says why
  }

  reserve(sizeBytes: number): void {
    const memory = this.#memory;
    const have = memory.buffer.byteLength / PAGE_BYTES;
    const need = Math.ceil((this.#start + sizeBytes) / PAGE_BYTES);
    if (need <= have) return;
    // By an eighth more than needed, so that many small buffers do not grow it page by page.
    const generous = Math.min(this.#maxPages, need + (need >> 3));
    if (need > this.#maxPages || (!this.#grow(generous - have) && !this.#grow(need - have))) {
      throw new StateError(
        `wasm: expected at most ${this.#maxPages / 16384} GiB of buffers and what the system grants, got ${sizeBytes} bytes. ` +
          'Free tensors, use smaller batches, or use the native device.',
      );
    }
    this.#bytes = new Uint8Array(memory.buffer);
    this.operands = this.#viewOperands();
  }

  #grow(pages: number): boolean {
    try {
      this.#memory.grow(pages);
      return true;
    } catch {
      return false; // RangeError: past the limit, or refused
    }
  }

  run(kernel: number): void {
    if (this.#failure === null && this.#wasm.run(kernel) === 0) return;
    throw new StateError(
      `wasm: expected workers that live as long as the device, got one that failed` +
        `${this.#failure === null ? ` in or before ${this.kernels[kernel]!.name}` : `: ${this.#failure}`}. ` +
        'Results since then are lost. Open the device again, or with one thread.',
    );
  }

  write(byteOffset: number, data: TypedArray): void {
    this.#bytes.set(new Uint8Array(data.buffer, data.byteOffset, data.byteLength), this.#start + byteOffset);
  }

  read(byteOffset: number, into: TypedArray): void {
    const start = this.#start + byteOffset;
    const bytes = this.#bytes.subarray(start, start + into.byteLength);
    new Uint8Array(into.buffer, into.byteOffset, into.byteLength).set(bytes);
  }

  #viewOperands(): Float64Array {
    return new Float64Array(this.#memory.buffer, this.#wasm.operands(), MAX_OPERANDS);
  }

  #text(address: number): string {
    // A copy: decoders of some browsers refuse shared memory.
    return new TextDecoder().decode(this.#bytes.slice(address, this.#bytes.indexOf(0, address)));
  }

  #readKernels(): { name: string; operands: number }[] {
    const kernels = [];
    for (let i = 0; ; i++) {
      const address = this.#wasm.kernel_name(i);
      if (address === 0) return kernels;
      kernels.push({ name: this.#text(address), operands: this.#wasm.kernel_operands(i) });
    }
  }
}

function unsupported(error: unknown): UnsupportedError {
  if (error instanceof UnsupportedError) return error;
  const reason = error instanceof Error ? error.message : String(error);
  return new UnsupportedError(
    `wasm: expected WebAssembly with SIMD, got: ${reason} Use a newer browser or Node, or the reference device.`,
    { cause: error },
  );
}

/**
 * Opens the device from the bytes of a module of the kernels, with `threads - 1` workers that `spawn` starts.
 */
export function openWasmThreads(bytes: BufferSource, threads: number, spawn: Spawn): Backend {
  try {
    const host = new WasmHost(new WebAssembly.Module(bytes), threads);
    for (const start of host.workers) spawn(start, (reason) => host.fail(reason));
    return cpuBackend(host);
  } catch (error) {
    throw unsupported(error);
  }
}

/** The same with one thread, synchronously (not on a browser's main thread). */
export function openWasm(bytes: BufferSource): Backend {
  return openWasmThreads(bytes, 1, () => {});
}

export interface FetchWasmOptions {
  /** The module of the kernels. Default: the best that this browser runs, from beside this script. */
  url?: string | URL;
  /**
   * Threads including the caller's. Default: one per core where the page is cross-origin isolated (only then
   * can memory be shared with workers), else 1. Never changes a result.
   */
  threads?: number;
}

/** Bundlers look for these very expressions, and copy the files. */
function moduleUrls(): URL[] {
  const plain = new URL('./kernels.wasm', import.meta.url);
  return chooseVariant() === 'relaxed'
    ? [new URL('./kernels-relaxed.wasm', import.meta.url), plain]
    : [plain];
}

/** The first of `urls` that is there and is a module: where only kernels.wasm was copied, that is enough. */
async function fetchModule(urls: readonly (string | URL)[]): Promise<WebAssembly.Module> {
  let refused: unknown;
  for (const url of urls) {
    try {
      const response = await fetch(url);
      if (response.ok) return await WebAssembly.compile(await response.arrayBuffer());
      refused = `HTTP ${response.status}`;
    } catch (error) {
      refused = error instanceof Error ? error.message : error;
    }
  }
  throw new UnsupportedError(
    `wasm: expected a module at ${urls.at(-1)}, got ${refused}. Serve the file beside the script, use a newer browser, ` +
      'or the reference device.',
  );
}

function pageThreads(wanted: number | undefined): number {
  if (wanted === undefined) {
    return globalThis.crossOriginIsolated ? Math.min(MAX_THREADS, navigator.hardwareConcurrency || 1) : 1;
  }
  if (Number.isInteger(wanted) && wanted >= 1 && wanted <= MAX_THREADS) return wanted;
  throw new ConfigError(
    `wasm: expected 1 to ${MAX_THREADS} threads, got ${wanted}. Leave it out for one per core.`,
  );
}

/**
 * Fetches a module of the kernels and opens the device. Where workers cannot be had it has one thread, and
 * its description says why. Throws UnsupportedError where there is no module or no WebAssembly with SIMD.
 */
export async function fetchWasm({ url, threads }: FetchWasmOptions = {}): Promise<Backend> {
  const wanted = pageThreads(threads);
  try {
    const module = await fetchModule(url === undefined ? moduleUrls() : [url]);
    const why = globalThis.crossOriginIsolated ? '' : 'the page is not cross-origin isolated';
    if (wanted === 1 || why) return cpuBackend(new WasmHost(module, 1, why));
    const host = new WasmHost(module, wanted);
    try {
      await spawnInPage(host.workers, (reason) => host.fail(reason));
    } catch (error) {
      return cpuBackend(new WasmHost(module, 1, error instanceof Error ? error.message : String(error)));
    }
    return cpuBackend(host);
  } catch (error) {
    throw unsupported(error);
  }
}

export const wasmFactory: BackendFactory = { name: 'wasm', open: () => fetchWasm() };
