/**
 * Checkpoints of real size with random weights, written to a temporary folder and loaded in a fresh process: seconds, peak memory beside the
 * bytes of the weights, and decoded tokens per second. `node runs/large-checkpoint.mjs` runs the two cases below; `--shape S --weights W`
 * one, `--limit GIB` also under a limit of address space (ulimit -v). 16-bit types are sharded safetensors, q8 and q4 GGUF.
 */
import { spawn } from 'node:child_process';
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { availableParallelism, cpus, loadavg, tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import {
  currentDevice,
  loadModel,
  noGrad,
  resolveConfig,
  scope,
  writeFileAtomic,
  writeGguf,
} from '../dist/index.node.js';
import { expectedTensors, safetensorsChunks, toHuggingFaceConfig } from '../dist/io/index.js';

const SHAPES = {
  'mamba-130m': { d_model: 768, n_layer: 24, vocab_size: 50277 },
  'mamba-2.8b': { d_model: 2560, n_layer: 64, vocab_size: 50277 },
  'falcon-mamba-7b': {
    d_model: 4096,
    n_layer: 64,
    vocab_size: 65024,
    tie_embeddings: false,
    mixer_rms_eps: 1e-6,
  },
};
const CASES = [
  { shape: 'mamba-2.8b', weights: 'f16' },
  { shape: 'falcon-mamba-7b', weights: 'q4', limit: 12 },
];
/** [elements, bytes] of a block in the file. */
const BLOCKS = { bf16: [1, 2], f16: [1, 2], q8: [32, 34], q4: [32, 18] };
const SHARD_BYTES = 2e9;
const PIECE_ELEMENTS = 1 << 20;

const { values } = parseArgs({
  options: {
    shape: { type: 'string' },
    weights: { type: 'string' },
    limit: { type: 'string' },
    tokens: { type: 'string', default: '8' },
    child: { type: 'string' },
  },
});
async function main() {
  const cases = values.shape ? [{ ...values, limit: Number(values.limit ?? 0) }] : CASES;
  const root = mkdtempSync(join(tmpdir(), 'mamba-large-'));
  const remove = () => rmSync(root, { recursive: true, force: true });
  for (const signal of ['SIGINT', 'SIGTERM']) {
    process.once(signal, () => {
      remove();
      process.exit(130);
    });
  }
  console.log(
    `${cpus()[0]?.model.trim()}, ${availableParallelism()} cores, load ${loadavg()[0].toFixed(1)}, ${currentDevice().description}`,
  );
  console.log(
    '| shape | weights | file GB | weights in memory GB | limit | load s (CPU s) | peak GB after loading | peak / weights | decode tokens/s | peak GB |\n|---|---|---|---|---|---|---|---|---|---|',
  );
  try {
    for (const { shape, weights, limit } of cases) {
      const folder = join(root, `${shape}-${weights}`);
      mkdirSync(folder);
      const path = await write(folder, shape, weights);
      for (const gib of limit ? [0, limit] : [0]) await report(path, shape, weights, gib);
      rmSync(folder, { recursive: true });
    }
  } finally {
    remove();
  }
}

/** A folder, or a GGUF file in it. */
async function write(folder, shape, weights) {
  if (!SHAPES[shape] || !BLOCKS[weights]) {
    throw new Error(
      `expected --shape ${Object.keys(SHAPES).join(', ')} and --weights ${Object.keys(BLOCKS).join(', ')}.`,
    );
  }
  const config = resolveConfig({ pad_vocab_size_multiple: 8, ...SHAPES[shape] });
  const tensors = expectedTensors(config);
  if (weights.startsWith('q')) {
    const head = config.tie_embeddings ? 'backbone.embeddings.weight' : 'lm_head.weight';
    const weight = (name) => {
      const dims = tensors.get(name);
      const size = sizeOf(dims);
      const wanted = name === head ? 'q8' : dims.at(-1) % 32 === 0 ? weights : 'f16';
      const dtype = isMatrix(name) ? wanted : 'f32';
      return { dtype, size, storedBytes: 0, pieces: () => pieces(name, size, dtype, config) };
    };
    const path = join(folder, 'model.gguf');
    await writeGguf({ config, tokenizer: {}, weight }, path, { weights: `${weights}_0` });
    return path;
  }
  // As model.half() saves it: every tensor in 16 bits.
  const shards = [[]];
  let bytes = 0;
  for (const [name, dims] of tensors) {
    if (bytes > SHARD_BYTES) {
      shards.push([]);
      bytes = 0;
    }
    bytes += 2 * sizeOf(dims);
    const data = async () => {
      const out = new Uint16Array(sizeOf(dims));
      for (const { at, data } of pieces(name, out.length, weights, config)) out.set(data, at);
      return out;
    };
    shards.at(-1).push({ name, dtype: weights.toUpperCase(), shape: dims, data });
  }
  const map = {};
  for (const [i, entries] of shards.entries()) {
    const file = `model-${`${i + 1}`.padStart(5, '0')}-of-${`${shards.length}`.padStart(5, '0')}.safetensors`;
    await writeFileAtomic(join(folder, file), safetensorsChunks(entries, { format: 'pt' }));
    for (const { name } of entries) map[name] = file;
  }
  const index = { metadata: {}, weight_map: map };
  writeFileSync(join(folder, 'model.safetensors.index.json'), JSON.stringify(index));
  writeFileSync(join(folder, 'config.json'), JSON.stringify(toHuggingFaceConfig(config)));
  return folder;
}

function isMatrix(name) {
  return /(embeddings|lm_head|in_proj|x_proj|dt_proj|out_proj)\.weight$/.test(name);
}

function sizeOf(shape) {
  return shape.reduce((a, b) => a * b, 1);
}

/** Matrices at random, about 1 / 64 in size; what steers the recurrence as it is initialised. */
function* pieces(name, size, dtype, { d_state }) {
  for (let at = 0; at < size; at += PIECE_ELEMENTS) {
    const count = Math.min(PIECE_ELEMENTS, size - at);
    if (isMatrix(name)) {
      yield { at, count, data: randomPiece(count, dtype) };
      continue;
    }
    const value = name.endsWith('A_log')
      ? (i) => Math.log((i % d_state) + 1)
      : /dt_proj\.bias$/.test(name)
        ? () => -4.6
        : /conv1d/.test(name)
          ? (i) => ((i % 7) - 3) / 10
          : () => 1;
    const floats = Float32Array.from({ length: count }, (_, i) => value(at + i));
    yield { at, count, data: dtype === 'f32' ? floats : bitsOf(floats, dtype) };
  }
}

let random = 1;
/** 32 random bits (Marsaglia's xorshift). */
function next() {
  random ^= random << 13;
  random ^= random >>> 17;
  random ^= random << 5;
  return random;
}

function randomPiece(count, dtype) {
  const [block, bytes] = BLOCKS[dtype];
  if (block === 1) {
    // Any sign and mantissa, the exponent of 1 / 64.
    const [keep, exponent] = dtype === 'f16' ? [0x83ff, (15 - 6) << 10] : [0x807f, (127 - 6) << 7];
    return Uint16Array.from({ length: count }, () => (next() & keep) | exponent);
  }
  const data = new Uint8Array((count / block) * bytes);
  new Int32Array(data.buffer, 0, data.length >> 2).forEach((_, i, words) => {
    words[i] = next();
  });
  const scale = dtype === 'q4' ? 0x1a00 : 0x0c00; // 2^-8.4, 2^-12
  for (let i = 0; i < data.length; i += bytes) {
    data[i] = scale & 255;
    data[i + 1] = scale >> 8;
  }
  return data;
}

/** Small tensors only: the values above are exact enough when cut. */
function bitsOf(floats, dtype) {
  const words = new Uint32Array(floats.buffer);
  if (dtype === 'bf16') return Uint16Array.from(words, (word) => word >>> 16);
  return Uint16Array.from(words, (word) =>
    (word & 0x7fffffff) === 0 ? 0 : ((word >>> 16) & 0x8000) | (((word & 0x7fffffff) - 0x38000000) >>> 13),
  );
}

/** One line of the table, from a fresh process. */
async function report(path, shape, weights, limitGib) {
  const script = fileURLToPath(import.meta.url);
  const command = ['"$0" "$@"', process.execPath, script, '--child', path, '--tokens', values.tokens];
  if (limitGib) command[0] = `ulimit -v ${limitGib * 2 ** 20} && exec ${command[0]}`;
  const child = spawn('sh', ['-c', ...command], { stdio: ['ignore', 'pipe', 'inherit'] });
  let text = '';
  for await (const chunk of child.stdout) text += chunk;
  const limit = limitGib ? `${limitGib} GiB of addresses` : 'none';
  if (text === '') {
    console.log(`| ${shape} | ${weights} | | | ${limit} | failed |`);
    process.exitCode = 1;
    return;
  }
  const { seconds, cpuSeconds, weightBytes, loadedBytes, tokensPerSecond, peakBytes } = JSON.parse(text);
  const folder = statSync(path).isFile() ? dirname(path) : path;
  const fileBytes = readdirSync(folder).reduce((sum, name) => sum + statSync(join(folder, name)).size, 0);
  const gb = (bytes) => (bytes / 1e9).toFixed(2);
  const cells = [
    shape,
    weights,
    gb(fileBytes),
    gb(weightBytes),
    limit,
    `${seconds.toFixed(1)} (${cpuSeconds.toFixed(1)})`,
    gb(loadedBytes),
    (loadedBytes / weightBytes).toFixed(3),
    tokensPerSecond.toFixed(2),
    gb(peakBytes),
  ];
  console.log(`| ${cells.join(' | ')} |`);
}

/** In the fresh process. */
async function measure(path) {
  const started = performance.now();
  const model = await loadModel(path);
  const seconds = (performance.now() - started) / 1000;
  const { user, system } = process.cpuUsage();
  const cpuSeconds = (user + system) / 1e6;
  const loadedBytes = peakResidentBytes();
  const weightBytes = model.parameters().reduce((sum, { sizeBytes }) => sum + sizeBytes, 0);
  const { vocab_size } = model.config;
  const step = (id, state) => noGrad(() => scope(() => model.forward([[id]], { state, lastOnly: true })));
  let id = 1;
  let state = null;
  let begun = 0;
  const count = Number(values.tokens);
  for (let i = 0; i <= count; i++) {
    if (i === 1) begun = performance.now(); // the first token touches every weight for the first time
    const out = step(id, state);
    const logits = await out.logits.floats();
    if (!logits.every(Number.isFinite)) throw new Error('expected finite logits');
    id = logits.subarray(0, vocab_size).indexOf(Math.max(...chunksMax(logits.subarray(0, vocab_size))));
    out.logits.dispose();
    state?.dispose();
    state = out.state;
  }
  const tokensPerSecond = count / ((performance.now() - begun) / 1000);
  const peakBytes = peakResidentBytes();
  console.log(JSON.stringify({ seconds, cpuSeconds, weightBytes, loadedBytes, tokensPerSecond, peakBytes }));
}

/** Largest of each stretch: `Math.max` takes only so many arguments. */
function chunksMax(logits) {
  const tops = [];
  for (let at = 0; at < logits.length; at += 4096) tops.push(Math.max(...logits.subarray(at, at + 4096)));
  return tops;
}

/** VmHWM of Linux: the most memory that was ever resident. */
function peakResidentBytes() {
  return 1024 * Number(/VmHWM:\s*(\d+)/.exec(readFileSync('/proc/self/status', 'utf8'))[1]);
}

if (values.child) await measure(values.child);
else await main();
