/**
 * The selective scan alone, forward and forward + backward, side by side with mambapy's parallel scan and its sequential loop in alternating
 * rounds: state updates per second, bytes of operands per second, ratios, and the share of the limit of the machine as measured in the
 * same run. `npm run bench scan -- --length 1024`; `--peer 0` leaves mambapy out, which takes minutes
 * for long rows.
 */
import { currentDevice, noGrad, scope, selectiveScan, Tensor } from '../dist/index.node.js';
import { openPeer } from './_peer.mjs';
import { median, numbers, printMachine, spread } from './_report.mjs';

/**
 * Multiplications and fused multiply-adds per state update, counted from the equations. Forward: dt A 1, five for the
 * polynomial of 2^x, dt u B 1, the state 1, C . h 1. Backward: forward again, and eight: g, dC, dB, B . g, the gradient
 * carried on, its product with the state before, that times A, and dA. Softplus, gate and skip (once per channel, not per
 * state) are left out, as are additions, rounding and scaling: CPUs with two kinds of ports run those beside the products.
 */
const PRODUCTS = { forward: 9, backward: 17 };

const o = numbers({ batch: 2, length: 512, channels: 512, state: 16, threads: 2, rounds: 3, peer: 1 });
process.env.MAMBA_THREADS = String(o.threads);
const device = currentDevice();
const { batch: b, length: l, channels: e, state: n } = o;
const random = (shape, low, high) => {
  const size = shape.reduce((x, y) => x * y, 1);
  return Tensor.from(
    Float32Array.from({ length: size }, () => low + (high - low) * Math.random()),
    shape,
    { requiresGrad: true },
  );
};
const [u, delta, A] = [random([b, l, e], -1, 1), random([b, l, e], 0, 1), random([e, n], -1, -0.1)];
const [B, C, D] = [random([b, l, n], -1, 1), random([b, l, n], -1, 1), random([e], -1, 1)];
const inputs = [u, delta, A, B, C, D];

async function run(backward) {
  const start = performance.now();
  scope(() => {
    if (!backward) return noGrad(() => selectiveScan(u, delta, A, B, C, { D, deltaSoftplus: false })).state;
    return selectiveScan(u, delta, A, B, C, { D, deltaSoftplus: false }).y.sum().backward();
  });
  for (const x of inputs) {
    x.grad?.dispose();
    x.grad = null;
  }
  return (performance.now() - start) / 1000;
}

const peer = o.peer ? await openPeer(o.threads) : null;
printMachine(`device ${device.description}`, ...(peer ? [peer.version] : []));
console.log(
  `selective scan: batch ${b}, length ${l}, ${e} channels, d_state ${n}, ${o.threads} threads, ${o.rounds} rounds`,
);
const updates = b * l * e * n;
/** Products per second that never leave the registers, of every round: a shared machine may lend one core for a while. */
const peaks = [];
// Operands once: forward reads u, delta, B, C and writes y; backward reads these and dy again and writes du, ddelta, dB, dC.
const forwardBytes = 4 * b * l * (3 * e + 2 * n);
for (const backward of [false, true]) {
  const bytes = backward ? forwardBytes + 4 * b * l * (5 * e + 4 * n) : forwardBytes;
  await run(backward);
  peaks.length = 0;
  const rates = { ours: [], pscan: [], sequential: [] };
  for (let round = 0; round < o.rounds; round++) {
    const seconds = [];
    for (let i = 0; i < 5; i++) seconds.push(await run(backward));
    rates.ours.push(updates / median(seconds) / 1e9);
    if (device.measurePeak) peaks.push(device.measurePeak() / 2e9);
    for (const pscan of peer ? [true, false] : []) {
      const request = { what: 'scan', batch: b, length: l, channels: e, state: n, backward, pscan };
      rates[pscan ? 'pscan' : 'sequential'].push(updates / (await peer.ask(request)).seconds / 1e9);
    }
  }
  const gigabytes = rates.ours.map((rate) => (rate * bytes) / updates);
  console.log(backward ? 'forward + backward' : 'forward');
  console.log(
    `  mamba.ts            ${spread(rates.ours, 2)} G updates/s, ${spread(gigabytes, 1)} GB/s of operands`,
  );
  const products = PRODUCTS.forward + (backward ? PRODUCTS.backward : 0);
  const floor = `${(bytes / 1e6).toFixed(1)} MB at least`;
  console.log(`  ${products} products per update, ${floor}`);
  if (peaks.length > 0) {
    const shares = rates.ours.map((rate, i) => (100 * rate * products) / peaks[i]);
    console.log(`  ${spread(shares, 0)} % of ${spread(peaks, 0)} G products/s`);
  }
  for (const kind of peer ? ['pscan', 'sequential'] : []) {
    const ratios = rates.ours.map((rate, i) => rate / rates[kind][i]);
    console.log(
      `  mambapy ${kind.padEnd(11)} ${spread(rates[kind], 3)} G updates/s, ratio ${spread(ratios, 1)}`,
    );
  }
}
peer?.close();
