/** Turns cases of the table into tests: every case on every device, against the float64 result and its bounds. */
import { describe, expect, it } from 'vitest';
import type { KernelName } from '../../src/backend/backend.ts';
import type { Estimate, Estimates } from './ball.ts';
import { boundsOf, hasTwin } from './bounds.ts';
import { devices, isRequired, productDevices, reportMissing } from './devices.ts';
import { type Case, type Result, run, truth } from './harness.ts';

/** The float64 result of a case and its bounds, computed once for all devices. */
const expected = new WeakMap<Case, Promise<{ result: Result; bounds: Estimates }>>();

function expectedOf(test: Case) {
  let promise = expected.get(test);
  if (!promise) {
    promise = truth(test).then(async (result) => ({ result, bounds: await boundsOf(test, result) }));
    expected.set(test, promise);
  }
  return promise;
}

/** Kernels that have code for dot products of narrow numbers. */
const PRODUCTS: readonly KernelName[] = ['matmul', 'linearNarrow'];

/** Registers the tests of some kernels. */
export function checkKernels(kernels: readonly KernelName[], table: readonly Case[]): void {
  const cases = table.filter((test) => kernels.includes(test.kernel));
  reportMissing();
  for (const kernel of kernels.filter(hasTwin)) {
    it(`reference ${kernel}: two implementations agree in float64`, async () => {
      for (const test of cases.filter((candidate) => candidate.kernel === kernel)) {
        const { result, bounds } = await expectedOf(test);
        // The centres of the balls were computed in float64 too: the radius shrinks with the unit roundoff.
        for (const [name, balls] of Object.entries(bounds))
          compare(test, name, result[name]!, balls, 2 ** -29);
      }
    });
  }
  const tested = kernels.some((kernel) => PRODUCTS.includes(kernel)) ? productDevices : devices;
  for (const device of tested) {
    describe(device.label, () => {
      for (const test of cases) {
        const has = test.kernel in device.backend.kernels || isRequired(device);
        it.skipIf(!has)(`${test.kernel}: ${test.name}`, async () => {
          const { result, bounds } = await expectedOf(test);
          const got = await run(device.backend, test);
          expect(Object.keys(got).sort()).toEqual(Object.keys(result).sort());
          for (const [name, values] of Object.entries(got)) {
            const balls = bounds[name] ?? Array.from(result[name]!, (v) => ({ v, r: 0 }));
            // The bound is around the result of the reference, not around the centre of the ball.
            compare(
              test,
              name,
              values,
              balls.map((ball, i) => ({ ...ball, v: result[name]![i]! })),
              1,
            );
          }
        });
      }
    });
  }
}

/** Throws at the first value outside its ball. Beyond the range of float32, and where r is 0, values must be equal. */
export function compare(
  test: Case,
  name: string,
  values: Result[string],
  balls: Estimate,
  shrink: number,
): void {
  if (values.length !== balls.length) {
    throw new Error(`${test.kernel}.${name}: expected ${balls.length} elements, got ${values.length}`);
  }
  let worst = 0;
  let message = '';
  for (let i = 0; i < values.length; i++) {
    const { v, r, period = Number.POSITIVE_INFINITY } = balls[i]!;
    const value = values[i]!;
    if (Number.isNaN(r)) throw new Error(`${test.kernel} (${test.name}): ${name}[${i}] has no finite bound`);
    if (Object.is(value, v) || value === Math.fround(v) || (Number.isNaN(v) && Number.isNaN(value))) continue;
    const off = Math.abs(value - v);
    const share = (off < period / 2 ? off : Math.abs(period - off)) / (r * shrink);
    if (share <= 1) continue;
    if (!(share <= worst)) {
      worst = share;
      message = `${name}[${i}] = ${value}, expected ${v} +- ${r * shrink}`;
    }
  }
  if (message) throw new Error(`${test.kernel} (${test.name}): ${message}, off by ${worst} times the bound`);
}
