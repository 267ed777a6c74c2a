/**
 * The part of the kernel contract (kernels.ts says how to read it) that runs along a sequence: conv, scan, ssd, rotation, attention; the
 * lengths at which they cut it, and the sizes of their scratch.
 */

/** Row blocks whose partial weight gradients `normGrad` and `turnHeadsGrad` add up in order. */
export const NORM_BLOCKS = 32;
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
/** Heads whose share of dangle is added up at once; angleScanGrad then adds these sums (fixed: results must not depend on
 *  the thread count). */
export const ANGLE_HEADS = 8;
/** Keys that attention takes at a time, counted from the first key of a document: once per block it may rescale its sums. */
export const ATTENTION_BLOCK = 128;
/** The widest head (d) that attention takes. */
export const ATTENTION_WIDTH = 512;

export const SEQUENCE_KERNELS = {
  // The family conv.
  /** Depthwise causal convolution: y[t] = f(bias + sum_j weight[., j] x[t - k + 1 + j]), f = silu or identity.
   *  x (b, l, e), weight (e, k), window (b, e, k) = the last k inputs before x, oldest first (null = zeros).
   *  sequenceIds (b, l): inputs of another id count as zero; the window belongs to the id of token 0.
   *  lengths (b): tokens at t >= lengths[b] do not exist: y is 0 there.
   *  windowOut (b, e, k) = the last k inputs after the last token (zeros for inputs of another id); may be
   * window. */
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
   *  r <= SSD_RANKS. */
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

  // The family rotation. Letters: s rotated pairs, r ranks.
  /** The angles of Mamba-3: theta[t] = theta[t-1] + pi tanh(angle[t]) dt[t] modulo 2 pi, in [0, 2 pi); carried in
   *  float64, rounded where stored. angle (b, l, s) is shared by the heads; dt (b, l, h), theta (b, l, h, s).
   *  state (b, h, s) enters (null = zeros), stateOut leaves and may be state.
   *  A change of sequenceIds (b, l) between t-1 and t sets theta[t-1] to 0 (the incoming state belongs to token 0).
   *  t >= lengths[b]: theta = 0 and the state is left alone. */
  angleScan: {
    angle: 'in',
    dt: 'in',
    state: 'in?',
    sequenceIds: 'ids?',
    lengths: 'ids?',
    theta: 'out',
    stateOut: 'out',
    b: 'int',
    l: 'int',
    h: 'int',
    s: 'int',
  }, // prettier-ignore
  /** Gradients of angleScan; dstateOut: gradient of stateOut (null = none). Gradients at t >= lengths[b] are 0.
   *  `partial` is scratch of anglePartialSize() elements. */
  angleScanGrad: {
    angle: 'in',
    dt: 'in',
    sequenceIds: 'ids?',
    lengths: 'ids?',
    dtheta: 'in',
    dstateOut: 'in?',
    dangle: 'out',
    ddt: 'out',
    dstate: 'out?',
    partial: 'out',
    b: 'int',
    l: 'int',
    h: 'int',
    s: 'int',
  }, // prettier-ignore
  /** Turns pair i < s of every vector by theta[i], |theta| <= 1e4: with i0 = i * step and i1 = i0 + gap,
   *  y[i0] = x[i0] cos - x[i1] sin ;  y[i1] = x[i0] sin + x[i1] cos. Other elements are copied.
   *  x, y (tokens, r, h, n); theta (tokens, heads, s) with heads = h, or 1 (shared).
   *  Either step 2 with gap 1, or step 1 with gap >= s. */
  rotate: {
    x: 'in',
    theta: 'in',
    y: 'out',
    tokens: 'int',
    r: 'int',
    h: 'int',
    n: 'int',
    s: 'int',
    heads: 'int',
    step: 'int',
    gap: 'int',
  }, // prettier-ignore
  /** Gradients of rotate from its result y: dx = dy turned back, dtheta = sum of dy[i1] y[i0] - dy[i0] y[i1] over r, and over
   *  h if heads is 1. */
  rotateGrad: {
    y: 'in',
    theta: 'in',
    dy: 'in',
    dx: 'out',
    dtheta: 'out?',
    tokens: 'int',
    r: 'int',
    h: 'int',
    n: 'int',
    s: 'int',
    heads: 'int',
    step: 'int',
    gap: 'int',
  }, // prettier-ignore

  /** B and C of Mamba-3 become keys and queries: K = rotate(rms(B) bWeight + bBias, theta) per rank and head, with rms(B) = B / sqrt(mean(B^2) +
   *  eps) over the n elements of head i's group floor(i / (h / g)); Q the same of C. x (tokens, 2, r, g, n) is B and C of each token;
   *  weights (n), biases (h, r, n), theta (tokens, h, s), K and Q (tokens, r, h, n). step and gap as in rotate. */
  turnHeads: {
    x: 'in',
    bWeight: 'in',
    cWeight: 'in',
    bBias: 'in',
    cBias: 'in',
    theta: 'in',
    K: 'out',
    Q: 'out',
    tokens: 'int',
    r: 'int',
    h: 'int',
    g: 'int',
    n: 'int',
    s: 'int',
    step: 'int',
    gap: 'int',
    eps: 'num',
  }, // prettier-ignore
  /** Gradients of turnHeads. `partial` is scratch of NORM_BLOCKS * 2 (h r + 1) n elements: block i adds tokens
   *  [i * ceil(tokens / NORM_BLOCKS), ...). */
  turnHeadsGrad: {
    x: 'in',
    bWeight: 'in',
    cWeight: 'in',
    bBias: 'in',
    cBias: 'in',
    theta: 'in',
    dK: 'in',
    dQ: 'in',
    dx: 'out',
    dbWeight: 'out',
    dcWeight: 'out',
    dbBias: 'out',
    dcBias: 'out',
    dtheta: 'out',
    partial: 'out',
    tokens: 'int',
    r: 'int',
    h: 'int',
    g: 'int',
    n: 'int',
    s: 'int',
    step: 'int',
    gap: 'int',
    eps: 'num',
  }, // prettier-ignore

  // The family attention.
  /** Causal softmax attention over keys k and values v (b, c, hk, d), of which row i holds past[i] from before token 0; token t's
   *  own key is at past[i] + t. Query head i of q (b, l, hq, d) reads kv head floor(i / (hq / hk)).
   *  y = sum_j softmax_j(softmaxScale q . k[j]) v[j] over the keys j <= past + t of the token's document; sequenceIds (b, l)
   *  as in selectiveScan: the keys before token 0 belong to its document. lse (b, l, hq) = log sum_j exp(score).
   *  t >= lengths[b]: y and lse are 0, and keys from past + lengths[b] on are not read. d <= ATTENTION_WIDTH. */
  attention: {
    q: 'in',
    k: 'in',
    v: 'in',
    past: 'ids',
    sequenceIds: 'ids?',
    lengths: 'ids?',
    y: 'out',
    lse: 'out',
    b: 'int',
    l: 'int',
    c: 'int',
    hq: 'int',
    hk: 'int',
    d: 'int',
    softmaxScale: 'num',
  }, // prettier-ignore
  /** Gradients of attention, from lse and y by recomputation. `partial` is scratch of attentionPartialSize() elements.
   *  dq at t >= lengths[b], and dk and dv of keys that no token sees, are 0. */
  attentionGrad: {
    q: 'in',
    k: 'in',
    v: 'in',
    past: 'ids',
    sequenceIds: 'ids?',
    lengths: 'ids?',
    y: 'in',
    lse: 'in',
    dy: 'in',
    dq: 'out',
    dk: 'out',
    dv: 'out',
    partial: 'out',
    b: 'int',
    l: 'int',
    c: 'int',
    hq: 'int',
    hk: 'int',
    d: 'int',
    softmaxScale: 'num',
  }, // prettier-ignore
} as const;

/** Elements of `partial` in selectiveScanGrad: per batch row dA, dD, ddeltaBias and constant dB, dC; per part token-wise dB, dC. */
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

/** The tokens that ssd takes at a time: equal pieces of a chunk, of up to SSD_ROWS rows and at least one token. */
function ssdPieceTokens(r: number, q: number): number {
  const most = Math.max(1, Math.floor(SSD_ROWS / r));
  return Math.ceil(q / Math.ceil(q / most));
}

/** Rounded up to whole vectors of any instruction set. */
const padded = (n: number) => Math.ceil(n / 16) * 16;

/** Elements of `partial` in ssd: for every row of every group its products C B^T with the rows of its piece. */
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

/** Elements of `partial` in angleScanGrad: for each block of ANGLE_HEADS heads, its share of dangle. */
export function anglePartialSize(b: number, l: number, h: number, s: number): number {
  return b * Math.ceil(h / ANGLE_HEADS) * l * s;
}

/** Elements of `partial` in turnHeadsGrad: per block of tokens, the gradients of both biases and both weights. */
export function turnHeadsPartialSize(h: number, r: number, n: number): number {
  return NORM_BLOCKS * 2 * (h * r + 1) * n;
}

/** Elements of `partial` in attentionGrad: dy . y of every token and head; dk and dv per query head, where several share a kv head. */
export function attentionPartialSize(
  b: number,
  l: number,
  c: number,
  hq: number,
  hk: number,
  d: number,
): number {
  return b * hq * l + (hq > hk ? 2 * b * c * hq * d : 0);
}
