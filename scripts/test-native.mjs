/**
 * Builds and runs the C++ tests of native/test without Node: for this machine, and for arm64 in an emulator where
 * aarch64-linux-gnu-g++ and qemu-aarch64 are installed (Debian: g++-aarch64-linux-gnu, qemu-user).
 *
 * Run directly: node scripts/test-native.mjs [--sanitize=address,undefined]     the latter for this machine only
 */
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { COMMON, KERNELS, VARIANTS } from './build-native.mjs';
import { main, ROOT, run, ScriptError, stage } from './lib/run.mjs';

const SOURCES = join(ROOT, 'native');
const CASES = [
  'kernels',
  'elements',
  'moves',
  'narrow',
  'layers',
  'norms',
  'conv',
  'scan',
  'ssd',
  'rotation',
  'attention',
];
/** vec.cc looks at every 9973rd float: 430,000 arguments, all exponents. */
const STRIDE = '9973';
const TOOLS = { compiler: ['aarch64-linux-gnu-g++'], emulator: ['qemu-aarch64', 'qemu-aarch64-static'] };

async function firstOf(programs) {
  for (const program of programs) {
    if ((await run(program, ['--version'], { capture: true })).code === 0) return program;
  }
  return null;
}

async function compile(compiler, args) {
  const { code, output } = await run(compiler, ['-Wall', '-Wextra', ...args], { capture: true });
  if (output) console.log(output.trimEnd());
  if (code !== 0) throw new ScriptError(`${compiler} ${args.join(' ')} failed.`);
}

/** Builds everything for one target; returns whether its tests pass. */
async function testTarget({ name, arch, compiler, emulator, flags }) {
  const out = join(ROOT, '.cache/test-native', name);
  mkdirSync(out, { recursive: true });
  const variants = Object.entries(VARIANTS[arch]);
  const kernelFlags = (isa, own) => [...COMMON, ...KERNELS, ...own, ...flags, `-DMAMBA_ISA=${isa}`];
  const source = (path) => join(SOURCES, path);
  const objects = [];
  const object = async (unit, file, args) => {
    const path = join(out, `${unit}.o`);
    await compile(compiler, [...args, '-c', source(file), '-o', path]);
    objects.push(path);
  };
  const start = (program, args, options) =>
    emulator ? run(emulator, [join(out, program), ...args], options) : run(join(out, program), args, options);

  await stage(`${name}: compiling`, async () => {
    for (const unit of ['dispatch', 'pool']) await object(unit, `${unit}.cc`, [...COMMON, ...flags]);
    for (const [isa, own] of variants) await object(isa, 'isa.cc', kernelFlags(isa, own));
    if (arch === 'x64') await object('amx_twin', 'test/amx.cc', kernelFlags('amx_twin', VARIANTS.x64.avx512));
    const cases = CASES.map((unit) => source(`test/${unit}.cc`));
    const args = ['-std=c++17', '-O1', '-pthread', ...flags, ...cases, ...objects];
    await compile(compiler, [...args, '-o', join(out, 'kernels')]);
    const pools = [source('test/pool.cc'), join(out, 'pool.o')];
    await compile(compiler, ['-std=c++17', '-O1', '-pthread', ...flags, ...pools, '-o', join(out, 'pools')]);
    for (const [isa, own] of variants) {
      await compile(compiler, [
        ...kernelFlags(isa, own),
        source('test/vec.cc'),
        '-o',
        join(out, `vec-${isa}`),
      ]);
    }
  });

  const { output } = await start('kernels', ['--list'], { capture: true });
  const supported = output.trim().split('\n');
  const compiled = variants.map(([isa]) => isa).filter((isa) => supported.includes(isa));
  const programs = [['kernels', []], ['pools', []], ...compiled.map((isa) => [`vec-${isa}`, [STRIDE]])];
  for (const [isa] of variants)
    if (!supported.includes(isa)) console.log(`${name}: skipped ${isa}, not in this CPU`);
  let passed = true;
  for (const [program, args] of programs) {
    console.log(`${name}: ${program}`);
    passed = (await start(program, args)).code === 0 && passed;
  }
  return passed;
}

await main(async (args) => {
  const sanitize = args.find((arg) => arg.startsWith('--sanitize='));
  const compiler = await firstOf([process.env.CXX, 'g++', 'clang++', 'c++'].filter(Boolean));
  if (process.platform === 'win32' || !VARIANTS[process.arch] || !compiler)
    throw new ScriptError(
      'test-native: expected Linux or macOS on x64 or arm64 with a C++ compiler. Install one or set CXX.',
    );
  // With -O1 alone GCC fuses no products, and the bits of vfma() are not those of the instruction.
  const speed = ['-O1', '-fexpensive-optimizations', '-g'];
  const checks = sanitize ? [`-f${sanitize.slice(2)}`, '-fno-sanitize-recover=all', ...speed] : [];
  const host = { name: sanitize ? 'host-sanitized' : 'host', arch: process.arch, compiler, flags: checks };
  const results = [[host.name, await testTarget(host)]];

  const cross = { compiler: await firstOf(TOOLS.compiler), emulator: await firstOf(TOOLS.emulator) };
  const missing = Object.keys(TOOLS).filter((kind) => !cross[kind]);
  if (sanitize) console.log('aarch64: skipped, sanitizers run on this machine only');
  else if (process.arch === 'arm64') console.log('aarch64: skipped, this machine is one');
  else if (missing.length > 0) {
    console.log(`aarch64: skipped, not found: ${missing.map((kind) => TOOLS[kind].join(' or ')).join(', ')}`);
  } else {
    results.push([
      'aarch64',
      await testTarget({ name: 'aarch64', arch: 'arm64', ...cross, flags: ['-static'] }),
    ]);
  }
  for (const [name, passed] of results) console.log(`${name}: ${passed ? 'passed' : 'FAILED'}`);
  return results.every(([, passed]) => passed) ? 0 : 1;
});
