/**
 * The scan of Mamba-2 in chunks (ssd) beside the same function as a selective scan, with A and dt repeated for all channels and
 * states of a head: alternating rounds, forward and forward + backward, state updates per second, ratios, and the share of the
 * machine's limit that the multiply-adds of the chunked form reach. `npm run bench ssd -- --state 64 --threads 1`
 */
import { noGrad, openNative, scope, selectiveScan, ssd, Tensor } from '../dist/index.node.js';
import { numbers, printMachine, spread } from './_report.mjs';

const o = numbers({
  batch: 1,
  length: 2048,
  heads: 24,
  headdim: 64,
  state: 128,
  threads: 2,
  rounds: 9,
});
const { batch: b, length: l, heads: h, headdim: p, state: n } = o;
const device = openNative({ threads: o.threads });
const random = (shape, low, high) => {
  const size = shape.reduce((x, y) => x * y, 1);
  const values = Float32Array.from({ length: size }, () => low + (high - low) * Math.random());
  return Tensor.from(values, shape, { requiresGrad: true, device });
};
/** A leaf with every number of `tensor` repeated. */
function repeated(values, times, shape) {
  const all = Float32Array.from({ length: values.length * times }, (_, i) => values[Math.floor(i / times)]);
  return Tensor.from(all, shape, { requiresGrad: true, device });
}

const [x, dt, A] = [random([b, l, h, p], -1, 1), random([b, l, h], 0.001, 0.1), random([h], -16, -1)];
const [B, C, D] = [random([b, l, 1, n], -1, 1), random([b, l, 1, n], -1, 1), random([h], -1, 1)];
const wide = {
  x: repeated(await x.data(), 1, [b, l, h * p]),
  dt: repeated(await dt.data(), p, [b, l, h * p]),
  A: repeated(await A.data(), p * n, [h * p, n]),
  B: repeated(await B.data(), 1, [b, l, n]),
  C: repeated(await C.data(), 1, [b, l, n]),
  D: repeated(await D.data(), p, [h * p]),
};
const leaves = [x, dt, A, B, C, D, ...Object.values(wide)];

const forms = {
  scan: () => selectiveScan(wide.x, wide.dt, wide.A, wide.B, wide.C, { D: wide.D, deltaSoftplus: false }),
  ...Object.fromEntries(
    [16, 64, 128, 256].map((q) => [`ssd, chunk ${q}`, () => ssd(x, dt, A, B, C, { D, chunkSize: q })]),
  ),
};

/** Seconds of one run. */
function time(form, backward) {
  const start = performance.now();
  scope(() => {
    if (backward) form().y.sum().backward();
    else noGrad(form);
    return null;
  });
  const seconds = (performance.now() - start) / 1000;
  for (const leaf of leaves) {
    leaf.grad?.dispose();
    leaf.grad = null;
  }
  return seconds;
}

printMachine(`device ${device.description}`);
console.log(`batch ${b}, length ${l}, ${h} heads of ${p}, d_state ${n}, ${o.rounds} rounds`);
const results = noGrad(() => [forms.scan().y, forms['ssd, chunk 64']().y]);
const [one, other] = await Promise.all(results.map((y) => y.data()));
for (const y of results) y.dispose();
const largest = (values) => values.reduce((most, v) => Math.max(most, Math.abs(v)), 0);
const different = largest(one.map((v, i) => v - other[i])) / largest(one);
console.log(`both forms agree to ${different.toExponential(1)} of the largest y`);
const limit = device.measurePeak();
console.log(`limit of multiply-adds in registers ${(limit / 1e9).toFixed(0)} GFLOP/s`);

const updates = b * l * h * p * n;
for (const backward of [false, true]) {
  console.log(backward ? 'forward + backward' : 'forward');
  const rates = Object.fromEntries(Object.keys(forms).map((name) => [name, []]));
  for (const form of Object.values(forms)) time(form, backward);
  for (let round = 0; round < o.rounds; round++) {
    for (const [name, form] of Object.entries(forms)) rates[name].push(updates / time(form, backward) / 1e9);
  }
  for (const [name, own] of Object.entries(rates)) {
    const ratios = own.map((rate, i) => rate / rates.scan[i]);
    // A token of a head multiplies n p numbers with the state and into it, twice as often backward, and more within its chunk.
    const products = (2 * 1e9 * (backward ? 6 : 2)) / limit;
    const shares = own.map((rate) => 100 * rate * products);
    const chunked =
      name === 'scan' ? '' : `, ratio ${spread(ratios, 1)}, at least ${spread(shares, 0)} % of the limit`;
    console.log(`  ${name.padEnd(15)} ${spread(own, 2)} G updates/s${chunked}`);
  }
}
