/** A float64 reference device and random inputs for gradient checks. */
import { createReference } from '../../src/backend/reference/index.ts';
import type { Rng } from '../../src/base/rng.ts';
import { type Shape, sizeOf } from '../../src/base/shape.ts';
import type { GradcheckInput } from '../../src/tensor/gradcheck.ts';

export const f64 = createReference({ storage: 'f64' });

export function randomInput(shape: Shape, rng: Rng, low = -1, high = 1): GradcheckInput {
  return { shape, data: Float64Array.from({ length: sizeOf(shape) }, () => rng.uniform(low, high)) };
}

/** Gradient checks in float64 leave the truncation error h^2 f'''/6 = 1e-10 f''' and the rounding 1e-16 f / h: 1e-8 covers |f'''| <= 100. */
export const GRADCHECK_TOLERANCE = 1e-8;
