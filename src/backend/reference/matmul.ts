/** Matrix products: c (m, n) = op(a) (m, k) op(b) (k, n) + bias (n), batched, with optional transposes. */
import { bf16ToF32, f32ToBf16 } from '../../base/dtype.ts';
import type { Kernels } from '../backend.ts';
import { type Floats, input, optionalInput, output } from './storage.ts';

export const matmul = {
  matmul({ batch, m, n, k, transA, transB, strideA, strideB, strideC, accumulate, precision, ...refs }) {
    const operand = (x: Floats) => (precision === 1 ? roundedToBf16(x) : x);
    const [a, b] = [operand(input(refs.a)), operand(input(refs.b))];
    const bias = optionalInput(refs.bias);
    const c = output(refs.c);
    // Element (row, p) of op(a) is a[row * aRow + p * aCol]; the same for b.
    const [aRow, aCol] = transA ? [1, m] : [k, 1];
    const [bRow, bCol] = transB ? [1, k] : [n, 1];
    for (let i = 0; i < batch; i++) {
      for (let row = 0; row < m; row++) {
        for (let col = 0; col < n; col++) {
          const at = i * strideC + row * n + col;
          const aAt = i * strideA + row * aRow;
          const bAt = i * strideB + col * bCol;
          let total = (accumulate ? c[at]! : 0) + (bias ? bias[col]! : 0);
          for (let p = 0; p < k; p++) total += a[aAt + p * aCol]! * b[bAt + p * bRow]!;
          c[at] = total;
        }
      }
    }
  },
} satisfies Partial<Kernels>;

/** A copy in bfloat16, ties to even. */
export const roundedToBf16 = (x: Floats): Floats => x.map((value: number) => bf16ToF32(f32ToBf16(value)));
