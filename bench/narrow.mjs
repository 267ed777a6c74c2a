/**
 * Products with weights of every storage format: one row (a token), where reading the weights is all the work, and 512 rows (a
 * prompt). Weights of one row come from memory: every call takes another copy. Prints a Markdown table and with --write puts
 * it into docs/kernels.md. `npm run bench narrow -- --write`
 */
import { readFileSync, writeFileSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { openNative } from '../dist/index.node.js';
import { replaceBetween, table } from '../scripts/lib/markdown.mjs';
import { machineLines, median } from './_report.mjs';

const FORMATS = ['f32', 'bf16', 'f16', 'q8', 'q4'];
const BITS = { f32: 32, bf16: 16, f16: 16, q8: 8.5, q4: 4.5 };
/** (n, k) of mamba-130m: out_proj, in_proj, lm_head. */
const MATRICES = [
  [768, 1536],
  [3072, 768],
  [50280, 768],
];
const PROMPT = 512;
/** Many times what caches hold. */
const MEMORY_BYTES = 2 ** 28;
/** Multiple of the blocks of both formats, in units of 16 bits. */
const PIECE = 17 * 9 * 6400;

/** A buffer of random bits, each block or element with a moderate exponent. */
function weights(device, format, count) {
  const units = (count * BITS[format]) / 16;
  const storage = device.alloc(units * 2);
  const block = { q8: 17, q4: 9 }[format];
  const bits = Uint16Array.from({ length: Math.min(PIECE, units) }, (_, i) => {
    const random = Math.random() * 65536;
    if (block) return i % block === 0 ? 0x1c00 : random;
    if (format === 'f32') return i % 2 === 1 ? 0x3c00 : random;
    return format === 'f16' ? (random & 0x83ff) | 0x2400 : (random & 0x80ff) | 0x3c00;
  });
  for (let at = 0; at < units; at += bits.length) {
    device.write({ storage, offset: at }, 'f16', bits.subarray(0, Math.min(bits.length, units - at)));
  }
  return storage;
}

function floats(device, count) {
  const storage = device.alloc(count * 4);
  const values = Float32Array.from({ length: count }, () => Math.random() - 0.5);
  device.write({ storage, offset: 0 }, 'f32', values);
  return { storage, offset: 0 };
}

/** Median seconds of `run(i)`, one call at a time. */
function time(run, calls) {
  for (let i = 0; i < 3; i++) run(i);
  const seconds = Array.from({ length: calls }, (_, i) => {
    const start = performance.now();
    run(i);
    return (performance.now() - start) / 1000;
  });
  return median(seconds);
}

/** Median seconds of one product. */
function measure(device, format, m, n, k) {
  const copies = m === 1 ? Math.ceil((MEMORY_BYTES * 8) / (n * k * BITS[format])) : 1;
  const storage = weights(device, format, copies * n * k);
  const [a, c] = [floats(device, m * k), floats(device, m * n)];
  const strides = { strideA: 0, strideB: 0, strideC: 0 };
  const layout = { batch: 1, transA: 0, transB: 1, ...strides, accumulate: 0, precision: 0 };
  const run = (i) => {
    const row = (i % copies) * n;
    if (format === 'f32') {
      device.kernels.matmul({ a, b: { storage, offset: row * k }, c, bias: null, m, n, k, ...layout });
    } else {
      const w = { storage, offset: 0 };
      device.kernels.linearNarrow({ a, w, c, bias: null, m, n, k, format: FORMATS.indexOf(format) - 1, row });
    }
  };
  const seconds = time(run, m === 1 ? Math.max(60, 2 * copies) : 30);
  for (const buffer of [storage, a.storage, c.storage]) device.free(buffer);
  return seconds;
}

/** Bytes per second of reading memory with one addition per vector. */
function readRate(device) {
  const [outer, axis] = [4096, MEMORY_BYTES / 4 / 4096];
  const x = { storage: weights(device, 'f32', outer * axis), offset: 0 };
  const y = floats(device, outer);
  const seconds = time(() => device.kernels.sum({ x, y, outer, axis, inner: 1 }), 10);
  device.free(x.storage);
  device.free(y.storage);
  return MEMORY_BYTES / seconds;
}

const lines = machineLines();
const rows = [];
for (const threads of new Set([1, availableParallelism()])) {
  const device = openNative({ threads });
  const read = `${(readRate(device) / 1e9).toFixed(1)} GB/s`;
  const base = [];
  for (const format of FORMATS) {
    const one = MATRICES.map(([n, k], i) => {
      const seconds = measure(device, format, 1, n, k);
      base[i] ??= seconds;
      const rate = (n * k) / seconds / 1e9;
      const bytes = (rate * BITS[format]) / 8;
      return `${rate.toPrecision(3)} G, ${bytes.toPrecision(3)} GB/s, ${(base[i] / seconds).toFixed(1)}x`;
    });
    const [n, k] = MATRICES[1];
    const flops = (2 * PROMPT * n * k) / measure(device, format, PROMPT, n, k);
    rows.push([
      device.description,
      read,
      `${format}, ${BITS[format]} bits`,
      ...one,
      (flops / 1e9).toFixed(0),
    ]);
  }
}
const header = [
  'device',
  'plain read',
  'weights',
  ...MATRICES.map(([n, k]) => `1 row x (${n}, ${k}): weights/s, bytes/s, to f32`),
  `${PROMPT} rows x (${MATRICES[1].join(', ')}), GFLOP/s`,
];
const text = [...lines, '', table(header, rows)].join('\n');
console.log(text);
if (process.argv.includes('--write')) {
  const path = new URL('../docs/kernels.md', import.meta.url);
  writeFileSync(path, replaceBetween(readFileSync(path, 'utf8'), 'narrow', text));
}
