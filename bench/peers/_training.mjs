/** Beside PyTorch: whole training steps of Mamba, and of a Transformer of the same size. */
import { PRESETS } from '../../dist/train/index.js';
import { compare } from './_compare.mjs';
import { startOurs, startTorch } from './_process.mjs';

const SMALL = { d_model: 256, n_layer: 4, vocab: 256 };
const LARGE = { d_model: 768, n_layer: 24, vocab: 50280 };
const MAMBAS = ['mambapy', 'transformers'];
/** A step of a loop over tokens can take minutes. */
const LIMIT_SECONDS = 90;

const small = 'd_model 256, 4 layers, 8 x 512';
const large = 'mamba-130m, 1 x 512';
/** Blocks of a Transformer that have the parameters of four layers of Mamba. */
const gpt = { ...SMALL, n_layer: 2 };
const COMPARISONS = [
  { label: small, ...SMALL, length: 512, batch: 8, peers: ['mambapy'], wanted: 15, wantedMemory: 0.25 },
  { label: small, ...SMALL, length: 512, batch: 8, peers: ['mambapy'], compile: true },
  { label: small, ...SMALL, length: 512, batch: 8, peers: ['transformers'] },
  { label: small, ...SMALL, length: 512, batch: 8, peers: ['gpt'], peerShape: gpt, wanted: 1 },
  { label: small, ...SMALL, length: 512, batch: 8, peers: ['gpt'], peerShape: gpt, compile: true },
  {
    label: 'd_model 256, 4 layers, 1 x 4096',
    ...SMALL,
    length: 4096,
    batch: 1,
    peers: ['gpt'],
    peerShape: gpt,
    wanted: 2,
  },
  { label: large, ...LARGE, length: 512, batch: 1, peers: MAMBAS, wanted: 4 },
];
/** Our own in bfloat16 beside float32. */
const PRECISION = { label: `${large}, bf16`, ...LARGE, length: 512, batch: 1, wanted: 1.7 };

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

export async function* train(options) {
  const { threads, rounds, match } = options;
  for (const { label, peers, peerShape, compile = false, wanted, wantedMemory, ...shape } of COMPARISONS) {
    for (const peer of peers) {
      const name = `PyTorch ${peer}${compile ? ', compiled' : ''}`;
      if (!match.test(`${label} ${name}`)) continue;
      yield compare({
        label,
        peer: name,
        rounds,
        wanted,
        wantedMemory,
        limitSeconds: LIMIT_SECONDS,
        ours: oursSide(shape, threads),
        theirs: {
          start: () => startTorch(options.python, threads),
          open: { what: 'open', model: peer, compile, ...shape, ...peerShape },
          round: { what: 'step' },
        },
      });
    }
  }
  const { label, wanted, ...shape } = PRECISION;
  if (!match.test(label)) return;
  const [ours, theirs] = [oursSide(shape, threads, 'bf16'), oursSide(shape, threads)];
  yield compare({ label, peer: 'ours, f32', rounds, wanted, ours, theirs });
}
