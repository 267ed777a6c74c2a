/** The gated norm and its gradient once more, in balls: see reference/norm.ts for the equations. */
import { silu } from '../../src/backend/reference/math.ts';
import {
  add,
  apply,
  type Ball,
  constant,
  type Estimate,
  type Estimates,
  exact,
  mul,
  product,
  rounded,
  siluGradBall,
  sum,
  ULPS,
} from './ball.ts'; // prettier-ignore
import type { Operands } from './harness.ts';

type Common = Operands<'gatedNorm'> | Operands<'gatedNormGrad'>;

/** Everything about one group of one row, which starts at element `at`. */
function groupOf(o: Common, at: number, size: number) {
  const before = !o.weight || !o.normBeforeGate;
  const channels = Array.from({ length: size }, (_, j) => {
    const i = at + j;
    const gate = o.z ? apply(silu, ULPS.silu, exact(o.z[i]!)) : exact(1);
    const x = exact(o.x[i]!);
    return { i, x, gate, s: before ? mul(x, gate) : x, weight: exact(o.weight ? o.weight[i % o.d]! : 1) };
  });
  let rstd = exact(1);
  if (o.weight) {
    const variance = mul(sum(channels.map(({ s }) => mul(s, s))), constant(1 / size));
    rstd = apply((a) => 1 / Math.sqrt(a), ULPS.rsqrt, add(variance, constant(o.eps)));
  }
  return { before, channels, rstd };
}

/** Calls `visit` for every group of every row. Without a norm the row is one group. */
function eachGroup(o: Common, visit: (group: ReturnType<typeof groupOf>) => void): void {
  const size = o.weight ? o.groupSize : o.d;
  for (let at = 0; at < o.rows * o.d; at += size) visit(groupOf(o, at, size));
}

export function gatedNormBound(o: Operands<'gatedNorm'>): Estimates {
  const y: Estimate = [];
  eachGroup(o, ({ before, channels, rstd }) => {
    for (const { s, gate, weight } of channels) y.push(product(s, rstd, weight, before ? exact(1) : gate));
  });
  return { y };
}

export function gatedNormGradBound(o: Operands<'gatedNormGrad'>): Estimates {
  const [dx, dz]: [Estimate, Estimate] = [[], []];
  const dweight: Ball[][] = Array.from({ length: o.d }, () => []);
  eachGroup(o, ({ before, channels, rstd }) => {
    const parts = channels.map(({ i, s, gate, weight }) => {
      const behind = before ? exact(o.dy[i]!) : mul(exact(o.dy[i]!), gate);
      const xhat = mul(s, rstd);
      dweight[i % o.d]!.push(mul(behind, xhat));
      return { xhat, g: mul(behind, weight) };
    });
    // The factor rstd may come in front of the sum or behind it.
    const total = sum(parts.map(({ xhat, g }) => rounded(mul(g, xhat), 2)));
    const along = mul(total, constant(1 / channels.length));
    channels.forEach(({ i, x, gate, weight }, j) => {
      const { xhat, g } = parts[j]!;
      const ds = o.weight ? sum([mul(rstd, g), product(exact(-1), rstd, xhat, along)]) : g;
      dx.push(before ? mul(ds, gate) : ds);
      if (!o.z) return;
      const slope = siluGradBall(exact(o.z[i]!));
      dz.push(before ? product(ds, x, slope) : product(exact(o.dy[i]!), weight, xhat, slope));
    });
  });
  const estimates: Estimates = { dx };
  if (o.dz) estimates.dz = dz;
  if (o.dweight) estimates.dweight = dweight.map(sum);
  return estimates;
}
