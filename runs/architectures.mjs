/**
 * Mamba-1, -2, -3 (one and several inputs per head) and a hybrid with attention, with the same number of parameters and the same time, on
 * the book of `npm start`: held-out bits per byte over several seeds, speed of training and of decoding, state and memory. Every architecture
 * has its own learning rate, from a sweep on another part of the book. `node runs/architectures.mjs [--minutes 3] [--seeds 3]
 * [--sweep-minutes 1.5] [--only mamba2,hybrid]`; `--quick` shows in a few minutes that everything runs, and measures nothing.
 */
import { spawn } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { resourceUsage } from 'node:process';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { median, printMachine } from '../bench/_report.mjs';
import { currentDevice, noGrad, scope, trainLm } from '../dist/index.node.js';
import { table } from '../scripts/lib/markdown.mjs';
import { readBook } from './_book.mjs';

/** Four layers of width 128 each; what differs evens out the parameters. */
const ARCHITECTURES = {
  mamba1: { arch: 'mamba1' },
  mamba2: { arch: 'mamba2' },
  mamba3: { arch: 'mamba3' },
  'mamba3-mimo': { arch: 'mamba3', mimo_rank: 2, d_state: 30 },
  hybrid: { arch: 'mamba2', d_state: 128, attnLayers: [2] },
};
const SHARED = {
  d_model: 128,
  n_layer: 4,
  batch: 4,
  length: 256,
  sampling: 'pack',
  warmup: 100,
  finalLr: 0.02,
};
const RATES = [2e-3, 4e-3, 8e-3];
/** Parameters may differ by this share of the first architecture's. */
const TOLERANCE = 0.02;
const PROMPT_TOKENS = 1024;
const DECODED_TOKENS = 256;

const { values } = parseArgs({
  options: {
    minutes: { type: 'string', default: '3' },
    seeds: { type: 'string', default: '3' },
    'sweep-minutes': { type: 'string', default: '1.5' },
    only: { type: 'string' },
    quick: { type: 'boolean', default: false },
    child: { type: 'string' },
  },
});

/** In a process of its own, so that memory is that of one run. Prints one line of JSON. */
async function child({ settings, out, promptPath }) {
  const run = await trainLm({ out, start: 'replace', settings });
  const peakBytes = 1024 * resourceUsage().maxRSS; // of training; what follows needs less
  const { model, validation, test, tokens, elapsedSeconds, parameterCount } = run;
  const decoding = promptPath ? await decode(model, promptPath) : null;
  console.log(
    JSON.stringify({
      parameterCount,
      tokens,
      tokensPerSecond: tokens / elapsedSeconds,
      valid: validation.bitsPerByte,
      test: test?.bitsPerByte,
      peakBytes,
      ...decoding,
    }),
  );
  model.dispose();
}

/** Reads a prompt, then writes token by token, always the likeliest one. */
async function decode(model, promptPath) {
  const prompt = [...readFileSync(promptPath).subarray(0, PROMPT_TOKENS)];
  const rounds = [];
  let stateBytes = 0;
  for (let round = 0; round < 3; round++) {
    const first = noGrad(() => scope(() => model.forward([prompt], { lastOnly: true })));
    stateBytes = first.state.sizeBytes;
    let { logits, state } = first;
    const begun = performance.now();
    for (let i = 0; i < DECODED_TOKENS; i++) {
      const row = await logits.floats();
      logits.dispose();
      const before = state;
      ({ logits, state } = model.step([row.indexOf(row.reduce((a, b) => Math.max(a, b)))], before));
      before.dispose();
    }
    await logits.floats();
    rounds.push(DECODED_TOKENS / ((performance.now() - begun) / 1000));
    logits.dispose();
    state.dispose();
  }
  const empty = model.initialState();
  const emptyBytes = empty.sizeBytes;
  empty.dispose();
  return { decodeTokensPerSecond: median(rounds), stateBytes, grows: stateBytes > emptyBytes };
}

async function measure(task) {
  const args = [fileURLToPath(import.meta.url), '--child', JSON.stringify(task)];
  const process_ = spawn(process.execPath, args, { stdio: ['ignore', 'pipe', 'inherit'] });
  let text = '';
  for await (const chunk of process_.stdout) text += chunk;
  if (text === '') throw new Error(`${task.settings.arch}: the run failed; its message is above.`);
  return JSON.parse(text);
}

/** `1.940 (1.931..1.948)`: the mean, and the range if there are several. */
function meanAndRange(numbers, digits) {
  const mean = numbers.reduce((a, b) => a + b, 0) / numbers.length;
  const shown = (x) => x.toFixed(digits);
  if (numbers.length === 1) return shown(mean);
  return `${shown(mean)} (${shown(Math.min(...numbers))}..${shown(Math.max(...numbers))})`;
}

async function main() {
  const minutes = values.quick ? 0.05 : Number(values.minutes);
  const sweepMinutes = values.quick ? 0.03 : Number(values['sweep-minutes']);
  const seeds = values.quick ? 1 : Number(values.seeds);
  const names = values.only ? values.only.split(',') : Object.keys(ARCHITECTURES);
  const unknown = names.find((name) => !Object.hasOwn(ARCHITECTURES, name));
  if (unknown || !(minutes > 0) || !(seeds >= 1) || !(sweepMinutes >= 0)) {
    console.error(`expected --minutes M --seeds N --sweep-minutes M --only ${Object.keys(ARCHITECTURES)}`);
    return 2;
  }
  const folder = mkdtempSync(join(tmpdir(), 'mamba-architectures-'));
  try {
    const book = Buffer.from(readBook());
    const part = (name, from, to) => {
      const path = join(folder, `${name}.txt`);
      writeFileSync(path, book.subarray(Math.floor(from * book.length), Math.floor(to * book.length)));
      return path;
    };
    const data = [part('train', 0, 0.85)];
    const valid = [part('valid', 0.85, 0.9)];
    const test = [part('test', 0.9, 1)];
    const out = join(folder, 'run');
    const run = (name, more, promptPath = null) =>
      measure({
        settings: { ...SHARED, ...ARCHITECTURES[name], data, valid, saveEvery: 0, logEvery: 100, ...more },
        out,
        promptPath,
      });

    printMachine(currentDevice().description);
    console.log(
      `Moby-Dick in bytes: the first 85 % to learn from, the next 5 % to choose the learning rate, the last 10 % measured. ` +
        `${minutes} minutes a run, ${seeds} seeds, batches of ${SHARED.batch} x ${SHARED.length}, cosine to ${100 * SHARED.finalLr} % of the rate.\n`,
    );
    const rates = new Map(names.map((name) => [name, RATES[1]]));
    if (sweepMinutes > 0) {
      const rows = [];
      for (const name of names) {
        const scores = [];
        for (const lr of RATES)
          scores.push((await run(name, { lr, minutes: sweepMinutes, seed: 100 })).valid);
        rates.set(name, RATES[scores.indexOf(Math.min(...scores))]);
        rows.push([name, ...scores.map((score) => score.toFixed(3)), rates.get(name)]);
        console.error(`sweep: ${rows.at(-1).join('  ')}`);
      }
      console.log(
        `Bits per byte of the part between after ${sweepMinutes} minutes (seed 100), by learning rate:\n\n` +
          `${table(['architecture', ...RATES.map(String), 'taken'], rows)}\n`,
      );
    }

    const results = new Map(names.map((name) => [name, []]));
    for (let seed = 0; seed < seeds; seed++) {
      // A machine that slows down or speeds up meets every architecture in turn.
      for (let i = 0; i < names.length; i++) {
        const name = names[(i + seed) % names.length];
        const result = await run(name, { lr: rates.get(name), minutes, seed, test }, test[0]);
        results.get(name).push(result);
        console.error(`seed ${seed}: ${name} ${result.test.toFixed(3)}, ${result.tokens} tokens`);
      }
    }
    const rows = names.map((name) => {
      const list = results.get(name);
      const of = (key) => list.map((result) => result[key]);
      const [{ parameterCount, stateBytes, grows }] = list;
      return [
        name,
        parameterCount,
        rates.get(name),
        meanAndRange(of('test'), 3),
        meanAndRange(of('tokensPerSecond'), 0),
        meanAndRange(of('decodeTokensPerSecond'), 0),
        `${stateBytes}${grows ? ' and growing' : ''}`,
        (median(of('peakBytes')) / 2 ** 20).toFixed(0),
      ];
    });
    const columns = ['architecture', 'parameters', 'rate', 'bits per byte', 'tokens/s in training'];
    columns.push('tokens/s decoding', `state bytes after ${PROMPT_TOKENS} tokens`, 'peak MiB');
    console.log(`Mean (range) over the seeds:\n\n${table(columns, rows)}`);
    const counts = rows.map(([, count]) => count);
    const most = Math.max(...counts.map((count) => Math.abs(count / counts[0] - 1)));
    console.log(`\nParameters differ from those of ${names[0]} by at most ${(100 * most).toFixed(1)} %.`);
    return most <= TOLERANCE ? 0 : 1;
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

if (values.child) await child(JSON.parse(values.child));
else process.exitCode = await main();
