/** The blocked product against float64 on sizes around every edge of its tiles, and on every instruction set. */
import { describe, expect, it } from 'vitest';
import type { Backend, BufferRef } from '../../src/backend/backend.ts';
import { isaVariants, openNative } from '../../src/backend/native.ts';
import { openWasmFile } from '../../src/backend/wasm.node.ts';
import { Rng } from '../../src/base/rng.ts';

const devices: [string, () => Backend][] = [
  ...isaVariants().map((isa): [string, () => Backend] => [isa, () => openNative({ isa, threads: 2 })]),
  ['wasm', () => openWasmFile({ threads: 2 })],
];

function random(rng: Rng, count: number): Float32Array {
  return Float32Array.from({ length: count }, () => rng.uniform(-1, 1));
}

interface Product {
  m: number;
  n: number;
  k: number;
  batch?: number;
  accumulate?: boolean;
  bias?: boolean;
}

/** Largest |c - exact| over its bound: k + 2 roundings of the sum of absolute products, at most. */
async function worstRatio(device: Backend, p: Product, transA: boolean, transB: boolean): Promise<number> {
  const { m, n, k, batch = 1 } = p;
  const rng = new Rng(m * 7919 + n * 104729 + k);
  const [a, b, c] = [random(rng, batch * m * k), random(rng, batch * k * n), random(rng, batch * m * n)];
  const bias = random(rng, n);
  const refs: BufferRef[] = [a, b, c, bias].map((data) => {
    const ref = { storage: device.alloc(Math.max(4, data.byteLength)), offset: 0 };
    device.write(ref, 'f32', data);
    return ref;
  });
  device.kernels.matmul!({
    a: refs[0]!,
    b: refs[1]!,
    c: refs[2]!,
    bias: p.bias ? refs[3]! : null,
    batch,
    m,
    n,
    k,
    transA: Number(transA),
    transB: Number(transB),
    strideA: m * k,
    strideB: k * n,
    strideC: m * n,
    accumulate: Number(p.accumulate ?? false),
    precision: 0,
  });
  const got = await device.read(refs[2]!, 'f32', batch * m * n);
  for (const { storage } of refs) device.free(storage);
  let worst = 0;
  for (let item = 0; item < batch; item++) {
    for (let i = 0; i < m; i++) {
      for (let j = 0; j < n; j++) {
        const at = item * m * n + i * n + j;
        const start = (p.accumulate ? c[at]! : 0) + (p.bias ? bias[j]! : 0);
        let exact = start;
        let magnitude = Math.abs(p.accumulate ? c[at]! : 0) + Math.abs(p.bias ? bias[j]! : 0);
        for (let q = 0; q < k; q++) {
          const x = a[item * m * k + (transA ? q * m + i : i * k + q)]!;
          const y = b[item * k * n + (transB ? j * k + q : q * n + j)]!;
          exact += x * y;
          magnitude += Math.abs(x * y);
        }
        const bound = (k + 2) * 2 ** -24 * magnitude;
        const error = Math.abs(got[at]! - exact);
        if (!(error <= bound)) worst = Math.max(worst, bound > 0 ? error / bound : Number.POSITIVE_INFINITY);
        if (Number.isNaN(got[at]!)) return Number.NaN;
      }
    }
  }
  return worst;
}

const sizes: Product[] = [
  { m: 1, n: 1, k: 1 },
  { m: 3, n: 5, k: 0, bias: true },
  { m: 3, n: 5, k: 0, accumulate: true },
  { m: 0, n: 5, k: 3 },
  { m: 1, n: 70, k: 37 },
  { m: 2, n: 33, k: 64, bias: true },
  { m: 4, n: 17, k: 129, accumulate: true },
  { m: 5, n: 8, k: 300, accumulate: true, bias: true },
  { m: 13, n: 16, k: 257 },
  { m: 16, n: 40, k: 31, bias: true },
  { m: 17, n: 31, k: 513, accumulate: true },
  { m: 100, n: 65, k: 7 },
  { m: 25, n: 47, k: 33, batch: 3, bias: true },
  { m: 1, n: 12, k: 40, batch: 5, accumulate: true },
  { m: 150, n: 545, k: 20 },
];

describe.each(devices)('matmul on %s', (_, open) => {
  const device = open();
  it.each(sizes)('is within rounding of float64 for %o', async (size) => {
    for (const transA of [false, true]) {
      for (const transB of [false, true]) {
        expect(await worstRatio(device, size, transA, transB), `transA ${transA}, transB ${transB}`).toBe(0);
      }
    }
  });
});
