/**
 * A prompt and its continuation on WebAssembly, each variant on one thread and two, beside the native device: tokens per second, medians of
 * alternating rounds, and shares of native. A model of the size of mamba-130m with random weights, or a file. Prints a Markdown table and with
 * --write puts it into docs/kernels.md. `npm run bench wasm -- [--model FILE.gguf] [--weights q8_0] [--rounds 5] [--write]`
 */
import { spawn } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { wasmVariants } from '../dist/backend/index.js';
import { byteTokenizer, LanguageModel, writeGguf } from '../dist/index.node.js';
import { PRESETS } from '../dist/train/index.js';
import { replaceBetween, table } from '../scripts/lib/markdown.mjs';
import { machineLines, median, spread } from './_report.mjs';

const { values: o } = parseArgs({
  options: {
    model: { type: 'string' },
    weights: { type: 'string', multiple: true, default: ['q8_0', 'f32'] },
    rounds: { type: 'string', default: '5' },
    prompt: { type: 'string', default: '512' },
    generate: { type: 'string', default: '32' },
    write: { type: 'boolean', default: false },
  },
});
const relaxed = wasmVariants().includes('relaxed') ? [] : ['--experimental-wasm-relaxed-simd'];

/** The environment of a device and the flags of its Node. */
const DEVICES = [
  { device: 'wasm', threads: 1, flags: [], variant: 'simd128' },
  { device: 'wasm', threads: 2, flags: [], variant: 'simd128' },
  { device: 'wasm', threads: 1, flags: relaxed, variant: 'relaxed' },
  { device: 'wasm', threads: 2, flags: relaxed, variant: 'relaxed' },
  { device: 'native', threads: 2, flags: [] },
];

/** A process with a model on one device, which measures a round whenever it is asked. */
async function start({ flags, ...device }, file) {
  const worker = fileURLToPath(new URL('./_tokens-worker.mjs', import.meta.url));
  const args = [...flags, worker, JSON.stringify({ ...device, file })];
  const child = spawn(process.execPath, args, { stdio: ['pipe', 'pipe', 'inherit'] });
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
  const hear = async () => {
    const { value, done } = await lines.next();
    if (done) throw new Error(`wasm: the process of ${device.device} ended early; its message is above.`);
    return JSON.parse(value);
  };
  const ask = (request) => {
    child.stdin.write(`${JSON.stringify(request)}\n`);
    return hear();
  };
  const { description } = await hear();
  return { description, ask, close: () => child.stdin.end(), prefill: [], decode: [] };
}

/** GGUF files to measure, by the name of their weights. */
async function files(folder) {
  if (o.model) return [['of the file', o.model]];
  const made = [];
  for (const weights of o.weights) {
    const model = new LanguageModel({ ...PRESETS['mamba-130m'], vocab_size: 50280 }, { seed: 0 });
    model.tokenizer = byteTokenizer();
    const file = join(folder, `${weights}.gguf`);
    await writeGguf(model, file, { weights });
    made.push([weights, file]);
  }
  return made;
}

const rows = [];
const folder = mkdtempSync(join(tmpdir(), 'mamba-wasm-'));
for (const [name, file] of await files(folder)) {
  const runs = [];
  for (const device of DEVICES) runs.push(await start(device, file));
  for (let round = -1; round < Number(o.rounds); round++) {
    for (const run of runs) {
      const sizes = { prompt: Number(o.prompt), generate: Number(o.generate) };
      const { prefill, decode } = await run.ask({ round, ...sizes });
      if (round < 0) continue;
      run.prefill.push(prefill);
      run.decode.push(decode);
    }
  }
  const native = runs.at(-1);
  const share = (run, what) => `${((100 * median(run[what])) / median(native[what])).toFixed(0)} %`;
  for (const run of runs) {
    const rates = ['prefill', 'decode'].flatMap((what) => [spread(run[what], 1), share(run, what)]);
    rows.push([name, run.description, ...rates]);
    run.close();
  }
}
rmSync(folder, { recursive: true });

const text = [
  ...machineLines(`medians of ${o.rounds} alternating rounds (range)`),
  `${o.model ?? 'The sizes of mamba-130m, random weights'}: a prompt of ${o.prompt} tokens, then ${o.generate} tokens one by one.`,
  '',
  table(['weights', 'device', 'prompt, tokens/s', 'of native', 'one by one, tokens/s', 'of native'], rows),
].join('\n');
console.log(text);
if (o.write) {
  const path = new URL('../docs/kernels.md', import.meta.url);
  writeFileSync(path, replaceBetween(readFileSync(path, 'utf8'), 'wasm', text));
}
