/** Every example type-checks with the tests, and runs to its end against the built package without arguments. */
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { beforeAll, describe, expect, it } from 'vitest';
import { ROOT } from '../../scripts/lib/run.mjs';
import { runTypeScript, workplace } from './workplace.ts';

let folder: string;
beforeAll(() => {
  folder = workplace('examples');
});

/** As the tokenizer of classify.ts reads it: in lower case. */
const SPAM =
  'your opportunity!\nmake $5000 a week from your home. it is free, there is nothing to sell. order today!';

/** What it prints, in lines. */
function run(name: string): string[] {
  const source = readFileSync(join(ROOT, 'examples', name), 'utf8');
  const { status, stdout, stderr } = runTypeScript(folder, name.replace(/\.ts$/, ''), source);
  expect({ status, stderr }).toEqual({ status: 0, stderr: '' });
  return stdout.split('\n');
}

describe('examples', () => {
  it('embed.ts prints how alike its sentences are', () => {
    const rows = run('embed.ts').filter((line) => /^\d( +-?\d\.\d\d){8} {2}/.test(line));
    expect(rows).toHaveLength(16);
    // On the diagonal everything is like itself, and the two sentences of the same words are alike.
    for (const [i, row] of rows.entries())
      expect(row.slice(1, 49).match(/.{6}/g)![i % 8]!.trim()).toBe('1.00');
    const alike = Number(rows[8]!.slice(7, 13));
    for (const other of [3, 4, 5, 6, 7])
      expect(alike).toBeGreaterThan(Number(rows[8]!.slice(1 + 6 * other, 7 + 6 * other)));
  });

  it('classify.ts trains a spam filter that answers, reads on, and explains', () => {
    const lines = run('classify.ts');
    const between = (title: string): string[] =>
      lines.slice(lines.indexOf(title) + 1, lines.indexOf('', lines.indexOf(title)));

    // Of 40 mails, guessing gets 30 or more right once in a thousand times.
    const names = ['naive Bayes', 'TF-IDF + logistic regression', 'Mamba, text-small'];
    const rows = names.map((name) => lines.find((line) => line.startsWith(name))!.slice(name.length));
    for (const row of rows) expect(Number(row.trim().split(/\s+/)[0])).toBeGreaterThanOrEqual(0.75);

    const answers = between('answers');
    expect(answers.map((line) => line.replace(/ \d\.\d{4} /, ' '))).toEqual([
      'spam  Your opportunity!',
      'ham  Problem with the network card',
    ]);
    for (const answer of answers) expect(Number(/\d\.\d{4}/.exec(answer)![0])).toBeGreaterThan(0.5);

    const stream = between('a mail while it arrives');
    const scores = stream.map((line) => /spam (\d\.\d{4})$/.exec(line)![1]!);
    expect(scores).toHaveLength(5);
    expect(scores[4]).toBe(scores[3]); // read piece by piece, and at once
    expect(Number(scores[3])).toBeGreaterThan(Number(scores[0]));
    const tokens = stream.slice(0, 4).map((line) => Number(line.split(' ')[0]));
    expect(tokens).toEqual([...tokens].sort((a, b) => a - b));

    const weights = between('what decided, token by token').map((line) => {
      const [, side, token, weight] = /^(for|against) spam {2}(".*") {2}(-?\d+\.\d{3})$/.exec(line)!;
      // A vocabulary of words puts spaces between them, and has one token for all that it does not know.
      const word = JSON.parse(token!).trim();
      if (word !== '[UNK]') expect(SPAM).toContain(word);
      expect(Number(weight) >= 0 ? 'for' : 'against').toBe(side);
      return Math.abs(Number(weight));
    });
    expect(weights).toHaveLength(8);
    expect(weights).toEqual([...weights].sort((a, b) => b - a));
  });

  it('all are run by this file', () => {
    expect(readdirSync(join(ROOT, 'examples')).filter((name) => name.endsWith('.ts'))).toEqual([
      'classify.ts',
      'embed.ts',
    ]);
  });
});
