/** Cases of the reductions. */
import { type Case, out } from '../harness.ts';
import { define } from './values.ts';

const SHAPES = [
  [1, 1, 1],
  [3, 17, 1],
  [2, 65, 3],
  [5, 1, 7],
  [1, 257, 1],
  [0, 3, 2],
  [2, 3, 0],
  [4, 130, 33],
  [1, 2000, 16],
  [700, 5, 1],
] as const; // prettier-ignore

export const reduce: Case[] = [
  ...SHAPES.flatMap(([outer, axis, inner]) => [
    define('sum', `(${outer}, ${axis}, ${inner})`, (values) => {
      return { x: values.normal(outer * axis * inner), y: out(outer * inner), outer, axis, inner };
    }),
    define('max', `(${outer}, ${axis}, ${inner})`, (values) => {
      return { x: values.normal(outer * axis * inner, 1, -5), y: out(outer * inner), outer, axis, inner };
    }),
    define('argmax', `(${outer}, ${axis}, ${inner}), with ties`, (values) => {
      const x = Float32Array.from(values.ids(outer * axis * inner, 9));
      return { x, y: out(outer * inner), outer, axis, inner };
    }),
  ]),
  define('sum', '(2, 0, 3): zeros', () => ({
    x: new Float32Array(0),
    y: out(6),
    outer: 2,
    axis: 0,
    inner: 3,
  })),
  define('argmax', 'negative numbers, distinct', (values) => {
    return { x: values.normal(300, 1, -50), y: out(3), outer: 3, axis: 100, inner: 1 };
  }),
  ...[0, 1, 2, 17, 1000, 4099, 100_003].flatMap((count) =>
    [0, 1].map((accumulate) =>
      define('sumSquares', `${count}${accumulate ? ', accumulated' : ''}`, (values) => {
        return { x: values.normal(count), y: Float32Array.of(12.5), count, accumulate };
      }),
    ),
  ),
  define('sumSquares', 'small numbers after a large one are not lost', () => {
    const x = new Float32Array(100_000).fill(1);
    x[0] = 8192; // 2^26: in float32, adding 1 would change nothing from 2^24 on
    return { x, y: Float32Array.of(0), count: x.length, accumulate: 0 };
  }),
];
