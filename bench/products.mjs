/**
 * Products of many rows with weights as a linear layer has them, in float32 and bfloat16, beside PyTorch (F.linear) and
 * onnxruntime (MatMul with a constant, packed at load), in alternating rounds. Prints a Markdown table and with --write puts it
 * into docs/kernels.md. `npm run bench products [-- --write]`
 *
 * MAMBA_BENCH_PYTHON: a Python with torch. MAMBA_BENCH_ONNX: a folder where `npm install onnxruntime-node` was run. Either may
 * be missing. MAMBA_THREADS: threads of all, default 2.
 */
import { readFileSync, writeFileSync } from 'node:fs';
import { setTimeout as pause } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { openNative } from '../dist/index.node.js';
import { replaceBetween, table } from '../scripts/lib/markdown.mjs';
import { machineLines, median, spread } from './_report.mjs';
import { PAUSE_MS, startProcess } from './peers/_process.mjs';

const SHAPES = [
  [512, 768, 3072],
  [512, 3072, 768],
  [2048, 768, 3072],
  [2048, 3072, 768],
  [4096, 256, 1024],
];
const ROUNDS = 7;
/** Operations of a round. */
const WORK = 2e10;
const threads = Number(process.env.MAMBA_THREADS ?? 2);
const script = (name) => fileURLToPath(new URL(`./peers/${name}`, import.meta.url));

function ours(precision) {
  const device = openNative({ threads });
  let args;
  let buffers = [];
  const floats = (count) => {
    const ref = { storage: device.alloc(count * 4), offset: 0 };
    device.write(
      ref,
      'f32',
      Float32Array.from({ length: count }, () => Math.random() - 0.5),
    );
    buffers.push(ref.storage);
    return ref;
  };
  return {
    open({ m, n, k }) {
      for (const storage of buffers) device.free(storage);
      buffers = [];
      const strides = { strideA: 0, strideB: 0, strideC: 0 };
      const operands = { a: floats(m * k), b: floats(n * k), c: floats(m * n), bias: null };
      args = { ...operands, batch: 1, m, n, k, transA: 0, transB: 1, ...strides, accumulate: 0, precision };
      device.kernels.matmul(args);
    },
    async run(repeats) {
      await pause(PAUSE_MS);
      const start = performance.now();
      for (let i = 0; i < repeats; i++) device.kernels.matmul(args);
      return (performance.now() - start) / 1000 / repeats;
    },
    close() {},
  };
}

async function peer(name, command, args, extra, env = {}) {
  const program = startProcess(name, command, args, env);
  const { version } = await program.ask({ what: 'version' });
  return {
    version,
    open: (shape) => program.ask({ what: 'open', ...shape, ...extra }),
    run: async (repeats) => (await program.ask({ what: 'run', repeats })).seconds,
    close: () => program.close(),
  };
}

async function contestants() {
  const all = { 'ours f32': ours(0), 'ours bf16': ours(1) };
  const python = process.env.MAMBA_BENCH_PYTHON;
  const folder = process.env.MAMBA_BENCH_ONNX;
  const env = { OMP_NUM_THREADS: String(threads), MKL_NUM_THREADS: String(threads) };
  for (const dtype of python ? ['float32', 'bfloat16'] : []) {
    all[`PyTorch ${dtype}`] = await peer('PyTorch', python, [script('torch_products.py')], { dtype }, env);
  }
  if (folder) {
    const args = [script('onnx_products.mjs'), folder, String(threads)];
    all['onnxruntime float32'] = await peer('onnxruntime', process.execPath, args, {});
  }
  return all;
}

const limit = openNative({ threads });
/** G operations per second that never leave the registers, of all rounds. */
const peaks = { 'ours f32': [], 'ours bf16': [] };
const programs = await contestants();
const names = Object.keys(programs);
const rows = [];
for (const [m, k, n] of SHAPES) {
  for (const name of names) await programs[name].open({ m, n, k });
  const operations = 2 * m * n * k;
  const repeats = Math.max(1, Math.round(WORK / operations));
  const rates = Object.fromEntries(names.map((name) => [name, []]));
  const shares = { 'ours f32': [], 'ours bf16': [] };
  for (let round = 0; round < ROUNDS; round++) {
    for (const name of names) rates[name].push(operations / (await programs[name].run(repeats)) / 1e9);
    for (const kind of ['f32', 'bf16']) {
      const name = `ours ${kind}`;
      const peak = limit.measurePeak(kind) / 1e9;
      peaks[name].push(peak);
      shares[name].push((100 * rates[name].at(-1)) / peak);
    }
  }
  const ratios = names
    .filter((name) => !name.startsWith('ours'))
    .map((name) => {
      const own = rates[name.endsWith('bfloat16') ? 'ours bf16' : 'ours f32'];
      return `${name} x ${(median(own) / median(rates[name])).toFixed(2)}`;
    });
  const ofLimit = Object.values(shares).map((all) => `${spread(all)} %`);
  rows.push([
    `${m} x ${k} -> ${n}`,
    ...names.map((name) => spread(rates[name])),
    ofLimit.join(', '),
    ratios.join(', '),
  ]);
}
for (const name of names) await programs[name].close();

const versions = [...new Set(names.map((name) => programs[name].version).filter(Boolean))];
const text = [
  ...machineLines(...versions),
  `${threads} threads; register-only limit ${spread(peaks['ours f32'])} GFLOP/s in float32, ${spread(peaks['ours bf16'])} in bfloat16. GFLOP/s: median (least..most) of ${ROUNDS} rounds in turns.`,
  '',
  table(['rows x k -> n', ...names, 'ours of the limit: f32, bf16', 'ours to'], rows),
].join('\n');
console.log(text);
if (process.argv.includes('--write')) {
  const path = new URL('../docs/kernels.md', import.meta.url);
  writeFileSync(path, replaceBetween(readFileSync(path, 'utf8'), 'products', text));
}
process.exit(0);
