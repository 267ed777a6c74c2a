/**
 * Causal attention alone, side by side with its twin composed from primitives in alternating rounds: products
 * per second forward and forward + backward, peak memory; then decoding after a prompt, in bytes of the cache
 * read per second, with and without appending to it. `npm run bench attention -- --length 1024 --heads 12
 * --kvheads 4`
 */
import {
  appendKeys,
  attention,
  attentionRef,
  currentDevice,
  noGrad,
  scope,
  Tensor,
} from '../dist/index.node.js';
import { median, numbers, printMachine, spread } from './_report.mjs';

const defaults = {
  batch: 1,
  length: 1024,
  heads: 12,
  kvheads: 12,
  width: 64,
  past: 4096,
  threads: 2,
  rounds: 3,
};
const o = numbers(defaults);
process.env.MAMBA_THREADS = String(o.threads);
const device = currentDevice();
const { batch: b, length: l, heads: hq, kvheads: hk, width: d } = o;
const random = (shape) => {
  const size = shape.reduce((x, y) => x * y, 1);
  const values = Float32Array.from({ length: size }, () => 2 * Math.random() - 1);
  return Tensor.from(values, shape, { requiresGrad: true });
};
const inputs = [random([b, l, hq, d]), random([b, l, hk, d]), random([b, l, hk, d])];

function time(fn) {
  const start = performance.now();
  scope(fn);
  const seconds = (performance.now() - start) / 1000;
  for (const x of inputs) {
    x.grad?.dispose();
    x.grad = null;
  }
  return seconds;
}

printMachine(`device ${device.description}`);
console.log(`attention: batch ${b}, length ${l}, ${hq} heads over ${hk} of ${d}, ${o.rounds} rounds`);
const pairs = (b * hq * l * (l + 1)) / 2;
for (const backward of [false, true]) {
  const flops = pairs * d * (backward ? 14 : 4); // 2 matrix products forward, 5 backward
  const ways = [attention, attentionRef].map((fn) => ({
    name: fn.name,
    rates: [],
    bytes: 0,
    run: () =>
      backward
        ? fn(...inputs)
            .sum()
            .backward()
        : noGrad(() => fn(...inputs)),
  }));
  for (const way of ways) {
    device.resetPeak();
    const before = device.memory.liveBytes;
    time(way.run);
    way.bytes = device.memory.peakBytes - before;
  }
  for (let round = 0; round < o.rounds; round++) {
    for (const way of ways) {
      const seconds = median([1, 2, 3].map(() => time(way.run)));
      way.rates.push(flops / seconds / 1e9);
    }
  }
  console.log(backward ? 'forward + backward' : 'forward');
  for (const { name, rates, bytes } of ways) {
    console.log(
      `  ${name.padEnd(13)} ${spread(rates, 1)} GFLOP/s, ${(bytes / 1e6).toFixed(1)} MB at the peak`,
    );
  }
  const ratios = ways[0].rates.map((rate, i) => rate / ways[1].rates[i]);
  console.log(`  ratio         ${spread(ratios, 1)}`);
}

const cache = [random([b, o.past, hk, d]), random([b, o.past, hk, d])];
const fresh = [random([b, 1, hk, d]), random([b, 1, hk, d])];
const query = random([b, 1, hq, d]);
const past = new Array(b).fill(o.past);
const append = () => cache.map((x, i) => appendKeys(x, fresh[i], { past }).all);
const filled = scope(() => noGrad(append));
const look = ([k, v]) => noGrad(() => attention(query, k, v, { past }));
const read = 2 * 4 * b * (o.past + 1) * hk * d;
console.log(`one token after ${o.past}: a cache of ${(read / 1e6).toFixed(1)} MB`);
for (const [name, run] of [
  ['attention', () => look(filled)],
  ['and append', () => look(noGrad(append))],
]) {
  const rates = Array.from(
    { length: o.rounds },
    () => read / median([1, 2, 3, 4, 5].map(() => time(run))) / 1e9,
  );
  console.log(`  ${name.padEnd(13)} ${spread(rates, 1)} GB/s of cache`);
}
