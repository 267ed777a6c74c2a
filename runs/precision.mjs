/**
 * Training with products in float32 and in bfloat16, equal steps on the book of `npm start`: held-out bits per byte along
 * the way, over several seeds. A seed fixes weights and data, so the two runs of a seed differ in nothing but the rounding;
 * how far two seeds are apart is the noise that the difference stands beside. --write puts the table into docs/results.md.
 * `node runs/precision.mjs [--steps 400] [--seeds 3] [--write]`
 */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { availableParallelism, cpus, tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { currentDevice, trainLm } from '../dist/index.node.js';
import { replaceBetween, table } from '../scripts/lib/markdown.mjs';
import { readBook } from './_book.mjs';

const SETTINGS = { d_model: 128, n_layer: 4, batch: 4, length: 256, lr: 4e-3, warmup: 100, sampling: 'pack' };
const PRECISIONS = ['f32', 'bf16'];
/** Evaluations of a run, the last one at its end. */
const POINTS = 4;

const { values } = parseArgs({
  options: {
    steps: { type: 'string', default: '400' },
    seeds: { type: 'string', default: '3' },
    write: { type: 'boolean', default: false },
  },
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

/** The evaluations of all runs as a table, and what follows from it: the largest differences beside the least spread. */
function report(curves) {
  const { d_model, n_layer, batch, length } = SETTINGS;
  const points = curves.f32[0].map(({ step }, i) => {
    const [f32, bf16] = PRECISIONS.map((p) => curves[p].map((points) => points[i].bitsPerByte));
    return { step, f32, bf16, differences: bf16.map((bits, seed) => bits - f32[seed]) };
  });
  const rows = points.map(({ step, f32, bf16, differences }) => [
    step,
    shown(f32, 3),
    shown(bf16, 3),
    shown(differences, 4),
  ]);
  const largest = (some) => Math.max(...some.flatMap(({ differences }) => differences.map(Math.abs)));
  const spread = Math.min(...points.map(({ f32 }) => Math.max(...f32) - Math.min(...f32)));
  return [
    `${cpus()[0]?.model.trim()}, ${availableParallelism()} cores, ${currentDevice().description}; what else runs changes no figure.`,
    `Mamba-1, width ${d_model}, ${n_layer} layers, batches of ${batch} x ${length}, ${steps} steps, ${seeds.length} seeds: mean (range)`,
    '',
    table(['step', 'f32, held-out bits per byte', 'bf16', 'bf16 less f32, same seed'], rows),
    '',
    `The rounding moves a run by at most ${figure(largest(points), 4)} bits per byte, at the end by ` +
      `${figure(largest(points.slice(-1)), 4)}; another seed moves it by ${figure(spread, 3)} and more.`,
  ].join('\n');
}

try {
  writeFileSync(join(folder, 'book.txt'), readBook());
  const curves = { f32: [], bf16: [] };
  for (const seed of seeds)
    for (const precision of PRECISIONS) {
      const points = await curve(precision, seed);
      curves[precision].push(points);
      console.error(precision, seed, points.map(({ bitsPerByte }) => bitsPerByte.toFixed(4)).join(' '));
    }
  const text = report(curves);
  console.log(text);
  if (values.write) {
    const path = new URL('../docs/results.md', import.meta.url);
    writeFileSync(path, replaceBetween(readFileSync(path, 'utf8'), 'precision', text));
  }
} finally {
  rmSync(folder, { recursive: true, force: true });
}
