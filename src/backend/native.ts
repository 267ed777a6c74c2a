/**
 * The native device: loads the Node addon that scripts/build-native.mjs compiles. Node only.
 * Environment: MAMBA_NATIVE (path of the addon), MAMBA_ISA (instruction set), MAMBA_THREADS.
 */
import { existsSync, readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { availableParallelism, homedir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { TypedArray } from '../base/dtype.ts';
import { ConfigError, StateError, UnsupportedError } from '../base/errors.ts';
import type { Backend, BackendFactory } from './backend.ts';
import { type CpuHost, cpuBackend } from './cpu.ts';

/** See native/addon.cc. */
interface Addon {
  variants(): string[];
  open(isa: string, threads: number): AddonDevice;
}

interface AddonDevice {
  readonly reservedBytes: number;
  readonly kernels: { name: string; operands: number }[];
  bind(operands: Float64Array): void;
  run(kernel: number): void;
  runAll(kernels: Int32Array, operands: Float64Array): void;
  write(byteOffset: number, data: TypedArray): void;
  read(byteOffset: number, into: TypedArray): void;
  peak(kind: number, iterations: number): number;
  readRate(bytes: number, passes: number): number;
}

export interface NativeOptions {
  /** One of isaVariants() or `baseline`. Default: MAMBA_ISA, else the best this CPU has. */
  isa?: string;
  /**
   * Threads including the caller's. Default: MAMBA_THREADS, else one per
   * available core. Never changes a result.
   */
  threads?: number;
}

const MAX_OPERANDS = 64;
const MAX_THREADS = 1024;
const packageRoot = dirname(dirname(dirname(fileURLToPath(import.meta.url))));
/** Also part of the installed package. */
const buildScript = join(packageRoot, 'scripts', 'build-native.mjs');
const load = createRequire(import.meta.url);

/** Where an addon may be, best first; the same places as in scripts/build-native.mjs. */
function candidates(): string[] {
  const forced = process.env.MAMBA_NATIVE;
  if (forced) return [forced];
  const paths = [join(packageRoot, 'native', 'build', 'mamba.node')];
  const manifest = join(packageRoot, 'package.json');
  // Absent when an application bundles this file; then MAMBA_NATIVE tells where the addon is.
  if (existsSync(manifest)) {
    const { version } = JSON.parse(readFileSync(manifest, 'utf8')) as { version: string };
    const cache = process.env.XDG_CACHE_HOME || join(homedir(), '.cache');
    paths.push(join(cache, 'mamba-ts', `${version}-${process.platform}-${process.arch}`, 'mamba.node'));
  }
  return paths;
}

/** Throws UnsupportedError that lists every path with the reason why it did not load. */
function loadAddon(): Addon {
  if (process.platform === 'win32') {
    throw new UnsupportedError('native: expected Linux or macOS, got Windows. Use the wasm device.');
  }
  const tried: string[] = [];
  for (const path of candidates()) {
    if (!existsSync(path)) {
      tried.push(`  ${path}: no such file`);
      continue;
    }
    try {
      return load(path) as Addon;
    } catch (error) {
      tried.push(`  ${path}: ${(error as Error).message}`);
    }
  }
  throw new UnsupportedError(
    `native: expected a compiled addon, got none. Tried\n${tried.join('\n')}\n` +
      `Run \`node ${buildScript}\` with a C++ compiler installed, set MAMBA_NATIVE to its path, or use the wasm device.`,
  );
}

/**
 * The instruction sets of the addon that this CPU can run, best first. Throws
 * UnsupportedError without an addon.
 */
export function isaVariants(): string[] {
  return loadAddon().variants();
}

/** `baseline` is what every CPU of this architecture has: the last variant. */
function chooseIsa(variants: readonly string[], wanted: string | undefined): string {
  const named = wanted ?? (process.env.MAMBA_ISA || variants[0]!);
  const isa = named === 'baseline' ? variants.at(-1)! : named;
  if (!variants.includes(isa)) {
    throw new ConfigError(
      `native: expected an instruction set of this CPU (${variants.join(', ')}, baseline), got ${isa}. Check MAMBA_ISA.`,
    );
  }
  return isa;
}

/**
 * `wanted`, else MAMBA_THREADS, else one per available core. Throws ConfigError for
 * what is not a number of threads.
 */
export function chooseThreads(device: string, wanted: number | undefined): number {
  const threads = wanted ?? Number(process.env.MAMBA_THREADS || availableParallelism());
  if (!Number.isInteger(threads) || threads < 1 || threads > MAX_THREADS) {
    const got = wanted ?? process.env.MAMBA_THREADS;
    throw new ConfigError(
      `${device}: expected 1 to ${MAX_THREADS} threads, got ${got}. Check MAMBA_THREADS or leave it unset.`,
    );
  }
  return threads;
}

/** What products are computed with; the order is that of PeakKind in native/dispatch.h. */
const PEAKS = ['f32', 'bf16', 'int8'] as const;
export type PeakKind = (typeof PEAKS)[number];

/**
 * The limits of the machine on all threads of this device: what benches compare with.
 * The best of several short runs.
 */
export interface NativeBackend extends Backend {
  /**
   * Operations per second (a multiply-add is two) that never leave the registers: float32; bfloat16 or 8-bit
   * integers where the CPU has dot products of them, else float32 too.
   */
  measurePeak(kind?: PeakKind): number;
  /**
   * Bytes per second of passes that read `sizeBytes` of memory (default 256 MiB) in
   * several streams and add them up.
   */
  measureRead(sizeBytes?: number): number;
}

function measurePeak(device: AddonDevice, kind: PeakKind): number {
  let best = 0;
  for (let run = 0; run < 12; run++) {
    const start = performance.now();
    const operations = device.peak(PEAKS.indexOf(kind), 1e6);
    best = Math.max(best, operations / ((performance.now() - start) / 1000));
  }
  return best;
}

/** Less than this is not even a cache line for each stream of many threads. */
const LEAST_READ_BYTES = 2 ** 20;

/**
 * Opens a native device with its own memory and threads; they last until the process (or worker) ends.
 * Throws UnsupportedError when no addon can be loaded, ConfigError for a bad option.
 */
export function openNative(options: NativeOptions = {}): NativeBackend {
  const addon = loadAddon();
  const isa = chooseIsa(addon.variants(), options.isa);
  const threads = chooseThreads('native', options.threads);
  const device = addon.open(isa, threads);
  const operands = new Float64Array(MAX_OPERANDS);
  device.bind(operands);
  const host: CpuHost = {
    name: 'native',
    description: `native ${isa}, ${threads} ${threads === 1 ? 'thread' : 'threads'}`,
    kernels: device.kernels,
    operands,
    reserve(sizeBytes) {
      if (sizeBytes <= device.reservedBytes) return;
      throw new StateError(
        `native: expected at most ${device.reservedBytes} bytes of buffers, got ${sizeBytes}. ` +
          'Free tensors, use smaller batches, or raise the limit of address space (ulimit -v).',
      );
    },
    run: device.run,
    runAll: device.runAll,
    write: device.write,
    read: device.read,
  };
  return Object.assign(cpuBackend(host), {
    measurePeak: (kind: PeakKind = 'f32') => measurePeak(device, kind),
    measureRead: (sizeBytes = 2 ** 28) => device.readRate(Math.max(sizeBytes, LEAST_READ_BYTES), 10),
  });
}

export const nativeFactory: BackendFactory = { name: 'native', open: () => openNative() };
