/**
 * The WebAssembly device: the C++ kernels compiled for SIMD128, one thread, linear memory as the arena.
 * Free of Node: browsers fetch the module, Node passes its bytes (native.ts).
 */
import type { TypedArray } from '../base/dtype.ts';
import { StateError, UnsupportedError } from '../base/errors.ts';
import type { Backend, BackendFactory } from './backend.ts';
import { type CpuHost, cpuBackend } from './cpu.ts';

/** See native/wasm.cc. */
interface WasmExports {
  readonly memory: WebAssembly.Memory;
  operands(): number;
  arena_start(): number;
  /** Address of a zero-terminated name, 0 past the last kernel. */
  kernel_name(index: number): number;
  kernel_operands(index: number): number;
  run(index: number): void;
}

const MAX_OPERANDS = 64;
const PAGE_BYTES = 65536;
const MAX_PAGES = 65536;

function readName(memory: WebAssembly.Memory, address: number): string {
  const bytes = new Uint8Array(memory.buffer);
  return new TextDecoder().decode(bytes.subarray(address, bytes.indexOf(0, address)));
}

function readKernels(wasm: WasmExports): { name: string; operands: number }[] {
  const kernels = [];
  for (let i = 0; ; i++) {
    const address = wasm.kernel_name(i);
    if (address === 0) return kernels;
    kernels.push({ name: readName(wasm.memory, address), operands: wasm.kernel_operands(i) });
  }
}

/** Linear memory as an arena. Growing replaces the buffer, so views are made again after it. */
class WasmHost implements CpuHost {
  readonly name = 'wasm';
  readonly description = 'wasm simd128, 1 thread';
  readonly kernels: CpuHost['kernels'];
  operands: Float64Array;
  readonly #wasm: WasmExports;
  readonly #start: number;
  #bytes: Uint8Array;

  constructor(wasm: WasmExports) {
    this.#wasm = wasm;
    this.#start = wasm.arena_start();
    this.kernels = readKernels(wasm);
    this.#bytes = new Uint8Array(wasm.memory.buffer);
    this.operands = new Float64Array(wasm.memory.buffer, wasm.operands(), MAX_OPERANDS);
  }

  reserve(sizeBytes: number): void {
    const { memory } = this.#wasm;
    const have = memory.buffer.byteLength / PAGE_BYTES;
    const need = Math.ceil((this.#start + sizeBytes) / PAGE_BYTES);
    if (need <= have) return;
    // By an eighth more than needed, so that many small buffers do not grow it page by page.
    const generous = Math.min(MAX_PAGES, need + (need >> 3));
    if (need > MAX_PAGES || (!this.#grow(generous - have) && !this.#grow(need - have))) {
      throw new StateError(
        `wasm: expected at most 4 GiB of buffers and what the system grants, got ${sizeBytes} bytes. ` +
          'Free tensors, use smaller batches, or use the native device.',
      );
    }
    this.#bytes = new Uint8Array(memory.buffer);
    this.operands = new Float64Array(memory.buffer, this.#wasm.operands(), MAX_OPERANDS);
  }

  #grow(pages: number): boolean {
    try {
      this.#wasm.memory.grow(pages);
      return true;
    } catch {
      return false; // RangeError: past the limit, or refused
    }
  }

  run(kernel: number): void {
    this.#wasm.run(kernel);
  }

  write(byteOffset: number, data: TypedArray): void {
    this.#bytes.set(new Uint8Array(data.buffer, data.byteOffset, data.byteLength), this.#start + byteOffset);
  }

  read(byteOffset: number, into: TypedArray): void {
    const start = this.#start + byteOffset;
    const bytes = this.#bytes.subarray(start, start + into.byteLength);
    new Uint8Array(into.buffer, into.byteOffset, into.byteLength).set(bytes);
  }
}

function start(instance: WebAssembly.Instance): Backend {
  return cpuBackend(new WasmHost(instance.exports as unknown as WasmExports));
}

function unsupported(error: unknown): UnsupportedError {
  const reason = error instanceof Error ? error.message : String(error);
  return new UnsupportedError(
    `wasm: expected WebAssembly with SIMD, got: ${reason} Use a newer browser or Node, or the reference device.`,
    { cause: error },
  );
}

/** Opens the device from the bytes of kernels.wasm, synchronously (not on a browser's main thread). */
export function openWasm(bytes: BufferSource): Backend {
  try {
    return start(new WebAssembly.Instance(new WebAssembly.Module(bytes)));
  } catch (error) {
    throw error instanceof UnsupportedError ? error : unsupported(error);
  }
}

/** Fetches kernels.wasm from beside this module, or from `url`, and opens the device. */
export async function fetchWasm(
  url: string | URL = new URL('./kernels.wasm', import.meta.url),
): Promise<Backend> {
  const response = await fetch(url);
  if (!response.ok) {
    throw new UnsupportedError(
      `wasm: expected kernels.wasm at ${url}, got HTTP ${response.status}. Serve the file beside the script.`,
    );
  }
  const bytes = await response.arrayBuffer();
  try {
    const { instance } = await WebAssembly.instantiate(bytes);
    return start(instance);
  } catch (error) {
    throw error instanceof UnsupportedError ? error : unsupported(error);
  }
}

export const wasmFactory: BackendFactory = { name: 'wasm', open: () => fetchWasm() };
