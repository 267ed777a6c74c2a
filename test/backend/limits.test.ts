/** The limits that benches compare with: every instruction set measures them, and kinds without dot products of their own fall back. */
import { describe, expect, it } from 'vitest';
import { isaVariants, openNative } from '../../src/index.node.ts';

function variants(): string[] {
  try {
    return isaVariants();
  } catch {
    return []; // no addon here
  }
}

describe.each(variants())('limits of %s', (isa) => {
  const device = openNative({ isa, threads: 2 });

  it.each(['f32', 'bf16', 'int8'] as const)('operations per second, %s', (kind) => {
    // More than any interpreter manages, less than a thousand cores: a rate in the wrong unit is outside.
    expect(device.measurePeak(kind)).toBeGreaterThan(1e8);
    expect(device.measurePeak(kind)).toBeLessThan(1e15);
  });

  it('bytes per second, of any size', () => {
    for (const sizeBytes of [0, 1_000_003, 2 ** 24]) {
      const rate = device.measureRead(sizeBytes);
      expect(rate).toBeGreaterThan(1e6);
      expect(rate).toBeLessThan(1e14);
    }
  });
});
