/**
 * Files that llama.cpp quantises, read here: a random Mamba goes out as GGUF F32, llama.cpp makes each of its own formats of it, and
 * four answers are compared, as probabilities after each of 64 tokens. llama.cpp rounds the activations too where weights are
 * quantised; its own float32 copy of the file tells what it computes without that. `same weights` counts the tensors that are equal,
 * bit for bit, to llama.cpp's dequantisation. On a Mamba its _S and _M mixes come out alike.
 * `node bench/peers/llama_quants.mjs PEER_FOLDER`, see _llama.mjs; needs a python3 as well.
 */
import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import {
  byteTokenizer,
  LanguageModel,
  loadModel,
  noGrad,
  openPretrained,
  Rng,
  writeGguf,
} from '../../dist/index.node.js';
import { table } from '../../scripts/lib/markdown.mjs';
import { printMachine } from '../_report.mjs';
import { largestDifference, llamaProbabilities, openLlama, softmax } from './_llama.mjs';

/** enum llama_ftype */
const FTYPES = {
  F16: 1,
  BF16: 32,
  Q8_0: 7,
  Q4_0: 2,
  Q4_1: 3,
  Q5_0: 8,
  Q5_1: 9,
  Q2_K: 10,
  Q3_K_S: 11,
  Q3_K_M: 12,
  Q4_K_S: 14,
  Q4_K_M: 15,
  Q5_K_S: 16,
  Q5_K_M: 17,
  Q6_K: 18,
  IQ4_NL: 25,
};
const ALL_F32 = 0;
/** Rows of 256: the K formats need them. An untied head, so that embedding and head get types of their own. */
const CONFIG = { d_model: 256, n_layer: 3, vocab_size: 256, tie_embeddings: false };
const POSITIONS = 64;
/** Rounding of float32 sums in another order. */
const ROUNDING = 1e-5;

const worker = fileURLToPath(new URL('./llama_quantize.py', import.meta.url));
const { llama, version, libraries } = await openLlama(process.argv[2] ?? '.');
const folder = mkdtempSync(join(tmpdir(), 'mamba-quants-'));
const rng = new Rng(3);
const ids = Array.from({ length: POSITIONS }, () => rng.below(CONFIG.vocab_size));

/** Runs llama.cpp's quantiser; returns the types that it says it used. */
function quantize(from, to, ftype) {
  const python = process.env.MAMBA_BENCH_PYTHON ?? 'python3';
  const run = spawnSync(python, [worker, libraries, from, to, String(ftype)], { encoding: 'utf8' });
  const text = `${run.stdout}${run.stderr}`;
  if (run.status !== 0) throw new Error(`llama_quantize.py: ${text.split('\n').slice(-8).join('\n')}`);
  return [...new Set([...text.matchAll(/converting to (\w+)/g)].map(([, type]) => type))].join(' ');
}

async function ours(path) {
  const model = await loadModel(path, { weights: 'f32' });
  const { logits } = noGrad(() => model.forward([ids]));
  const [values, v] = [await logits.floats(), logits.shape[2]];
  model.dispose();
  return ids.map((_, t) => softmax(Float64Array.from(values.subarray(t * v, (t + 1) * v))));
}

/** How many tensors of two files hold the same bits, and how many there are. */
async function sameTensors(a, b) {
  const [left, right] = [await openPretrained(a), await openPretrained(b)];
  let same = 0;
  for (const name of left.tensors.keys()) {
    const [x, y] = [await left.tensor(name), await right.tensor(name)];
    same += x.every((value, i) => Object.is(value, y[i])) ? 1 : 0;
  }
  const count = left.tensors.size;
  await left.close();
  await right.close();
  return { same, count };
}

try {
  const model = new LanguageModel(CONFIG, { seed: 1 });
  model.tokenizer = byteTokenizer();
  // Logits of a trained model's size; fresh ones are nearly equal and would hide everything.
  for (const [name, tensor] of model.namedParameters())
    if (/embeddings|lm_head/.test(name)) tensor.write((await tensor.floats()).map((x) => 10 * x));
  const f32 = join(folder, 'f32.gguf');
  await writeGguf(model, f32);
  model.dispose();

  const full = await ours(f32);
  const peerFull = await llamaProbabilities(llama, f32, ids, CONFIG.vocab_size);
  printMachine(`node-llama-cpp ${version}`);
  console.log(`F32: ours against llama.cpp ${largestDifference(full, peerFull).toExponential(1)}`);
  const rows = [];
  let failed = 0;
  for (const [name, ftype] of Object.entries(FTYPES)) {
    const [file, widened] = [join(folder, `${name}.gguf`), join(folder, `${name}.f32.gguf`)];
    const types = quantize(f32, file, ftype);
    quantize(file, widened, ALL_F32);
    const { same, count } = await sameTensors(file, widened);
    const mine = await ours(file);
    const peer = await llamaProbabilities(llama, file, ids, CONFIG.vocab_size);
    const peerWidened = await llamaProbabilities(llama, widened, ids, CONFIG.vocab_size);
    const exact = largestDifference(mine, peerWidened);
    const activations = largestDifference(peer, peerWidened);
    const apart = largestDifference(mine, peer);
    if (same !== count || exact > ROUNDING || apart > activations + ROUNDING) failed++;
    const show = (x) => x.toExponential(1);
    const kib = (statSync(file).size / 1024).toFixed(0);
    rows.push([
      name,
      types,
      kib,
      `${same} of ${count}`,
      show(exact),
      show(apart),
      show(activations),
      show(largestDifference(mine, full)),
    ]);
  }
  console.log(
    table(
      [
        'file',
        'types of its matrices',
        'KiB',
        'same weights',
        'ours - llama.cpp, float32 activations',
        'ours - llama.cpp as it is',
        'llama.cpp: effect of rounding activations',
        'effect of the format itself',
      ],
      rows,
    ),
  );
  console.log(`${rows.length - failed} of ${rows.length} within the bounds`);
  process.exitCode = failed > 0 ? 1 : 0;
} finally {
  rmSync(folder, { recursive: true, force: true });
  await llama.dispose();
}
