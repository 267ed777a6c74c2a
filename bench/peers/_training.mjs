/** Beside PyTorch: whole training steps of Mamba, and of a Transformer of the same size. */
import { PRESETS } from '../../dist/train/index.js';
import { compare } from './_compare.mjs';
import { startOurs, startTorch } from './_process.mjs';

const SMALL = { d_model: 256, n_layer: 4, vocab: 256 };
const LARGE = { d_model: 768, n_layer: 24, vocab: 50280 };
/** Blocks of a Transformer that have the parameters of four layers of Mamba. */
const GPT = { ...SMALL, n_layer: 2 };

const small = { label: 'd_model 256, 4 layers, 8 x 512', ...SMALL, length: 512, batch: 8 };
const long = { label: 'd_model 256, 4 layers, 1 x 4096', ...SMALL, length: 4096, batch: 1 };
const large = { label: 'mamba-130m, 1 x 512', ...LARGE, length: 512, batch: 1 };
const COMPARISONS = [
  { ...small, peer: 'mambapy', wanted: 15, wantedMemory: 0.25 },
  { ...small, peer: 'gpt', peerShape: GPT, wanted: 1 },
  { ...long, peer: 'gpt', peerShape: GPT, wanted: 2 },
  { ...large, peer: 'mambapy', wanted: 4 },
];
/** What takes minutes before its first step, or for each: by --only train-slow. */
const SLOW = [
  { ...small, peer: 'gpt', peerShape: GPT, compile: true },
  { ...small, peer: 'mambapy', compile: true },
  { ...small, peer: 'transformers' },
  { ...large, peer: 'transformers' },
];
/** For the first step of any, and of these. */
const LIMIT_SECONDS = 120;
const SLOW_LIMIT_SECONDS = 600;
/** Our own in bfloat16 beside float32. */
const PRECISION = { ...large, label: 'mamba-130m, 1 x 512, bf16', wanted: 1.7 };

function oursSide({ d_model, n_layer, vocab, length, batch }, threads, precision) {
  const { model_type } = PRESETS['mamba-130m'];
  return {
    start: () => startOurs(threads),
    open: {
      what: 'open',
      config: { model_type, d_model, n_layer, vocab_size: vocab },
      precision,
      settings: { batch, prompt: length, generate: 0, train: true },
    },
    round: { what: 'round' },
    regime: 'train',
  };
}

async function* beside(comparisons, limitSeconds, options) {
  const { threads, rounds, match } = options;
  for (const {
    label,
    peer: model,
    peerShape,
    compile = false,
    wanted,
    wantedMemory,
    ...shape
  } of comparisons) {
    const peer = `PyTorch ${model}${compile ? ', compiled' : ''}`;
    if (!match.test(`${label} ${peer}`)) continue;
    const theirs = {
      start: () => startTorch(options.python, threads),
      open: { what: 'open', model, compile, ...shape, ...peerShape },
      round: { what: 'step' },
    };
    const ours = oursSide(shape, threads);
    yield compare({ label, peer, rounds, wanted, wantedMemory, limitSeconds, ours, theirs });
  }
}

export async function* train(options) {
  yield* beside(COMPARISONS, LIMIT_SECONDS, options);
  const { threads, rounds, match } = options;
  const { label, wanted, ...shape } = PRECISION;
  if (!match.test(label)) return;
  const [ours, theirs] = [oursSide(shape, threads, 'bf16'), oursSide(shape, threads)];
  yield compare({ label, peer: 'ours, f32', rounds, wanted, ours, theirs });
}

export const trainSlow = (options) => beside(SLOW, SLOW_LIMIT_SECONDS, options);
