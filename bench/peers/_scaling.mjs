/** Our own on two threads beside one. */
import { compare } from './_compare.mjs';
import { ggufFile } from './_models.mjs';
import { startOurs } from './_process.mjs';

const config = { d_model: 256, n_layer: 4, vocab_size: 256 };

export async function* scaling(options) {
  const file = (type) => ggufFile(options.models, 'mamba-130m', type);
  const cases = [
    [
      'decode, mamba-130m f32',
      'decode',
      async () => ({ file: await file('f32'), settings: { prompt: 1, generate: 32 } }),
    ],
    [
      'decode, mamba-130m q8',
      'decode',
      async () => ({ file: await file('q8_0'), settings: { prompt: 1, generate: 32 } }),
    ],
    [
      'prompt of 512, mamba-130m q8',
      'prefill',
      async () => ({ file: await file('q8_0'), settings: { generate: 0 } }),
    ],
    [
      'train, d_model 256, 4 layers, 8 x 512',
      'train',
      async () => ({ config, settings: { batch: 8, prompt: 512, generate: 0, train: true } }),
    ],
  ];
  for (const [label, regime, request] of cases) {
    if (!options.match.test(label)) continue;
    const open = { what: 'open', ...(await request()) };
    const side = (threads) => ({ start: () => startOurs(threads), open, round: { what: 'round' }, regime });
    const { rounds } = options;
    const row = await compare({ label, peer: 'ours, 1 thread', rounds, ours: side(2), theirs: side(1) });
    yield row.bound === 'memory' ? row : { ...row, wanted: 1.7 }; // two threads share one memory
  }
}
