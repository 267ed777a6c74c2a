/** Blocks against their definition. That the bytes are those of ggml: test/io/quants.test.ts. */
import fc from 'fast-check';
import { describe, expect, it, test } from 'vitest';
import { type BlockDType, decodeBlocks, encodeBlocks, half } from '../../src/base/blocks.ts';
import { DTypeError } from '../../src/base/errors.ts';

describe.each([
  ['q8', 34, 1 / 2],
  ['q4', 18, 1],
] as const)('%s', (dtype: BlockDType, bytes, steps) => {
  it('keeps every value within its step of the scale', () => {
    // The scale itself is rounded to float16: a relative 2^-11 of up to 127 (8) steps, or half of 2^-24 where it is subnormal.
    const levels = dtype === 'q8' ? 127 : 8;
    const value = fc.double({ min: -1e4, max: 1e4, noNaN: true });
    fc.assert(
      fc.property(fc.array(value, { minLength: 64, maxLength: 64 }), (list) => {
        const values = Float32Array.from(list);
        const blocks = encodeBlocks(values, dtype);
        const back = decodeBlocks(blocks, dtype);
        for (let i = 0; i < 64; i++) {
          const d = Math.abs(half(blocks, Math.floor(i / 32) * bytes));
          const scale = levels * Math.max(d * 2 ** -11, 2 ** -25);
          expect(Math.abs(back[i]! - values[i]!)).toBeLessThanOrEqual(1.001 * (steps * d + scale));
        }
      }),
    );
  });

  it('keeps zeros, and numbers of its own grid', () => {
    expect(decodeBlocks(encodeBlocks(new Float32Array(32), dtype), dtype).every((x) => x === 0)).toBe(true);
    const grid = Float32Array.from({ length: 32 }, (_, i) => (dtype === 'q8' ? 8 * i - 127 : (i % 16) - 8));
    expect(decodeBlocks(encodeBlocks(grid, dtype), dtype)).toEqual(grid);
  });

  it('refuses pieces of blocks', () => {
    expect(() => encodeBlocks(new Float32Array(33), dtype)).toThrow(DTypeError);
    expect(() => decodeBlocks(new Uint8Array(bytes + 1), dtype)).toThrow(DTypeError);
  });
});

test('a block begins at any address', () => {
  const blocks = encodeBlocks(
    Float32Array.from({ length: 32 }, (_, i) => i),
    'q8',
  );
  expect(decodeBlocks(Uint8Array.of(9, ...blocks).subarray(1), 'q8')).toEqual(decodeBlocks(blocks, 'q8'));
});
