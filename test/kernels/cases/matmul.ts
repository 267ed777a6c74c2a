/** Cases of the matrix product: sizes around the widths of vectors, tiles and blocks; transposes; batches. */
import type { Case, Operands } from '../harness.ts';
import { define } from './values.ts';

interface Options {
  batch?: number;
  transA?: number;
  transB?: number;
  bias?: boolean;
  accumulate?: number;
  /** Every product reads the same a, or b. */
  share?: 'a' | 'b';
  /** 1: operands rounded to bfloat16. */
  precision?: number;
}

function product(m: number, n: number, k: number, options: Options = {}): Case {
  const { batch = 1, transA = 0, transB = 0, bias = false, accumulate = 0, share, precision = 0 } = options;
  const letters = `${transA ? 'T' : 'N'}${transB ? 'T' : 'N'}`;
  const extras = [
    batch > 1 && `batch ${batch}`,
    share && `one ${share}`,
    bias && 'bias',
    accumulate && 'accumulated',
    precision === 1 && 'bf16',
  ];
  const name = [`(${m}, ${n}, ${k}) ${letters}`, ...extras].filter(Boolean).join(', ');
  return define('matmul', name, (values): Operands<'matmul'> => {
    const strideA = share === 'a' ? 0 : m * k;
    const strideB = share === 'b' ? 0 : k * n;
    return {
      a: values.normal(share === 'a' ? m * k : batch * m * k),
      b: values.normal(share === 'b' ? k * n : batch * k * n),
      // Not accumulated: what is in c must not matter.
      c: accumulate ? values.normal(batch * m * n) : new Float32Array(batch * m * n).fill(Number.NaN),
      bias: bias ? values.normal(n) : null,
      ...{ batch, m, n, k, transA, transB, strideA, strideB, strideC: m * n, accumulate, precision },
    };
  });
}

const SIZES = [1, 2, 3, 5, 8, 16, 17, 33, 63, 65, 130];
const TRANSPOSES = [0, 1].flatMap((transA) => [0, 1].map((transB) => ({ transA, transB })));

const EVERY = [0, 1].flatMap((precision) => TRANSPOSES.map((transposes) => ({ ...transposes, precision })));

export const matmul: Case[] = EVERY.flatMap((transposes) => [
  ...SIZES.map((size) => product(size, size, size, transposes)),
  ...SIZES.map((m, i) => {
    const [n, k] = [SIZES[(i + 4) % SIZES.length]!, SIZES[(i + 7) % SIZES.length]!];
    return product(m, n, k, { ...transposes, bias: i % 2 === 0, accumulate: i % 3 === 0 ? 1 : 0 });
  }),
  ...SIZES.map((m, i) =>
    product(m, SIZES[(i + 8) % SIZES.length]!, SIZES[(i + 3) % SIZES.length]!, transposes),
  ),
  // Decoding: few rows against a large matrix.
  ...[1, 2, 3, 4, 5, 6, 7].map((m) => product(m, 300, 130, { ...transposes, bias: m % 2 === 1 })),
  product(300, 1, 130, transposes),
  product(65, 130, 1, { ...transposes, accumulate: 1 }),
  // Across the blocks of every implementation.
  product(3, 1030, 515, { ...transposes, bias: true }),
  product(200, 130, 300, { ...transposes, accumulate: 1 }),
  product(130, 70, 1100, transposes),
  // Nothing to add up, nothing to compute.
  product(3, 5, 0, transposes),
  product(3, 5, 0, { ...transposes, bias: true, accumulate: 1 }),
  product(0, 5, 3, transposes),
  product(3, 0, 5, { ...transposes, bias: true }),
  product(3, 5, 2, { ...transposes, batch: 0 }),
  // Batches.
  product(5, 17, 3, { ...transposes, batch: 3 }),
  product(33, 16, 65, { ...transposes, batch: 4, accumulate: 1 }),
  product(5, 17, 33, { ...transposes, batch: 3, share: 'a', bias: true }),
  product(17, 5, 33, { ...transposes, batch: 3, share: 'b' }),
  product(1, 8, 16, { ...transposes, batch: 9, share: 'b', accumulate: 1 }),
]);
