/**
 * The build: TypeScript to dist/, kernels to WebAssembly and to the native addon. Each part looks at the contents of its
 * inputs and does nothing when its output is up to date.
 */
import { chmodSync, existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { contentHash, filesUnder } from './files.mjs';
import { ROOT, run, ScriptError, stage, tool } from './run.mjs';

const DIST = join(ROOT, 'dist');
const STAMP = join(ROOT, '.cache/typescript.stamp');

/** Removes what an earlier build made of source files that are gone. */
function pruneDist() {
  const made = /\.(?:js|d\.ts)$/;
  for (const name of filesUnder(DIST)) {
    if (made.test(name) && !existsSync(join(ROOT, 'src', name.replace(made, '.ts'))))
      rmSync(join(DIST, name));
  }
}

async function buildTypeScript(force) {
  const hash = contentHash(ROOT, ['src', 'tsconfig.json', 'node_modules/typescript/package.json']);
  const outputs = filesUnder(join(ROOT, 'src'))
    .filter((name) => /(?<!\.d)\.ts$/.test(name))
    .map((name) => join(DIST, name.replace(/\.ts$/, '.js')));
  const fresh = existsSync(STAMP) && readFileSync(STAMP, 'utf8') === hash;
  if (!force && fresh && outputs.every((path) => existsSync(path))) return;
  const args = ['-p', 'tsconfig.json', '--pretty', 'false'];
  const { code, output } = await tool('typescript/bin/tsc', args, { capture: true });
  if (code !== 0) {
    throw new ScriptError(
      `${output.trim()}\nbuild: the TypeScript sources have errors. Correct the lines above.`,
    );
  }
  pruneDist();
  const cli = join(DIST, 'cli/main.js');
  if (existsSync(cli)) chmodSync(cli, 0o755);
  mkdirSync(dirname(STAMP), { recursive: true });
  writeFileSync(STAMP, hash);
}

/** In a process of its own: the compiler is WebAssembly itself and would block the event loop of this one. */
async function buildWasm(force) {
  const script = join(ROOT, 'scripts/build-wasm.mjs');
  const { code, output } = await run(process.execPath, [script, ...(force ? ['--force'] : [])], {
    capture: true,
  });
  if (code === 0) return;
  const messages = output.replace(/^yowasp-llvm: fetched.*\n/gm, '').trim(); // the progress of loading the compiler
  throw new ScriptError(`${messages}\nbuild: the WebAssembly kernels failed. Correct the lines above.`);
}

/**
 * Builds what is missing or out of date. `strict` makes C++ that does not compile an error; without it, and wherever
 * there is no compiler, WebAssembly takes over.
 */
export async function build({ force = false, strict = false } = {}) {
  await stage('library: compiling', () => buildTypeScript(force));
  const { buildNative } = await import('../build-native.mjs');
  const both = () => Promise.all([buildNative({ force }), buildWasm(force)]);
  const [{ ok, reason }] = await stage('kernels: compiling for this machine and for WebAssembly', both);
  if (ok) return;
  if (strict && reason.includes(' failed:')) throw new ScriptError(`build: ${reason}`);
  console.error(`kernels: no native addon, WebAssembly takes over (${reason})`);
}
