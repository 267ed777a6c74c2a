/**
 * Training speed of a whole step (forward, backward, clipping, AdamW), side by side with mambapy on PyTorch in alternating rounds: same shapes,
 * same thread count, tokens/s, peak memory and the ratio. `npm run bench train -- --d_model 256 --rounds 5`; with `--arch 2` or `3`
 * Mamba-2 or -3 alone, heads and states as `train lm` gives them.
 */
import { resourceUsage } from 'node:process';
import { currentDevice, LanguageModel, scope, Tensor } from '../dist/index.node.js';
import { AdamW, SHAPE_DEFAULTS, shapeInput } from '../dist/train/index.js';
import { openPeer } from './_peer.mjs';
import { median, numbers, printMachine, spread } from './_report.mjs';

const o = numbers({
  d_model: 256,
  n_layer: 4,
  length: 512,
  batch: 8,
  vocab: 256,
  threads: 2,
  rounds: 5,
  sequential: 0,
  arch: 1,
});
process.env.MAMBA_THREADS = String(o.threads);

const device = currentDevice();
const shape = shapeInput(
  { ...SHAPE_DEFAULTS, arch: `mamba${o.arch}` },
  { d_model: o.d_model, n_layer: o.n_layer },
);
const model = new LanguageModel({ ...shape, vocab_size: o.vocab });
const optimizer = new AdamW(model.namedParameters(), { maxNorm: 1 });
const ids = Int32Array.from({ length: o.batch * o.length }, () => Math.floor(Math.random() * o.vocab));
const tokens = ids.length;

async function step() {
  const start = performance.now();
  const loss = scope(() => {
    const x = Tensor.from(ids, [o.batch, o.length]);
    const out = model.loss(x, x);
    out.loss.backward();
    return out.loss;
  });
  optimizer.step(1e-3);
  await loss.item();
  loss.dispose();
  return (performance.now() - start) / 1000;
}

const peer = o.arch === 1 ? await openPeer(o.threads) : null;
printMachine(`device ${device.description}`, ...(peer ? [peer.version] : []));
console.log(
  `mamba${o.arch}, d_model ${o.d_model}, ${o.n_layer} layers, batch ${o.batch} x ${o.length}, ${o.threads} threads, f32, ${o.rounds} rounds`,
);
const request = {
  what: 'train',
  d_model: o.d_model,
  n_layer: o.n_layer,
  length: o.length,
  batch: o.batch,
  vocab: o.vocab,
  pscan: o.sequential === 0,
};
await step();
const ours = [];
const theirs = [];
let peerPeak = 0;
for (let round = 0; round < o.rounds; round++) {
  const seconds = [];
  for (let i = 0; i < 3; i++) seconds.push(await step());
  ours.push(tokens / median(seconds));
  if (peer) {
    const { seconds: s, peak_mib } = await peer.ask(request);
    theirs.push(tokens / s);
    peerPeak = peak_mib;
  }
}
peer?.close();
const peak = resourceUsage().maxRSS / 1024;
console.log(
  `mamba.ts  ${spread(ours)} tokens/s, peak memory ${peak.toFixed(0)} MiB (device ${(device.memory.peakBytes / 2 ** 20).toFixed(0)} MiB)`,
);
if (peer) {
  const ratios = ours.map((x, i) => x / theirs[i]);
  console.log(
    `mambapy ${o.sequential ? 'sequential' : 'pscan'}  ${spread(theirs)} tokens/s, peak memory ${peerPeak.toFixed(0)} MiB`,
  );
  console.log(`ratio ${spread(ratios, 1)} in speed, ${(peak / peerPeak).toFixed(2)} of the memory`);
}
