/**
 * `npm test [-- filter...]`: installs and builds what is missing, runs the tests and closes with one line
 * `N passed, N failed`. Options of vitest pass through (`npm test -- ops -t "state"`).
 */
import { mkdirSync, readFileSync, rmSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { build } from './lib/build.mjs';
import { installPackages } from './lib/install.mjs';
import { closingLines, countResults } from './lib/results.mjs';
import { main, ROOT, tool } from './lib/run.mjs';

const REPORT = join(ROOT, '.cache/test-results.json');

await main(async (args) => {
  await installPackages();
  await build();
  mkdirSync(dirname(REPORT), { recursive: true });
  rmSync(REPORT, { force: true });
  const reporters = ['--reporter=default', '--reporter=json', `--outputFile.json=${REPORT}`];
  const { code } = await tool('vitest/vitest.mjs', ['run', ...reporters, ...args]);
  let report = null;
  try {
    report = JSON.parse(readFileSync(REPORT, 'utf8'));
  } catch {
    console.log('The test runner ended without a report.');
  }
  const counts = countResults(report, code);
  if (counts.passed + counts.failed === 0) console.log('No test ran.');
  for (const line of closingLines(counts)) console.log(line);
  return counts.failed > 0 || counts.passed === 0 ? 1 : 0;
});
