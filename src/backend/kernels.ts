/**
 * The kernel contract: every kernel's name, and its operands in the order in which the C ABI receives them.
 *
 * Operand kinds: `in`/`out`/`io` are float32 buffers, `ids`/`idsOut` int32 buffers, `bits`/`bitsOut` raw
 * storage in units of 16 bits (bf16, f16, and the blocks of q8 and q4); a trailing `?` means that null may be
 * passed; `int` and `num` are plain numbers (booleans are ints 0/1). All buffers are contiguous, row-major,
 * and start at `offset` elements. `out` buffers are overwritten and need no clearing. Unless a comment says
 * otherwise, outputs may not alias inputs.
 *
 * Letters: b batch, l length, d model width, e inner channels, n state size, g groups, k conv width, q chunk,
 * v vocabulary, h heads, p width of a head, r ranks.
 */
import { HEAD_KERNELS } from './kernels-heads.ts';
import { SEQUENCE_KERNELS } from './kernels-sequence.ts';

export * from './kernels-heads.ts';
export * from './kernels-sequence.ts';

export const UNARY = [
  'neg',
  'exp',
  'log',
  'sqrt',
  'rsqrt',
  'square',
  'abs',
  'reciprocal',
  'sigmoid',
  'silu',
  'softplus',
  'tanh',
  'relu',
  'gelu',
  'sin',
  'cos',
] as const; // prettier-ignore
export type UnaryOp = (typeof UNARY)[number];

export const BINARY = ['add', 'sub', 'mul', 'div', 'max', 'min'] as const;
export type BinaryOp = (typeof BINARY)[number];

/**
 * Storage formats of weights, as `format` counts them. q8 and q4 are blocks of 32
 * (base/blocks.ts) in panels (base/panels.ts).
 */
export const NARROW = ['bf16', 'f16', 'q8', 'q4'] as const;

export const KERNELS = {
  // The family elementwise.
  /**
   * y = op(x); `op` indexes UNARY. softplus is the identity above 20; gelu is the
   * exact erf form. y may alias x.
   */
  unary: { op: 'int', x: 'in', y: 'out', count: 'int' },
  /** dx = dy * op'(x), given y = op(x). dx may alias dy. */
  unaryGrad: { op: 'int', x: 'in', y: 'in', dy: 'in', dx: 'out', count: 'int' },
  /** y = a op b over the shape (d0, d1, d2, d3); a0..a3 and b0..b3 are element strides, 0 where broadcast.
   *  `op` indexes BINARY. y is contiguous and may alias an operand that is not broadcast. */
  binary: {
    op: 'int',
    a: 'in',
    b: 'in',
    y: 'out',
    d0: 'int',
    d1: 'int',
    d2: 'int',
    d3: 'int',
    a0: 'int',
    a1: 'int',
    a2: 'int',
    a3: 'int',
    b0: 'int',
    b1: 'int',
    b2: 'int',
    b3: 'int',
  }, // prettier-ignore
  /** y = x * scale + shift. y may alias x. */
  affine: { x: 'in', y: 'out', scale: 'num', shift: 'num', count: 'int' },
  /** y += alpha * x. */
  axpy: { x: 'in', y: 'io', alpha: 'num', count: 'int' },
  fill: { y: 'out', value: 'num', count: 'int' },
  /** One AdamW step with decoupled decay (Loshchilov and Hutter 2019, the form of torch.optim.AdamW):
   *  c = sumSquares ? min(1, maxNorm / (sqrt(sumSquares[0]) + 1e-6)) : 1 ; g = grad * c ; param *= 1 - lr * weightDecay
   *  m += (1 - beta1)(g - m) ; v = beta2 v + (1 - beta2) g^2
   *  param -= lr / correction1 * m / (sqrt(v) / sqrt(correction2) + eps). */
  adamw: {
    param: 'io',
    grad: 'in',
    m: 'io',
    v: 'io',
    sumSquares: 'in?',
    count: 'int',
    lr: 'num',
    beta1: 'num',
    beta2: 'num',
    eps: 'num',
    weightDecay: 'num',
    correction1: 'num',
    correction2: 'num',
    maxNorm: 'num',
  }, // prettier-ignore

  // The family reduce.
  /** x (outer, axis, inner) -> y (outer, inner). */
  sum: { x: 'in', y: 'out', outer: 'int', axis: 'int', inner: 'int' },
  max: { x: 'in', y: 'out', outer: 'int', axis: 'int', inner: 'int' },
  /** The first index of the largest element along the axis. */
  argmax: { x: 'in', y: 'idsOut', outer: 'int', axis: 'int', inner: 'int' },
  /** y[0] = sum of x^2 (+ y[0] if accumulate), added up in float64. */
  sumSquares: { x: 'in', y: 'io', count: 'int', accumulate: 'int' },

  // The family copy.
  /** y contiguous (d0..d5) <- x read with element strides s0..s5. Moves 4-byte elements of any dtype. */
  copy: {
    x: 'in',
    y: 'out',
    d0: 'int',
    d1: 'int',
    d2: 'int',
    d3: 'int',
    d4: 'int',
    d5: 'int',
    s0: 'int',
    s1: 'int',
    s2: 'int',
    s3: 'int',
    s4: 'int',
    s5: 'int',
  }, // prettier-ignore
  /** y written with element strides s0..s5 <- x contiguous (d0..d5); adds to y if accumulate. */
  scatter: {
    x: 'in',
    y: 'io',
    d0: 'int',
    d1: 'int',
    d2: 'int',
    d3: 'int',
    d4: 'int',
    d5: 'int',
    s0: 'int',
    s1: 'int',
    s2: 'int',
    s3: 'int',
    s4: 'int',
    s5: 'int',
    accumulate: 'int',
  }, // prettier-ignore
  /** y (count, d) = table (rows, d)[ids]; ids are in range (checked before). */
  gatherRows: { table: 'in', ids: 'ids', y: 'out', count: 'int', rows: 'int', d: 'int' },
  /** table (rows, d)[ids] += x (count, d), in the order of ids. */
  scatterAddRows: { x: 'in', ids: 'ids', table: 'io', count: 'int', rows: 'int', d: 'int' },

  // The family matmul.
  /** c (m, n) = op(a) op(b) + bias (n), added to c if accumulate; a is stored (m, k), or (k, m) if transA; b is (k, n), or
   *  (n, k) if transB. `batch` such products, strideA/B/C elements apart (0 reuses the operand; never for c).
   *  `precision` 0: float32. 1: a and b rounded to bfloat16 (nearest even), their products added up in float32. */
  matmul: {
    a: 'in',
    b: 'in',
    c: 'io',
    bias: 'in?',
    batch: 'int',
    m: 'int',
    n: 'int',
    k: 'int',
    transA: 'int',
    transB: 'int',
    strideA: 'int',
    strideB: 'int',
    strideC: 'int',
    accumulate: 'int',
    precision: 'int',
  }, // prettier-ignore

  // The family narrow. `format` indexes NARROW; every widened value is exact in float32. `d` is
  // a multiple of 32 for q8 and q4.
  /** float32 y (rows, d) <- narrow. */
  widen: { x: 'bits', y: 'out', format: 'int', rows: 'int', d: 'int' },
  /** 16-bit <- float32, round to nearest even; `format` is bf16 or f16. */
  narrow: { x: 'in', y: 'bitsOut', format: 'int', count: 'int' },
  /** The panels y of a tensor with rows of d elements <- `count` blocks x, the first of which is block `first` of the tensor,
   *  counted row by row. The rest of y keeps its values. `format` is q8 or q4. */
  pack: { x: 'bits', y: 'bitsOut', format: 'int', d: 'int', first: 'int', count: 'int' },
  /** `count` blocks y <- panels x, from block `first` on. */
  unpack: { x: 'bits', y: 'bitsOut', format: 'int', d: 'int', first: 'int', count: 'int' },
  /** c (m, n) = a (m, k) w[row .. row + n]^T + bias (n); w is stored (rows, k), k a multiple of 32 for q8 and q4.
   *  bf16 and f16: the same bits as `matmul` with transB and this precision on the widened rows. q8 and q4: a is rounded to integers
   *  too, per row and block of 32: a = s q, s = max |a| / levels, levels 32512, or 127 with precision 2. The sum of a block is an exact
   *  integer, c = sum of s d (sum of q qw) over blocks in order, in float32: the same bits for any m, row and split. A block with a
   *  number that is not finite makes c NaN. Precision 1 says nothing here, nor 2 above. */
  linearNarrow: {
    a: 'in',
    w: 'bits',
    c: 'out',
    bias: 'in?',
    m: 'int',
    n: 'int',
    k: 'int',
    format: 'int',
    row: 'int',
    precision: 'int',
  }, // prettier-ignore
  /** y (count, d) = the widened rows table (rows, d)[ids]; ids are in range (checked before). */
  gatherRowsNarrow: {
    table: 'bits',
    ids: 'ids',
    y: 'out',
    count: 'int',
    rows: 'int',
    d: 'int',
    format: 'int',
  }, // prettier-ignore

  // The family norm.
  /** s = x + residual (rows, d); center 0: y = s * rsqrt(mean(s^2) + eps) * weight (RMS); center 1: LayerNorm with bias.
   *  `sum` receives s, `rstd` (rows) and `mean` (rows; center 1 only) are kept for the backward pass.
   *  weight null = 1, bias null = 0. `sum` may alias x or residual. */
  norm: {
    x: 'in',
    residual: 'in?',
    weight: 'in?',
    bias: 'in?',
    y: 'out',
    sum: 'out?',
    mean: 'out?',
    rstd: 'out',
    rows: 'int',
    d: 'int',
    eps: 'num',
    center: 'int',
  }, // prettier-ignore
  /** ds = gradient into s = x + residual (both get it), including dsum, the gradient that arrives through the `sum` output.
   *  `s` is that sum. `partial` is scratch of NORM_BLOCKS * 2 * d: block i adds rows [i * ceil(rows / NORM_BLOCKS), ...). */
  normGrad: {
    s: 'in',
    weight: 'in?',
    mean: 'in?',
    rstd: 'in',
    dy: 'in',
    dsum: 'in?',
    ds: 'out',
    dweight: 'out?',
    dbias: 'out?',
    partial: 'out',
    rows: 'int',
    d: 'int',
    center: 'int',
  }, // prettier-ignore

  /** The norm that closes a Mamba-2 block: RMS over each group of groupSize channels, times weight (d), with a gate
   *  silu(z) on its input, y = norm(x silu(z)), or with normBeforeGate 1 on its output, y = norm(x) silu(z). z null =
   *  no gate. weight null = no norm: y = x silu(z), and groupSize, normBeforeGate and eps say nothing.
   *  x, z, y (rows, d); groupSize divides d. */
  gatedNorm: {
    x: 'in',
    z: 'in?',
    weight: 'in?',
    y: 'out',
    rows: 'int',
    d: 'int',
    groupSize: 'int',
    normBeforeGate: 'int',
    eps: 'num',
  }, // prettier-ignore
  /** Gradients of gatedNorm. dz is given exactly when z is. `partial` is scratch of NORM_BLOCKS * d. */
  gatedNormGrad: {
    x: 'in',
    z: 'in?',
    weight: 'in?',
    dy: 'in',
    dx: 'out',
    dz: 'out?',
    dweight: 'out?',
    partial: 'out',
    rows: 'int',
    d: 'int',
    groupSize: 'int',
    normBeforeGate: 'int',
    eps: 'num',
  }, // prettier-ignore

  // Along a sequence: conv, scan, ssd.
  ...SEQUENCE_KERNELS,
  // On heads: rotation, attention.
  ...HEAD_KERNELS,

  // The family loss.
  /** Per row: lse = log sum exp(logits), loss = lse - logits[target], valid = 1; rows whose target equals `ignore` get
   *  loss 0 and valid 0. logits (rows, v). */
  crossEntropy: {
    logits: 'in',
    targets: 'ids',
    loss: 'out',
    lse: 'out',
    valid: 'out',
    rows: 'int',
    v: 'int',
    ignore: 'int',
  }, // prettier-ignore
  /** dlogits = dloss[row] * (softmax - onehot), 0 for ignored rows. dlogits may alias logits. */
  crossEntropyGrad: {
    logits: 'in',
    targets: 'ids',
    lse: 'in',
    dloss: 'in',
    dlogits: 'out',
    rows: 'int',
    v: 'int',
    ignore: 'int',
  }, // prettier-ignore
} as const;
