/**
 * The Mamba-3 mixer (Lahoti et al. 2026, arXiv 2603.15569; mamba_ssm/modules/mamba3.py). Per token
 * t and head, S (p, n), ranks r:
 *   [z, x, B, C, dt, A, trap, angle] = in_proj u ; dt = softplus(dt + dt_bias) ; A = -max(f(A),
 *   A_floor) ; lambda = sigmoid(trap)
 *   theta += pi tanh(angle) dt                          one angle per head and pair of state elements
 *   k_r = rotate(norm(B_r) + B_bias, theta) ;  q_r = rotate(norm(C_r) + C_bias, theta) ;  v_r = x * mimo_x[r]
 *   S = exp(dt A) (S + (1 - lambda) dt sum_r v_r' k_r'^T) + lambda dt sum_r v_r k_r^T v',
 *   k' those of the token before
 *   y_r = S q_r + D v_r ;  out = out_proj sum_r y_r * silu(z * mimo_z[r]) * mimo_o[r]
 * One rank (SISO) has no mimo_ weights: v = x, out = out_proj (y * silu(z)). is_outproj_norm puts an RMS
 * norm per head on y. Letters: b batch, l length, d model, e inner, h heads, p head dim, g groups, n
 * state, r ranks, s rotated pairs.
 */
import { constantParameter, dtBiasParameter, type Init } from '../nn/init.ts';
import { Linear, Norm } from '../nn/layers.ts';
import { Module } from '../nn/module.ts';
import { gatedRmsNorm, siluGate } from '../ops/gated-norm.ts';
import { angleScan } from '../ops/rotation.ts';
import { lastToken, trapezoid } from '../ops/trapezoid.ts';
import { turnHeads } from '../ops/turn-heads.ts';
import {
  add,
  affine,
  maximum,
  minimum,
  mul,
  neg,
  permute,
  reshape,
  sigmoid,
  softplus,
  split,
  sum,
  unary,
} from '../tensor/primitives.ts';
import type { Tensor } from '../tensor/tensor.ts';
import { type AActivation, type Mamba3Config, rotatedPairs } from './config-mamba3.ts';
import type { LayerState, Mixer, SequenceContext } from './mixer.ts';

/** Of B_norm and C_norm, and of the norm per head: fixed upstream. */
const EPS = 1e-5;

export class Mamba3 extends Module implements Mixer {
  readonly in_proj: Linear; // weight (2e + 2 r g n + 3h + s, d), rows [z; x; B; C; dt; A; trap; angle], B and C as (r, g, n)
  readonly dt_bias: Tensor; // (h)
  readonly B_bias: Tensor; // (h, r, n)
  readonly C_bias: Tensor; // (h, r, n)
  readonly B_norm: Norm; // weight (n)
  readonly C_norm: Norm;
  readonly D: Tensor; // (h)
  readonly mimo_x: Tensor | null; // (h, r, p)
  readonly mimo_z: Tensor | null;
  readonly mimo_o: Tensor | null;
  readonly norm: Norm | null; // weight (e)
  readonly out_proj: Linear; // weight (d, e)
  readonly #config: Mamba3Config;

  /** `outScale` shrinks out_proj by 1 / sqrt(number of residual branches) (GPT-2's rule). */
  constructor(init: Init, config: Mamba3Config, outScale: number) {
    super();
    const { d_model: d, d_inner: e, headdim: p, d_state: n, ngroups: g, mimo_rank: r } = config;
    const h = e / p;
    const mimo = (value: number) => (config.is_mimo ? constantParameter(init, [h, r, p], value) : null);
    this.#config = config;
    this.in_proj = new Linear(init, d, 2 * e + 2 * r * g * n + 3 * h + rotatedPairs(config));
    this.dt_bias = dtBiasParameter(init, h, config.dt_min, config.dt_max, config.dt_init_floor);
    this.B_bias = constantParameter(init, [h, r, n], 1);
    this.C_bias = constantParameter(init, [h, r, n], 1);
    this.B_norm = new Norm(init, n, { rms: true, eps: EPS });
    this.C_norm = new Norm(init, n, { rms: true, eps: EPS });
    this.D = constantParameter(init, [h], 1);
    this.mimo_x = mimo(1 / r);
    this.mimo_z = mimo(1);
    this.mimo_o = mimo(1 / r);
    this.norm = config.is_outproj_norm ? new Norm(init, e, { rms: true, eps: EPS }) : null;
    this.out_proj = new Linear(init, e, d, { scale: outScale });
  }

  get stateShapes() {
    const { d_inner: e, headdim: p, d_state: n, mimo_rank: r } = this.#config;
    const h = e / p;
    // angle in [0, 2 pi); k rotated and v = x, both of the last token.
    return { angle: [h, rotatedPairs(this.#config)], ssm: [h, p, n], k: [r, h, n], v: [h, p] };
  }

  /**
   * u (b, l, d), any l >= 0, from any state (null = zeros) -> y (b, l, d) and the state after the last token.
   */
  forward(
    u: Tensor,
    state: LayerState | null,
    context: SequenceContext = {},
  ): { y: Tensor; state: LayerState } {
    const { d_inner: e, headdim: p, d_state: n, ngroups: g, mimo_rank: r, is_mimo } = this.#config;
    const [b, l] = u.dims(3);
    const [h, s] = [e / p, rotatedPairs(this.#config)];
    const widths = [e, e, 2 * r * g * n, 3 * h + s];
    const [z, x, BC, rates] = this.in_proj.split(u, widths) as [Tensor, Tensor, Tensor, Tensor];
    const [ddt, dA, trap, angle] = split(rates, 2, [h, h, h, s]) as [Tensor, Tensor, Tensor, Tensor];
    const dt = softplus(add(ddt, this.dt_bias)); // (b, l, h)
    const turned = angleScan(angle, dt, { state: state?.angle, ...context }); // (b, l, h, s)
    const { K, Q } = turnHeads(
      reshape(BC, [b, l, 2, r, g, n]),
      { weight: this.B_norm.weight, bias: this.B_bias },
      { weight: this.C_norm.weight, bias: this.C_bias },
      turned.theta,
      { pairing: is_mimo ? n / 2 : 'adjacent', eps: EPS },
    ); // (b, l, r, h, n)
    const value = reshape(x, [b, l, h, p]);
    const before = state && { ssm: state.ssm!, k: state.k!, v: this.#perRank(state.v!, this.mimo_x) };
    const scan = trapezoid(
      this.#perRank(value, this.mimo_x), // (b, l, r, h, p)
      dt,
      decayRate(dA, this.#config),
      sigmoid(trap),
      K,
      Q,
      { D: this.D, state: before, ...context },
    );
    const gated = this.#gate(scan.y, this.#perRank(reshape(z, [b, l, h, p]), this.mimo_z));
    const y = this.mimo_o ? sum(mul(gated, permute(this.mimo_o, [1, 0, 2])), 2) : gated;
    return {
      y: this.out_proj.forward(reshape(y, [b, l, e])),
      state: {
        angle: turned.state,
        ssm: scan.ssm,
        k: lastToken(K, state?.k, context),
        v: lastToken(value, state?.v, context),
      },
    };
  }

  /** (..., h, p) -> (..., r, h, p), each rank with its own weights (h, r, p). */
  #perRank(x: Tensor, weights: Tensor | null): Tensor {
    const [h, p] = x.shape.slice(-2) as [number, number];
    const rows = x.shape.slice(0, -2);
    const one = reshape(x, [...rows, 1, h, p]);
    return weights ? mul(one, permute(weights, [1, 0, 2])) : one;
  }

  /** y, z (b, l, r, h, p). */
  #gate(y: Tensor, z: Tensor): Tensor {
    if (!this.norm) return siluGate(y, z);
    const { d_inner: e, headdim: groupSize } = this.#config;
    const flat = (x: Tensor) => reshape(x, [...x.shape.slice(0, 3), e]);
    const options = { z: flat(z), groupSize, normBeforeGate: true, eps: EPS };
    return reshape(gatedRmsNorm(flat(y), this.norm.weight, options), y.shape);
  }
}

const ACTIVATIONS: Record<AActivation, (x: Tensor) => Tensor> = {
  // 1 + x above zero, 1 / (1 - x) below.
  'heavy-tail': (x) => add(maximum(x, 0), unary('reciprocal', affine(minimum(x, 0), -1, 1))),
  softplus,
};

/** A (b, l, h), negative. */
function decayRate(x: Tensor, { A_activation, A_floor }: Mamba3Config): Tensor {
  return neg(maximum(ACTIVATIONS[A_activation](x), A_floor));
}
