/** `npm run check`: types, lint and format, the rules of the house, the size budget. Runs all, then fails on any. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { installPackages } from './lib/install.mjs';
import { main, ROOT, ScriptError, stage, tool } from './lib/run.mjs';

/** Runs one part; its complaints are printed below the stage's line. Resolves to whether it passed. */
async function part(label, body) {
  const complaints = await stage(`check: ${label}`, () => body().catch(explain));
  if (complaints.text !== '') console.log(complaints.text);
  return complaints.ok;
}

function explain(error) {
  if (!(error instanceof ScriptError)) throw error;
  return { ok: false, text: error.message };
}

const fromTool = ({ code, output }) => ({ ok: code === 0, text: code === 0 ? '' : output.trim() });

const tsc = (project) => () =>
  tool('typescript/bin/tsc', ['--noEmit', '-p', project, '--pretty', 'false'], { capture: true }).then(
    fromTool,
  );

const biome = () =>
  tool('@biomejs/biome/bin/biome', ['check', '--error-on-warnings', '--colors=off'], { capture: true }).then(
    fromTool,
  );

async function houseRules() {
  const { checkRules, showFinding } = await import('./lib/rules.mjs');
  const findings = checkRules(ROOT);
  return { ok: findings.every((finding) => finding.notice), text: findings.map(showFinding).join('\n') };
}

async function sizeBudget() {
  const { measure, overBudget } = await import('./lib/size.mjs');
  const { showFinding } = await import('./lib/rules.mjs');
  const { measured } = await measure(ROOT);
  const findings = overBudget(
    measured,
    JSON.parse(readFileSync(join(ROOT, 'scripts/size-budget.json'), 'utf8')),
  );
  return { ok: findings.length === 0, text: findings.map(showFinding).join('\n') };
}

await main(async () => {
  await installPackages();
  const parts = [
    ['types of the library', tsc('tsconfig.json')],
    ['types of tests, benches, examples', tsc('tsconfig.test.json')],
    ['lint and format', biome],
    ['rules of the house', houseRules],
    ['size budget', sizeBudget],
  ];
  let failures = 0;
  for (const [label, body] of parts) if (!(await part(label, body))) failures++;
  if (failures > 0) throw new ScriptError(`check: ${failures} of ${parts.length} parts failed.`);
  console.log('check: all parts passed');
});
