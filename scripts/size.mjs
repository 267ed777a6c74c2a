/** `npm run size`: lines per folder, gzipped bytes of the neutral entry point, each beside its budget. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { installPackages } from './lib/install.mjs';
import { main, ROOT } from './lib/run.mjs';

await main(async () => {
  await installPackages();
  const { measure } = await import('./lib/size.mjs');
  const budget = JSON.parse(readFileSync(join(ROOT, 'scripts/size-budget.json'), 'utf8'));
  const { folders, measured } = await measure(ROOT);
  console.log('lines');
  for (const [folder, lines] of Object.entries(folders))
    console.log(`  ${folder.padEnd(20)}${String(lines).padStart(8)}`);
  console.log('measured against scripts/size-budget.json');
  for (const [name, value] of Object.entries(measured)) {
    console.log(`  ${name.padEnd(20)}${String(value).padStart(8)} of ${budget[name]}`);
  }
});
