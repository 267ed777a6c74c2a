/** Programs for child processes: TypeScript against the sources, bundled because a child has no vitest to read it. */
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { build } from 'esbuild';

const root = fileURLToPath(new URL('../..', import.meta.url));
let count = 0;

/** Writes the bundle of `source` (imports relative to the repository) into `folder` and returns its path. */
export async function bundle(source: string, folder: string): Promise<string> {
  const outfile = join(folder, `program-${++count}.mjs`);
  await build({
    stdin: { contents: source, resolveDir: root, loader: 'ts' },
    outfile,
    bundle: true,
    platform: 'node',
    format: 'esm',
    target: 'node20',
    logLevel: 'error',
    banner: {
      js: "import { createRequire } from 'node:module'; const require = createRequire(import.meta.url);",
    },
  });
  return outfile;
}
