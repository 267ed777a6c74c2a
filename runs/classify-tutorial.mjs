/**
 * The set-up that tutorials on Mamba and IMDb share (`--preset imdb-tutorial`), on reviews in IMDb's folder layout:
 * `node runs/classify-tutorial.mjs --tokenizer FOLDER [--reviews FOLDER] [--imdb FOLDER] [--out FOLDER]`. FOLDER has
 * bert-base-uncased's tokenizer.json (without it, it is fetched from the hub); with --imdb the real archive is used as it is.
 */
import { spawnSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { printMachine } from '../bench/_report.mjs';
import { currentDevice } from '../dist/index.node.js';
import { reviewFiles } from './_labelled.mjs';

const { values } = parseArgs({
  options: {
    tokenizer: { type: 'string' },
    reviews: { type: 'string' },
    imdb: { type: 'string' },
    out: { type: 'string' },
  },
});

/** One file per review under train/pos, train/neg, test/pos and test/neg. */
function writeImdbLayout(folder) {
  const { data, test, textFields, labelField } = reviewFiles(values.reviews);
  for (const [part, [path]] of Object.entries({ train: data, test })) {
    for (const [i, line] of readFileSync(path, 'utf8').trim().split('\n').entries()) {
      const record = JSON.parse(line);
      const folderOfClass = join(folder, part, record[labelField] === 'great' ? 'pos' : 'neg');
      mkdirSync(folderOfClass, { recursive: true });
      writeFileSync(join(folderOfClass, `${i}_0.txt`), record[textFields[0]]);
    }
  }
  return folder;
}

const folder = mkdtempSync(join(tmpdir(), 'mamba-tutorial-'));
try {
  const data = values.imdb ?? writeImdbLayout(join(folder, 'aclImdb'));
  printMachine(currentDevice().description);
  const cli = join(dirname(fileURLToPath(import.meta.url)), '../dist/cli/main.js');
  // As there, every epoch is measured on the test part, and all of the training part is learned from.
  const args = [
    'train',
    'classify',
    '--preset',
    'imdb-tutorial',
    '--data',
    data,
    '--valid',
    join(data, 'test'),
  ];
  if (values.tokenizer) args.push('--tokenizer', values.tokenizer);
  args.push('--out', values.out ?? join(folder, 'run'));
  console.log(`mamba-ts ${args.join(' ')}`);
  const { status } = spawnSync(process.execPath, [cli, ...args], { stdio: 'inherit' });
  process.exitCode = status ?? 1;
} finally {
  rmSync(folder, { recursive: true, force: true });
}
