/** Samplers against their definitions, written down plainly with a full sort. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { ConfigError, StateError } from '../../src/base/errors.ts';
import { Rng } from '../../src/base/rng.ts';
import { candidates, logSumExp, mostLikely, weigh } from '../../src/generate/candidates.ts';
import { greedy, penalize, resolveSampler, type SamplerOptions, sample } from '../../src/generate/sampler.ts';

/** The probability of every id, by the definitions. */
function plain(row: Float32Array, options: SamplerOptions): number[] {
  const { temperature, topK, topP, minP } = resolveSampler(options);
  let kept = Array.from(row, (value, id) => ({ id, value })).sort((a, b) => b.value - a.value || a.id - b.id);
  const largest = kept[0]!.value;
  const weight = ({ value }: { value: number }) => Math.exp((value - largest) / temperature);
  if (topK > 0) kept = kept.slice(0, topK);
  if (topP < 1) {
    const total = kept.reduce((sum, item) => sum + weight(item), 0);
    let mass = 0;
    kept = kept.filter((item) => {
      const isIn = mass < topP * total;
      mass += weight(item);
      return isIn;
    });
  }
  kept = kept.filter((item) => weight(item) >= minP);
  const total = kept.reduce((sum, item) => sum + weight(item), 0);
  const result = new Array<number>(row.length).fill(0);
  for (const item of kept) result[item.id] = weight(item) / total;
  return result;
}

/** The same from candidates(). */
function fast(row: Float32Array, options: SamplerOptions): number[] {
  const { ids, weights } = candidates(row, greedy(row), resolveSampler(options));
  const total = Array.from(weights).reduce((a, b) => a + b, 0);
  const result = new Array<number>(row.length).fill(0);
  for (let i = 0; i < weights.length; i++) result[ids ? ids[i]! : i] = weights[i]! / total;
  return result;
}

/** Values with ties, and masked ids. */
const rows = fc
  .array(
    fc.oneof(
      { weight: 6, arbitrary: fc.double({ min: -30, max: 30, noNaN: true }) },
      { weight: 3, arbitrary: fc.integer({ min: -2, max: 2 }) },
      { weight: 1, arbitrary: fc.constant(Number.NEGATIVE_INFINITY) },
    ),
    { minLength: 1, maxLength: 300 },
  )
  .map((values) => Float32Array.from(values))
  .filter((row) => row.some(Number.isFinite));

const samplers = fc.record({
  temperature: fc.double({ min: 0.05, max: 5, noNaN: true }),
  topK: fc.integer({ min: 0, max: 400 }),
  topP: fc.oneof(fc.constant(1), fc.double({ min: 0.01, max: 1, noNaN: true })),
  minP: fc.oneof(fc.constant(0), fc.double({ min: 0, max: 1, noNaN: true })),
});

describe('candidates', () => {
  it('keeps what the definitions keep, with their probabilities', () => {
    fc.assert(
      fc.property(rows, samplers, (row, options) => {
        const expected = plain(row, options);
        const actual = fast(row, options);
        // Where the mass reaches topP within the rounding of its sum, one id more or less is right too.
        const { ids: nearly } = { ids: [-1e-12, 1e-12].map((e) => plain(row, shift(options, e))) };
        const fits = [expected, ...nearly].some((p) => p.every((x, i) => Math.abs(x - actual[i]!) < 1e-12));
        expect(fits).toBe(true);
      }),
      { numRuns: 500 },
    );
  });

  const shift = (options: { topP: number }, e: number) =>
    options.topP === 1 ? options : { ...options, topP: Math.min(1, Math.max(1e-9, options.topP + e)) };

  const row = Float32Array.from([0.5, 0.25, 0.125, 0.125], Math.log);

  it.each([
    ['top-p takes the smallest set that reaches p', { topP: 0.7 }, [2 / 3, 1 / 3, 0, 0]],
    ['top-p below the largest keeps one', { topP: 0.1 }, [1, 0, 0, 0]],
    ['top-p after top-k is a share of the top k', { topK: 2, topP: 0.6 }, [1, 0, 0, 0]],
    ['top-k breaks ties by id', { topK: 3 }, [4 / 7, 2 / 7, 1 / 7, 0]],
    ['top-k beyond the vocabulary keeps all', { topK: 99 }, [0.5, 0.25, 0.125, 0.125]],
    ['min-p is relative to the most likely token', { minP: 0.4 }, [2 / 3, 1 / 3, 0, 0]],
    ['temperature sharpens', { temperature: 0.5 }, [16 / 22, 4 / 22, 1 / 22, 1 / 22]],
  ])('%s', (_, options, expected) => {
    const actual = fast(row, options);
    // float32 logarithms: |log p| <= 2.1 is stored within 1.2e-7, divided by a temperature of at least 0.5
    expected.forEach((p, id) => {
      expect(Math.abs(p - actual[id]!)).toBeLessThan(5e-7);
    });
  });

  it('min-p looks at its own row, not at token 0', () => {
    const far = Float32Array.from([-10, 2, 1.9, -10]);
    expect(fast(far, { minP: 0.5 })[0]).toBe(0);
    expect(fast(far, { minP: 0.5 })[2]).toBeGreaterThan(0.4);
  });
});

describe('weights', () => {
  it('are exp to 1e-13, from the largest number to nothing', () => {
    const values = fc.array(fc.double({ min: -900, max: 0, noNaN: true }), { minLength: 1, maxLength: 50 });
    fc.assert(
      fc.property(values, fc.double({ min: 0.05, max: 5, noNaN: true }), (list, temperature) => {
        const row = Float32Array.from([0, ...list]);
        const weights = new Float64Array(row.length);
        const sum = weigh(row, 0, temperature, weights);
        let expected = 0;
        row.forEach((value, i) => {
          const exact = Math.exp(value / temperature);
          expected += exact;
          expect(Math.abs(weights[i]! - exact)).toBeLessThanOrEqual(1e-13 * exact + 1e-306);
        });
        expect(Math.abs(sum - expected)).toBeLessThanOrEqual(1e-12 * expected);
      }),
    );
    expect(weigh(Float32Array.from([0, Number.NEGATIVE_INFINITY]), 0, 1, new Float64Array(2))).toBe(1);
    expect(logSumExp(Float32Array.from([7, 7]), 7)).toBeCloseTo(Math.LN2, 13);
  });

  it('the most likely ids are those of a full sort', () => {
    fc.assert(
      fc.property(rows, fc.integer({ min: 0, max: 400 }), (row, k) => {
        const sorted = Array.from(row, (value, id) => ({ value, id })).sort(
          (a, b) => (b.value === a.value ? 0 : b.value - a.value) || a.id - b.id,
        );
        expect(mostLikely(row, k)).toEqual(sorted.slice(0, k).map(({ id }) => id));
      }),
    );
  });
});

describe('sample', () => {
  const rng = () => new Rng(1);

  it('takes the first of the most likely tokens at temperature 0 and top-k 1', () => {
    const row = Float32Array.from([1, 3, 3, 2]);
    expect(sample(row, 4, resolveSampler({ temperature: 0 }), rng())).toBe(1);
    expect(sample(row, 4, resolveSampler({ topK: 1 }), rng())).toBe(1);
  });

  it('never gives padding, however likely', () => {
    const row = Float32Array.from([0, 1, 90, 90]);
    for (const options of [{}, { temperature: 0 }, { topK: 3 }, { topP: 0.9 }, { minP: 0.1 }]) {
      const stream = rng();
      for (let i = 0; i < 50; i++) {
        expect(sample(row, 2, resolveSampler(options), stream)).toBeLessThan(2);
      }
    }
  });

  it('follows the probabilities', () => {
    const row = Float32Array.from([0.5, 0.3, 0.2], Math.log);
    const stream = rng();
    const draws = 20_000;
    const counts = [0, 0, 0];
    const sampler = resolveSampler();
    for (let i = 0; i < draws; i++) counts[sample(row, 3, sampler, stream)]!++;
    // Five standard deviations of a binomial; the seed is fixed, so this passes always or never.
    [0.5, 0.3, 0.2].forEach((p, id) => {
      expect(Math.abs(counts[id]! - p * draws)).toBeLessThan(5 * Math.sqrt(draws * p * (1 - p)));
    });
  });

  it('leaves the logits alone and punishes seen ids once', () => {
    const row = Float32Array.from([2, 1.5, -1, -0.9]);
    const sampler = resolveSampler({ temperature: 0, repetitionPenalty: 2 });
    expect(sample(row, 4, sampler, rng(), new Set([0]))).toBe(1);
    expect(Array.from(row)).toEqual([2, 1.5, -1, Math.fround(-0.9)]);
    expect(Array.from(penalize(row.slice(), 2, new Set([0, 2, 99])))).toEqual([
      1,
      1.5,
      -2,
      Math.fround(-0.9),
    ]);
  });

  it.each([
    ['NaN', [1, Number.NaN, 2], 'NaN at id 1'],
    ['an infinity', [1, Number.POSITIVE_INFINITY], 'Infinity as the largest'],
    [
      'nothing to choose from',
      [Number.NEGATIVE_INFINITY, Number.NEGATIVE_INFINITY],
      '-Infinity as the largest',
    ],
  ])('refuses %s', (_, values, message) => {
    const call = () => sample(Float32Array.from(values), values.length, resolveSampler(), rng());
    expect(call).toThrow(StateError);
    expect(call).toThrow(message);
  });
});

describe('resolveSampler', () => {
  it('lists every field out of range', () => {
    const bad = { temperature: -1, topK: 1.5, topP: 0, minP: 2, repetitionPenalty: 0 };
    expect(() => resolveSampler(bad)).toThrow(ConfigError);
    for (const field of Object.keys(bad)) expect(() => resolveSampler(bad)).toThrow(field);
    expect(() => resolveSampler({ temperature: Number.NaN })).toThrow('temperature >= 0, got NaN');
  });
});
