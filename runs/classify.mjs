/**
 * What the recipe `text-small` reaches, beside naive Bayes and logistic regression on the same texts:
 * `node runs/classify.mjs reviews|spam|spam-bodies|brown [--reviews FOLDER] [--seeds 0,1,2] [--set '{"epochs":5}']`. A seed decides the weights, the
 * batches and, but for the reviews, which fifth of the texts is tested on. Median over the seeds.
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { median, printMachine } from '../bench/_report.mjs';
import { currentDevice, trainClassify } from '../dist/index.node.js';
import { reviewFiles, writeBrown, writeSpam } from './_labelled.mjs';

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    reviews: { type: 'string' },
    seeds: { type: 'string', default: '0,1,2' },
    set: { type: 'string', default: '{}' },
  },
});
const DATA = {
  reviews: () => reviewFiles(values.reviews),
  spam: writeSpam,
  'spam-bodies': (folder, seed) => writeSpam(folder, seed, { headers: false }),
  brown: writeBrown,
};
const [name = 'spam'] = positionals;
if (!Object.hasOwn(DATA, name)) throw new Error(`expected ${Object.keys(DATA).join(', ')}, got ${name}.`);

const folder = mkdtempSync(join(tmpdir(), 'mamba-classify-'));
const rows = new Map();
const add = (model, seed, scores, seconds) => {
  const list = rows.get(model) ?? [];
  list.push({ seed, ...scores, seconds });
  rows.set(model, list);
};
try {
  printMachine(currentDevice().description);
  for (const seed of values.seeds.split(',').map(Number)) {
    const begin = performance.now();
    const run = await trainClassify({
      out: join(folder, 'run'),
      start: 'replace',
      settings: { ...DATA[name](folder, seed), seed, saveEvery: 0, ...JSON.parse(values.set) },
      onProgress(event) {
        if (event.kind === 'begin' && seed === Number(values.seeds.split(',')[0])) {
          const { train, valid, test } = event.texts;
          console.log(
            `${name}: ${event.config.labels.length} classes, ${train} texts to learn from, ${valid} held out, ${test} tested; ` +
              `${event.parameterCount} parameters.\n`,
          );
          console.log(
            '| model | seed | accuracy | macro-F1 | AUC | log loss | calibration error | seconds |',
          );
          console.log('|---|---|---|---|---|---|---|---|');
        }
      },
    });
    add('Mamba', seed, run.test.scores, run.elapsedSeconds);
    for (const { name: baseline, scores, seconds } of run.baselines) add(baseline, seed, scores, seconds);
    for (const [model, list] of rows) print(model, seed, list.at(-1));
    const total = (performance.now() - begin) / 1000;
    console.error(
      `seed ${seed}: ${run.stopped} after ${run.step} steps, ${total.toFixed(0)} s with evaluation and baselines`,
    );
    run.model.dispose();
  }
  for (const [model, list] of rows) {
    const of = (key) => median(list.map((row) => row[key]));
    print(`**${model}**`, 'median', {
      accuracy: of('accuracy'),
      macroF1: of('macroF1'),
      auc: of('auc'),
      logLoss: of('logLoss'),
      calibrationError: of('calibrationError'),
      seconds: of('seconds'),
    });
  }
} finally {
  rmSync(folder, { recursive: true, force: true });
}

function print(model, seed, { accuracy, macroF1, auc, logLoss, calibrationError, seconds }) {
  const cells = [accuracy, macroF1, auc, logLoss, calibrationError].map((x) => x?.toFixed(3) ?? '-');
  console.log(`| ${model} | ${seed} | ${cells.join(' | ')} | ${seconds.toFixed(0)} |`);
}
