/** The scalar functions that the kernels share, in float64 and accurate over the whole range. */

export function sigmoid(x: number): number {
  return 1 / (1 + Math.exp(-x));
}

export function silu(x: number): number {
  return x * sigmoid(x);
}

export function siluGrad(x: number): number {
  const s = sigmoid(x);
  return s * (1 + x * (1 - s));
}

/** ln(1 + e^x). The identity above 20, as in PyTorch, whose checkpoints were trained with that jump of 2e-9. */
export function softplus(x: number): number {
  return x > 20 ? x : Math.log1p(Math.exp(x));
}

export function softplusGrad(x: number): number {
  return x > 20 ? 1 : sigmoid(x);
}

/**
 * erf(x) = 2/sqrt(pi) e^(-x^2) sum_i 2^i x^(2i+1) / (2i+1)!!  (Abramowitz and Stegun 7.1.6).
 * All terms have one sign, so nothing cancels; from |x| = 6 on, erf is 1 in float64.
 */
export function erf(x: number): number {
  if (Math.abs(x) >= 6) return Math.sign(x);
  let term = x;
  let sum = 0;
  for (let i = 1; Math.abs(term) > 1e-18 * Math.abs(sum); i++) {
    sum += term;
    term *= (2 * x * x) / (2 * i + 1);
  }
  return (2 / Math.sqrt(Math.PI)) * Math.exp(-x * x) * sum;
}

/** The standard normal distribution function. */
export function normalCdf(x: number): number {
  return 0.5 * (1 + erf(x / Math.SQRT2));
}

/** The standard normal density. */
export function normalPdf(x: number): number {
  return Math.exp(-0.5 * x * x) / Math.sqrt(2 * Math.PI);
}
