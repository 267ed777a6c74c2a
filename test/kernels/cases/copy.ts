/** Cases of the kernels that move elements. */
import { type Case, out } from '../harness.ts';
import { define } from './values.ts';

type Six = readonly [number, number, number, number, number, number];

/** Name, shape, strides of the side that is not contiguous. */
const LAYOUTS: readonly (readonly [string, Six, Six])[] = [
  ['contiguous', [1, 1, 1, 2, 3, 37], [222, 222, 222, 111, 37, 1]],
  ['long', [1, 1, 1, 1, 1, 20001], [0, 0, 0, 0, 0, 1]],
  ['one element', [1, 1, 1, 1, 1, 1], [1, 1, 1, 1, 1, 1]],
  ['no element', [1, 1, 2, 0, 3, 1], [1, 1, 1, 1, 1, 1]],
  ['transposed', [1, 1, 1, 1, 33, 65], [0, 0, 0, 0, 1, 33]],
  ['transposed in a batch', [1, 1, 1, 3, 17, 5], [0, 0, 0, 85, 1, 17]],
  ['six axes reversed', [2, 3, 2, 3, 2, 3], [1, 2, 6, 12, 36, 72]],
  ['columns of a wider matrix', [1, 1, 1, 1, 9, 7], [0, 0, 0, 0, 20, 1]],
  ['every third', [1, 1, 1, 1, 1, 50], [0, 0, 0, 0, 0, 3]],
  ['heads and tokens exchanged', [1, 1, 2, 4, 7, 5], [0, 0, 140, 5, 20, 1]],
];

function named([d0, d1, d2, d3, d4, d5]: Six, [s0, s1, s2, s3, s4, s5]: Six) {
  return { d0, d1, d2, d3, d4, d5, s0, s1, s2, s3, s4, s5 };
}

const reach = (shape: Six, strides: Six) =>
  shape.reduce((end, extent, i) => end + Math.max(0, extent - 1) * strides[i]!, 1);
const sizeOf = (shape: Six) => shape.reduce((product, extent) => product * extent, 1);

export const copy: Case[] = [
  ...LAYOUTS.flatMap(([name, shape, strides]) => [
    define('copy', name, (values) => {
      return { x: values.normal(reach(shape, strides)), y: out(sizeOf(shape)), ...named(shape, strides) };
    }),
    ...[0, 1].map((accumulate) =>
      define('scatter', `${name}${accumulate ? ', added' : ''}`, (values) => ({
        x: values.normal(sizeOf(shape)),
        y: values.normal(reach(shape, strides)),
        ...named(shape, strides),
        accumulate,
      })),
    ),
  ]),
  define('copy', 'broadcast rows', (values) => {
    return { x: values.normal(7), y: out(35), ...named([1, 1, 1, 1, 5, 7], [0, 0, 0, 0, 0, 1]) };
  }),
  ...[
    [0, 5, 3],
    [1, 1, 1],
    [5, 3, 17],
    [33, 7, 65],
    [200, 50, 4],
    [3, 4, 0],
  ].flatMap(([count, rows, d]) => [
    define('gatherRows', `${count} of (${rows}, ${d})`, (values) => ({
      table: values.normal(rows! * d!),
      ids: values.ids(count!, rows!),
      y: out(count! * d!),
      count: count!,
      rows: rows!,
      d: d!,
    })),
    define('scatterAddRows', `${count} into (${rows}, ${d})`, (values) => ({
      x: values.normal(count! * d!),
      ids: values.ids(count!, rows!),
      table: values.normal(rows! * d!),
      count: count!,
      rows: rows!,
      d: d!,
    })),
  ]), // prettier-ignore
];
