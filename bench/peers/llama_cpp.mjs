/**
 * Compares a model with llama.cpp, which reads the GGUF file that mamba.ts wrote: next-token probabilities at every position.
 * llama.cpp comes from npm and is no dependency of this project. In a folder outside of it:
 *   npm i --omit=optional --ignore-scripts node-llama-cpp@3.22.1 @node-llama-cpp/linux-x64@3.22.1
 * and here, after `npm run build`:
 *   node bench/peers/llama_cpp.mjs PEER_FOLDER MODEL.gguf "1,2,3,..." [MODEL_TO_COMPARE_WITH, default MODEL.gguf]
 * Prints one line of JSON: the largest difference of a probability, absolute and relative to the larger of the two.
 */
import { createRequire } from 'node:module';
import { join, resolve } from 'node:path';
import { pathToFileURL } from 'node:url';
import { loadModel, noGrad } from '../../dist/index.node.js';

const [peerFolder, path, text, own = path] = process.argv.slice(2);
const ids = text.split(',').map(Number);
const requirePeer = createRequire(join(resolve(peerFolder), 'package.json'));
const { getLlama, LlamaLogLevel } = await import(pathToFileURL(requirePeer.resolve('node-llama-cpp')).href);

/** Rows of probabilities by llama.cpp. */
async function peerProbabilities(vocabSize) {
  const llama = await getLlama({ gpu: false, build: 'never', logLevel: LlamaLogLevel.warn });
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
  await llama.dispose();
  return rows;
}

function softmax(logits) {
  const top = logits.reduce((a, b) => Math.max(a, b));
  const weights = Float64Array.from(logits, (x) => Math.exp(x - top));
  const sum = weights.reduce((a, b) => a + b);
  return weights.map((x) => x / sum);
}

const model = await loadModel(own);
const { logits } = noGrad(() => model.forward([ids]));
const vocabSize = logits.shape[2];
const values = await logits.floats();
const peer = await peerProbabilities(vocabSize);
let [absolute, relative] = [0, 0];
for (const [t, theirs] of peer.entries()) {
  const ours = softmax(Float64Array.from(values.subarray(t * vocabSize, (t + 1) * vocabSize)));
  for (let v = 0; v < vocabSize; v++) {
    const difference = Math.abs(ours[v] - theirs[v]);
    absolute = Math.max(absolute, difference);
    relative = Math.max(relative, difference / Math.max(ours[v], theirs[v]));
  }
}
console.log(JSON.stringify({ path, own, positions: ids.length, vocabSize, absolute, relative }));
