/**
 * B and C of Mamba-3 become keys and queries. Of one vector x (n) of a group, for every head and rank:
 *
 *   xhat = x rstd, rstd = 1 / sqrt(mean(x^2) + eps), v = xhat weight + bias, y = v
 *   turned by theta (see rotation.ts)
 *
 * Backward, with dv = dy turned back, sums over the heads of a group, and a bar for the mean over the vector:
 *
 *   dtheta = dv[i1] v[i0] - dv[i0] v[i1],   dbias = sum dv,   dweight = sum dv xhat,   g = weight sum dv
 *   dx = rstd (g - xhat bar(g xhat))
 */
import type { KernelArgs, Kernels } from '../backend.ts';
import { type Floats, input, output } from './storage.ts';

type Sizes = Pick<KernelArgs<'turnHeads'>, 'tokens' | 'r' | 'h' | 'g' | 'n' | 's' | 'step' | 'gap' | 'eps'>;

/** Where everything about one token, kind (0 is B, 1 is C), rank and head stands. */
interface Place {
  kind: number;
  /** In x. */
  source: number;
  /** In the bias. */
  bias: number;
  /** In the results. */
  result: number;
  /** In theta. */
  angles: number;
}

function eachVector({ tokens, r, h, g, n, s }: Sizes, visit: (place: Place) => void): void {
  for (let at = 0; at < tokens * h * 2 * r; at++) {
    const [kind, k] = [Math.floor(at / r) % 2, at % r];
    const head = Math.floor(at / (2 * r)) % h;
    const token = Math.floor(at / (2 * r * h));
    visit({
      kind,
      source: (((token * 2 + kind) * r + k) * g + Math.floor(head / (h / g))) * n,
      bias: (head * r + k) * n,
      result: ((token * r + k) * h + head) * n,
      angles: (token * h + head) * s,
    });
  }
}

function rstdOf(x: Floats, at: number, n: number, eps: number): number {
  let square = 0;
  for (let j = 0; j < n; j++) square += x[at + j]! ** 2;
  return 1 / Math.sqrt(square / n + eps);
}

export const heads = {
  turnHeads({ bWeight, cWeight, bBias, cBias, K, Q, ...o }) {
    const { n, s, step, gap } = o;
    const [x, theta] = [input(o.x), input(o.theta)];
    const [weights, biases] = [
      [input(bWeight), input(cWeight)],
      [input(bBias), input(cBias)],
    ];
    const results = [output(K), output(Q)];
    eachVector(o, ({ kind, source, bias, result, angles }) => {
      const [weight, own, y] = [weights[kind]!, biases[kind]!, results[kind]!];
      const rstd = rstdOf(x, source, n, o.eps);
      const v = Float64Array.from(
        { length: n },
        (_, j) => x[source + j]! * rstd * weight[j]! + own[bias + j]!,
      );
      for (let i = 0; i < s; i++) {
        const [c, w] = [Math.cos(theta[angles + i]!), Math.sin(theta[angles + i]!)];
        const [i0, i1] = [i * step, i * step + gap];
        [v[i0], v[i1]] = [v[i0]! * c - v[i1]! * w, v[i0]! * w + v[i1]! * c];
      }
      y.set(v, result);
    });
  },

  turnHeadsGrad({ bWeight, cWeight, bBias, cBias, dK, dQ, ...o }) {
    const { tokens, r, h, g, n, s, step, gap } = o;
    const [x, theta] = [input(o.x), input(o.theta)];
    const [weights, biases] = [
      [input(bWeight), input(cWeight)],
      [input(bBias), input(cBias)],
    ];
    const ups = [input(dK), input(dQ)];
    const sums = () => [new Float64Array(h * r * n), new Float64Array(h * r * n)];
    const [dweights, dbiases] = [[new Float64Array(n), new Float64Array(n)], sums()];
    const dtheta = new Float64Array(tokens * h * s);
    const total = new Float64Array(tokens * 2 * r * g * n); // dv, added up over the heads of a group
    eachVector(o, ({ kind, source, bias, result, angles }) => {
      const [weight, own, dy] = [weights[kind]!, biases[kind]!, ups[kind]!];
      const rstd = rstdOf(x, source, n, o.eps);
      const value = (j: number) => x[source + j]! * rstd * weight[j]! + own[bias + j]!;
      const dv = Float64Array.from({ length: n }, (_, j) => dy[result + j]!);
      for (let i = 0; i < s; i++) {
        const [c, w] = [Math.cos(theta[angles + i]!), Math.sin(theta[angles + i]!)];
        const [i0, i1] = [i * step, i * step + gap];
        [dv[i0], dv[i1]] = [dv[i0]! * c + dv[i1]! * w, dv[i1]! * c - dv[i0]! * w];
        dtheta[angles + i]! += dv[i1]! * value(i0) - dv[i0]! * value(i1);
      }
      for (let j = 0; j < n; j++) {
        dbiases[kind]![bias + j]! += dv[j]!;
        dweights[kind]![j]! += dv[j]! * x[source + j]! * rstd;
        total[source + j]! += dv[j]!;
      }
    });
    const dx = output(o.dx);
    for (let row = 0; row < tokens * 2 * r * g; row++) {
      const [at, weight] = [row * n, weights[Math.floor(row / (r * g)) % 2]!];
      const rstd = rstdOf(x, at, n, o.eps);
      let along = 0;
      for (let j = 0; j < n; j++) along += (total[at + j]! * weight[j]! * x[at + j]! * rstd) / n;
      for (let j = 0; j < n; j++) {
        dx[at + j] = rstd * (total[at + j]! * weight[j]! - x[at + j]! * rstd * along);
      }
    }
    output(o.dbWeight).set(dweights[0]!);
    output(o.dcWeight).set(dweights[1]!);
    output(o.dbBias).set(dbiases[0]!);
    output(o.dcBias).set(dbiases[1]!);
    output(o.dtheta).set(dtheta);
  },
} satisfies Partial<Kernels>;
