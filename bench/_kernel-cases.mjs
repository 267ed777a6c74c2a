/**
 * One call of each main kernel, by the names of its operands (src/backend/kernels.ts): buffers as [count, low, high] of random floats,
 * as `bits(count)` or `ids(count, below)`. Operands that are not named here are null, or 0 where they are numbers.
 */
import { KERNELS } from '../dist/backend/index.js';

const bits = (units) => ({ line: `b ${units}` });
const ids = (count, below) => ({ line: `i ${count} ${below}` });
const floats = (count) => [count, -1, 1];
/** More than any kernel asks for; untouched pages cost nothing. */
const SCRATCH = [1 << 22, 0, 0];

const FORMATS = { bf16: [0, 16], f16: [1, 16], q8: [2, 8.5], q4: [3, 4.5] };

function matmul(m, n, k) {
  const operands = { a: floats(m * k), b: floats(n * k), c: floats(m * n), batch: 1, m, n, k, transB: 1 };
  return [`matmul ${m} x ${n} x ${k}`, 'matmul', operands];
}

function narrow(type, m, n, k) {
  const [format, size] = FORMATS[type];
  const operands = { a: floats(m * k), w: bits((n * k * size) / 16), c: floats(m * n), m, n, k, format };
  return [`linearNarrow ${type} ${m} x ${n} x ${k}`, 'linearNarrow', operands];
}

function sequence() {
  const [b, l, e, n, k] = [1, 128, 512, 16, 4];
  const [h, p, g, s, q] = [8, 64, 1, 64, 128];
  const bl = b * l;
  const conv = { x: floats(bl * e), weight: floats(e * k), bias: floats(e), b, l, e, k, silu: 1 };
  const scan = {
    u: floats(bl * e),
    delta: [bl * e, -4, 0],
    A: [e * n, -1, -0.1],
    B: floats(bl * n),
    C: floats(bl * n),
    D: floats(e),
    z: floats(bl * e),
    deltaBias: floats(e),
    b,
    l,
    e,
    n,
    bGroups: 1,
    cGroups: 1,
    softplus: 1,
  };
  const checkpoints = floats(b * Math.ceil(l / 64) * e * n);
  const ssd = {
    x: floats(bl * h * p),
    decay: [bl * h, -1, -0.01],
    scale: [bl * h, 0.01, 0.1],
    B: floats(bl * g * s),
    C: floats(bl * g * s),
    D: floats(h),
    partial: SCRATCH,
    b,
    l,
    r: 1,
    h,
    p,
    g,
    n: s,
    q,
    dWidth: 1,
  };
  const ssdCheckpoints = floats(b * h * p * s * Math.ceil(l / q));
  const size = `${l} x ${e}`;
  const ssdSize = `${l} x ${h} heads of ${p}, state ${s}`;
  return [
    [`causalConv ${size}`, 'causalConv', { ...conv, y: floats(bl * e), windowOut: floats(b * e * k) }],
    [
      `causalConvGrad ${size}`,
      'causalConvGrad',
      {
        ...conv,
        dy: floats(bl * e),
        dx: floats(bl * e),
        dweight: floats(e * k),
        dbias: floats(e),
        partial: SCRATCH,
      },
    ],
    [
      `selectiveScan ${size}, state ${n}`,
      'selectiveScan',
      { ...scan, y: floats(bl * e), stateOut: floats(b * e * n), checkpoints },
    ],
    [
      `selectiveScanGrad ${size}, state ${n}`,
      'selectiveScanGrad',
      {
        ...scan,
        checkpoints,
        dy: floats(bl * e),
        du: floats(bl * e),
        ddelta: floats(bl * e),
        dA: floats(e * n),
        dB: floats(bl * n),
        dC: floats(bl * n),
        dD: floats(e),
        dz: floats(bl * e),
        ddeltaBias: floats(e),
        partial: SCRATCH,
      },
    ],
    [
      `ssd ${ssdSize}`,
      'ssd',
      { ...ssd, y: floats(bl * h * p), stateOut: floats(b * h * p * s), checkpoints: ssdCheckpoints },
    ],
    [
      `ssdGrad ${ssdSize}`,
      'ssdGrad',
      {
        ...ssd,
        checkpoints: ssdCheckpoints,
        dy: floats(bl * h * p),
        dx: floats(bl * h * p),
        ddecay: floats(bl * h),
        dscale: floats(bl * h),
        dB: floats(bl * g * s),
        dC: floats(bl * g * s),
        dD: floats(h),
      },
    ],
  ];
}

function rest() {
  const [rows, d, v, count] = [128, 768, 4096, 1 << 18];
  const rates = {
    lr: 1e-3,
    beta1: 0.9,
    beta2: 0.95,
    eps: 1e-8,
    weightDecay: 0.1,
    correction1: 0.1,
    correction2: 0.05,
  };
  const adamw = {
    param: floats(count),
    grad: floats(count),
    m: floats(count),
    v: [count, 0, 1],
    count,
    ...rates,
  };
  const norm = { x: floats(rows * d), residual: floats(rows * d), weight: floats(d), rows, d, eps: 1e-5 };
  const loss = { logits: floats(16 * v), targets: ids(16, v), lse: [16, 8, 9], rows: 16, v, ignore: -100 };
  return [
    [
      `norm ${rows} x ${d}`,
      'norm',
      { ...norm, y: floats(rows * d), sum: floats(rows * d), rstd: floats(rows) },
    ],
    [`adamw ${count}`, 'adamw', adamw],
    [`crossEntropy 16 x ${v}`, 'crossEntropy', { ...loss, loss: floats(16), valid: floats(16) }],
    [
      `crossEntropyGrad 16 x ${v}`,
      'crossEntropyGrad',
      { ...loss, dloss: floats(16), dlogits: floats(16 * v) },
    ],
  ];
}

/** [label, kernel, operands] of every case. */
export const CASES = [
  matmul(64, 768, 768),
  matmul(1, 3072, 768),
  ...Object.keys(FORMATS).flatMap((type) => [narrow(type, 64, 768, 768), narrow(type, 1, 3072, 768)]),
  ...sequence(),
  ...rest(),
];

/** The input of native/bench/instructions.cc for one case. */
export function callText([label, kernel, operands]) {
  const spec = KERNELS[kernel];
  const unknown = Object.keys(operands).find((name) => !(name in spec));
  if (unknown) throw new Error(`${label}: expected operands of ${kernel}, got ${unknown}.`);
  const lines = Object.entries(spec).map(([name, kind]) => {
    const value = operands[name];
    if (Array.isArray(value)) return `f ${value.join(' ')}`;
    if (value?.line) return value.line;
    if (value !== undefined) return `n ${value}`;
    if (kind === 'int' || kind === 'num') return 'n 0';
    if (kind.endsWith('?')) return 'n -1';
    throw new Error(`${label}: expected a buffer for ${name} of ${kernel}, got none.`);
  });
  return `call ${kernel} ${lines.length}\n${lines.join('\n')}\n`;
}
