/**
 * The part of the kernel contract (kernels.ts says how to read it) that works on the vectors of heads:
 * rotation, attention; the sizes of the pieces that are added up at once, and of their scratch.
 */

/** Row blocks whose partial weight gradients `normGrad` and `turnHeadsGrad` add up in order. */
export const NORM_BLOCKS = 32;
/** Heads whose share of dangle is added up at once; angleScanGrad then adds these sums (fixed: results must not depend on
 *  the thread count). */
export const ANGLE_HEADS = 8;
/**
 * Keys that attention takes at a time, counted from the first key of a document: once per
 * block it may rescale its sums.
 */
export const ATTENTION_BLOCK = 128;
/** The widest head (d) that attention takes. */
export const ATTENTION_WIDTH = 512;

export const HEAD_KERNELS = {
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

/** Elements of `partial` in angleScanGrad: for each block of ANGLE_HEADS heads, its share of dangle. */
export function anglePartialSize(b: number, l: number, h: number, s: number): number {
  return b * Math.ceil(h / ANGLE_HEADS) * l * s;
}

/**
 * Elements of `partial` in turnHeadsGrad: per block of tokens, the gradients of both biases and both weights.
 */
export function turnHeadsPartialSize(h: number, r: number, n: number): number {
  return NORM_BLOCKS * 2 * (h * r + 1) * n;
}

/**
 * Elements of `partial` in attentionGrad: dy . y of every token and head; dk and dv per query head,
 * where several share a kv head.
 */
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
