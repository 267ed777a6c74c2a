/** The WebAssembly device: how it opens, what its workers do and what happens when they fail, the limits of its memory. */
import { spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync } from 'node:fs';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterEach, describe, expect, it, vi } from 'vitest';
import type { Backend, BufferRef } from '../../src/backend/backend.ts';
import { openWasmFile, spawnWorker } from '../../src/backend/wasm.node.ts';
import { fetchWasm, openWasm, openWasmThreads } from '../../src/backend/wasm.ts';
import { wasmVariants } from '../../src/backend/wasm-variant.ts';
import { ConfigError, StateError, UnsupportedError } from '../../src/base/errors.ts';
import { bundle } from '../support/bundle.ts';

const module = readFileSync(new URL('../../dist/backend/kernels.wasm', import.meta.url));

function zeros(device: Backend, count: number): BufferRef {
  const ref = { storage: device.alloc(count * 4), offset: 0 };
  device.kernels.fill!({ y: ref, value: 0, count });
  return ref;
}

/** Large enough for several tasks. */
const COUNT = 40_000;
const addOne = (device: Backend, y: BufferRef) =>
  device.kernels.affine!({ x: y, y, scale: 1, shift: 1, count: COUNT });

afterEach(() => vi.unstubAllEnvs());

describe('opening', () => {
  it('says what it runs on, and takes MAMBA_THREADS', () => {
    expect(openWasmFile({ variant: 'simd128', threads: 1 }).description).toBe('wasm simd128, 1 thread');
    vi.stubEnv('MAMBA_THREADS', '2');
    expect(openWasmFile({ variant: 'simd128' }).description).toBe('wasm simd128, 2 threads');
    vi.stubEnv('MAMBA_THREADS', 'two');
    expect(() => openWasmFile()).toThrow(ConfigError);
    expect(() => openWasmFile()).toThrow('wasm: expected 1 to 1024 threads, got two');
  });

  it('takes the best variant, and refuses one that the engine lacks', () => {
    const best = wasmVariants()[0]!;
    expect(openWasmFile({ threads: 1 }).description).toContain(best);
    if (best === 'relaxed') return; // then there is none that it lacks
    expect(() => openWasmFile({ variant: 'relaxed' })).toThrow(UnsupportedError);
    expect(() => openWasmFile({ variant: 'relaxed' })).toThrow('(simd128), got relaxed');
  });

  it('refuses bytes that are no module', () => {
    expect(() => openWasm(Uint8Array.of(1, 2, 3))).toThrow(UnsupportedError);
  });
});

describe('its workers', () => {
  it('share many short jobs', async () => {
    const device = openWasmFile({ threads: 3 });
    const y = zeros(device, COUNT);
    for (let i = 0; i < 3000; i++) addOne(device, y);
    const last = await device.read(y, 'f32', COUNT);
    expect(last.every((value) => value === 3000)).toBe(true);
  });

  it('wake from sleep', async () => {
    const device = openWasmFile({ threads: 3 });
    const y = zeros(device, COUNT);
    for (let i = 0; i < 5; i++) {
      await sleep(30); // far longer than they spin
      addOne(device, y);
    }
    expect((await device.read(y, 'f32', COUNT)).every((value) => value === 5)).toBe(true);
  });

  it('that never begin cost nothing but time', async () => {
    const device = openWasmThreads(module, 3, () => {});
    const y = zeros(device, COUNT);
    addOne(device, y);
    expect((await device.read(y, 'f32', COUNT)).every((value) => value === 1)).toBe(true);
  });

  it('that trap end the work with an error, and every later kernel', async () => {
    // Its scratch memory, which packing a product needs, lies where there is no memory.
    const device = openWasmThreads(module, 2, (start, onFailure) =>
      spawnWorker({ ...start, thread: 700 }, onFailure),
    );
    const [a, b, c] = [zeros(device, 256 * 256), zeros(device, 256 * 256), zeros(device, 256 * 256)];
    const product = {
      a: a!,
      b: b!,
      c: c!,
      bias: null,
      batch: 1,
      m: 256,
      n: 256,
      k: 256,
      transA: 0,
      transB: 0,
    };
    const strides = { strideA: 0, strideB: 0, strideC: 0, accumulate: 0, precision: 0 };
    const untilFailure = async () => {
      for (;;) {
        device.kernels.matmul!({ ...product, ...strides });
        await sleep(1);
      }
    };
    await expect(untilFailure()).rejects.toThrow(StateError);
    expect(() => zeros(device, 1)).toThrow(/wasm: .*failed.*Open the device again/);
  });

  it('that are ended from outside do so too', async () => {
    const workers: ReturnType<typeof spawnWorker>[] = [];
    const device = openWasmThreads(module, 2, (start, onFailure) =>
      workers.push(spawnWorker(start, onFailure)),
    );
    const y = zeros(device, COUNT);
    addOne(device, y);
    await workers[0]!.terminate();
    expect(() => addOne(device, y)).toThrow(/wasm: .*exit code/);
  });

  it('do not keep the process alive, idle or not', async () => {
    const folder = mkdtempSync(join(tmpdir(), 'mamba-'));
    const program = await bundle(
      `import { readFileSync } from 'node:fs';
      import { spawnWorker } from './src/backend/wasm.node.ts';
      import { openWasmThreads } from './src/backend/wasm.ts';
      const device = openWasmThreads(readFileSync(process.argv[2]), 3, spawnWorker);
      const y = { storage: device.alloc(4 * ${COUNT}), offset: 0 };
      setTimeout(() => {
        for (let i = 0; i < 100; i++) device.kernels.fill({ y, value: i, count: ${COUNT} });
        console.log('done');
      }, 200);`,
      folder,
    );
    const path = new URL('../../dist/backend/kernels.wasm', import.meta.url).pathname;
    const { status, stdout, stderr } = spawnSync(process.execPath, [program, path], {
      encoding: 'utf8',
      timeout: 30_000,
    });
    expect({ status, stdout, stderr }).toEqual({ status: 0, stdout: 'done\n', stderr: '' });
  });
});

describe('its memory', () => {
  it('has a limit, which is a clear error that leaves the device usable', () => {
    const device = openWasmFile();
    const before = device.memory;
    expect(() => device.alloc(5 * 2 ** 30)).toThrow(/wasm: .*4 GiB.*native/);
    expect(device.memory).toEqual(before);
    device.free(device.alloc(64));
  });

  it('is addressed beyond 2 GiB', async () => {
    const device = openWasmFile({ threads: 2 });
    device.alloc(2.5 * 2 ** 30); // never touched: costs no memory
    const y = zeros(device, COUNT);
    addOne(device, y);
    expect((await device.read(y, 'f32', COUNT)).every((value) => value === 1)).toBe(true);
  });
});

describe('fetched', () => {
  const serve = async (files: Record<string, Uint8Array>) => {
    const server = createServer((request, response) => {
      const body = files[request.url!];
      response.writeHead(body ? 200 : 404).end(body);
    });
    await new Promise<void>((ready) => server.listen(0, '127.0.0.1', ready));
    const { port } = server.address() as AddressInfo;
    return { at: (path: string) => `http://127.0.0.1:${port}${path}`, close: () => server.close() };
  };

  it('it has one thread without isolation, and says so', async () => {
    const { at, close } = await serve({ '/kernels.wasm': module });
    const device = await fetchWasm({ url: at('/kernels.wasm'), threads: 2 });
    expect(device.description).toBe('wasm simd128, 1 thread (the page is not cross-origin isolated)');
    await expect(fetchWasm({ url: at('/other.wasm') })).rejects.toThrow(/other\.wasm, got HTTP 404/);
    await expect(fetchWasm({ threads: 0 })).rejects.toThrow(ConfigError);
    close();
  });

  it('what is no module is refused', async () => {
    const { at, close } = await serve({ '/kernels.wasm': new TextEncoder().encode('<!doctype html>') });
    await expect(fetchWasm({ url: at('/kernels.wasm') })).rejects.toThrow(UnsupportedError);
    close();
  });
});
