/**
 * One long prompt: is the last part read as fast as the first, and does memory stay the same? Random weights, the prompt handed to generate() in
 * parts, each from the state after the one before, as one call reads it. `node --expose-gc runs/long-prompt.mjs` reads a million tokens
 * into mamba-130m with q8 weights; `--tokens N --shape S --weights W --precision P --parts N` something else. Exit code 1 when the last
 * quarter of the parts is more than 5 % slower than the first, or memory grew by more than 1 %.
 */
import { parseArgs } from 'node:util';
import { machineLines, median } from '../bench/_report.mjs';
import { currentDevice, randomModel } from '../dist/index.node.js';
import { PRESETS } from '../dist/train/index.js';
import { table } from '../scripts/lib/markdown.mjs';

const { values } = parseArgs({
  options: {
    tokens: { type: 'string', default: '1000000' },
    shape: { type: 'string', default: 'mamba-130m' },
    weights: { type: 'string', default: 'q8' },
    precision: { type: 'string', default: 'f32' },
    parts: { type: 'string', default: '20' },
  },
});
/** Tokens of one forward pass of generate(): parts are whole passes. */
const PASS = 512;
const SLOWER = 0.05;
const LARGER = 0.01;
const VOCABULARY = 50277;
const parts = Number(values.parts);
const part = Math.ceil(Number(values.tokens) / parts / PASS) * PASS;
if (!(parts >= 4 && part > 0 && values.shape in PRESETS)) {
  console.error(`usage: [--tokens N] [--parts N, at least 4] [--shape ${Object.keys(PRESETS).join('|')}]`);
  process.exit(2);
}

const model = await randomModel(
  { ...PRESETS[values.shape], vocab_size: VOCABULARY },
  { weights: values.weights },
);
model.precision = values.precision;
const idsFrom = (at, count) => Array.from({ length: count }, (_, i) => ((at + i) * 7919) % VOCABULARY);

/** Reads a part; the state after it. */
async function read(ids, state) {
  let after = null;
  for await (const { state: reached } of model.generate(ids, { maxTokens: 0, state, eosId: null }))
    after = reached;
  state?.dispose();
  return after;
}

(await read(idsFrom(0, 2 * PASS), null)).dispose(); // warm: the pool has its buffers
const mib = (bytes) => (bytes / 2 ** 20).toFixed(1);
const [rates, resident, rows] = [[], [], []];
let state = null;
for (let i = 0; i < parts; i++) {
  const ids = idsFrom(i * part, part);
  const start = performance.now();
  state = await read(ids, state);
  rates.push(part / ((performance.now() - start) / 1000));
  globalThis.gc?.(); // what is held, not what waits to be collected
  resident.push(process.memoryUsage.rss());
  const { reservedBytes, newBuffers } = currentDevice().memory;
  rows.push([(i + 1) * part, Number(rates[i].toFixed(0)), mib(resident[i]), mib(reservedBytes), newBuffers]);
  console.error(`${(i + 1) * part} tokens: ${rates[i].toFixed(0)} tokens/s, ${mib(resident[i])} MiB`);
}
const [tokens] = state.tokens;
state.dispose();

const quarter = Math.floor(parts / 4);
const [first, last] = [median(rates.slice(0, quarter)), median(rates.slice(-quarter))];
const growth = median(resident.slice(-quarter)) / median(resident.slice(0, quarter)) - 1;
console.log(machineLines(currentDevice().description).join('\n'));
console.log(`${values.shape}, ${values.weights}, precision ${values.precision}, random weights\n`);
console.log(table(['tokens read', 'tokens/s', 'resident MiB', 'device MiB', 'buffers'], rows));
console.log(
  `\n${tokens} tokens; the last quarter at ${(100 * (last / first)).toFixed(1)} % of the speed of the first, memory ${(100 * growth).toFixed(2)} % larger`,
);
process.exitCode = last < first * (1 - SLOWER) || growth > LARGER ? 1 : 0;
