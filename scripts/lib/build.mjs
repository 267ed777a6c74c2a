/**
 * The build: TypeScript to dist/, kernels to WebAssembly and to the native addon. Each part looks at the contents of its
 * inputs and does nothing when its output is up to date.
 */
import { chmodSync, existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { contentHash, filesUnder } from './files.mjs';
import { ROOT, ScriptError, stage, tool } from './run.mjs';

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

async function buildWasm(force) {
  const { buildWasm: make } = await import('../build-wasm.mjs');
  const { ok, reason } = await make({ force });
  if (!ok) throw new ScriptError(`build: the WebAssembly kernels failed: ${reason}`);
}

/**
 * Builds what is missing or out of date. `strict` makes C++ that does not compile an error; without it, and wherever
 * there is no compiler, WebAssembly takes over.
 */
export async function build({ force = false, strict = false } = {}) {
  await stage('library: compiling', () => buildTypeScript(force));
  await stage('kernels: building WebAssembly', () => buildWasm(force));
  const { buildNative } = await import('../build-native.mjs');
  const { ok, reason } = await stage('kernels: building the native addon', () => buildNative({ force }));
  if (ok) return;
  if (strict && reason.includes(' failed:')) throw new ScriptError(`build: ${reason}`);
  console.error(`kernels: no native addon, WebAssembly takes over (${reason})`);
}
