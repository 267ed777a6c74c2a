/**
 * A document of a million tokens: classified by one call, and as it arrives, with memory that does not grow.
 * `node runs/classify-long.mjs [--tokens 1000000] [--bidirectional]`; random weights of a small classifier, Moby-Dick over and over.
 */
import { parseArgs } from 'node:util';
import { printMachine } from '../bench/_report.mjs';
import { Classifier, currentDevice, tokenizerFromJson, trainBpe } from '../dist/index.node.js';
import { readBook } from './_book.mjs';

const { values } = parseArgs({
  options: {
    tokens: { type: 'string', default: '1000000' },
    bidirectional: { type: 'boolean', default: false },
  },
});
const wanted = Number(values.tokens);
const book = readBook();
const { tokenizerJson, tokenizerConfig } = trainBpe([book], { vocabSize: 4096, lowercase: true });
const tokenizer = tokenizerFromJson(tokenizerJson, tokenizerConfig);
const perBook = tokenizer.encode(book).length;
const text = `${book}\n`.repeat(Math.ceil(wanted / perBook) + 1);
const { bidirectional } = values;
const classifier = new Classifier({
  backbone: { d_model: 128, n_layer: 2, vocab_size: tokenizer.vocabSize },
  labels: ['one', 'two', 'three'],
  maxTokens: wanted,
  bidirectional,
}).requireGrad(false);
classifier.tokenizer = tokenizer;

printMachine(currentDevice().description);
const memory = () => {
  globalThis.gc?.();
  return {
    resident: process.memoryUsage().rss / 2 ** 20,
    device: currentDevice().memory.liveBytes / 2 ** 20,
  };
};
const show = ({ resident, device }) =>
  `${resident.toFixed(0)} MiB resident, ${device.toFixed(1)} MiB of tensors`;
console.log(`${wanted} tokens, ${classifier.directions.length} direction(s); before: ${show(memory())}`);

let begin = performance.now();
const [whole] = await classifier.predict([text]);
const seconds = (performance.now() - begin) / 1000;
console.log(
  `whole: ${seconds.toFixed(1)} s, ${(wanted / seconds).toFixed(0)} tokens/s; after: ${show(memory())}`,
);

begin = performance.now();
const reader = classifier.open();
let at = 0;
for (let step = 1; !reader.isFull; step++) {
  // Pieces of any size: the answer does not depend on them.
  const size = 1 + ((step * 7919) % 20_000);
  await reader.push(text.slice(at, at + size));
  at += size;
  if (step % 100 === 0) console.log(`  ${reader.tokens} tokens read: ${show(memory())}`);
}
const streamed = await reader.answer();
console.log(`as it arrives: ${((performance.now() - begin) / 1000).toFixed(1)} s; after: ${show(memory())}`);
reader.dispose();

const labels = Object.keys(whole.scores);
const furthest = Math.max(...labels.map((label) => Math.abs(whole.scores[label] - streamed.scores[label])));
console.log(
  `${labels.map((label) => `${label} ${whole.scores[label].toFixed(6)}`).join(', ')}; ` +
    `whole and streamed probabilities differ by at most ${furthest.toExponential(1)}`,
);
if (furthest > 1e-5) process.exitCode = 1;
