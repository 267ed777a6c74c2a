import { describe, it } from 'vitest';
import { NARROW } from '../../src/backend/kernels.ts';
import { LARGE, narrow, widened } from './cases/narrow.ts';
import { checkKernels } from './check.ts';
import { productDevices } from './devices.ts';
import { type Case, type Operands, type Result, run } from './harness.ts';
import { activationBound, linearNarrowBound } from './narrow-bounds.ts';

checkKernels(['widen', 'narrow', 'pack', 'unpack', 'linearNarrow', 'gatherRowsNarrow'], narrow);

type Product = Case<'linearNarrow'>;
const products = [...narrow.filter((test): test is Product => test.kernel === 'linearNarrow'), ...LARGE];
/** Balls of many elements take long. */
const checkable = products.filter(
  (test) => ofBlocks(test) && test.operands.m * test.operands.n * test.operands.k <= 1e5,
);
const limits = new Map(
  checkable.map((test) => {
    const sums = linearNarrowBound(test.operands).c!;
    return [test, activationBound(test.operands).map(({ v, r }, i) => ({ v, r: r + sums[i]!.r }))];
  }),
);

function ofBlocks({ operands }: Product): boolean {
  return NARROW[operands.format]!.startsWith('q');
}
function expectSame(name: string, got: Result[string], want: Result[string]): void {
  const different = got.findIndex((value, i) => !Object.is(value, want[i]));
  if (different >= 0) throw new Error(`${name}: [${different}] ${got[different]}, ${want[different]}`);
}

describe.each(productDevices)('$label', ({ backend }) => {
  const product = async (name: string, operands: Operands<'linearNarrow'>): Promise<Result[string]> =>
    (await run(backend, { kernel: 'linearNarrow', name, operands })).c!;

  it.skipIf(!backend.kernels.linearNarrow)(
    'linearNarrow gives the bits of matmul on the widened rows of 16 bits',
    async () => {
      for (const { name, operands } of products.filter((test) => !ofBlocks(test))) {
        const { a, w, bias, m, n, k, format, row, precision } = operands;
        const wide = Float32Array.from(widened(format, w, row + n, k)).subarray(row * k, (row + n) * k);
        const strides = { strideA: 0, strideB: 0, strideC: 0 };
        const layout = { batch: 1, transA: 0, transB: 1, ...strides, accumulate: 0, precision };
        const { c: expected } = await run(backend, {
          kernel: 'matmul',
          name,
          operands: { a, b: wide, c: new Float32Array(m * n), bias, m, n, k, ...layout },
        });
        expectSame(name, await product(name, operands), expected!);
      }
    },
  );

  it.skipIf(!backend.kernels.linearNarrow)(
    'a row times blocks has the same bits alone, and so has a column',
    async () => {
      for (const { name, operands } of backend.name === 'reference' ? checkable : products.filter(ofBlocks)) {
        const { a, bias, m, n, k, row } = operands;
        if (m * n === 0) continue;
        const whole = await product(name, operands);
        for (const i of new Set([0, m >> 1, m - 1])) {
          const alone = { ...operands, m: 1, a: a.subarray(i * k, (i + 1) * k), c: { size: n } };
          expectSame(`${name}, row ${i}`, await product(name, alone), whole.slice(i * n, (i + 1) * n));
        }
        const [from, to] = [n >> 1, Math.min(n, (n >> 1) + 9)];
        const part = {
          ...{ ...operands, row: row + from, n: to - from, c: { size: m * (to - from) } },
          bias: bias?.subarray(from, to) ?? null,
        };
        const columns = whole.filter((_, i) => i % n >= from && i % n < to);
        expectSame(`${name}, columns ${from} to ${to}`, await product(name, part), columns);
      }
    },
  );

  it.skipIf(!backend.kernels.linearNarrow)(
    'rounded activations take a product no further than derived',
    async () => {
      for (const [{ name, operands }, balls] of limits) {
        const got = await product(name, operands);
        balls.forEach(({ v, r }, i) => {
          if (Number.isFinite(v) && !(Math.abs(got[i]! - v) <= r))
            throw new Error(`${name}: [${i}] ${got[i]}, expected ${v} +- ${r}`);
        });
      }
    },
  );
});
