/**
 * mamba.ts beside other programs, in alternating rounds (bench/peers/):
 *   npm run bench peers -- [--only decode,prefill,...] [--peer-llama FOLDER] [--python PATH] [--models FOLDER] [--threads N] [--rounds N]
 *                          [--match REGEX] [--write]
 * Sections: decode, prefill, batch (llama.cpp; see peers/_llama.mjs for FOLDER), train and train-slow (a Python with torch, mambapy and
 * transformers; train-slow only when named), scaling, kernels (peers as products.mjs says). Without their peer sections are left out. --models keeps
 * the GGUF files (default: a folder of the system for temporary files). --match measures a part of a section. --write replaces the
 * section in bench/results.md.
 */
import { spawnSync } from 'node:child_process';
import { loadavg, tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { machineLines, median } from './_report.mjs';
import { batch, decode, prefill } from './peers/_inference.mjs';
import { startLlama, startOurs, startTorch } from './peers/_process.mjs';
import { printSection, ratios, writeSection } from './peers/_results.mjs';
import { scaling } from './peers/_scaling.mjs';
import { train, trainSlow } from './peers/_training.mjs';

const SCAN = [
  'scan',
  '--batch',
  '1',
  '--length',
  '2048',
  '--channels',
  '1536',
  '--rounds',
  '5',
  '--peer',
  '0',
];

/** What each section measures, beside whom. */
const SECTIONS = {
  decode: { title: 'Decoding, batch 1', needs: 'llama', measure: decode },
  prefill: { title: 'Prompts', needs: 'llama', measure: prefill },
  batch: { title: 'Decoding, several sequences', needs: 'llama', measure: batch },
  train: { title: 'Training steps, float32', needs: 'python', measure: train },
  'train-slow': { title: 'Training steps, peers that take minutes', needs: 'python', measure: trainSlow },
  scaling: { title: 'Two threads beside one', needs: null, measure: scaling },
  kernels: { title: 'Kernels', needs: null, programs: [SCAN, ['products']] },
};
const NAMES = Object.keys(SECTIONS);

function usage(message) {
  console.error(`peers: ${message}`);
  process.exit(2);
}

function readOptions() {
  const { values } = parseArgs({
    options: {
      only: { type: 'string', default: NAMES.filter((name) => name !== 'train-slow').join(',') },
      'peer-llama': { type: 'string' },
      python: { type: 'string' },
      models: { type: 'string', default: join(tmpdir(), 'mamba-ts-bench') },
      threads: { type: 'string', default: '2' },
      rounds: { type: 'string', default: '5' },
      match: { type: 'string', default: '' },
      write: { type: 'boolean', default: false },
    },
  });
  const only = values.only.split(',');
  const unknown = only.find((name) => !NAMES.includes(name));
  if (unknown) usage(`expected sections of ${NAMES.join(', ')}, got ${unknown}.`);
  const [threads, rounds] = [Number(values.threads), Number(values.rounds)];
  if (!(Number.isInteger(threads) && threads > 0 && Number.isInteger(rounds) && rounds > 0))
    usage(
      `expected whole numbers above 0 for --threads and --rounds, got ${values.threads}, ${values.rounds}.`,
    );
  if (values.match && values.write)
    usage('expected --match without --write: a part would replace the whole.');
  return { ...values, llama: values['peer-llama'], only, threads, rounds, match: new RegExp(values.match) };
}

async function versionsOf(...processes) {
  const found = [];
  for (const process of processes) {
    found.push(...(await process.ask({ what: 'versions' })).versions);
    await process.close();
  }
  return found;
}

/** Machine, versions, and how busy it was. */
function machine(versions, loads, started) {
  const day = new Date(started).toISOString().slice(0, 10);
  const seconds = ((Date.now() - started) / 1000).toFixed(0);
  const spread = loads.length
    ? `${Math.min(...loads).toFixed(1)} to ${Math.max(...loads).toFixed(1)}`
    : loadavg()[0];
  return [
    `${machineLines(...versions)[0]} Measured on ${day} in ${seconds} s; load average in the rounds ${spread}.`,
  ];
}

async function measureRows(section, options) {
  const started = Date.now();
  const peers = {
    llama: () => startLlama(options.llama, options.threads),
    python: () => startTorch(options.python, options.threads),
  };
  const processes = [startOurs(options.threads), ...(section.needs ? [peers[section.needs]()] : [])];
  const versions = await versionsOf(...processes);
  const rows = [];
  for await (const row of section.measure(options)) {
    rows.push(row);
    const ratio = row.theirs.length ? `${median(ratios(row)).toFixed(2)} x` : (row.problem ?? '');
    console.error(`${row.label}: ${median(row.ours).toPrecision(4)} tokens/s, ${ratio} ${row.peer}`);
  }
  const note = `${options.rounds} rounds, ${options.threads} threads.`;
  const loads = rows.flatMap(({ load }) => load);
  return { title: section.title, note, machine: machine(versions, loads, started), rows };
}

/** What other benches print, as it is. */
function runPrograms({ title, programs }, { python, threads }) {
  const started = Date.now();
  const texts = [];
  const env = {
    ...process.env,
    MAMBA_THREADS: String(threads),
    ...(python && { MAMBA_BENCH_PYTHON: python }),
  };
  const commands = programs.map(([name, ...args]) =>
    ['npm run bench', name, ...(args.length ? ['--', ...args] : [])].join(' '),
  );
  for (const [i, [name, ...args]] of programs.entries()) {
    const path = fileURLToPath(new URL(`./${name}.mjs`, import.meta.url));
    const { stdout, stderr, status } = spawnSync(process.execPath, [path, ...args], {
      encoding: 'utf8',
      env,
    });
    if (status !== 0) throw new Error(`peers: bench/${name}.mjs failed.\n${stderr}`);
    texts.push(`${commands[i]}\n${stdout.trim()}`);
  }
  const note = `What \`${commands.join('` and `')}\` print.`;
  return { title, note, machine: machine([], [], started), text: texts.join('\n\n') };
}

const options = readOptions();
for (const name of options.only) {
  const section = SECTIONS[name];
  if (section.needs && !options[section.needs]) {
    console.error(
      `${name}: left out, it needs ${section.needs === 'llama' ? '--peer-llama FOLDER' : '--python PATH'}`,
    );
    continue;
  }
  const result = section.programs ? runPrograms(section, options) : await measureRows(section, options);
  printSection(result);
  if (options.write) writeSection(name, result, NAMES);
}
