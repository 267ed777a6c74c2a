/** Native and WebAssembly give the same bits for any number of threads, case by case over the whole table. */
import { describe, it } from 'vitest';
import type { Backend } from '../../src/backend/backend.ts';
import { openNative } from '../../src/backend/native.ts';
import { openWasmFile } from '../../src/backend/wasm.node.ts';
import { devices } from './devices.ts';
import { run } from './harness.ts';
import { TABLE } from './table.ts';

const OPEN: [name: string, open: (threads: number) => Backend][] = [
  ['native', (threads) => openNative({ threads })],
  ['wasm', (threads) => openWasmFile({ threads })],
];
const here = OPEN.filter(([name]) => devices.some(({ backend }) => backend.name === name));

describe.each(here)('%s, 1, 2 and 3 threads', (_, open) => {
  const opened = new Map<number, Backend>();
  const openOnce = (threads: number) => {
    let backend = opened.get(threads);
    if (!backend) opened.set(threads, (backend = open(threads)));
    return backend;
  };
  const kernels = [...new Set(TABLE.map(({ kernel }) => kernel))];
  it.each(kernels)('%s', async (kernel) => {
    const [one, ...more] = [1, 2, 3].map(openOnce);
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
