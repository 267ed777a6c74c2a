/**
 * Training with products in float32 and in bfloat16, equal steps on the book of `npm start`: held-out bits per byte along the way, over several
 * seeds. A seed fixes weights and data, so the two runs of a seed differ in nothing but the rounding; how far two seeds are apart is the
 * noise that the difference stands beside. `node runs/precision.mjs [--steps 400] [--seeds 3]`.
 */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { availableParallelism, cpus, loadavg, tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { currentDevice, trainLm } from '../dist/index.node.js';
import { table } from '../scripts/lib/markdown.mjs';
import { readBook } from './_book.mjs';

const SETTINGS = { d_model: 128, n_layer: 4, batch: 4, length: 256, lr: 4e-3, warmup: 100, sampling: 'pack' };
const PRECISIONS = ['f32', 'bf16'];
/** Evaluations of a run, the last one at its end. */
const POINTS = 4;

const { values } = parseArgs({
  options: { steps: { type: 'string', default: '400' }, seeds: { type: 'string', default: '3' } },
});
const steps = Number(values.steps);
const seeds = Array.from({ length: Number(values.seeds) }, (_, seed) => seed);
const folder = mkdtempSync(join(tmpdir(), 'mamba-precision-'));

/** What each evaluation of a run found. */
async function curve(precision, seed) {
  const every = Math.ceil(steps / POINTS);
  const run = await trainLm({
    out: join(folder, 'run'),
    start: 'replace',
    settings: {
      ...SETTINGS,
      precision,
      seed,
      steps,
      data: [join(folder, 'book.txt')],
      logEvery: every,
      evalEvery: every,
      evalTokens: 65536,
      saveEvery: 0,
    },
  });
  run.model.dispose();
  return run.metrics.filter(({ validation }) => validation).map((m) => ({ step: m.step, ...m.validation }));
}

const mean = (xs) => xs.reduce((sum, x) => sum + x, 0) / xs.length;
const figure = (x, digits) => x.toFixed(digits).replace(/^-(0\.0+)$/, '$1');
const shown = (xs, digits) =>
  `${figure(mean(xs), digits)} (${figure(Math.min(...xs), digits)} to ${figure(Math.max(...xs), digits)})`;

try {
  writeFileSync(join(folder, 'book.txt'), readBook());
  const load = loadavg()[0].toFixed(1);
  console.log(
    `${cpus()[0]?.model.trim()}, ${availableParallelism()} cores, load ${load}, ${currentDevice().description}`,
  );
  const { d_model, n_layer, batch, length } = SETTINGS;
  console.log(
    `Mamba-1, width ${d_model}, ${n_layer} layers, batches of ${batch} x ${length}, ${steps} steps, ${seeds.length} seeds: mean (range)\n`,
  );
  const curves = { f32: [], bf16: [] };
  for (const seed of seeds)
    for (const precision of PRECISIONS) {
      const points = await curve(precision, seed);
      curves[precision].push(points);
      console.error(precision, seed, points.map(({ bitsPerByte }) => bitsPerByte.toFixed(4)).join(' '));
    }
  const rows = curves.f32[0].map(({ step }, i) => {
    const [f32, bf16] = PRECISIONS.map((p) => curves[p].map((points) => points[i].bitsPerByte));
    const differences = bf16.map((bits, seed) => bits - f32[seed]);
    return [step, shown(f32, 3), shown(bf16, 3), shown(differences, 4)];
  });
  console.log(table(['step', 'f32, held-out bits per byte', 'bf16', 'bf16 less f32, same seed'], rows));
} finally {
  rmSync(folder, { recursive: true, force: true });
}
