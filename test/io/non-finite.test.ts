/** Counting weights that are not finite, against a plain look at every value. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { bf16ToF32, f16ToF32 } from '../../src/base/dtype.ts';
import { countNonFinite } from '../../src/io/non-finite.ts';

describe.each([
  ['bf16', bf16ToF32],
  ['f16', f16ToF32],
] as const)('%s', (dtype, widen) => {
  const plain = (bits: Uint16Array) => {
    const values = Array.from(bits, widen);
    return {
      nan: values.filter(Number.isNaN).length,
      infinite: values.filter((value) => Math.abs(value) === Number.POSITIVE_INFINITY).length,
      first: values.findIndex((value) => !Number.isFinite(value)),
    };
  };

  it('every one of the 65536 patterns, in both halves of a word', () => {
    for (let pattern = 0; pattern < 1 << 16; pattern++) {
      for (const bits of [Uint16Array.of(pattern, 0x3c00), Uint16Array.of(0x3c00, pattern)]) {
        expect(countNonFinite(bits, dtype).first).toBe(plain(bits).first);
      }
    }
  });

  it('any number of values at any address', () => {
    const odd = fc.constantFrom(0x7c00, 0xfc00, 0x7f80, 0xff80, 0x7fff, 0xffff, 0x7bff, 0x7f7f);
    const any = fc.oneof({ weight: 20, arbitrary: fc.integer({ min: 0, max: 0x7bff }) }, odd);
    fc.assert(
      fc.property(fc.array(any, { maxLength: 20 }), fc.integer({ min: 0, max: 3 }), (values, start) => {
        const bits = Uint16Array.from(values).subarray(Math.min(start, values.length));
        expect(countNonFinite(bits, dtype)).toEqual(plain(bits));
      }),
    );
  });
});
