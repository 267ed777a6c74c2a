/**
 * llama.cpp as a program of _process.mjs. Arguments: PEER_FOLDER THREADS (see _llama.mjs). Requests, one JSON line each:
 *   {"what": "open", "file", "batch"}      a GGUF file, and how many sequences run side by side
 *   {"what": "prefill", "tokens"}          tokens per second of reading a prompt
 *   {"what": "decode", "tokens"}           tokens per second of all sequences, greedily
 *   {"what": "versions"}
 */
import { existsSync, readFileSync } from 'node:fs';
import { createInterface } from 'node:readline';
import { openLlama } from './_llama.mjs';

const [folder, threads] = process.argv.slice(2);
const { llama, version } = await openLlama(folder, { maxThreads: Number(threads) });
let [model, sequences] = [null, []];

async function open({ file, batch = 1 }) {
  await model?.dispose();
  model = await llama.loadModel({ modelPath: file, gpuLayers: 0 });
  const context = await model.createContext({
    contextSize: 4096,
    sequences: batch,
    threads: Number(threads),
    batchSize: 512,
  });
  sequences = Array.from({ length: batch }, () => context.getSequence());
  return {};
}

const seconds = (start) => (performance.now() - start) / 1000;
const idsOf = (count) => Array.from({ length: count }, (_, i) => 3 + ((i * 7919) % 200));

async function prefill({ tokens }) {
  const [sequence] = sequences;
  await sequence.clearHistory();
  const start = performance.now();
  await sequence.evaluateWithoutGeneratingNewTokens(idsOf(tokens));
  return { tokensPerSecond: tokens / seconds(start) };
}

/** From the first token of each sequence on, when its prompt of one token has been read. */
async function decode({ tokens }) {
  for (const sequence of sequences) await sequence.clearHistory();
  let started = 0;
  let start = 0;
  const run = async (sequence, row) => {
    let count = 0;
    for await (const _ of sequence.evaluate([5 + row], { temperature: 0, yieldEogToken: true })) {
      if (count === 0 && ++started === sequences.length) start = performance.now();
      if (count++ === tokens) break;
    }
  };
  await Promise.all(sequences.map(run));
  return { tokensPerSecond: (sequences.length * tokens) / seconds(start) };
}

/** Of its libraries, one for each generation of CPUs, the one that this process has loaded. */
function versions() {
  const maps = existsSync('/proc/self/maps') ? readFileSync('/proc/self/maps', 'utf8') : '';
  const library = /libggml-cpu-[\w-]+/.exec(maps)?.[0] ?? 'CPU library unknown';
  return { versions: [`llama.cpp of node-llama-cpp ${version} (${library})`] };
}

const answers = { versions, open, prefill, decode };
for await (const line of createInterface({ input: process.stdin })) {
  const request = JSON.parse(line);
  try {
    const answer = await answers[request.what](request);
    console.log(JSON.stringify({ ...answer, peakMib: process.resourceUsage().maxRSS / 1024 }));
  } catch (error) {
    console.log(JSON.stringify({ error: error.message }));
  }
}
process.exit(0); // its threads would keep the process
