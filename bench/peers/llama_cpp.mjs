/**
 * Compares a model with llama.cpp, which reads the GGUF file that mamba.ts writes of it: next-token probabilities at every position.
 * After `npm run build`, with llama.cpp in a folder outside of this project (see _llama.mjs):
 *   node bench/peers/llama_cpp.mjs PEER_FOLDER MODEL "1,2,3,..."
 * MODEL is whatever `loadModel` opens; what is not a .gguf file is written as one first, in float32, with bytes as its tokens if it has
 * no tokenizer (llama.cpp's binding needs one). Prints one line of JSON: the largest difference of a probability, absolute and
 * relative to the larger of the two.
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { byteTokenizer, loadModel, noGrad, writeGguf } from '../../dist/index.node.js';
import { llamaProbabilities, openLlama, softmax } from './_llama.mjs';

const [peerFolder, path, text] = process.argv.slice(2);
const ids = text.split(',').map(Number);

const model = await loadModel(path);
const { logits } = noGrad(() => model.forward([ids]));
const vocabSize = logits.shape[2];
const values = await logits.floats();

const { llama } = await openLlama(peerFolder);
const folder = mkdtempSync(join(tmpdir(), 'mamba-llama-'));
try {
  let file = path;
  let notes = [];
  if (!path.endsWith('.gguf')) {
    file = join(folder, 'model.gguf');
    model.tokenizer ??= byteTokenizer();
    ({ notes } = await writeGguf(model, file));
  }
  const peer = await llamaProbabilities(llama, file, ids, vocabSize);
  let [absolute, relative] = [0, 0];
  for (const [t, theirs] of peer.entries()) {
    const ours = softmax(Float64Array.from(values.subarray(t * vocabSize, (t + 1) * vocabSize)));
    for (let v = 0; v < vocabSize; v++) {
      const difference = Math.abs(ours[v] - theirs[v]);
      absolute = Math.max(absolute, difference);
      relative = Math.max(relative, difference / Math.max(ours[v], theirs[v]));
    }
  }
  console.log(JSON.stringify({ path, positions: ids.length, vocabSize, absolute, relative, notes }));
} finally {
  rmSync(folder, { recursive: true, force: true });
  await llama.dispose();
}
