/** Cases of the cross-entropy: ignored rows, one class, extreme logits. */
import { type Case, inPlace, type Operands, out } from '../harness.ts';
import { define, pick, type Values } from './values.ts';

const SIZES = [
  [0, 5],
  [1, 1],
  [1, 2],
  [3, 17],
  [5, 130],
  [2, 1000],
  [33, 65],
  [4, 256],
  [2, 5003],
] as const; // prettier-ignore
const IGNORE = -100;

function common(values: Values, rows: number, v: number, scale: number) {
  const targets = values.ids(rows, v);
  for (let row = 1; row < rows; row += 3) targets[row] = IGNORE;
  return { logits: values.normal(rows * v, scale), targets, rows, v, ignore: IGNORE };
}

export const loss: Case[] = SIZES.flatMap(([rows, v], i) =>
  [1, 30].flatMap((scale) => [
    define('crossEntropy', `(${rows}, ${v}) x ${scale}`, (values) => {
      return { ...common(values, rows, v, scale), loss: out(rows), lse: out(rows), valid: out(rows) };
    }),
    define(
      'crossEntropyGrad',
      `(${rows}, ${v}) x ${scale}${i % 2 ? ' in place' : ''}`,
      (values): Operands<'crossEntropyGrad'> => {
        const given = common(values, rows, v, scale);
        const lse = Float32Array.from({ length: rows }, (_, row) => {
          const line = given.logits.subarray(row * v, (row + 1) * v);
          const largest = Math.max(...line);
          return largest + Math.log(line.reduce((total, x) => total + Math.exp(x - largest), 0));
        });
        const dlogits = pick([out(rows * v), inPlace('logits', rows * v)], i);
        return { ...given, lse, dloss: values.normal(rows), dlogits };
      },
    ),
  ]),
);
