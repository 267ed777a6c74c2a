/** `npm run build [-- --force]`: dist/, the WebAssembly kernels and the native addon. */
import { build } from './lib/build.mjs';
import { installPackages } from './lib/install.mjs';
import { main, ScriptError } from './lib/run.mjs';

await main(async (args) => {
  const unknown = args.find((arg) => arg !== '--force');
  if (unknown) throw new ScriptError(`build: expected --force or nothing, got ${unknown}.`);
  await installPackages();
  await build({ force: args.includes('--force'), strict: true });
});
