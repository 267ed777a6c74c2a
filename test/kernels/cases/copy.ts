/** Cases of the kernels that move and convert elements. */
import { NARROW } from '../../../src/backend/kernels.ts';
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

/** Every pattern of 16 bits. */
const ALL_BITS = Uint16Array.from({ length: 65536 }, (_, i) => i);

/** Ties, halves of subnormals, the ends of the range, specials. */
const NARROW_EDGES = [
  0,
  -0,
  1,
  1 + 2 ** -8,
  1 + 3 * 2 ** -8,
  1 + 2 ** -8 + 2 ** -20,
  1 + 2 ** -11,
  1 + 3 * 2 ** -11,
  65504,
  65519.99,
  65520,
  -65520,
  1e30,
  3.4e38,
  3.39e38,
  2 ** -14,
  2 ** -15,
  2 ** -24,
  2 ** -25,
  3 * 2 ** -25,
  2 ** -26,
  -(2 ** -24),
  2 ** -126,
  Number.POSITIVE_INFINITY,
  Number.NEGATIVE_INFINITY,
  Number.NaN,
]; // prettier-ignore

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
  ...NARROW.flatMap((name, format) => [
    define('widen', `${name}: every pattern`, () => ({ x: ALL_BITS, y: out(65536), format, count: 65536 })),
    ...[0, 1, 7, 8, 9, 33].flatMap((count) => [
      define('widen', `${name}: ${count}`, (values) => {
        return { x: Uint16Array.from(values.ids(count, 0x7c00)), y: out(count), format, count };
      }),
      define('narrow', `${name}: ${count}`, (values) => {
        return { x: values.normal(count), y: out(count), format, count };
      }),
    ]),
    define('narrow', `${name}: edges`, () => {
      const x = Float32Array.from(NARROW_EDGES);
      return { x, y: out(x.length), format, count: x.length };
    }),
    define('narrow', `${name}: all magnitudes`, (values) => {
      return { x: values.logUniform(20_000, 1e-38, 3e38), y: out(20_000), format, count: 20_000 };
    }),
  ]),
];
