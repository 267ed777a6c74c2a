/**
 * The part of the kernel contract (kernels.ts says how to read it) that carries a state along a sequence:
 * conv, scan, ssd; the lengths at which they cut it, and the sizes of their scratch.
 */

/** Steps per scan chunk: the backward pass keeps one state per chunk and recomputes the rest. */
export const SCAN_CHUNK = 64;
/** The backward scan splits the channels of one batch row into this many independent parts (fixed: results must
 *  not depend on the thread count); each part owns a slice of the partial sums of dB and dC. */
export const SCAN_PARTS = 4;
/** Default chunk of ssd: how far apart its checkpoints are. Measured: as fast as 64 with half the memory; 256 is
 *  slower, because the backward pass computes more again. */
export const SSD_CHUNK = 128;
/** Rows (tokens times ranks) that ssd takes at a time, inside a chunk of any length. */
export const SSD_ROWS = 64;
/** The backward pass of ssd splits the heads of one group of one batch row into at most this many independent
 *  parts; each owns a slice of the partial sums of dB and dC. */
export const SSD_PARTS = 4;
/** The widest head (p), the largest state (n) and the most ranks that ssd takes: its scratch ends there. */
export const SSD_WIDTH = 2048;
export const SSD_RANKS = 64;
/** Where causalConv may cut its channels in parts: at multiples of the longest vector. */
export const CONV_CUT = 16;

export const SEQUENCE_KERNELS = {
  // The family conv.
  /** Depthwise causal convolution: y[t] = f(bias + sum_j weight[., j] x[t - k + 1 + j]), f = silu or identity.
   *  x (b, l, e), weight (e, k), window (b, e, k) = the last k inputs before x, oldest first (null = zeros).
   *  sequenceIds (b, l): inputs of another id count as zero; the window belongs to the id of token 0.
   *  lengths (b): tokens at t >= lengths[b] do not exist: y is 0 there.
   *  windowOut (b, e, k) = the last k inputs after the last token (zeros for inputs of another id); may be
   *  window. y is cut in three parts, channels [0, cut1), [cut1, cut2) and [cut2, e), that stand one behind the other, each
   *  (b, l, its channels); a cut is a multiple of CONV_CUT or e. */
  causalConv: {
    x: 'in',
    weight: 'in',
    bias: 'in?',
    window: 'in?',
    sequenceIds: 'ids?',
    lengths: 'ids?',
    y: 'out',
    windowOut: 'out?',
    b: 'int',
    l: 'int',
    e: 'int',
    k: 'int',
    silu: 'int',
    cut1: 'int',
    cut2: 'int',
  }, // prettier-ignore
  /** Gradients of causalConv; dwindowOut is the gradient of windowOut (null = none).
   *  `partial` is scratch of b * e * (k + 1). dx is 0 at t >= lengths[b] (except through windowOut: also 0). */
  causalConvGrad: {
    x: 'in',
    weight: 'in',
    bias: 'in?',
    window: 'in?',
    sequenceIds: 'ids?',
    lengths: 'ids?',
    dy: 'in',
    dwindowOut: 'in?',
    dx: 'out',
    dweight: 'out',
    dbias: 'out?',
    dwindow: 'out?',
    partial: 'out',
    b: 'int',
    l: 'int',
    e: 'int',
    k: 'int',
    silu: 'int',
  }, // prettier-ignore

  // The family scan.
  /** Mamba-1 selective scan (Gu and Dao 2023, algorithm 2). With dt = f(delta + deltaBias), f = softplus or identity:
   *  h[t] = exp(dt A) h[t-1] + dt B[t] u[t] ;  y[t] = (C[t] . h[t] + D u[t]) * silu(z[t])   (last factor only with z).
   *  u, delta, z, y (b, l, e); A (e, n); B and C: (e, n) when bGroups/cGroups is 0, else (b, l, g, n) with channel c in
   *  group floor(c / (e / g)); D, deltaBias (e). state (b, e, n) enters (null = zeros), stateOut leaves, may
   * be state.  A change of sequenceIds (b, l) between t-1 and t sets h[t-1] to 0 (the incoming state belongs
   * to token 0).  t >= lengths[b]: y = 0 and h is left alone. checkpoints (b, ceil(l / SCAN_CHUNK), e, n)
   * receives the state *before*  each chunk, for the backward pass (null when no gradient is needed). y may
   * alias u, delta or z. */
  selectiveScan: {
    u: 'in',
    delta: 'in',
    A: 'in',
    B: 'in',
    C: 'in',
    D: 'in?',
    z: 'in?',
    deltaBias: 'in?',
    state: 'in?',
    sequenceIds: 'ids?',
    lengths: 'ids?',
    y: 'out',
    stateOut: 'out',
    checkpoints: 'out?',
    b: 'int',
    l: 'int',
    e: 'int',
    n: 'int',
    bGroups: 'int',
    cGroups: 'int',
    softplus: 'int',
  }, // prettier-ignore
  /** Gradients of selectiveScan by recomputation from `checkpoints`. dstateOut: gradient of stateOut (null = none).
   *  `partial` is scratch of scanPartialSize() elements. Gradients at t >= lengths[b] are 0. du may alias dy? no. */
  selectiveScanGrad: {
    u: 'in',
    delta: 'in',
    A: 'in',
    B: 'in',
    C: 'in',
    D: 'in?',
    z: 'in?',
    deltaBias: 'in?',
    sequenceIds: 'ids?',
    lengths: 'ids?',
    checkpoints: 'in',
    dy: 'in',
    dstateOut: 'in?',
    du: 'out',
    ddelta: 'out',
    dA: 'out',
    dB: 'out',
    dC: 'out',
    dD: 'out?',
    dz: 'out?',
    ddeltaBias: 'out?',
    dstate: 'out?',
    partial: 'out',
    b: 'int',
    l: 'int',
    e: 'int',
    n: 'int',
    bGroups: 'int',
    cGroups: 'int',
    softplus: 'int',
  }, // prettier-ignore

  // The family ssd.
  /** State space duality (Dao and Gu 2024), with ranks (Mamba-3's MIMO). Per head, with the state S (p, n):
   *  S[t] = exp(decay[t]) S[t-1] + scale[t] sum_r x[t,r] B[t,r]^T
   *  y[t,r] = (exp(decay[t]) S[t-1] + own[t] sum_r' x[t,r'] B[t,r']^T) C[t,r] + D x[t,r]
   *  x, y (b, l, r, h, p); decay <= 0, scale, own (b, l, h); own null = scale; B, C (b, l, r, g, n) with head i in
   *  group floor(i / (h / g)); D (h), or (h, p) when dWidth is p instead of 1. state (b, h, p, n) enters (null =
   *  zeros), stateOut leaves and may be state. sequenceIds and lengths as in selectiveScan.
   *  What the token before token 0 still gives to those that follow it, where there is one (null = nothing): lastWeight (b, h)
   *  times sum_r lastX[r] lastB[r]^T, of lastX (b, r, h, p) and lastB (b, r, g, n), is added to the state that enters.
   *  Computed chunk by chunk of q tokens: q changes the rounding only, and a row that is cut at multiples of q gives
   *  the same bits as the whole. checkpoints (b, ceil(l / q), h, p, n) receives the state *before* each chunk (null
   *  when no gradient is needed). `partial` is scratch of ssdPartialSize() elements. p and n <= SSD_WIDTH,
   *  r <= SSD_RANKS. With precision 1 the products with the state and into it may round their factors to bfloat16, where
   *  the device is faster then; 0 = float32. */
  ssd: {
    x: 'in',
    decay: 'in',
    scale: 'in',
    own: 'in?',
    B: 'in',
    C: 'in',
    D: 'in?',
    state: 'in?',
    lastX: 'in?',
    lastB: 'in?',
    lastWeight: 'in?',
    sequenceIds: 'ids?',
    lengths: 'ids?',
    y: 'out',
    stateOut: 'out',
    checkpoints: 'out?',
    partial: 'out',
    b: 'int',
    l: 'int',
    r: 'int',
    h: 'int',
    p: 'int',
    g: 'int',
    n: 'int',
    q: 'int',
    dWidth: 'int',
    precision: 'int',
  }, // prettier-ignore
  /** Gradients of ssd by recomputation from `checkpoints` (same q). dstateOut: gradient of stateOut (null = none);
   *  down is given exactly when own is. `partial` is scratch of ssdGradPartialSize() elements. Gradients at
   *  t >= lengths[b] are 0. */
  ssdGrad: {
    x: 'in',
    decay: 'in',
    scale: 'in',
    own: 'in?',
    B: 'in',
    C: 'in',
    D: 'in?',
    sequenceIds: 'ids?',
    lengths: 'ids?',
    checkpoints: 'in',
    dy: 'in',
    dstateOut: 'in?',
    dx: 'out',
    ddecay: 'out',
    dscale: 'out',
    down: 'out?',
    dB: 'out',
    dC: 'out',
    dD: 'out?',
    dstate: 'out?',
    partial: 'out',
    b: 'int',
    l: 'int',
    r: 'int',
    h: 'int',
    p: 'int',
    g: 'int',
    n: 'int',
    q: 'int',
    dWidth: 'int',
  }, // prettier-ignore
} as const;

/**
 * Elements of `partial` in selectiveScanGrad: per batch row dA, dD, ddeltaBias and constant dB,
 * dC; per part token-wise dB, dC.
 */
export function scanPartialSize(
  b: number,
  l: number,
  e: number,
  n: number,
  bGroups: number,
  cGroups: number,
): number {
  const perRow = e * (n + 2) + (bGroups === 0 ? e * n : 0) + (cGroups === 0 ? e * n : 0);
  return b * perRow + SCAN_PARTS * b * l * n * (bGroups + cGroups);
}

/**
 * The tokens that ssd takes at a time: equal pieces of a chunk, of up to
 * SSD_ROWS rows and at least one token.
 */
function ssdPieceTokens(r: number, q: number): number {
  const most = Math.max(1, Math.floor(SSD_ROWS / r));
  return Math.ceil(q / Math.ceil(q / most));
}

/** Rounded up to whole vectors of any instruction set. */
const padded = (n: number) => Math.ceil(n / 16) * 16;

/**
 * Elements of `partial` in ssd: for every row of every group its products C B^T with the rows of its piece.
 */
export function ssdPartialSize(b: number, l: number, r: number, g: number, q: number): number {
  return b * g * l * r * padded(ssdPieceTokens(r, q) * r);
}

/** Elements of `partial` in ssdGrad: C B^T; per part of the heads its gradient, dB and dC, the states inside one
 *  chunk and a transposed one; per head the gradient of the state and dD. */
export function ssdGradPartialSize(
  b: number,
  l: number,
  r: number,
  h: number,
  p: number,
  g: number,
  n: number,
  q: number,
): number {
  const width = padded(ssdPieceTokens(r, q) * r);
  const pieces = Math.ceil(Math.min(q, l) / ssdPieceTokens(r, q));
  const perPart = l * r * (width + 2 * padded(n)) + pieces * p * padded(n) + n * padded(p);
  const perHead = p * padded(n) + padded(p);
  return b * g * (l * r * width + Math.min(h / g, SSD_PARTS) * perPart) + b * h * perHead;
}
