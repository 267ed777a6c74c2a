/**
 * From plain loops to every core: the heart of a layer on each device that opens here, one thread first. Prints a Markdown table and
 * with --write puts it into docs/kernels.md. `npm run bench ladder -- --write`
 */
import { readFileSync, writeFileSync } from 'node:fs';
import {
  isaVariants,
  noGrad,
  openDevice,
  openNative,
  openWasmFile,
  scope,
  selectiveScan,
  Tensor,
  withDevice,
} from '../dist/index.node.js';
import { replaceBetween, table } from '../scripts/lib/markdown.mjs';
import { machineLines, median } from './_report.mjs';

const [b, l, e, n, d] = [2, 512, 512, 16, 256];
const ROUNDS = 7;
const MAX_REPEATS = 100;

const random = (shape, low, high) => {
  const size = shape.reduce((x, y) => x * y, 1);
  return Tensor.from(
    Float32Array.from({ length: size }, () => low + (high - low) * Math.random()),
    shape,
    { requiresGrad: true },
  );
};

/** Median seconds of `run`: every round repeats it for at least 50 ms, after one run to warm up. */
function time(run) {
  run();
  const seconds = Array.from({ length: ROUNDS }, () => {
    const start = performance.now();
    let count = 0;
    do run();
    while (++count < MAX_REPEATS && performance.now() - start < 50);
    return (performance.now() - start) / 1000 / count;
  });
  return median(seconds);
}

function measure(device) {
  return withDevice(device, () =>
    scope(() => {
      const [u, delta, z] = [random([b, l, e], -1, 1), random([b, l, e], -4, 0), random([b, l, e], -1, 1)];
      const [A, B, C] = [random([e, n], -1, -0.1), random([b, l, n], -1, 1), random([b, l, n], -1, 1)];
      const [x, w] = [random([b * l, d], -1, 1), random([d, 2 * e], -1, 1)];
      const scan = () => selectiveScan(u, delta, A, B, C, { z, deltaSoftplus: true });
      const forward = time(() => scope(() => noGrad(scan)));
      const both = time(() =>
        scope(() => {
          scan().y.sum().backward();
          for (const t of [u, delta, z, A, B, C]) {
            t.grad?.dispose();
            t.grad = null;
          }
        }),
      );
      const product = time(() => scope(() => noGrad(() => x.matmul(w))));
      const updates = (b * l * e * n) / 1e9;
      return [updates / forward, updates / both, (2 * b * l * d * 2 * e) / 1e9 / product];
    }),
  );
}

const rungs = [
  ['plain TypeScript, float64 sums', () => openDevice('reference')],
  ['the C++ as WebAssembly, SIMD128', () => openWasmFile({ threads: 1 })],
  ...isaVariants()
    .reverse()
    .map((isa) => [`native ${isa}, 1 thread`, () => openNative({ isa, threads: 1 })]),
  [`native ${isaVariants()[0]}, 2 threads`, () => openNative({ threads: 2 })],
];
const rows = [];
for (const [label, open] of rungs)
  rows.push([label, ...measure(await open()).map((rate) => rate.toPrecision(3))]);

const text = [
  ...machineLines(),
  `Selective scan: batch ${b}, length ${l}, ${e} channels, d_state ${n}, softplus and gate; product: ${b * l} x ${d} x ${2 * e}, medians of ${ROUNDS}.`,
  '',
  table(
    ['device', 'scan forward, G updates/s', 'forward and backward, G updates/s', 'product, GFLOP/s'],
    rows,
  ),
].join('\n');
console.log(text);
if (process.argv.includes('--write')) {
  const path = new URL('../docs/kernels.md', import.meta.url);
  writeFileSync(path, replaceBetween(readFileSync(path, 'utf8'), 'ladder', text));
}
