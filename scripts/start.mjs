/** `npm start [-- options]`: installs and builds what is missing, then runs the demo. */
import { join } from 'node:path';
import { build } from './lib/build.mjs';
import { installPackages } from './lib/install.mjs';
import { main, ROOT, run } from './lib/run.mjs';

await main(async (args) => {
  await installPackages();
  await build();
  const { code } = await run(process.execPath, [join(ROOT, 'runs/moby-dick.mjs'), ...args]);
  return code;
});
