/** The native device gives the same bits for any number of threads, case by case over the whole table. */
import { describe, it } from 'vitest';
import { openNative } from '../../src/backend/native.ts';
import { devices } from './devices.ts';
import { run } from './harness.ts';
import { TABLE } from './table.ts';

const native = devices.some(({ backend }) => backend.name === 'native');

describe.skipIf(!native)('native, 1, 2 and 3 threads', () => {
  const kernels = [...new Set(TABLE.map(({ kernel }) => kernel))];
  it.each(kernels)('%s', async (kernel) => {
    const [one, ...more] = [1, 2, 3].map((threads) => openOnce(threads));
    for (const test of TABLE.filter((candidate) => candidate.kernel === kernel)) {
      const expected = await run(one!, test);
      for (const backend of more) {
        const got = await run(backend, test);
        for (const [name, values] of Object.entries(got)) {
          const different = values.findIndex((value, i) => !Object.is(value, expected[name]![i]));
          if (different >= 0) {
            const [a, b] = [expected[name]![different], values[different]];
            throw new Error(
              `${kernel} (${test.name}), ${backend.description}: ${name}[${different}] = ${b}, not ${a}`,
            );
          }
        }
      }
    }
  });
});

const opened = new Map<number, ReturnType<typeof openNative>>();

function openOnce(threads: number) {
  let backend = opened.get(threads);
  if (!backend) opened.set(threads, (backend = openNative({ threads })));
  return backend;
}
