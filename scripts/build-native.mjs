/**
 * Builds the native addon with the system's C++ compiler: one object per instruction set, nothing downloaded.
 * Works in a clone and in an installed package. Incremental: an object is rebuilt when its sources, flags or compiler
 * change. Never throws for a missing compiler: WebAssembly takes over.
 *
 * Run directly: node scripts/build-native.mjs [--force]
 */
import { execFile } from 'node:child_process';
import { createHash } from 'node:crypto';
import {
  accessSync,
  constants,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  writeFileSync,
} from 'node:fs';
import { createRequire } from 'node:module';
import { availableParallelism, homedir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';

const run = promisify(execFile);
const root = dirname(dirname(fileURLToPath(import.meta.url)));
const sources = join(root, 'native');

export const COMMON = [
  '-std=c++17',
  '-O3',
  '-fPIC',
  '-fno-exceptions',
  '-fno-rtti',
  '-fvisibility=hidden',
  '-pthread',
];
// NaN and infinities must survive: no -ffast-math. Fused products are wanted.
export const KERNELS = ['-fno-math-errno', '-fno-trapping-math', '-ffp-contract=fast', '-Wno-psabi'];
const AVX2 = ['-mavx2', '-mfma', '-mf16c'];
const AVX512 = ['-mavx512f', '-mavx512bw', '-mavx512dq', '-mavx512vl', '-mprefer-vector-width=512'];
export const VARIANTS = {
  x64: { sse2: [], avx2: AVX2, avx512: [...AVX2, ...AVX512] },
  arm64: { neon: [] },
};

/** Where users without write access to the package get their build; also searched by src/backend/native.ts. */
export function userBuildDir() {
  const { version } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8'));
  const cache = process.env.XDG_CACHE_HOME || join(homedir(), '.cache');
  return join(cache, 'mamba-ts', `${version}-${process.platform}-${process.arch}`);
}

function writableDir() {
  const beside = join(sources, 'build');
  try {
    mkdirSync(beside, { recursive: true });
    accessSync(beside, constants.W_OK);
    return beside;
  } catch {
    const dir = userBuildDir();
    mkdirSync(dir, { recursive: true });
    return dir;
  }
}

async function findCompiler() {
  const candidates = [process.env.CXX, 'g++', 'clang++', 'c++'].filter(Boolean);
  for (const path of candidates) {
    try {
      const { stdout } = await run(path, ['--version']);
      return { path, version: stdout.split('\n')[0] };
    } catch {
      // Not there, or not a compiler: try the next one.
    }
  }
  return null;
}

function headersDir() {
  const tried = [];
  try {
    const { include_dir } = createRequire(import.meta.url)('node-api-headers');
    tried.push(include_dir);
  } catch {
    // An installation without the package may still have the headers beside node.
  }
  tried.push(join(dirname(process.execPath), '..', 'include', 'node'));
  return tried.find((dir) => existsSync(join(dir, 'node_api.h')));
}

function readTree(dir, suffixes) {
  return readdirSync(dir)
    .filter((name) => suffixes.some((suffix) => name.endsWith(suffix)))
    .sort()
    .map((name) => `${name}\n${readFileSync(join(dir, name), 'utf8')}`)
    .join('\n');
}

const hash = (...parts) => createHash('sha256').update(parts.join('\0')).digest('hex');

/** Runs `jobs` (functions returning promises), at most `limit` at once. */
async function inParallel(jobs, limit) {
  const queue = [...jobs];
  const worker = async () => {
    for (let job = queue.shift(); job; job = queue.shift()) await job();
  };
  await Promise.all(Array.from({ length: limit }, worker));
}

/**
 * @param {{ force?: boolean, log?: (line: string) => void }} options
 * @returns {Promise<{ ok: boolean, path: string | null, reason: string }>}
 */
export async function buildNative({ force = false, log = () => {} } = {}) {
  const give = (reason) => {
    log(`native: not built (${reason}); WebAssembly takes over.`);
    return { ok: false, path: null, reason };
  };
  if (process.platform === 'win32') return give('the native backend needs Linux or macOS');
  const variants = VARIANTS[process.arch];
  if (!variants) return give(`no kernels for ${process.arch}`);
  const compiler = await findCompiler();
  if (!compiler) return give('no C++ compiler found: tried $CXX, g++, clang++, c++');
  const headers = headersDir();
  if (!headers) return give('node_api.h not found; install node-api-headers');

  const started = Date.now();
  const dir = writableDir();
  const common = [readTree(sources, ['.h']), readTree(join(sources, 'include'), ['.h'])];
  const kernels = readTree(join(sources, 'kernels'), ['.cc']);
  const units = ['addon', 'dispatch', 'pool'].map((name) => ({
    name,
    source: `${name}.cc`,
    flags: ['-I', headers],
  }));
  for (const [isa, flags] of Object.entries(variants)) {
    units.push({ name: isa, source: 'isa.cc', flags: [...KERNELS, ...flags, `-DMAMBA_ISA=${isa}`], kernels });
  }
  // The kernels take longest: start with them.
  units.reverse();
  let compiled = 0;
  const stamps = [];
  const jobs = units.map((unit) => async () => {
    const source = join(sources, unit.source);
    const object = join(dir, `${unit.name}.o`);
    const args = [...COMMON, ...unit.flags, '-c', source, '-o'];
    const stamp = hash(
      compiler.version,
      args.join(' '),
      readFileSync(source, 'utf8'),
      ...common,
      unit.kernels ?? '',
    );
    stamps.push(stamp);
    if (!force && upToDate(object, stamp)) return;
    await produce(object, stamp, (file) => run(compiler.path, [...args, file], { maxBuffer: 1 << 26 }));
    compiled++;
  });
  const path = join(dir, 'mamba.node');
  try {
    await inParallel(jobs, availableParallelism());
    const link = [
      '-shared',
      '-pthread',
      '-static-libgcc',
      ...units.map((unit) => join(dir, `${unit.name}.o`)),
    ];
    if (process.platform === 'darwin') link.push('-undefined', 'dynamic_lookup');
    const stamp = hash(link.join(' '), stamps.sort().join());
    if (force || !upToDate(path, stamp)) {
      await produce(path, stamp, (file) => run(compiler.path, [...link, '-o', file]));
    }
  } catch (error) {
    return give(`${compiler.path} failed:\n${error.stderr || error.message}\n`);
  }
  const what = compiled === 0 ? 'up to date' : `built in ${((Date.now() - started) / 1000).toFixed(1)} s`;
  log(`native: ${what}, ${Object.keys(variants).join(' ')}, ${compiler.version}, ${path}`);
  return { ok: true, path, reason: what };
}

/** Makes a file under a name of our own and moves it into place: other builds and running processes see whole files. */
async function produce(file, stamp, make) {
  const own = `${file}.${process.pid}`;
  await make(own);
  renameSync(own, file);
  writeFileSync(`${file}.stamp`, stamp);
}

function upToDate(file, stamp) {
  return existsSync(file) && existsSync(`${file}.stamp`) && readFileSync(`${file}.stamp`, 'utf8') === stamp;
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const { ok } = await buildNative({ force: process.argv.includes('--force'), log: console.log });
  process.exitCode = ok ? 0 : 1;
}
