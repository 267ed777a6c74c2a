/**
 * Builds dist/backend/kernels.wasm, and kernels-relaxed.wasm with relaxed SIMD, from the C++ kernels with the LLVM that npm
 * installs (@yowasp/clang): no system compiler needed. The standard headers are small ones of our own, because the kernels
 * need nothing more. Each compiler is a thread of its own.
 *
 * Run directly: node scripts/build-wasm.mjs [--force] [kernels.wasm] [kernels-relaxed.wasm]
 */
import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, readdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import { availableParallelism, totalmem } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { isMainThread, parentPort, Worker, workerData } from 'node:worker_threads';

const root = dirname(dirname(fileURLToPath(import.meta.url)));

const FLAGS = [
  '--target=wasm32-unknown-unknown',
  ...[
    '-std=c++17',
    '-nostdinc++',
    '-O3',
    '-msimd128',
    '-mbulk-memory',
    '-matomics',
    '-nostdlib',
    '-ffreestanding',
    '-fbuiltin',
  ],
  ...[
    '-fno-exceptions',
    '-fno-rtti',
    '-fno-math-errno',
    '-ffp-contract=fast',
    '-Wno-psabi',
    '-DMAMBA_ISA=simd128',
  ],
  ...['-Iinclude/wasm', '-Wl,--no-entry', '-Wl,-z,stack-size=262144', '-Wl,--strip-all'],
  // FIRST_PAGES and MOST_PAGES of src/backend/wasm.ts. Every engine with SIMD128 has shared memory too, so the build with one
  // thread is the build with many.
  ...[
    '-Wl,--import-memory',
    '-Wl,--shared-memory',
    '-Wl,--initial-memory=1048576',
    '-Wl,--max-memory=4294967296',
  ],
  '-Wl,--export=__stack_pointer',
];

/** What each module needs beyond SIMD128: src/backend/wasm-variant.ts chooses. */
const VARIANTS = { 'kernels.wasm': [], 'kernels-relaxed.wasm': ['-mrelaxed-simd'] };
/** Of one compiler. */
const MEMORY_BYTES = 7e8;

/** What the kernels use of the C library, as compiler builtins. */
const HEADERS = {
  'string.h':
    '#pragma once\n#include <stddef.h>\n#define memcpy __builtin_memcpy\n#define memset __builtin_memset\n#define memmove __builtin_memmove\n',
  'math.h':
    '#pragma once\n#define INFINITY __builtin_inff()\n#define NAN __builtin_nanf("")\n' +
    'static inline double sqrt(double x) { return __builtin_sqrt(x); }\n' +
    'static inline float sqrtf(float x) { return __builtin_sqrtf(x); }\n',
};

/** Sources of the addon alone: a change of them is none of the modules. */
const OTHER_HOST = ['addon.cc', 'dispatch.cc', 'pool.cc', 'pool.h'];

/** A folder as the nested object that the compiler takes for a file system. */
function readTree(dir) {
  const tree = {};
  for (const entry of readdirSync(dir, { withFileTypes: true })) {
    if (entry.isDirectory() && ['include', 'kernels'].includes(entry.name)) {
      tree[entry.name] = readTree(join(dir, entry.name));
    } else if (/\.(cc|h)$/.test(entry.name) && !OTHER_HOST.includes(entry.name)) {
      tree[entry.name] = readFileSync(join(dir, entry.name), 'utf8');
    }
  }
  return tree;
}

/** Runs the compiler. Resolves to the module, or to the compiler's messages. */
async function compile({ command, tree }) {
  let messages = '';
  const hear = (chunk) => {
    if (chunk) messages += Buffer.from(chunk).toString();
  };
  try {
    const { runClang, runLLVM } = await import('@yowasp/clang');
    await runLLVM(null, {}, { fetchProgress: () => {} }); // loads the compiler without a word on stdout
    const files = await runClang(command, tree, { stderr: hear, stdout: hear });
    return { bytes: files[command.at(-1)], messages };
  } catch (error) {
    return { bytes: null, messages: messages || error.message };
  }
}

function compileInThread(job) {
  return new Promise((resolve, reject) => {
    const worker = new Worker(new URL(import.meta.url), { workerData: job });
    worker.once('message', resolve).once('error', reject);
  });
}

async function buildVariant(name, flags, tree, force, log) {
  const path = join(root, 'dist', 'backend', name);
  const command = ['clang++', ...FLAGS, ...flags, 'isa.cc', 'wasm.cc', '-o', name];
  const stamp = createHash('sha256')
    .update(JSON.stringify([command, tree]))
    .digest('hex');
  if (
    !force &&
    existsSync(path) &&
    existsSync(`${path}.stamp`) &&
    readFileSync(`${path}.stamp`, 'utf8') === stamp
  ) {
    log(`wasm: up to date, ${path}`);
    return true;
  }
  const started = Date.now();
  const { bytes, messages } = await compileInThread({ command, tree });
  if (!bytes) {
    log(`wasm: ${name} not built (${messages})`);
    return false;
  }
  mkdirSync(dirname(path), { recursive: true });
  writeFileSync(`${path}.${process.pid}`, bytes);
  renameSync(`${path}.${process.pid}`, path);
  writeFileSync(`${path}.stamp`, stamp);
  const seconds = ((Date.now() - started) / 1000).toFixed(1);
  log(`wasm: built in ${seconds} s, ${bytes.length} bytes, ${path}${messages ? `\n${messages}` : ''}`);
  return true;
}

/**
 * Builds those of `names` that are out of date; `log` gets a line for each. Resolves to whether all are there.
 *
 * @param {{ names?: string[], force?: boolean, log?: (line: string) => void }} options
 * @returns {Promise<boolean>}
 */
export async function buildWasm({ names = Object.keys(VARIANTS), force = false, log = () => {} } = {}) {
  const tree = readTree(join(root, 'native'));
  tree.include.wasm = HEADERS;
  const builds = names.map((name) => () => buildVariant(name, VARIANTS[name], tree, force, log));
  if (availableParallelism() > 1 && totalmem() > 4 * MEMORY_BYTES) {
    const all = await Promise.all(builds.map((build) => build()));
    return all.every(Boolean);
  }
  let ok = true;
  for (const build of builds) ok = (await build()) && ok;
  return ok;
}

if (!isMainThread) {
  parentPort.postMessage(await compile(workerData));
} else if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const args = process.argv.slice(2);
  const named = Object.keys(VARIANTS).filter((name) => args.includes(name));
  const names = named.length > 0 ? named : Object.keys(VARIANTS);
  const ok = await buildWasm({ names, force: args.includes('--force'), log: console.log });
  process.exitCode = ok ? 0 : 1;
}
