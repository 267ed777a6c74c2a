/**
 * The Mamba-2 mixer (Dao and Gu 2024, arXiv 2405.21060, figure 6; mamba_ssm/modules/mamba2.py).
 * Per token t and head, S (p, n):
 *   [z, xBC, dt] = in_proj u ;  [x, B, C] = silu(conv1d xBC) ;  dt = clamp(softplus(dt + dt_bias), dt_limit)
 *   S = exp(dt A) S + dt x B^T ,  A = -exp(A_log), one number per head ;  y = S C + D x
 *   out = out_proj norm(y * silu(z)) the norm over each group of channels; options leave it
 *   out or put the gate behind it
 * With d_ssm < d_inner, in_proj begins with a SwiGLU [z0, x0] of the channels that stay outside, and
 * out_proj reads [silu(z0) x0, y]. Letters: b batch, l length, d model, e inner, h heads, p head dim, g
 * groups, n state, k conv width.
 */
import { constantParameter, dtBiasParameter, type Init, parameter } from '../nn/init.ts';
import { Conv1d, Linear, Norm } from '../nn/layers.ts';
import { Module } from '../nn/module.ts';
import { splitCausalConv1d } from '../ops/causal-conv.ts';
import { gatedRmsNorm, siluGate } from '../ops/gated-norm.ts';
import { ssd } from '../ops/ssd.ts';
import { concat, exp, neg, reshape } from '../tensor/primitives.ts';
import type { Tensor } from '../tensor/tensor.ts';
import type { Mamba2Config } from './config-mamba2.ts';
import type { LayerState, Mixer, SequenceContext } from './mixer.ts';

export class Mamba2 extends Module implements Mixer {
  readonly in_proj: Linear; // weight (2 (e - d_ssm) + 2 d_ssm + 2 g n + h, d), rows [z0; x0; z; x; B; C; dt]
  readonly conv1d: Conv1d; // over [x, B, C]
  readonly dt_bias: Tensor; // (h)
  readonly A_log: Tensor; // (h)
  readonly D: Tensor; // (h), or (d_ssm) with D_has_hdim
  readonly norm: Norm | null; // weight (d_ssm)
  readonly out_proj: Linear; // weight (d, e)
  readonly #config: Mamba2Config;

  /** `outScale` shrinks out_proj by 1 / sqrt(number of residual branches) (GPT-2's rule). */
  constructor(init: Init, config: Mamba2Config, outScale: number) {
    super();
    const { d_model: d, d_inner: e, d_ssm, d_state: n, ngroups: g, d_conv: k, bias } = config;
    const h = d_ssm / config.headdim;
    const [low, high] = config.A_init_range;
    this.#config = config;
    this.in_proj = new Linear(init, d, 2 * e + 2 * g * n + h, { bias });
    this.conv1d = new Conv1d(init, d_ssm + 2 * g * n, k, { bias: config.conv_bias, bound: config.conv_init });
    this.dt_bias = dtBiasParameter(init, h, config.dt_min, config.dt_max, config.dt_init_floor);
    this.A_log = parameter(init, [h], (rng) => Math.log(rng.uniform(low, high)));
    this.D = constantParameter(init, [config.D_has_hdim ? d_ssm : h], 1);
    this.norm = config.rmsnorm ? new Norm(init, d_ssm, { rms: true, eps: config.norm_eps }) : null;
    this.out_proj = new Linear(init, e, d, { bias, scale: outScale });
  }

  get stateShapes() {
    const { d_ssm, headdim: p, d_state: n, ngroups: g, d_conv: k } = this.#config;
    return { conv: [d_ssm + 2 * g * n, k], ssm: [d_ssm / p, p, n] }; // conv: the last k inputs of the convolution, oldest first
  }

  /**
   * u (b, l, d), any l >= 0, from any state (null = zeros) -> y (b, l, d) and the state after the last token.
   */
  forward(
    u: Tensor,
    state: LayerState | null,
    context: SequenceContext = {},
  ): { y: Tensor; state: LayerState } {
    const { d_inner, d_ssm, headdim: p, d_state: n, ngroups: g, d_conv: k } = this.#config;
    const [b, l] = u.dims(3);
    const [h, outside, channels] = [d_ssm / p, d_inner - d_ssm, d_ssm + 2 * g * n];
    const parts = this.in_proj.split(u, [...(outside > 0 ? [outside, outside] : []), d_ssm, channels, h]);
    const [z, xBC, dt] = parts.slice(-3) as [Tensor, Tensor, Tensor];
    const taps = reshape(this.conv1d.weight, [channels, k]);
    const conv = splitCausalConv1d(xBC, taps, this.conv1d.bias, [d_ssm, g * n, g * n], {
      activation: 'silu',
      window: state?.conv,
      ...context,
    });
    const [x, B, C] = conv.parts as [Tensor, Tensor, Tensor];
    const scan = ssd(
      reshape(x, [b, l, h, p]),
      dt,
      neg(exp(this.A_log)),
      reshape(B, [b, l, g, n]),
      reshape(C, [b, l, g, n]),
      {
        D: this.#config.D_has_hdim ? reshape(this.D, [h, p]) : this.D,
        dtBias: this.dt_bias,
        dtSoftplus: true,
        dtLimit: this.#config.dt_limit,
        state: state?.ssm,
        ...context,
      },
    );
    const y = this.#gate(reshape(scan.y, [b, l, d_ssm]), z);
    const [z0, x0] = parts;
    const all = outside > 0 ? concat([siluGate(x0!, z0!), y], 2) : y; // (b, l, e)
    return { y: this.out_proj.forward(all), state: { conv: conv.window, ssm: scan.state } };
  }

  #gate(y: Tensor, z: Tensor): Tensor {
    if (!this.norm) return siluGate(y, z);
    const { d_ssm, norm_groups, norm_before_gate, norm_eps: eps } = this.#config;
    return gatedRmsNorm(y, this.norm.weight, {
      z,
      groupSize: d_ssm / norm_groups,
      normBeforeGate: norm_before_gate,
      eps,
    });
  }
}
