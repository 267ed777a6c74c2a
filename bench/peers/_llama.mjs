/**
 * llama.cpp from npm, for the comparisons of this folder and the conversation bench. It is no dependency of this project; in a folder
 * outside of it: npm i --omit=optional --ignore-scripts node-llama-cpp@3.22.1 @node-llama-cpp/linux-x64@3.22.1
 */
import { existsSync, readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join, resolve } from 'node:path';
import { pathToFileURL } from 'node:url';

/** The module, its version, and the folder of its shared libraries. */
export async function openLlama(peerFolder, options = {}) {
  const requirePeer = createRequire(join(resolve(peerFolder), 'package.json'));
  const entry = requirePeer.resolve('node-llama-cpp');
  const { getLlama, LlamaLogLevel } = await import(pathToFileURL(entry).href);
  const llama = await getLlama({ gpu: false, build: 'never', logLevel: LlamaLogLevel.error, ...options });
  const folder = dirname(dirname(entry));
  const { version } = JSON.parse(readFileSync(join(folder, 'package.json'), 'utf8'));
  const libraries = join(dirname(folder), '@node-llama-cpp/linux-x64/bins/linux-x64');
  return { llama, version, libraries: existsSync(libraries) ? libraries : null };
}

/** Rows of next-token probabilities of a GGUF file, by llama.cpp. */
export async function llamaProbabilities(llama, path, ids, vocabSize) {
  const model = await llama.loadModel({ modelPath: resolve(path), gpuLayers: 0 });
  const context = await model.createContext({ contextSize: 512, sequences: 1, threads: 1 });
  const output = await context
    .getSequence()
    .controlledEvaluate(ids.map((id) => [id, { generateNext: { logits: true } }]));
  const rows = output.map(({ next }) => {
    const logits = new Float64Array(vocabSize).fill(Number.NEGATIVE_INFINITY);
    for (const [token, logit] of next.logits) logits[token] = logit;
    return softmax(logits);
  });
  await model.dispose();
  return rows;
}

export function softmax(logits) {
  const top = logits.reduce((a, b) => Math.max(a, b));
  const weights = Float64Array.from(logits, (x) => Math.exp(x - top));
  const sum = weights.reduce((a, b) => a + b);
  return weights.map((x) => x / sum);
}

/** Largest difference of two lists of rows. */
export function largestDifference(a, b) {
  return a.reduce((most, row, t) => row.reduce((m, p, v) => Math.max(m, Math.abs(p - b[t][v])), most), 0);
}
