/**
 * The table of docs/guide/train.md: what a change of the recipe does to held-out bits per byte of Moby-Dick. Every row trains on the same
 * number of tokens, or for the same minutes. `node runs/recipe.mjs --tokens 1500000 '{}' '{"batch":8}'`; without rows: those of the guide.
 */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { availableParallelism, cpus, loadavg, tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { currentDevice, trainLm } from '../dist/index.node.js';
import { readBook } from './_book.mjs';

const ROWS = [
  { batch: 16, sampling: 'random' },
  { batch: 8, sampling: 'random' },
  { batch: 8 },
  { batch: 8, length: 512 },
  { lr: 3e-3 },
  {},
  { lr: 6e-3 },
];
const BASE = { d_model: 128, n_layer: 4, batch: 4, length: 256, lr: 4e-3, warmup: 100, sampling: 'pack' };

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    tokens: { type: 'string', default: '1500000' },
    minutes: { type: 'string' },
    seed: { type: 'string', default: '0' },
  },
});
const rows = positionals.length > 0 ? positionals.map((row) => JSON.parse(row)) : ROWS;
const folder = mkdtempSync(join(tmpdir(), 'mamba-recipe-'));
try {
  const book = join(folder, 'book.txt');
  writeFileSync(book, readBook());
  console.log(
    `${cpus()[0]?.model.trim()}, ${availableParallelism()} cores, load ${loadavg()[0].toFixed(1)}, ${currentDevice().description}`,
  );
  console.log('| recipe | tokens | tokens/s | held-out bits per byte |\n|---|---|---|---|');
  for (const row of rows) {
    const settings = { ...BASE, ...row };
    const steps = Math.round(Number(values.tokens) / settings.batch / settings.length);
    const budget = values.minutes ? { minutes: Number(values.minutes) } : { steps };
    const run = await trainLm({
      out: join(folder, 'run'),
      start: 'replace',
      settings: {
        ...settings,
        ...budget,
        data: [book],
        seed: Number(values.seed),
        saveEvery: 0,
        evalEvery: 0,
      },
    });
    run.model.dispose();
    const speed = (run.tokens / run.elapsedSeconds).toFixed(0);
    console.log(
      `| ${JSON.stringify(row)} | ${run.tokens} | ${speed} | ${run.validation.bitsPerByte.toFixed(3)} |`,
    );
  }
} finally {
  rmSync(folder, { recursive: true, force: true });
}
