import { describe, expect, test } from 'vitest';
import { ConfigError } from '../../src/base/errors.ts';
import { makeSchedule, rateAtProgress, rateAtStep, SCHEDULES, shapeAt } from '../../src/train/schedule.ts';

const rates = (
  kind: 'cosine' | 'wsd' | 'constant',
  steps: number,
  warmup: number,
  decayShare = 0.2,
): number[] => {
  const schedule = makeSchedule({ kind, peak: 1, warmup, final: 0.1, decayShare });
  return Array.from({ length: steps }, (_, step) => rateAtStep(schedule, step, steps));
};
const close = (actual: number[], expected: number[]): void => {
  expect(actual).toHaveLength(expected.length);
  actual.forEach((value, i) => {
    expect(value, `step ${i}`).toBeCloseTo(expected[i]!, 12);
  });
};

describe('schedules by steps', () => {
  test('cosine: warm-up to the peak, then half a wave to the final rate', () => {
    close(rates('cosine', 7, 2), [
      0.5,
      1,
      1,
      0.1 + 0.9 * (0.5 + Math.SQRT1_2 / 2),
      0.55,
      0.1 + 0.9 * (0.5 - Math.SQRT1_2 / 2),
      0.1,
    ]);
  });

  test('wsd: stable, then linear', () => {
    close(rates('wsd', 11, 0, 0.4), [1, 1, 1, 1, 1, 1, 1, 0.775, 0.55, 0.325, 0.1]);
  });

  test('constant', () => {
    close(rates('constant', 4, 2), [0.5, 1, 1, 1]);
  });

  test('a run shorter than its warm-up, and one of a single step', () => {
    close(rates('cosine', 2, 4), [0.25, 0.5]);
    close(rates('cosine', 1, 0), [1]);
  });
});

describe('schedules by elapsed share', () => {
  test.each(SCHEDULES)('%s: never above the peak, never rising, clamped outside 0..1', (kind) => {
    const schedule = makeSchedule({ kind, peak: 3, final: 0.2 });
    let before = shapeAt(schedule, -1);
    expect(before).toBe(1);
    for (let i = 0; i <= 20; i++) {
      const now = shapeAt(schedule, i / 20);
      expect(now).toBeLessThanOrEqual(before);
      before = now;
    }
    expect(shapeAt(schedule, 2)).toBeCloseTo(kind === 'constant' ? 1 : 0.2, 12);
  });

  test('the warm-up still counts steps', () => {
    const schedule = makeSchedule({ peak: 1, warmup: 4, final: 0 });
    expect(rateAtProgress(schedule, 1, 0.5)).toBeCloseTo(0.5 * 0.5, 12);
    expect(rateAtProgress(schedule, 9, 0.5)).toBeCloseTo(0.5, 12);
  });
});

test.each([
  [{ peak: 0 }, /peak/],
  [{ peak: Number.NaN }, /peak/],
  [{ peak: 1, warmup: 1.5 }, /warmup/],
  [{ peak: 1, final: 2 }, /final/],
  [{ peak: 1, decayShare: 0 }, /decayShare/],
  [{ peak: 1, kind: 'linear' as 'wsd' }, /cosine, wsd, constant/],
])('refuses %o', (options, message) => {
  expect(() => makeSchedule(options)).toThrow(ConfigError);
  expect(() => makeSchedule(options)).toThrow(message);
});
