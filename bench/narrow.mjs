/**
 * Products with weights of every storage format, 1 to 512 rows of activations: a token, small batches, a
 * prompt. Weights come from memory: every call takes another copy. Beside them a bare pass over memory and
 * the limits of the arithmetic, of the same run. Prints a Markdown table and with --write puts it into
 * docs/kernels.md. `npm run bench narrow -- --write`
 */
import { readFileSync, writeFileSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { openNative } from '../dist/index.node.js';
import { replaceBetween, table } from '../scripts/lib/markdown.mjs';
import { machineLines, median } from './_report.mjs';

/** Format, precision. */
const WAYS = [
  ['f32', 'f32'],
  ['bf16', 'f32'],
  ['bf16', 'bf16'],
  ['f16', 'f32'],
  ['q8', 'f32'],
  ['q8', 'int8'],
  ['q4', 'f32'],
  ['q4', 'int8'],
];
const FORMATS = ['bf16', 'f16', 'q8', 'q4'];
const PRECISIONS = ['f32', 'bf16', 'int8'];
const BITS = { f32: 32, bf16: 16, f16: 16, q8: 8.5, q4: 4.5 };
/** (n, k) of mamba-130m's in_proj. */
const [N, K] = [3072, 768];
const ROWS = [1, 4, 16, 64, 512];
/** Many times what caches hold. */
const MEMORY_BYTES = 2 ** 28;
/** Units of 16 bits that are written at a time. */
const PIECE = 17 * 9 * 6400;

/**
 * A buffer of random numbers of moderate size. Panels have their 16 scales behind the quants of 16 blocks.
 */
function weights(device, format, count) {
  const units = (count * BITS[format]) / 16;
  const storage = device.alloc(units * 2);
  const block = { q8: 17 * 16, q4: 9 * 16 }[format];
  const bits = Uint16Array.from({ length: Math.min(PIECE, units) }, (_, i) => {
    const random = Math.random() * 65536;
    if (block) return i % block >= block - 16 ? 0x1c00 : random;
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

/** Median seconds of products with 1, 4, ... rows. */
function measure(device, format, precision) {
  const copies = Math.ceil((MEMORY_BYTES * 8) / (N * K * BITS[format]));
  const storage = weights(device, format, copies * N * K);
  const most = ROWS.at(-1);
  const [a, c] = [floats(device, most * K), floats(device, most * N)];
  const layout = { batch: 1, transA: 0, transB: 1, strideA: 0, strideB: 0, strideC: 0, accumulate: 0 };
  const common = { a, c, bias: null, n: N, k: K, precision: PRECISIONS.indexOf(precision) };
  const seconds = ROWS.map((m) => {
    const run = (i) => {
      const row = (i % copies) * N;
      if (format === 'f32') {
        device.kernels.matmul({ ...common, m, b: { storage, offset: row * K }, ...layout });
      } else {
        const w = { storage, offset: 0 };
        device.kernels.linearNarrow({ ...common, m, w, format: FORMATS.indexOf(format), row });
      }
    };
    return time(run, m === 1 ? Math.max(40, 2 * copies) : m < most ? 40 : 12);
  });
  for (const buffer of [storage, a.storage, c.storage]) device.free(buffer);
  return seconds;
}

const lines = machineLines();
const rows = [];
for (const threads of new Set([1, availableParallelism()])) {
  const device = openNative({ threads });
  const read = device.measureRead();
  const peaks = Object.fromEntries(PRECISIONS.map((kind) => [kind, device.measurePeak(kind)]));
  for (const [format, precision] of WAYS) {
    const seconds = measure(device, format, precision);
    const rate = (N * K * BITS[format]) / 8 / seconds[0];
    // Blocks are integers whatever the precision: 16 bits are two passes of 8.
    const limit = format.startsWith('q') ? peaks.int8 / (precision === 'int8' ? 1 : 2) : peaks[precision];
    rows.push([
      device.description,
      `${format}, ${precision}`,
      `${(rate / 1e9).toFixed(1)} of ${(read / 1e9).toFixed(1)} GB/s`,
      ...seconds.map((s) => `${(s * 1e6).toFixed(0)} us`),
      `${((2 * ROWS.at(-1) * N * K) / seconds.at(-1) / 1e9).toFixed(0)} of ${(limit / 1e9).toFixed(0)}`,
    ]);
  }
}
const header = [
  'device',
  'weights, precision',
  'bytes of 1 row, of a bare pass',
  ...ROWS.map((m) => `${m} row${m === 1 ? '' : 's'}`),
  `${ROWS.at(-1)} rows: G operations/s, limit`,
];
const text = [...lines, `Products with a matrix of (${N}, ${K}).`, '', table(header, rows)].join('\n');
console.log(text);
if (process.argv.includes('--write')) {
  const path = new URL('../docs/kernels.md', import.meta.url);
  writeFileSync(path, replaceBetween(readFileSync(path, 'utf8'), 'narrow', text));
}
