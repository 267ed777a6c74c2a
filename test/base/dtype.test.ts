/** Narrow formats: every bit pattern there is, and rounding against the definition. */
import fc from 'fast-check';
import { expect, test } from 'vitest';
import {
  bf16ToF32,
  f16ToF32,
  f32ToBf16,
  f32ToF16,
  hostArray,
  narrow,
  rawStorage,
  storageBytes,
  widen,
} from '../../src/base/dtype.ts';
import { DTypeError } from '../../src/base/errors.ts';

const FORMATS = [
  { name: 'bf16', toF32: bf16ToF32, toBits: f32ToBf16, exponentBits: 8, mantissaBits: 7 },
  { name: 'f16', toF32: f16ToF32, toBits: f32ToF16, exponentBits: 5, mantissaBits: 10 },
] as const;

/** IEEE 754 from the definition, in float64. */
function decode(bits: number, exponentBits: number, mantissaBits: number): number {
  const sign = bits & 0x8000 ? -1 : 1;
  const top = 2 ** exponentBits - 1;
  const exponent = (bits >> mantissaBits) & top;
  const mantissa = (bits & (2 ** mantissaBits - 1)) / 2 ** mantissaBits;
  const bias = 2 ** (exponentBits - 1) - 1;
  if (exponent === top) return mantissa === 0 ? sign * Number.POSITIVE_INFINITY : Number.NaN;
  return exponent === 0 ? sign * mantissa * 2 ** (1 - bias) : sign * (1 + mantissa) * 2 ** (exponent - bias);
}

for (const { name, toF32, toBits, exponentBits, mantissaBits } of FORMATS) {
  test(`${name}: all 65536 patterns widen to their value and come back`, () => {
    const wrong: number[] = [];
    for (let bits = 0; bits < 65536; bits++) {
      const value = toF32(bits);
      if (!Object.is(value, decode(bits, exponentBits, mantissaBits))) wrong.push(bits);
      const back = toBits(value);
      if (Number.isNaN(value) ? !Number.isNaN(toF32(back)) : back !== bits) wrong.push(bits);
    }
    expect(wrong).toEqual([]);
  });

  test(`${name}: every midpoint rounds to even, its neighbours to the nearer side`, () => {
    const f32 = new Float32Array(1);
    const u32 = new Uint32Array(f32.buffer);
    const wrong: number[] = [];
    const infinity = (2 ** exponentBits - 1) << mantissaBits;
    for (let bits = 0; bits < infinity - 1; bits++) {
      const middle = (toF32(bits) + toF32(bits + 1)) / 2; // exact in float64, and in float32 above its subnormals
      f32[0] = middle;
      if (f32[0] !== middle) continue;
      const even = bits & 1 ? bits + 1 : bits;
      if (toBits(middle) !== even || toBits(-middle) !== (even | 0x8000)) wrong.push(bits);
      u32[0] = u32[0]! + 1;
      if (toBits(f32[0]!) !== bits + 1) wrong.push(bits);
      u32[0] = u32[0]! - 2;
      if (toBits(f32[0]!) !== bits) wrong.push(bits);
    }
    expect(wrong).toEqual([]);
  });

  test(`${name}: overflow starts half a unit above the largest number`, () => {
    const largest = (2 ** exponentBits - 1) * 2 ** mantissaBits - 1;
    const unit = toF32(largest) - toF32(largest - 1);
    expect(toBits(toF32(largest) + unit / 2)).toBe(largest + 1);
    const below = new Float32Array([toF32(largest) + unit / 2]);
    new Uint32Array(below.buffer)[0]! -= 1;
    expect(toBits(below[0]!)).toBe(largest);
    expect(toBits(Number.NEGATIVE_INFINITY)).toBe((largest + 1) | 0x8000);
  });

  test(`${name}: arrays convert like single numbers`, () => {
    const all = Uint16Array.from({ length: 65536 }, (_, bits) => bits);
    expect(widen(all, name)).toEqual(Float32Array.from(all, toF32));
    fc.assert(
      fc.property(fc.float32Array({ maxLength: 50 }), (values) => {
        const bits = narrow(values, name);
        expect(Array.from(bits)).toEqual(Array.from(values, toBits));
        expect(widen(bits, name)).toEqual(Float32Array.from(bits, toF32));
      }),
    );
  });
}

test('storage of every type: bytes, host arrays, whole blocks only', () => {
  const sizes = { f32: 256, i32: 256, bf16: 128, f16: 128, q8: 68, q4: 36 } as const;
  for (const [dtype, bytes] of Object.entries(sizes) as [keyof typeof sizes, number][]) {
    expect(storageBytes(dtype, 64)).toBe(bytes);
    expect(hostArray(dtype, 64).byteLength).toBe(bytes);
    expect(storageBytes(dtype, 0)).toBe(0);
  }
  expect(() => storageBytes('q8', 33)).toThrow(DTypeError);
  expect(rawStorage('q4', new Uint8Array(36))).toHaveLength(36);
  expect(() => rawStorage('q4', new Uint8Array(34))).toThrow('whole blocks of 18 bytes');
  expect(() => rawStorage('f16', new Float32Array(2))).toThrow('raw bits as Uint16Array');
});
