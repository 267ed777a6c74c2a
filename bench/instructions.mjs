/**
 * How many instructions each main kernel takes, counted by valgrind (callgrind) and therefore the same on every machine with the same
 * compiler: beside what is recorded in bench/instructions.json. Exit code 1 when a kernel takes more. x64 Linux only; AVX-512 is unknown to
 * valgrind. `npm run bench instructions -- [--write]`
 */
import { execFileSync, spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { COMMON } from '../scripts/build-native.mjs';
import { table } from '../scripts/lib/markdown.mjs';
import { CASES, callText } from './_kernel-cases.mjs';

const ROOT = fileURLToPath(new URL('..', import.meta.url));
const RECORD = new URL('./instructions.json', import.meta.url);
const ISAS = ['avx2', 'sse2'];
const OBJECTS = ['dispatch', 'avx512', 'avx2', 'sse2'].map((name) => join(ROOT, 'native/build', `${name}.o`));
/** More than this is another program: placement of data does not change counts, but a library's memcpy may. */
const TOLERANCE = 0.01;

function fail(message) {
  console.error(`instructions: ${message}`);
  process.exit(2);
}

function compile(compiler) {
  const folder = join(ROOT, '.cache');
  mkdirSync(folder, { recursive: true });
  const program = join(folder, 'instructions');
  const source = join(ROOT, 'native/bench/instructions.cc');
  execFileSync(compiler, [...COMMON, source, ...OBJECTS, '-o', program], { stdio: 'inherit' });
  return program;
}

/** Instructions of every case; each call is dumped into a file of its own. */
function count(program, isa) {
  const folder = mkdtempSync(join(tmpdir(), 'mamba-instructions-'));
  try {
    const out = join(folder, 'out');
    const tool = ['--tool=callgrind', '--toggle-collect=measured_call', '--dump-after=measured_call'];
    const { status, stderr } = spawnSync('valgrind', [...tool, `--callgrind-out-file=${out}`, program, isa], {
      input: CASES.map(callText).join(''),
      encoding: 'utf8',
    });
    if (status !== 0) fail(`valgrind ended with ${status}.\n${stderr.slice(-2000)}`);
    return CASES.map(([label], i) => {
      const dump = readFileSync(`${out}.${i + 1}`, 'utf8');
      const total = Number(/^totals: (\d+)/m.exec(dump)?.[1]);
      if (!(total > 0)) fail(`expected a count for ${label}, got none.`);
      return total;
    });
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

const [flag, ...more] = process.argv.slice(2);
if ((flag !== undefined && flag !== '--write') || more.length > 0) fail('expected [--write].');
if (process.platform !== 'linux' || process.arch !== 'x64') fail('expected Linux on x64.');
if (spawnSync('valgrind', ['--version']).status !== 0) fail('expected valgrind, got none. Install it.');
const missing = OBJECTS.find((path) => !existsSync(path));
if (missing) fail(`expected ${missing}. Run npm run build.`);
const compiler = process.env.CXX || 'g++';
const version = execFileSync(compiler, ['--version'], { encoding: 'utf8' }).split('\n')[0];
const program = compile(compiler);

const recorded = existsSync(RECORD)
  ? JSON.parse(readFileSync(RECORD, 'utf8'))
  : { compiler: null, kernels: {} };
const counts = Object.fromEntries(ISAS.map((isa) => [isa, count(program, isa)]));
const grown = [];
const rows = CASES.map(([label], i) => [
  label,
  ...ISAS.map((isa) => {
    const now = counts[isa][i];
    const before = recorded.kernels[label]?.[isa];
    if (before === undefined) return `${now.toLocaleString('en')} (new)`;
    const change = now / before - 1;
    if (change > TOLERANCE) grown.push(`${label}, ${isa}`);
    return `${now.toLocaleString('en')} (${change >= 0 ? '+' : ''}${(100 * change).toFixed(1)} %)`;
  }),
]);
console.log(`${version}; instructions on one thread, in brackets against bench/instructions.json\n`);
console.log(table(['kernel', ...ISAS], rows));
if (recorded.compiler && recorded.compiler !== version)
  console.log(`\nrecorded with another compiler (${recorded.compiler}): small differences are its own`);
if (flag === '--write') {
  const kernels = Object.fromEntries(
    CASES.map(([label], i) => [label, Object.fromEntries(ISAS.map((isa) => [isa, counts[isa][i]]))]),
  );
  writeFileSync(RECORD, `${JSON.stringify({ compiler: version, kernels }, null, 2)}\n`);
} else if (grown.length > 0) {
  console.log(`\nmore than recorded: ${grown.join('; ')}`);
  process.exitCode = 1;
}
