/**
 * Matrix products in the shapes of a model with d_model 256 (training on 4096 tokens) and of decoding: GFLOP/s, the share of
 * the register-only limit measured in the same run, and GB/s of weights where those decide. `npm run bench matmul -- --threads 1`
 */
import { isaVariants, openNative, openWasmFile } from '../dist/index.node.js';
import { median, numbers, printMachine } from './_report.mjs';

const o = numbers({ threads: 2, rounds: 11, wasm: 1 });

// What, m, n, k, transA, transB.
const SHAPES = [
  ['in_proj', 4096, 1024, 256, 0, 1],
  ['x_proj', 4096, 48, 512, 0, 1],
  ['dt_proj', 4096, 512, 16, 0, 1],
  ['out_proj', 4096, 256, 512, 0, 1],
  ['dx of in_proj', 4096, 256, 1024, 0, 0],
  ['dx of dt_proj', 4096, 16, 512, 0, 0],
  ['dW of in_proj', 1024, 256, 4096, 1, 0],
  ['dW of x_proj', 48, 512, 4096, 1, 0],
  ['dW of dt_proj', 512, 16, 4096, 1, 0],
  ['square', 1024, 1024, 1024, 0, 0],
  ['1 token', 1, 4096, 1024, 0, 1],
  ['1 token, large', 1, 50304, 768, 0, 1],
  ['4 tokens', 4, 4096, 1024, 0, 1],
  ['16 tokens', 16, 4096, 1024, 0, 1],
];

function operand(device, count) {
  const ref = { storage: device.alloc(count * 4), offset: 0 };
  device.write(
    ref,
    'f32',
    Float32Array.from({ length: count }, () => Math.random() - 0.5),
  );
  return ref;
}

/** Median seconds of one product. */
function time(device, [, m, n, k, transA, transB], rounds) {
  const [a, b, c] = [operand(device, m * k), operand(device, k * n), operand(device, m * n)];
  const strides = { strideA: 0, strideB: 0, strideC: 0 };
  const args = {
    a,
    b,
    c,
    bias: null,
    batch: 1,
    m,
    n,
    k,
    transA,
    transB,
    ...strides,
    accumulate: 0,
    precision: 0,
  };
  // Several products a round where one is too short for the clock.
  const repeats = Math.max(1, Math.round(1e8 / (2 * m * n * k)));
  const seconds = [];
  for (let round = -1; round < rounds; round++) {
    const start = performance.now();
    for (let i = 0; i < repeats; i++) device.kernels.matmul(args);
    if (round >= 0) seconds.push((performance.now() - start) / 1000 / repeats);
  }
  for (const { storage } of [a, b, c]) device.free(storage);
  return median(seconds);
}

function report(device, peak) {
  const limit = peak ? `, limit ${(peak / 1e9).toFixed(0)} GFLOP/s` : '';
  console.log(`\n${device.description}${limit}`);
  for (const shape of SHAPES) {
    const [name, m, n, k, transA, transB] = shape;
    const seconds = time(device, shape, o.rounds);
    const rate = (2 * m * n * k) / seconds;
    const size = `${m} x ${n} x ${k}${transA ? ' aT' : ''}${transB ? ' bT' : ''}`;
    const share = peak ? `${((100 * rate) / peak).toFixed(0).padStart(4)} %` : '';
    const weights = m <= 16 ? `  ${((4 * n * k) / seconds / 1e9).toFixed(1)} GB/s of weights` : '';
    console.log(
      `  ${name.padEnd(16)}${size.padEnd(24)}${(rate / 1e9).toFixed(1).padStart(7)} GFLOP/s ${share}${weights}`,
    );
  }
}

printMachine(`medians of ${o.rounds} rounds`);
for (const isa of isaVariants()) {
  const device = openNative({ isa, threads: o.threads });
  report(device, device.measurePeak());
}
if (o.wasm) report(openWasmFile({ threads: o.threads }), 0);
