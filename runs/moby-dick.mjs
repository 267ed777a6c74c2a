/**
 * `npm start`: trains a byte-level Mamba on Moby-Dick for three minutes, measures how well it predicts the tenth of the book that
 * it has not seen, and lets it write. Options: --minutes M, --seed S, --device native|wasm|reference, --out FOLDER.
 */
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { dirname, join, relative } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { brotliCompressSync, constants, gzipSync } from 'node:zlib';
import {
  currentDevice,
  lossChart,
  MambaError,
  onDeviceNotice,
  trainLm,
  useDevice,
  writeReport,
} from '../dist/index.node.js';
import { lmReport, trainLmProgress } from '../dist/train/index.js';
import { readBook } from './_book.mjs';

const root = dirname(dirname(fileURLToPath(import.meta.url)));
const PROMPT = 'Call me Ishmael. ';
const SAMPLE_TOKENS = 600;

/** Model and recipe, chosen by held-out bits per byte after three minutes on two cores; docs/guide/train.md has the numbers. */
const RECIPE = {
  d_model: 128,
  n_layer: 4,
  batch: 4,
  length: 256,
  sampling: 'pack',
  lr: 4e-3,
  warmup: 100,
  finalLr: 0.02,
  logEvery: 5,
  evalEvery: 1000,
  saveEvery: 200,
};

const bitsPerByte = (compressed, bytes) => ((8 * compressed.length) / bytes.length).toFixed(3);
const gzip = (bytes) => bitsPerByte(gzipSync(bytes, { level: 9 }), bytes);
const brotli = (bytes) => {
  const params = {
    [constants.BROTLI_PARAM_QUALITY]: constants.BROTLI_MAX_QUALITY,
    [constants.BROTLI_PARAM_LGWIN]: constants.BROTLI_MAX_WINDOW_BITS,
    [constants.BROTLI_PARAM_SIZE_HINT]: bytes.length,
  };
  return bitsPerByte(brotliCompressSync(bytes, { params }), bytes);
};

/** The first Ctrl-C ends training early, the second ends the program. */
function interrupts() {
  const controller = new AbortController();
  process.once('SIGINT', () => {
    controller.abort();
    process.once('SIGINT', () => process.exit(130));
  });
  return controller.signal;
}

async function main() {
  const { values } = parseArgs({
    options: {
      minutes: { type: 'string', default: '3' },
      seed: { type: 'string', default: '0' },
      device: { type: 'string' },
      out: { type: 'string', default: join(root, 'out/moby-dick') },
    },
  });
  const { out } = values;
  const shown = relative(process.cwd(), out) || '.';
  onDeviceNotice((message) => console.error(message));
  if (values.device) await useDevice(values.device);
  if (currentDevice().name !== 'native') {
    console.error(
      `training on ${currentDevice().name}: several times slower than the native kernels, so expect a weaker model`,
    );
  }

  if (existsSync(join(out, 'config.json'))) console.log(`replacing the earlier run in ${shown}`);
  mkdirSync(out, { recursive: true });
  const book = join(out, 'book.txt');
  writeFileSync(book, readBook());
  console.log(
    `Moby-Dick, one byte at a time: ${values.minutes} minutes of training, the last tenth of the book held out`,
  );
  const progress = trainLmProgress(process.stderr);
  const signal = interrupts();
  const run = await trainLm({
    out,
    settings: { ...RECIPE, data: [book], minutes: Number(values.minutes), seed: Number(values.seed) },
    start: 'replace',
    signal,
    onProgress: progress.handle,
  }).finally(progress.end);
  const { model } = run;
  if (run.stopped === 'interrupted') {
    console.log(`interrupted after step ${run.step}; go on with:`);
    console.log(`  node dist/cli/main.js train lm --out ${shown} --resume`);
    model.dispose();
    return 130;
  }

  console.log(`\n${lossChart(run.metrics)}\n`);
  const bytes = readFileSync(book);
  const heldOut = bytes.subarray(Math.floor(bytes.length * 0.9));
  const rows = [
    ['gzip -9, held-out part alone', gzip(heldOut)],
    ['gzip -9, whole book', gzip(bytes)],
    ['brotli 11, held-out part alone', brotli(heldOut)],
    ['brotli 11, whole book', brotli(bytes)],
  ];
  console.log(`held-out bits per byte: ${run.validation.bitsPerByte.toFixed(3)}`);
  for (const [label, value] of rows) console.log(`${label}: ${value}`);

  console.log(`\nIt writes:\n`);
  process.stdout.write(PROMPT);
  let text = '';
  for await (const part of model.generate(PROMPT, {
    maxTokens: SAMPLE_TOKENS,
    temperature: 0.8,
    seed: 1,
    signal,
  })) {
    process.stdout.write(part.text);
    text += part.text;
  }
  console.log('\n');

  const report = join(out, 'report.html');
  const title = `Moby-Dick, ${values.minutes} minutes`;
  const sample = { prompt: PROMPT, text };
  await writeReport(
    report,
    lmReport(
      { ...run, config: model.config, bytes: true },
      { title, results: rows.map(([label, value]) => [`bits per byte of ${label}`, value]), sample },
    ),
  );
  model.dispose();
  console.log(`model: ${shown}   curves and sample: ${join(shown, 'report.html')}\n`);
  console.log(`Try next:
  node dist/cli/main.js generate --model ${shown} --prompt "The whale"
  node dist/cli/main.js train lm --out ${shown} --resume --minutes 10
  node dist/cli/main.js train lm --data YOUR.txt --out out/mine --minutes 10`);
  return 0;
}

try {
  process.exitCode = await main();
} catch (error) {
  const isUsage = error?.code?.startsWith?.('ERR_PARSE_ARGS');
  if (!isUsage && !(error instanceof MambaError)) throw error;
  console.error(error.message);
  process.exitCode = isUsage ? 2 : 1;
}
