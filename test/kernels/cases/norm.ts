/** Cases of RMSNorm and LayerNorm. */
import { NORM_BLOCKS } from '../../../src/backend/kernels.ts';
import { type Case, inPlace, type Operands, out } from '../harness.ts';
import { define, pick } from './values.ts';

const SIZES = [
  [0, 3],
  [1, 1],
  [2, 3],
  [3, 16],
  [2, 17],
  [33, 64],
  [70, 5],
  [5, 130],
  [31, 1],
  [64, 33],
] as const; // prettier-ignore

function forward(rows: number, d: number, center: number, i: number): Case {
  const [residual, weight, bias, sum, mean] = [1, 2, 4, 8, 16].map((bit) => ((i * 11) & bit) !== 0);
  const alias = sum ? pick([undefined, 'x', residual ? 'residual' : 'x'], i) : undefined;
  const scale = pick([1, 30, 1e-3], i);
  const extras = [
    residual && 'residual',
    weight && 'weight',
    bias && 'bias',
    sum && `sum${alias ? ` in ${alias}` : ''}`,
  ];
  const name = [`${center ? 'layer' : 'rms'} (${rows}, ${d}) x ${scale}`, ...extras]
    .filter(Boolean)
    .join(', ');
  return define('norm', name, (values) => ({
    x: values.normal(rows * d, scale, center * scale * 2),
    residual: residual ? values.normal(rows * d) : null,
    weight: weight ? values.normal(d, 0.5, 1) : null,
    bias: bias ? values.normal(d) : null,
    y: out(rows * d),
    sum: sum ? (alias ? inPlace(alias, rows * d) : out(rows * d)) : null,
    mean: center && (mean || sum) ? out(rows) : null,
    rstd: out(rows),
    ...{ rows, d, eps: 1e-5, center },
  }));
}

function backward(rows: number, d: number, center: number, i: number): Case {
  const [weight, dsum, dweight, dbias] = [1, 2, 4, 8].map((bit) => ((i * 7) & bit) !== 0);
  const extras = [weight && 'weight', dsum && 'dsum', dweight && 'dweight', dbias && 'dbias'];
  const name = [`${center ? 'layer' : 'rms'} (${rows}, ${d})`, ...extras].filter(Boolean).join(', ');
  return define('normGrad', name, (values): Operands<'normGrad'> => {
    const s = values.normal(rows * d, 2, center * 3);
    // The statistics of s, rounded as a forward pass stores them.
    const [mean, rstd] = [new Float32Array(rows), new Float32Array(rows)];
    for (let row = 0; row < rows; row++) {
      const line = Array.from(s.subarray(row * d, (row + 1) * d));
      mean[row] = center ? line.reduce((a, b) => a + b, 0) / d : 0;
      const variance = line.reduce((total, value) => total + (value - mean[row]!) ** 2, 0) / d;
      rstd[row] = 1 / Math.sqrt(variance + 1e-5);
    }
    return {
      s,
      weight: weight ? values.normal(d, 0.5, 1) : null,
      mean: center ? mean : null,
      rstd,
      dy: values.normal(rows * d),
      dsum: dsum ? values.normal(rows * d) : null,
      ds: out(rows * d),
      dweight: dweight ? out(d) : null,
      dbias: dbias ? out(d) : null,
      partial: out(NORM_BLOCKS * 2 * d),
      ...{ rows, d, center },
    };
  });
}

const all = (make: typeof forward, times: number): Case[] =>
  [0, 1].flatMap((center) =>
    SIZES.flatMap(([rows, d], i) =>
      Array.from({ length: times }, (_, j) => make(rows, d, center, i + j * SIZES.length)),
    ),
  );

export const norm: Case[] = [
  ...all(forward, 3),
  ...all(backward, 2),
  ...[0, 1].map((center) =>
    define('norm', `${center ? 'layer' : 'rms'}: rows of zeros`, () => ({
      x: new Float32Array(66),
      residual: null,
      weight: null,
      bias: null,
      y: out(66),
      sum: null,
      mean: center ? out(2) : null,
      rstd: out(2),
      ...{ rows: 2, d: 33, eps: 1e-5, center },
    })),
  ),
  // sqrt(mean(s^2)) far from 1: squares of 1e15 fit into float32, their mean must not overflow.
  define('norm', 'rms: large numbers', (values) => ({
    x: values.normal(130, 1e15),
    residual: null,
    weight: null,
    bias: null,
    y: out(130),
    sum: null,
    mean: null,
    rstd: out(1),
    ...{ rows: 1, d: 130, eps: 1e-5, center: 0 },
  })),
  // E[s^2] - E[s]^2 would lose the variance: it is 1e-4 of the squared mean.
  define('norm', 'layer: a mean of 100', (values) => ({
    x: values.normal(3 * 65, 1, 100),
    residual: null,
    weight: null,
    bias: null,
    y: out(3 * 65),
    sum: null,
    mean: out(3),
    rstd: out(3),
    ...{ rows: 3, d: 65, eps: 1e-5, center: 1 },
  })),
];
