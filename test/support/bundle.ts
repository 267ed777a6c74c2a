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
    ignoreAnnotations: true, // package.json lists the files in dist/ that do something on import, not those in src/
    banner: {
      js: "import { createRequire as makeRequire } from 'node:module'; const require = makeRequire(import.meta.url);",
    },
  });
  return outfile;
}
