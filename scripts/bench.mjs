/** `npm run bench [name] [-- options]`: runs one program of bench/, or lists them. Files that begin with _ are helpers. */
import { existsSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { build } from './lib/build.mjs';
import { installPackages } from './lib/install.mjs';
import { main, ROOT, run, ScriptError } from './lib/run.mjs';

const folder = join(ROOT, 'bench');

await main(async ([name, ...args]) => {
  const names = (existsSync(folder) ? readdirSync(folder) : [])
    .filter((file) => file.endsWith('.mjs') && !file.startsWith('_'))
    .map((file) => file.slice(0, -'.mjs'.length))
    .sort();
  if (name === undefined) {
    console.log(`npm run bench NAME, with NAME one of: ${names.join(', ')}`);
    return 0;
  }
  if (!names.includes(name))
    throw new ScriptError(`bench: expected one of ${names.join(', ')}, got ${name}.`);
  await installPackages();
  await build();
  const { code } = await run(process.execPath, [join(folder, `${name}.mjs`), ...args]);
  return code;
});
