/** The keys and queries of Mamba-3 once more, in balls: see reference/rotation-heads.ts for the equations. Sine and cosine as in rotation-bounds.ts. */
import {
  add,
  apply,
  at,
  type Ball,
  constant,
  type Estimate,
  type Estimates,
  exact,
  mul,
  product,
  rounded,
  sub,
  sum,
  ULPS,
} from './ball.ts'; // prettier-ignore
import type { Operands } from './harness.ts';

type Common = Operands<'turnHeads'> | Operands<'turnHeadsGrad'>;

const range = (count: number): number[] => Array.from({ length: count }, (_, i) => i);

/** xhat of the vector at `source`, and what it was multiplied by. */
function normed(o: Common, source: number): { xhat: Ball[]; rstd: Ball } {
  const x = range(o.n).map((j) => at(o.x, source + j));
  const variance = mul(sum(x.map((v) => mul(v, v))), constant(1 / o.n));
  const rstd = apply((a) => 1 / Math.sqrt(a), ULPS.rsqrt, add(variance, constant(o.eps)));
  return { xhat: x.map((v) => mul(v, rstd)), rstd };
}

/** Calls `visit` for every token, head, kind and rank. */
function eachVector(o: Common, visit: (vector: ReturnType<typeof vectorAt>) => void): void {
  for (let i = 0; i < o.tokens * o.h * 2 * o.r; i++) visit(vectorAt(o, i));
}

function vectorAt(o: Common, i: number) {
  const { r, h, g, n, s, step, gap } = o;
  const [k, kind, head] = [i % r, Math.floor(i / r) % 2, Math.floor(i / (2 * r)) % h];
  const token = Math.floor(i / (2 * r * h));
  const [weight, bias] = kind === 0 ? [o.bWeight, o.bBias] : [o.cWeight, o.cBias];
  const source = (((token * 2 + kind) * r + k) * g + Math.floor((head * g) / h)) * n;
  const biasAt = (head * r + k) * n;
  const { xhat } = normed(o, source);
  return {
    kind,
    source,
    biasAt,
    result: ((token * r + k) * h + head) * n,
    xhat,
    v: xhat.map((x, j) => add(mul(x, at(weight, j)), at(bias, biasAt + j))),
    pairs: range(s).map((pair) => {
      const angle = (token * h + head) * s + pair;
      const theta = at(o.theta, angle);
      const c = apply(Math.cos, ULPS.cos, theta, () => 1);
      const w = apply(Math.sin, ULPS.sin, theta, (x) => Math.min(1, Math.abs(x)));
      return { angle, c, w, i0: pair * step, i1: pair * step + gap };
    }),
  };
}

export function turnHeadsBound(o: Operands<'turnHeads'>): Estimates {
  const [K, Q]: [Estimate, Estimate] = [[], []];
  eachVector(o, ({ kind, result, v, pairs }) => {
    const y = [...v];
    for (const { c, w, i0, i1 } of pairs) {
      y[i0] = sub(mul(v[i0]!, c), mul(v[i1]!, w));
      y[i1] = add(mul(v[i0]!, w), mul(v[i1]!, c));
    }
    y.forEach((value, j) => {
      (kind === 0 ? K : Q)[result + j] = value;
    });
  });
  return { K, Q };
}

export function turnHeadsGradBound(o: Operands<'turnHeadsGrad'>): Estimates {
  const { tokens, r, h, g, n, s } = o;
  const lists = (size: number): Ball[][] => range(size).map(() => []);
  const [dtheta, total] = [lists(tokens * h * s), lists(tokens * 2 * r * g * n)];
  const dweights = [lists(n), lists(n)];
  const dbiases = [lists(h * r * n), lists(h * r * n)];
  eachVector(o, ({ kind, source, biasAt, result, xhat, v, pairs }) => {
    const dy = kind === 0 ? o.dK : o.dQ;
    const dv = range(n).map((j) => at(dy, result + j));
    for (const { angle, c, w, i0, i1 } of pairs) {
      const [dy0, dy1] = [dv[i0]!, dv[i1]!];
      dv[i0] = add(mul(dy0, c), mul(dy1, w));
      dv[i1] = sub(mul(dy1, c), mul(dy0, w));
      dtheta[angle]!.push(sub(mul(dv[i1]!, v[i0]!), mul(dv[i0]!, v[i1]!)));
    }
    dv.forEach((value, j) => {
      dbiases[kind]![biasAt + j]!.push(value);
      // The sum over heads may come in front of the product or behind it.
      dweights[kind]![j]!.push(rounded(mul(value, xhat[j]!), h));
      total[source + j]!.push(value);
    });
  });
  const dx: Estimate = [];
  for (let row = 0; row < tokens * 2 * r * g; row++) {
    const weight = Math.floor(row / (r * g)) % 2 === 0 ? o.bWeight : o.cWeight;
    const { xhat, rstd } = normed(o, row * n);
    const up = range(n).map((j) => mul(sum(total[row * n + j]!), at(weight, j)));
    const along = mul(sum(up.map((value, j) => mul(value, xhat[j]!))), constant(1 / n));
    for (let j = 0; j < n; j++) {
      dx.push(sum([mul(rstd, up[j]!), product(exact(-1), rstd, xhat[j]!, along)]));
    }
  }
  return {
    dx,
    dbWeight: dweights[0]!.map(sum),
    dcWeight: dweights[1]!.map(sum),
    dbBias: dbiases[0]!.map(sum),
    dcBias: dbiases[1]!.map(sum),
    dtheta: dtheta.map(sum),
  };
}
