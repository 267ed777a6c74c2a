/** Beside llama.cpp: decoding, prompts, and decoding of several sequences at once. */
import { compare } from './_compare.mjs';
import { ggufFile } from './_models.mjs';
import { startLlama, startOurs } from './_process.mjs';

/** Shape, type of the weights, and the ratio that is wanted. */
const DECODE = [
  { shape: 'mamba-130m', type: 'f32', wanted: 1.6 },
  { shape: 'mamba-130m', type: 'f16', wanted: 1.8 },
  { shape: 'mamba-130m', type: 'q8_0', wanted: 2, wantedShare: 0.75 },
  { shape: 'mamba-130m', type: 'q4_0', wanted: 2 },
  { shape: 'mamba2-130m', type: 'f32' },
  { shape: 'mamba2-130m', type: 'f16' },
  { shape: 'mamba2-130m', type: 'q8_0', wanted: 1.5 },
  { shape: 'mamba-790m', type: 'q8_0', wanted: 1.5 },
];
/** llama.cpp rounds activations to 8 bits where weights are quantised: what our precision int8 does. */
const PREFILL = [
  { shape: 'mamba-130m', type: 'f32', wanted: 4 },
  { shape: 'mamba-130m', type: 'f16', weights: 'bf16', precision: 'bf16', wanted: 10 },
  { shape: 'mamba-130m', type: 'q8_0', wanted: 9 },
  { shape: 'mamba-130m', type: 'q8_0', precision: 'int8', wanted: 9 },
  { shape: 'mamba-130m', type: 'q4_0' },
  { shape: 'mamba2-130m', type: 'f32', wanted: 3 },
  { shape: 'mamba2-130m', type: 'f16', weights: 'bf16', precision: 'bf16', wanted: 7 },
  { shape: 'mamba2-130m', type: 'q8_0', wanted: 6 },
  { shape: 'mamba2-130m', type: 'q8_0', precision: 'int8', wanted: 6 },
];
const LENGTHS = [512, 2048];
/** Enough to start threads and to touch the weights. */
const WARM_TOKENS = 128;

const openOurs = (file, settings, more = {}) => ({ what: 'open', file, settings, ...more });
const peerName = (type) => `llama.cpp ${type.toUpperCase()}`;

/** The sides of one comparison. */
function sides({ llama, threads }, oursOpen, theirsOpen, regime, theirsRound) {
  return {
    ours: { start: () => startOurs(threads), open: oursOpen, round: { what: 'round' }, regime },
    theirs: { start: () => startLlama(llama, threads), open: theirsOpen, round: theirsRound },
  };
}

export async function* decode(options) {
  const tokens = 48;
  for (const { shape, type, ...wanted } of DECODE) {
    const label = `${shape} ${type.replace('_0', '')}`;
    if (!options.match.test(label)) continue;
    const file = await ggufFile(options.models, shape, type);
    const open = openOurs(file, { prompt: 1, generate: tokens });
    const round = { what: 'decode', tokens };
    yield compare({
      label,
      peer: peerName(type),
      rounds: options.rounds,
      ...wanted,
      ...sides(options, open, { what: 'open', file }, 'decode', round),
    });
  }
}

export async function* prefill(options) {
  for (const tokens of LENGTHS) {
    for (const { shape, type, weights, precision, ...wanted } of PREFILL) {
      const kind = [weights ?? type.replace('_0', ''), precision].filter(
        (x, i, all) => x && x !== all[i - 1],
      );
      const label = `${shape} ${kind.join(' ')}, ${tokens} tokens`;
      if (!options.match.test(label) || (tokens > 512 && !wanted.wanted)) continue; // long ones take long
      const file = await ggufFile(options.models, shape, type);
      const source = weights ? await ggufFile(options.models, shape, 'f32') : file;
      const open = openOurs(source, { prompt: tokens, generate: 0 }, { weights, precision });
      const round = { what: 'prefill', tokens };
      const both = sides(options, open, { what: 'open', file }, 'prefill', round);
      both.theirs.warm = { what: 'prefill', tokens: WARM_TOKENS };
      yield compare({ label, peer: peerName(type), rounds: options.rounds, ...wanted, ...both });
    }
  }
}

export async function* batch(options) {
  const tokens = 32;
  for (const [type, wanted] of [
    ['f32', 2.5],
    ['q8_0', undefined],
  ]) {
    const label = `mamba-130m ${type.replace('_0', '')}, 8 sequences`;
    if (!options.match.test(label)) continue;
    const file = await ggufFile(options.models, 'mamba-130m', type);
    const open = openOurs(file, { batch: 8, prompt: 1, generate: tokens });
    const theirs = { what: 'open', file, batch: 8 };
    const both = sides(options, open, theirs, 'decode', { what: 'decode', tokens });
    yield compare({ label, peer: peerName(type), rounds: options.rounds, wanted, ...both });
  }
  for (const rows of [4, 16, 64]) {
    const label = `mamba-130m q8, ${rows} sequences`;
    if (!options.match.test(label)) continue;
    const file = await ggufFile(options.models, 'mamba-130m', 'q8_0');
    const side = (count) => ({
      start: () => startOurs(options.threads),
      open: openOurs(file, { batch: count, prompt: 1, generate: tokens }),
      round: { what: 'round' },
      regime: 'decode',
    });
    const wanted = rows === 16 ? 3 : undefined;
    yield compare({
      label,
      peer: 'ours, 1 sequence',
      rounds: options.rounds,
      wanted,
      ours: side(rows),
      theirs: side(1),
    });
  }
}
