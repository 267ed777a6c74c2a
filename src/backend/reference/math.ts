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

/**
 * ln(1 + e^x). The identity above 20, as in PyTorch, whose checkpoints were trained with that jump of 2e-9.
 */
export function softplus(x: number): number {
  return x > 20 ? x : Math.log1p(Math.exp(x));
}

export function softplusGrad(x: number): number {
  return x > 20 ? 1 : sigmoid(x);
}

/**
 * The standard normal distribution function, 0.5 erfc(-x / sqrt 2), accurate relative to the result in the
 * lower tail. Near 0, erf as a series whose terms have one sign (Abramowitz and Stegun 7.1.6); far out, erfc
 * as a continued fraction (7.1.14).
 */
export function normalCdf(x: number): number {
  const z = Math.abs(x) / Math.SQRT2;
  let upper: number; // 0.5 erfc(z)
  if (z < 3) {
    let term = z;
    let sum = 0;
    for (let i = 1; term > 1e-18 * sum; i++) {
      sum += term;
      term *= (2 * z * z) / (2 * i + 1);
    }
    upper = 0.5 - (Math.exp(-z * z) / Math.sqrt(Math.PI)) * sum;
  } else {
    let fraction = z;
    for (let i = 50; i > 0; i--) fraction = z + i / 2 / fraction;
    upper = (0.5 * Math.exp(-z * z)) / Math.sqrt(Math.PI) / fraction;
  }
  return x < 0 ? upper : 1 - upper;
}

/** The standard normal density. */
export function normalPdf(x: number): number {
  return Math.exp(-0.5 * x * x) / Math.sqrt(2 * Math.PI);
}
