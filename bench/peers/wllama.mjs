/**
 * mamba.ts on its WebAssembly device in Node beside wllama (llama.cpp as WebAssembly) in a headless Chromium that is cross-origin isolated:
 * the same GGUF file (with bytes as its tokens: writeGguf of a model with byteTokenizer()), the same threads, alternating rounds. wllama's figures are its own timings, without the traffic to its worker.
 * Neither is a dependency of this project; in a folder outside of it: npm i @wllama/wllama@3.8.1 playwright-core@1.65.1
 *   npm run build && node bench/peers/wllama.mjs PEER_FOLDER MODEL.gguf [--threads 2 --rounds 5 --prompt 512 --generate 64]
 * Chromium is looked for where CHROMIUM says, else at /usr/bin/chromium.
 */
import { createReadStream, readFileSync } from 'node:fs';
import { createServer } from 'node:http';
import { createRequire } from 'node:module';
import { extname, join, resolve } from 'node:path';
import { currentDevice, loadModel, useDevice } from '../../dist/index.node.js';
import { median, numbers, printMachine, spread } from '../_report.mjs';
import { measureRound, promptText } from '../_tokens.mjs';

const [peerFolder, file] = process.argv.splice(2, 2);
const o = numbers({ threads: 2, rounds: 5, prompt: 512, generate: 64 });

const TYPES = { '.js': 'text/javascript', '.wasm': 'application/wasm', '.html': 'text/html' };
const ISOLATED = {
  'Cross-Origin-Opener-Policy': 'same-origin',
  'Cross-Origin-Embedder-Policy': 'require-corp',
};
const esm = join(resolve(peerFolder), 'node_modules/@wllama/wllama/esm');

const server = createServer((request, response) => {
  const { pathname } = new URL(request.url, 'http://localhost');
  response.writeHead(200, {
    ...ISOLATED,
    'Content-Type': TYPES[extname(pathname)] ?? 'application/octet-stream',
  });
  if (pathname === '/page.html') response.end('<!doctype html><title>wllama</title>');
  else if (pathname === '/model') createReadStream(file).pipe(response);
  else
    createReadStream(join(esm, pathname))
      .on('error', () => response.end())
      .pipe(response);
});
await new Promise((ready) => server.listen(0, '127.0.0.1', ready));
const origin = `http://127.0.0.1:${server.address().port}`;

/** Runs in the page. */
async function openPeer({ threads, context }) {
  const { Wllama } = await import(`${location.origin}/index.js`);
  const wllama = new Wllama({ default: `${location.origin}/wasm/wllama.wasm` }, { suppressNativeLog: true });
  const blob = await (await fetch('/model')).blob();
  await wllama.loadModel([blob], { n_threads: threads, n_ctx: context, n_gpu_layers: 0, n_batch: 512 });
  globalThis.wllama = wllama;
  return { isolated: crossOriginIsolated, threads: wllama.getNumThreads(), many: wllama.isMultithread() };
}

/**
 * Runs in the page: one prompt and its continuation. The peer ends at bytes that are no UTF-8, and a model with random weights writes
 * such bytes, so the tokens are fixed; its work is the same.
 */
async function askPeer({ prompt, generate }) {
  const options = { max_tokens: generate, temperature: 0, ignore_eos: true, cache_prompt: false };
  const { timings } = await globalThis.wllama.createCompletion({
    prompt,
    logit_bias: { 66: 1000 },
    ...options,
  });
  return timings;
}

const requirePeer = createRequire(join(resolve(peerFolder), 'package.json'));
const { chromium } = requirePeer('playwright-core');
const browser = await chromium.launch({
  executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium',
  args: ['--no-sandbox'],
});
try {
  const page = await browser.newPage();
  await page.goto(`${origin}/page.html`);
  const opened = await page.evaluate(openPeer, { threads: o.threads, context: o.prompt + o.generate + 64 });
  process.env.MAMBA_THREADS = String(o.threads);
  await useDevice('wasm');
  const model = await loadModel(file);
  const rates = { ours: { prefill: [], decode: [] }, theirs: { prefill: [], decode: [] } };
  for (let round = -1; round < o.rounds; round++) {
    const ours = await measureRound(model, round, o.prompt, o.generate);
    const timings = await page.evaluate(askPeer, {
      prompt: promptText(round, o.prompt),
      generate: o.generate,
    });
    if (timings.prompt_n < o.prompt || timings.predicted_n !== o.generate) {
      throw new Error(`wllama: expected ${o.prompt} + ${o.generate} tokens, got ${JSON.stringify(timings)}`);
    }
    if (round < 0) continue;
    rates.ours.prefill.push(ours.prefill);
    rates.ours.decode.push(ours.decode);
    rates.theirs.prefill.push(timings.prompt_per_second);
    rates.theirs.decode.push(timings.predicted_per_second);
  }
  const { version } = JSON.parse(readFileSync(join(esm, '../package.json'), 'utf8'));
  printMachine(`wllama ${version}`, `Chromium ${browser.version()}`, `medians of ${o.rounds} rounds`);
  console.log(`${file}, wllama: ${opened.threads} threads, cross-origin isolated: ${opened.isolated}`);
  for (const what of ['prefill', 'decode']) {
    const [ours, theirs] = [rates.ours[what], rates.theirs[what]];
    const ratios = ours.map((rate, i) => rate / theirs[i]);
    console.log(
      `${what.padEnd(8)} tokens/s: ${currentDevice().description} ${spread(ours, 1)}, wllama ${spread(theirs, 1)}, ` +
        `ratio ${spread(ratios, 2)}, of the medians ${(median(ours) / median(theirs)).toFixed(2)}`,
    );
  }
} finally {
  await browser.close();
  server.close();
}
