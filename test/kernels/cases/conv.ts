/** Cases of the causal convolution: widths, windows, documents, ragged rows. */
import { CONV_CUT } from '../../../src/backend/kernels.ts';
import { type Case, type Operands, out } from '../harness.ts';
import { define, pick, type Values } from './values.ts';

interface Shape {
  b: number;
  l: number;
  e: number;
  k: number;
}

const SHAPES: Shape[] = [1, 2, 3, 4, 5].flatMap((k) => [
  { b: 1, l: 1, e: 1, k },
  { b: 2, l: 2, e: 3, k },
  { b: 3, l: 7, e: 17, k },
  { b: 1, l: 65, e: 16, k },
  { b: 2, l: 33, e: 33, k },
  { b: 2, l: 0, e: 5, k },
  { b: 3, l: 130, e: 40, k },
  { b: 0, l: 4, e: 3, k },
  { b: 3, l: 1, e: 50, k },
]);

/** Empty, full and everything between, cut to l. */
function raggedLengths(b: number, l: number): Int32Array {
  return Int32Array.from({ length: b }, (_, row) => Math.min(l, pick([l >> 1, 0, l, 1], row)));
}

/** The i-th place where channels may be cut; 0 is no cut. */
function cutAt(e: number, i: number): number {
  return i === 0 ? e : Math.min(e, CONV_CUT * i);
}

function common(values: Values, { b, l, e, k }: Shape, i: number) {
  const has = (bit: number) => ((i * 5) & bit) !== 0;
  return {
    x: values.normal(b * l * e, 2),
    weight: values.normal(e * k, 0.5),
    bias: has(1) ? values.normal(e) : null,
    window: has(2) ? values.normal(b * e * k) : null,
    sequenceIds: has(4) ? values.documents(b, l, pick([2, 5, 40], i)) : null,
    lengths: has(8) ? raggedLengths(b, l) : null,
    ...{ b, l, e, k, silu: has(16) ? 0 : 1 },
  };
}

function nameOf({ b, l, e, k }: Shape, o: { [name: string]: unknown }): string {
  const extras = ['bias', 'window', 'sequenceIds', 'lengths', 'windowOut', 'dwindowOut'].filter(
    (name) => o[name],
  );
  return [`(${b}, ${l}, ${e}) k ${k}${o.silu ? ' silu' : ''}`, ...extras].join(', ');
}

/** The values of a case are made before its name, which lists the optional operands. */
function named<N extends 'causalConv' | 'causalConvGrad'>(
  kernel: N,
  shape: Shape,
  i: number,
  make: (values: Values) => Operands<N>,
) {
  const test = define(kernel, `${Object.values(shape)} ${i}`, make);
  return { ...test, name: nameOf(shape, test.operands as { [name: string]: unknown }) };
}

function forward(shape: Shape, i: number): Case {
  const { b, l, e, k } = shape;
  return named('causalConv', shape, i, (values) => ({
    ...common(values, shape, i),
    y: out(b * l * e),
    ...{ cut1: cutAt(e, i % 4), cut2: cutAt(e, (i % 4) + (i % 2)) },
    windowOut: i % 3 === 0 ? null : out(b * e * k),
  }));
}

function backward(shape: Shape, i: number): Case {
  const { b, l, e, k } = shape;
  return named('causalConvGrad', shape, i, (values) => {
    const given = common(values, shape, i);
    return {
      ...given,
      dy: values.normal(b * l * e),
      dwindowOut: i % 3 === 0 ? null : values.normal(b * e * k),
      dx: out(b * l * e),
      dweight: out(e * k),
      dbias: given.bias ? out(e) : null,
      dwindow: given.window ? out(b * e * k) : null,
      partial: out(b * e * (k + 1)),
    };
  });
}

export const conv: Case[] = [0, 1].flatMap((round) =>
  SHAPES.flatMap((shape, i) => {
    const number = i + round * SHAPES.length + round;
    return [forward(shape, number), backward(shape, number)];
  }),
);
