/**
 * The build: TypeScript to dist/, kernels to WebAssembly and to the native addon. Each part runs only when the
 * contents of its inputs changed since its last success, or its output is gone.
 */
import { chmodSync, copyFileSync, existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { contentHash, filesUnder } from './files.mjs';
import { findCompiler, ROOT, ScriptError, stage, tool } from './run.mjs';

const STAMPS = join(ROOT, '.cache/build.json');
const DIST = join(ROOT, 'dist');
const WASM_IN_DIST = join(DIST, 'backend/kernels.wasm');

function readStamps() {
  try {
    return JSON.parse(readFileSync(STAMPS, 'utf8'));
  } catch {
    return {}; // absent or damaged: build again
  }
}

function writeStamp(part, stamp) {
  mkdirSync(dirname(STAMPS), { recursive: true });
  writeFileSync(STAMPS, `${JSON.stringify({ ...readStamps(), [part]: stamp }, null, 2)}\n`);
}

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
  const cli = join(DIST, 'cli/main.js');
  const outputs = filesUnder(join(ROOT, 'src'))
    .filter((name) => /(?<!\.d)\.ts$/.test(name))
    .map((name) => join(DIST, name.replace(/\.ts$/, '.js')));
  if (!force && readStamps().typescript?.hash === hash && outputs.every((path) => existsSync(path))) return;
  await stage('library: compiling', async () => {
    const { code, output } = await tool('typescript/bin/tsc', ['-p', 'tsconfig.json', '--pretty', 'false'], {
      capture: true,
    });
    if (code !== 0)
      throw new ScriptError(
        `${output.trim()}\nbuild: the TypeScript sources have errors. Correct the lines above.`,
      );
    pruneDist();
    if (existsSync(cli)) chmodSync(cli, 0o755);
  });
  writeStamp('typescript', { hash });
}

/** Runs one kernel build of scripts/build-*.mjs unless its inputs are unchanged. Returns { path, reason }. */
async function buildKernels(part, label, inputs, force, build) {
  const hash = contentHash(ROOT, ['native/include', 'native/kernels', 'src/backend/kernels.ts', ...inputs]);
  const stamp = readStamps()[part];
  if (!force && stamp?.hash === hash && existsSync(join(ROOT, stamp.path)))
    return { path: join(ROOT, stamp.path) };
  const result = await stage(label, () => build());
  if (!result.ok) return { path: null, reason: result.reason };
  const path = join(ROOT, result.path.startsWith(ROOT) ? result.path.slice(ROOT.length + 1) : result.path);
  writeStamp(part, { hash, path: path.slice(ROOT.length + 1) });
  return { path };
}

async function buildWasm(force) {
  const inputs = ['native/wasm.cc', 'scripts/build-wasm.mjs', 'node_modules/@yowasp/clang/package.json'];
  const { path, reason } = await buildKernels(
    'wasm',
    'kernels: building WebAssembly',
    inputs,
    force,
    async () => {
      const module = await import('../build-wasm.mjs');
      return module.buildWasm({ log: () => {} });
    },
  );
  if (path === null) throw new ScriptError(`build: the WebAssembly kernels failed: ${reason}`);
  if (path !== WASM_IN_DIST) {
    mkdirSync(dirname(WASM_IN_DIST), { recursive: true });
    copyFileSync(path, WASM_IN_DIST);
  }
}

async function buildNative(force, strict) {
  if (findCompiler() === null) {
    console.error('kernels: no C++ compiler found: WebAssembly takes over');
    return;
  }
  const inputs = ['native', 'scripts/build-native.mjs', 'node_modules/node-api-headers/package.json'];
  const { path, reason } = await buildKernels(
    'native',
    'kernels: building the native addon',
    inputs,
    force,
    async () => {
      const module = await import('../build-native.mjs');
      return module.buildNative({ force: true, log: () => {} });
    },
  );
  if (path !== null) return;
  if (strict) throw new ScriptError(`build: the native addon failed: ${reason}`);
  console.error(`kernels: the native addon failed, WebAssembly takes over: ${reason}`);
}

/**
 * Builds what is missing or out of date. `strict` makes a native build that fails although there is a compiler an
 * error; without it WebAssembly takes over.
 */
export async function build({ force = false, strict = false } = {}) {
  await buildTypeScript(force);
  await buildWasm(force);
  await buildNative(force, strict);
}
