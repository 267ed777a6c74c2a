/**
 * A worker for bench/chat.mjs: a conversation in llama.cpp, evaluated as it grows. One JSON request per line on stdin, one answer each:
 * {"ids", "answer"} appends ids and generates `answer` tokens greedily; {"keep", "ids", "answer"} first goes back to the first `keep`
 * tokens. Arguments: PEER_FOLDER MODEL.gguf THREADS CONTEXT_TOKENS. See _llama.mjs.
 */
import { createInterface } from 'node:readline';
import { openLlama } from './_llama.mjs';

const [peerFolder, modelPath, threads, contextSize] = process.argv.slice(2);
const { llama, version } = await openLlama(peerFolder, { maxThreads: Number(threads) });
const model = await llama.loadModel({ modelPath, gpuLayers: 0 });
const context = await model.createContext({
  contextSize: Number(contextSize),
  sequences: 1,
  threads: Number(threads),
});
const sequence = context.getSequence();
/** The last token of an answer is known but not yet evaluated. */
let waiting = [];

console.log(JSON.stringify({ version: `node-llama-cpp ${version}` }));
for await (const line of createInterface({ input: process.stdin })) {
  const { ids, answer, keep } = JSON.parse(line);
  const read = sequence.tokenMeter.usedInputTokens;
  const start = performance.now();
  if (keep !== undefined) {
    const all = [...sequence.contextTokens, ...waiting];
    // Left to the library: it goes back to a checkpoint of its own and evaluates again from there.
    await sequence.adaptStateToTokens(all.slice(0, keep), false);
    waiting = all.slice(sequence.nextTokenIndex, keep);
  }
  const output = [];
  const input = [...waiting, ...ids];
  for await (const token of sequence.evaluate(input, { temperature: 0, yieldEogToken: true })) {
    output.push(token);
    if (output.length === answer) break;
  }
  waiting = output.slice(-1);
  console.log(
    JSON.stringify({
      seconds: (performance.now() - start) / 1000,
      readTokens: sequence.tokenMeter.usedInputTokens - read,
      tokens: sequence.nextTokenIndex + 1,
      output,
      residentBytes: process.memoryUsage.rss(),
    }),
  );
}
await llama.dispose();
