/**
 * Builds dist/backend/kernels.wasm from the C++ kernels with the LLVM that npm installs (@yowasp/clang): no system
 * compiler needed. The standard headers are four small ones of our own, because the kernels need nothing more.
 *
 * Run directly: node scripts/build-wasm.mjs [--force]
 */
import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, readdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = dirname(dirname(fileURLToPath(import.meta.url)));

const FLAGS = [
  '--target=wasm32-unknown-unknown',
  ...[
    '-std=c++17',
    '-nostdinc++',
    '-O3',
    '-msimd128',
    '-mbulk-memory',
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
];

/** What the kernels use of the C library, as compiler builtins. */
const HEADERS = {
  'string.h':
    '#pragma once\n#include <stddef.h>\n#define memcpy __builtin_memcpy\n#define memset __builtin_memset\n#define memmove __builtin_memmove\n',
  'math.h':
    '#pragma once\n#define INFINITY __builtin_inff()\n#define NAN __builtin_nanf("")\n' +
    'static inline double sqrt(double x) { return __builtin_sqrt(x); }\n' +
    'static inline float sqrtf(float x) { return __builtin_sqrtf(x); }\n',
};

/** A folder as the nested object that the compiler takes for a file system. */
function readTree(dir) {
  const tree = {};
  for (const entry of readdirSync(dir, { withFileTypes: true })) {
    if (entry.isDirectory() && ['include', 'kernels'].includes(entry.name)) {
      tree[entry.name] = readTree(join(dir, entry.name));
    } else if (/\.(cc|h)$/.test(entry.name)) {
      tree[entry.name] = readFileSync(join(dir, entry.name), 'utf8');
    }
  }
  return tree;
}

/**
 * @param {{ force?: boolean, log?: (line: string) => void }} options
 * @returns {Promise<{ ok: boolean, path: string | null, reason: string }>}
 */
export async function buildWasm({ force = false, log = () => {} } = {}) {
  const path = join(root, 'dist', 'backend', 'kernels.wasm');
  const tree = readTree(join(root, 'native'));
  tree.include.wasm = HEADERS;
  const command = ['clang++', ...FLAGS, 'isa.cc', 'wasm.cc', '-o', 'kernels.wasm'];
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
    return { ok: true, path, reason: 'up to date' };
  }
  const started = Date.now();
  let bytes;
  let messages = '';
  try {
    const { runClang, runLLVM } = await import('@yowasp/clang');
    await runLLVM(null, {}, { fetchProgress: () => {} }); // loads the compiler without a word on stdout
    const stderr = (chunk) => {
      if (chunk) messages += Buffer.from(chunk).toString();
    };
    ({ 'kernels.wasm': bytes } = await runClang(command, tree, { stderr, stdout: stderr }));
  } catch (error) {
    const reason = messages || error.message;
    log(`wasm: not built (${reason})`);
    return { ok: false, path: null, reason };
  }
  mkdirSync(dirname(path), { recursive: true });
  writeFileSync(`${path}.${process.pid}`, bytes);
  renameSync(`${path}.${process.pid}`, path);
  writeFileSync(`${path}.stamp`, stamp);
  const reason = `built in ${((Date.now() - started) / 1000).toFixed(1)} s`;
  log(`wasm: ${reason}, ${bytes.length} bytes, ${path}${messages ? `\n${messages}` : ''}`);
  return { ok: true, path, reason };
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const { ok } = await buildWasm({ force: process.argv.includes('--force'), log: console.log });
  process.exitCode = ok ? 0 : 1;
}
