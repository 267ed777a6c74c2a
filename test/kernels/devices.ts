/**
 * The devices that open here: the reference in float32, the native addon once per instruction set, WebAssembly once per
 * variant, on two threads. What does not open shows as a skipped test with the reason, or fails if REQUIRE names it
 * (`REQUIRE=native,wasm`).
 */
import { setFlagsFromString } from 'node:v8';
import { describe, it } from 'vitest';
import type { Backend } from '../../src/backend/backend.ts';
import { isaVariants, openNative } from '../../src/backend/native.ts';
import { createReference } from '../../src/backend/reference/index.ts';
import { openWasmFile } from '../../src/backend/wasm.node.ts';
import { wasmVariants } from '../../src/backend/wasm-variant.ts';

export interface TestDevice {
  /** `native avx2`, `wasm`, ... */
  label: string;
  backend: Backend;
}

const required = (process.env.REQUIRE ?? '').split(',').filter(Boolean);
const missing: { name: string; error: Error }[] = [];

function collect(name: string, open: () => TestDevice[]): TestDevice[] {
  try {
    return open();
  } catch (error) {
    missing.push({ name, error: error as Error });
    return [];
  }
}

const native = (variants: (isa: string) => boolean): TestDevice[] =>
  isaVariants()
    .filter(variants)
    .map((isa) => ({ label: `native ${isa}`, backend: openNative({ isa }) }));

/** AVX-512 without dot products of narrow numbers differs from avx512 in the products alone. */
const PLAIN_AVX512 = 'avx512f';

// Node 20 has relaxed SIMD behind this flag; engines that always have it know no such flag, and would end.
if (!wasmVariants().includes('relaxed')) setFlagsFromString('--experimental-wasm-relaxed-simd');

export const devices: TestDevice[] = [
  { label: 'reference f32', backend: createReference() },
  ...collect('native', () => native((isa) => isa !== PLAIN_AVX512)),
  ...wasmVariants().flatMap((variant) =>
    collect('wasm', () => [{ label: `wasm ${variant}`, backend: openWasmFile({ variant, threads: 2 }) }]),
  ),
];

/** For kernels that have code for such dot products. */
export const productDevices: TestDevice[] = [
  ...devices,
  ...collect('native', () => native((isa) => isa === PLAIN_AVX512)),
];

for (const name of required) {
  if (missing.some((device) => device.name === name)) continue;
  if (devices.some(({ backend }) => backend.name === name)) continue;
  throw new Error(`REQUIRE: expected native, wasm or reference, got ${name}.`);
}

/** Reports the devices that did not open. Call it once per test file. */
export function reportMissing(): void {
  for (const { name, error } of missing) {
    if (required.includes(name)) {
      it(`${name} opens`, () => {
        throw error;
      });
    } else {
      describe.skip(`${name}: ${error.message.split('\n')[0]}`, () => {
        it('opens', () => {});
      });
    }
  }
}

/** Whether a missing device or kernel is a failure. */
export function isRequired(device: TestDevice): boolean {
  return required.includes(device.backend.name) || device.backend.name === 'reference';
}
