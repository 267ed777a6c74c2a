/**
 * Decoding on a shared machine: tokens per second while 0, 1, 2 and 4 other processes want a core each. With C
 * cores and our T threads among B busy processes, a fair system gives each of our threads C / (T + B) of a core;
 * the last column is what we reach of that. Linux shares cores between sessions first: run nothing else.
 * `npm run bench shared -- --threads 2`; --model FILE instead of mamba-130m's shape with random q8 weights.
 */
import { spawn } from 'node:child_process';
import { availableParallelism } from 'node:os';
import { parseArgs } from 'node:util';
import { generateTokens, loadModel, randomModel } from '../dist/index.node.js';
import { PRESETS } from '../dist/train/index.js';
import { table } from '../scripts/lib/markdown.mjs';
import { machineLines, median, spread } from './_report.mjs';

const cores = availableParallelism();
const { values } = parseArgs({
  options: {
    model: { type: 'string' },
    threads: { type: 'string', default: String(cores) },
    seconds: { type: 'string', default: '1.5' },
    rounds: { type: 'string', default: '3' },
  },
});
process.env.MAMBA_THREADS = values.threads;
const threads = Number(values.threads);
const BUSY = [0, 1, 2, 4];

const openModel = () =>
  values.model
    ? loadModel(values.model)
    : randomModel({ ...PRESETS['mamba-130m'], vocab_size: 50280 }, { weights: 'q8' });

/** Starts processes that do nothing but run; the function ends them. */
async function occupy(count) {
  const others = Array.from({ length: count }, () =>
    spawn(process.execPath, ['-e', "process.stdout.write('.'); for (;;);"], {
      stdio: ['ignore', 'pipe', 'inherit'],
    }),
  );
  await Promise.all(others.map(({ stdout }) => new Promise((resolve) => stdout.once('data', resolve))));
  return () => {
    for (const other of others) other.kill('SIGKILL');
  };
}

/** Tokens per second, and the longest time between two tokens in ms. */
async function decode(model, seconds) {
  let count = 0;
  let start = 0;
  let last = 0;
  let longest = 0;
  for await (const step of generateTokens(model, [[5, 6, 7]], { temperature: 0, maxTokens: 1e9 })) {
    const now = performance.now();
    if (count === 3) start = now; // the prompt, and the first steps
    if (count > 3) longest = Math.max(longest, now - last);
    last = now;
    count++;
    if (count > 3 && now - start > seconds * 1000) step.end(0);
  }
  return { rate: (1000 * (count - 4)) / (last - start), longest };
}

const model = await openModel();
await decode(model, 0.3);
const results = BUSY.map(() => ({ rates: [], longest: [] }));
for (let round = 0; round < Number(values.rounds); round++) {
  for (const [i, busy] of BUSY.entries()) {
    const end = await occupy(busy);
    try {
      const { rate, longest } = await decode(model, Number(values.seconds));
      results[i].rates.push(rate);
      results[i].longest.push(longest);
    } finally {
      end();
    }
  }
}
const alone = median(results[0].rates);
console.log(machineLines().join('\n'));
console.log(
  table(
    ['busy processes', 'tokens/s', 'longest gap, ms', 'of alone', 'fair share', 'of the fair share'],
    BUSY.map((busy, i) => {
      const used = Math.min(threads, cores);
      const fair = Math.min(1, (cores * threads) / (threads + busy) / used);
      const of = median(results[i].rates) / alone;
      const percent = (x) => `${(100 * x).toFixed(0)} %`;
      return [
        String(busy),
        spread(results[i].rates, 1),
        median(results[i].longest).toFixed(0),
        percent(of),
        percent(fair),
        percent(of / fair),
      ];
    }),
  ),
);
model.dispose();
