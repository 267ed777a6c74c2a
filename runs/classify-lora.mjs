/**
 * Low-rank adapters against full fine-tuning: trains a language model on Moby-Dick, then classifiers from it, all weights, adapters
 * alone, and the head alone, and one from random weights with the same settings:
 * `node runs/classify-lora.mjs [--minutes 5] [--data mails|reviews] [--reviews FOLDER] [--seeds 0,1,2] [--set JSON] [--base FOLDER]`.
 */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { median, printMachine } from '../bench/_report.mjs';
import { currentDevice, trainClassify, trainLm } from '../dist/index.node.js';
import { readBook } from './_book.mjs';
import { reviewFiles, writeSpam } from './_labelled.mjs';

const { values } = parseArgs({
  options: {
    minutes: { type: 'string', default: '5' },
    data: { type: 'string', default: 'mails' },
    reviews: { type: 'string' },
    seeds: { type: 'string', default: '0,1,2' },
    set: { type: 'string', default: '{}' },
    base: { type: 'string' },
  },
});
const DATA = {
  mails: (folder, seed) => writeSpam(folder, seed, { headers: false }),
  reviews: () => reviewFiles(values.reviews),
};
const write = DATA[values.data];
if (!write) throw new Error(`expected ${Object.keys(DATA).join(' or ')}, got ${values.data}.`);

/** What is trained, with the learning rate that suits it. */
const WAYS = {
  'all weights': { tune: 'full', lr: 1e-3 },
  'adapters of rank 4': {
    tune: 'lora',
    loraRank: 4,
    loraAlpha: 8,
    lr: 3e-3,
    loraTargets: ['in_proj', 'out_proj'],
  },
  'the head alone': { tune: 'frozen', lr: 1e-2 },
};
const folder = mkdtempSync(join(tmpdir(), 'mamba-lora-'));
try {
  printMachine(currentDevice().description);
  const base = values.base ?? join(folder, 'base');
  if (!values.base) {
    const book = join(folder, 'book.txt');
    writeFileSync(book, readBook());
    const { model, validation, elapsedSeconds } = await trainLm({
      out: base,
      settings: {
        data: [book],
        tokenizer: 'bpe:4096',
        d_model: 128,
        n_layer: 4,
        minutes: Number(values.minutes),
        batch: 8,
        length: 256,
        lr: 4e-3,
        sampling: 'pack',
        saveEvery: 0,
      },
    });
    console.log(
      `base: ${model.parameterCount} parameters, ${elapsedSeconds.toFixed(0)} s on Moby-Dick, ${validation.bitsPerByte.toFixed(3)} held-out bits per byte`,
    );
    model.dispose();
  }
  console.log('\n| trained | parameters | share | seed | test accuracy | macro-F1 | seconds |');
  console.log('|---|---|---|---|---|---|---|');
  const accuracies = new Map();
  for (const seed of values.seeds.split(',').map(Number)) {
    const data = write(folder, seed);
    for (const [name, way] of Object.entries(WAYS)) {
      const run = await trainClassify({
        out: join(folder, 'run'),
        start: 'replace',
        baselines: false,
        settings: {
          ...data,
          from: base,
          seed,
          saveEvery: 0,
          maxTokens: 128,
          epochs: 3,
          patience: 0,
          ...way,
          ...JSON.parse(values.set),
        },
      });
      const { accuracy, macroF1 } = run.test.scores;
      const share = (100 * run.trainedCount) / run.parameterCount;
      console.log(
        `| ${name} | ${run.trainedCount} | ${share.toFixed(2)} % | ${seed} | ${accuracy.toFixed(4)} | ${macroF1.toFixed(3)} | ${run.elapsedSeconds.toFixed(0)} |`,
      );
      accuracies.set(name, [...(accuracies.get(name) ?? []), accuracy]);
      run.model.dispose();
    }
  }
  for (const [name, list] of accuracies) console.log(`median of ${name}: ${median(list).toFixed(4)}`);
} finally {
  rmSync(folder, { recursive: true, force: true });
}
