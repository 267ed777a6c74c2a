/** The CPU driver: the pool of buffers, its errors, and results that do not depend on the number of threads. */
import { mkdtempSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, describe, expect, it, vi } from 'vitest';
import type { Backend, BufferRef } from '../../src/backend/backend.ts';
import { type CpuHost, cpuBackend, sizeClass } from '../../src/backend/cpu.ts';
import { KERNELS } from '../../src/backend/kernels.ts';
import { isaVariants, openNative } from '../../src/backend/native.ts';
import { createReference } from '../../src/backend/reference/index.ts';
import { openWasmFile } from '../../src/backend/wasm.node.ts';
import { storageBytes } from '../../src/base/dtype.ts';
import { ConfigError, DTypeError, StateError, UnsupportedError } from '../../src/base/errors.ts';
import { Rng } from '../../src/base/rng.ts';

/** A host that runs nothing, with the kernels it is told to have. */
function fakeHost(kernels: CpuHost['kernels'] = []): CpuHost {
  return {
    name: 'native',
    description: 'fake',
    kernels,
    operands: new Float64Array(64),
    reserve: () => {},
    run: () => {},
    write: () => {},
    read: () => {},
  };
}

function upload(device: Backend, data: Float32Array): BufferRef {
  const ref = { storage: device.alloc(data.byteLength), offset: 0 };
  device.write(ref, 'f32', data);
  return ref;
}

afterEach(() => vi.unstubAllEnvs());

describe('sizeClass', () => {
  it('holds the request, wastes at most a quarter above 512 bytes, and is its own class', () => {
    for (const bytes of [0, 1, 63, 64, 65, 511, 513, 1000, 4097, 1e6 + 1, 2 ** 31 + 1, 5e11]) {
      const size = sizeClass(bytes);
      expect(size).toBeGreaterThanOrEqual(Math.max(1, bytes));
      expect(size % 64).toBe(0);
      expect(size).toBeLessThanOrEqual(Math.max(64, bytes + Math.max(63, bytes / 4)));
      expect(sizeClass(size)).toBe(size);
    }
  });
});

describe.each<[string, () => Backend]>([
  ['native', openNative],
  ['wasm', openWasmFile],
])('the pool of %s', (_, open) => {
  it('reuses what was freed and counts what it hands out', () => {
    const device = open();
    const a = device.alloc(1000);
    const b = device.alloc(5000);
    expect(device.memory).toMatchObject({ newBuffers: 2, liveBytes: a.sizeBytes + b.sizeBytes });
    device.free(a);
    device.free(b);
    for (let step = 0; step < 5; step++) {
      const again = [device.alloc(1000), device.alloc(5000)];
      for (const storage of again) device.free(storage);
    }
    expect(device.memory).toEqual({
      newBuffers: 2,
      liveBytes: 0,
      peakBytes: a.sizeBytes + b.sizeBytes,
      reservedBytes: a.sizeBytes + b.sizeBytes,
    });
    device.resetPeak();
    expect(device.memory.peakBytes).toBe(0);
  });

  it('keeps contents over growth and copies every dtype both ways', async () => {
    const device = open();
    const floats = Float32Array.of(1.5, Number.NaN, -0, 3e38);
    const ref = upload(device, floats);
    const large = device.alloc(64 * 2 ** 20);
    const end = { storage: large, offset: large.sizeBytes / 4 - 2 };
    device.write(end, 'i32', [7, -(2 ** 31)]);
    expect(await device.read(end, 'i32', 2)).toEqual(Int32Array.of(7, -(2 ** 31)));
    expect(await device.read(ref, 'f32', 4)).toEqual(floats);
    device.write(ref, 'bf16', Uint16Array.of(1, 2, 65535));
    expect(await device.read({ ...ref, offset: 1 }, 'bf16', 2)).toEqual(Uint16Array.of(2, 65535));
    device.free(large);
  });

  it('refuses freed and foreign buffers, ranges outside, and values of the wrong kind', async () => {
    const device = open();
    const live = upload(device, new Float32Array(16));
    const freed = device.alloc(64);
    device.free(freed);
    const fill = device.kernels.fill!;
    expect(() => device.free(freed)).toThrow(StateError);
    expect(() => fill({ y: { storage: freed, offset: 0 }, value: 1, count: 1 })).toThrow(/fill: .*freed/);
    expect(() => fill({ y: upload(openWasmFile(), new Float32Array(4)), value: 1, count: 1 })).toThrow(
      /another/,
    );
    expect(() => fill({ y: { ...live, offset: 17 }, value: 1, count: 1 })).toThrow(/offset/);
    expect(() => fill({ y: { ...live, offset: -1 }, value: 1, count: 1 })).toThrow(/offset/);
    expect(() => device.write({ ...live, offset: 8 }, 'f32', new Float32Array(9))).toThrow(
      /at most 32 bytes/,
    );
    await expect(device.read(live, 'f32', 17)).rejects.toThrow(/at most 64 bytes/);
    expect(() => device.write(live, 'f16', Float32Array.of(1))).toThrow(DTypeError);
    // What a caller without types could pass:
    const loose = fill as unknown as (args: Record<string, unknown>) => void;
    expect(() => loose({ y: null, value: 1, count: 1 })).toThrow(/expected y to be a buffer, got null/);
    expect(() => loose({ y: live, value: live, count: 1 })).toThrow(/expected value to be a number/);
    expect(() => loose({ y: live, value: 1 })).toThrow(/expected count to be a number, got undefined/);
  });
});

describe.each<[string, () => Backend]>([
  ['native', openNative],
  ['wasm', openWasmFile],
  ['reference', createReference],
])('narrow storage on %s', (_, open) => {
  it('comes back byte for byte, and only whole blocks go in', async () => {
    const device = open();
    const blocks = Uint8Array.from({ length: 6 * 34 }, (_, i) => 7 * i);
    for (const dtype of ['q8', 'q4'] as const) {
      const bytes = blocks.subarray(0, storageBytes(dtype, 192));
      const ref = { storage: device.alloc(bytes.length), offset: 0 };
      device.write(ref, dtype, bytes);
      expect(await device.read(ref, dtype, 192)).toEqual(bytes.slice());
      expect(() => device.write(ref, dtype, bytes.subarray(1))).toThrow(DTypeError);
      expect(() => device.write(ref, dtype, new Float32Array(32))).toThrow(/Uint8Array for q/);
      await expect(device.read(ref, dtype, 33)).rejects.toThrow(DTypeError);
    }
    const halves = { storage: device.alloc(64), offset: 0 };
    device.write(halves, 'bf16', Uint16Array.of(1, 0xffff, 3));
    expect(await device.read({ ...halves, offset: 1 }, 'bf16', 2)).toEqual(Uint16Array.of(0xffff, 3));
  });
});

describe('a stale build', () => {
  it('is refused by name and by number of operands', () => {
    expect(() => cpuBackend(fakeHost([{ name: 'nonsense', operands: 1 }]))).toThrow(
      /known kernel.*npm run build/,
    );
    expect(() => cpuBackend(fakeHost([{ name: 'fill', operands: 4 }]))).toThrow(
      /fill with 3 operands, got 4.*npm run build/,
    );
    expect(Object.keys(cpuBackend(fakeHost([{ name: 'fill', operands: 3 }])).kernels)).toEqual(['fill']);
  });

  it('is not what the tests run: every kernel of the contract is there', () => {
    const all = Object.keys(KERNELS).sort();
    expect(Object.keys(openNative().kernels).sort()).toEqual(all);
    expect(Object.keys(openWasmFile().kernels).sort()).toEqual(all);
  });
});

describe('opening', () => {
  it('says what it runs on', () => {
    const isa = isaVariants()[0]!;
    expect(openNative({ isa, threads: 2 }).description).toBe(`native ${isa}, 2 threads`);
  });

  it('takes MAMBA_ISA and MAMBA_THREADS', () => {
    const isa = isaVariants().at(-1)!;
    vi.stubEnv('MAMBA_ISA', isa);
    vi.stubEnv('MAMBA_THREADS', '1');
    expect(openNative().description).toBe(`native ${isa}, 1 thread`);
  });

  it.each(['0', '-1', '1.5', 'many', '5000'])('refuses MAMBA_THREADS=%s', (value) => {
    vi.stubEnv('MAMBA_THREADS', value);
    expect(() => openNative()).toThrow(ConfigError);
    expect(() => openNative()).toThrow(value);
  });

  it('refuses an instruction set that the CPU lacks, naming those it has', () => {
    expect(() => openNative({ isa: 'mmx' })).toThrow(ConfigError);
    expect(() => openNative({ isa: 'mmx' })).toThrow(isaVariants().join(', '));
  });

  it('lists what it tried when there is no addon', () => {
    vi.stubEnv('MAMBA_NATIVE', '/no/such/mamba.node');
    expect(() => openNative()).toThrow(UnsupportedError);
    expect(() => openNative()).toThrow(
      /\/no\/such\/mamba.node: no such file[\s\S]*scripts\/build-native\.mjs/,
    );
    const broken = join(mkdtempSync(join(tmpdir(), 'mamba-')), 'mamba.node');
    writeFileSync(broken, 'not a library');
    vi.stubEnv('MAMBA_NATIVE', broken);
    expect(() => openNative()).toThrow(`${broken}: `);
  });
});

/** Runs kernels large enough to be split, and returns all they wrote. */
async function sample(device: Backend): Promise<Float32Array[]> {
  const rng = new Rng(1);
  const random = (count: number) => Float32Array.from({ length: count }, () => rng.uniform(-1, 1));
  const [m, n, k] = [300, 200, 150];
  const [a, b, bias] = [random(m * k), random(n * k), random(n)].map((data) => upload(device, data));
  const c = upload(device, new Float32Array(m * n));
  const y = upload(device, new Float32Array(m * n));
  const row = upload(device, new Float32Array(n));
  const total = upload(device, new Float32Array(1));
  const all = device.kernels;
  const product = { a: a!, b: b!, c, bias: bias!, batch: 1, m, n, k, transA: 0, transB: 1 };
  all.matmul!({ ...product, strideA: 0, strideB: 0, strideC: 0, accumulate: 0, precision: 0 });
  all.unary!({ op: 9, x: c, y, count: m * n });
  all.sum!({ x: y, y: row, outer: 1, axis: m, inner: n });
  all.sumSquares!({ x: y, y: total, count: m * n, accumulate: 0 });
  const sizes: [BufferRef, number][] = [
    [c, m * n],
    [y, m * n],
    [row, n],
    [total, 1],
  ];
  const read = await Promise.all(sizes.map(([ref, count]) => device.read(ref, 'f32', count)));
  return read as Float32Array[];
}

describe.each(isaVariants())('threads on %s', (isa) => {
  it('change no bit', async () => {
    const one = await sample(openNative({ isa, threads: 1 }));
    expect(one[3]![0]).toBeGreaterThan(0);
    for (const threads of [2, 3]) {
      const more = await sample(openNative({ isa, threads }));
      more.forEach((array, i) => {
        expect(Buffer.compare(Buffer.from(array.buffer), Buffer.from(one[i]!.buffer))).toBe(0);
      });
    }
  });

  it('survive many short jobs in a row', async () => {
    const device = openNative({ isa, threads: 3 });
    const count = 40_000;
    const y = upload(device, new Float32Array(count));
    device.kernels.fill!({ y, value: 0, count });
    for (let i = 0; i < 3000; i++) device.kernels.affine!({ x: y, y, scale: 1, shift: 1, count });
    const last = await device.read(y, 'f32', count);
    expect(last.every((value) => value === 3000)).toBe(true);
  });
});

describe('scripts/build-native.mjs', () => {
  it('without a compiler says so and does not throw', async () => {
    vi.stubEnv('CXX', '');
    vi.stubEnv('PATH', '/nonexistent');
    const { buildNative } = await import('../../scripts/build-native.mjs');
    const lines: string[] = [];
    const result = await buildNative({ log: (line: string) => lines.push(line) });
    expect(result).toMatchObject({ ok: false, path: null });
    expect(lines.join()).toMatch(/no C\+\+ compiler.*WebAssembly takes over/);
  });
});
