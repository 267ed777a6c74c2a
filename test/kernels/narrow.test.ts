import { describe, it } from 'vitest';
import { LARGE, narrow, widened } from './cases/narrow.ts';
import { checkKernels } from './check.ts';
import { productDevices } from './devices.ts';
import { type Case, run } from './harness.ts';

checkKernels(['widen', 'narrow', 'linearNarrow', 'gatherRowsNarrow'], narrow);

const products = narrow.filter((test): test is Case<'linearNarrow'> => test.kernel === 'linearNarrow');

describe.each(productDevices)('$label', ({ backend }) => {
  it.skipIf(!backend.kernels.linearNarrow)(
    'linearNarrow gives the bits of matmul on the widened rows',
    async () => {
      for (const { name, operands } of [...products, ...LARGE]) {
        const { a, w, bias, m, n, k, format, row } = operands;
        const wide = Float32Array.from(widened(format, w)).subarray(row * k, (row + n) * k);
        const strides = { strideA: 0, strideB: 0, strideC: 0 };
        const layout = { batch: 1, transA: 0, transB: 1, ...strides, accumulate: 0, precision: 0 };
        const { c } = await run(backend, { kernel: 'linearNarrow', name, operands });
        const { c: expected } = await run(backend, {
          kernel: 'matmul',
          name,
          operands: { a, b: wide, c: new Float32Array(m * n), bias, m, n, k, ...layout },
        });
        const different = c!.findIndex((value, i) => !Object.is(value, expected![i]));
        if (different >= 0)
          throw new Error(`${name}: [${different}] ${c![different]}, ${expected![different]}`);
      }
    },
  );
});
