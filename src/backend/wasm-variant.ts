/**
 * Which build of the kernels an engine can run, found out by asking it to validate the
 * smallest module that needs the rest.
 */
import { UnsupportedError } from '../base/errors.ts';

/** `simd128` runs everywhere; `relaxed` has fused multiply-adds (relaxed SIMD), and so other last bits. */
export type WasmVariant = 'simd128' | 'relaxed';

/**
 * The header of a module, the type () -> (), one function of it, and the length of
 * its body: no locals, `code`, end.
 */
function moduleOf(code: readonly number[]): Uint8Array<ArrayBuffer> {
  const types = [1, 4, 1, 0x60, 0, 0];
  const functions = [3, 2, 1, 0];
  const body = [0, ...code, 0x0b];
  return Uint8Array.of(
    ...[0, 0x61, 0x73, 0x6d, 1, 0, 0, 0],
    ...types,
    ...functions,
    ...[10, body.length + 2, 1, body.length, ...body],
  );
}

const ZERO_VECTOR = [0xfd, 0x0c, ...Array<number>(16).fill(0)];
const DROP = 0x1a;
/** v128.const 0 three times, f32x4.relaxed_madd, drop. */
const RELAXED = moduleOf([...ZERO_VECTOR, ...ZERO_VECTOR, ...ZERO_VECTOR, 0xfd, 0x85, 0x02, DROP]);

/** The builds that this engine runs, best first. */
export function wasmVariants(): WasmVariant[] {
  return WebAssembly.validate(RELAXED) ? ['relaxed', 'simd128'] : ['simd128'];
}

/** `wanted`, or the best there is. Throws UnsupportedError for one that this engine lacks. */
export function chooseVariant(wanted?: WasmVariant): WasmVariant {
  const variants = wasmVariants();
  if (wanted === undefined) return variants[0]!;
  if (variants.includes(wanted)) return wanted;
  throw new UnsupportedError(
    `wasm: expected a variant that this engine runs (${variants.join(', ')}), got ${wanted}. Leave it out to take the best.`,
  );
}
