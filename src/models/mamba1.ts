/**
 * The Mamba-1 mixer (Gu and Dao 2023, figure 3 and algorithm 2; mamba_ssm/modules/mamba_simple.py).
 * Per token t, channel c, state n:
 *   [x, z] = in_proj u ;  x = silu(conv1d x) ;  [dt, B, C] = x_proj x ;  dt = softplus(dt_proj dt)
 *   h[c,n] = exp(dt[c] A[c,n]) h[c,n] + dt[c] B[n] x[c] ,  A = -exp(A_log)
 *   y[c] = (sum_n C[n] h[c,n] + D[c] x[c]) * silu(z[c]) ;  out = out_proj y
 * Falcon-Mamba (mixer_rms_eps) puts a parameter-free RMS norm on dt before dt_proj, on B and on C.
 * Letters: b batch, l length, d model, e inner, n state, r dt rank, k conv width.
 */
import type { Rng } from '../base/rng.ts';
import { aLogParameter, constantParameter, dtBiasParameter, type Init, parameter } from '../nn/init.ts';
import { Conv1d, Linear } from '../nn/layers.ts';
import { Module } from '../nn/module.ts';
import { causalConv1d } from '../ops/causal-conv.ts';
import { linear } from '../ops/linear.ts';
import { rmsNorm } from '../ops/norm.ts';
import { selectiveScan } from '../ops/selective-scan.ts';
import { exp, neg, reshape } from '../tensor/primitives.ts';
import type { Tensor } from '../tensor/tensor.ts';
import type { Mamba1Config } from './config-mamba1.ts';
import type { LayerState, Mixer, SequenceContext } from './mixer.ts';

/** The low-rank step-size projection: weight (e, r), bias (e) whose softplus is the initial step size. */
class DtProj extends Module {
  readonly weight: Tensor;
  readonly bias: Tensor;

  constructor(init: Init, config: Mamba1Config) {
    super();
    const { d_inner: e, dt_rank: r, dt_scale } = config;
    const bound = r ** -0.5 * dt_scale;
    const value = config.dt_init === 'constant' ? () => bound : (rng: Rng) => rng.uniform(-bound, bound);
    this.weight = parameter(init, [e, r], value);
    this.bias = dtBiasParameter(init, e, config.dt_min, config.dt_max, config.dt_init_floor);
  }
}

export class Mamba1 extends Module implements Mixer {
  readonly in_proj: Linear; // weight (2e, d), rows [x; z]
  readonly conv1d: Conv1d;
  readonly x_proj: Linear; // weight (r + 2n, e), rows [dt; B; C]
  readonly dt_proj: DtProj;
  readonly A_log: Tensor; // (e, n)
  readonly D: Tensor; // (e)
  readonly out_proj: Linear; // weight (d, e)
  readonly #config: Mamba1Config;

  /** `outScale` shrinks out_proj by 1 / sqrt(number of residual branches) (GPT-2's rule). */
  constructor(init: Init, config: Mamba1Config, outScale: number) {
    super();
    const { d_model: d, d_inner: e, d_state: n, d_conv: k, dt_rank: r, bias } = config;
    this.#config = config;
    this.in_proj = new Linear(init, d, 2 * e, { bias });
    this.conv1d = new Conv1d(init, e, k, { bias: config.conv_bias });
    this.x_proj = new Linear(init, e, r + 2 * n);
    this.dt_proj = new DtProj(init, config);
    this.A_log = aLogParameter(init, e, n);
    this.D = constantParameter(init, [e], 1);
    this.out_proj = new Linear(init, e, d, { bias, scale: outScale });
  }

  get stateShapes() {
    const { d_inner: e, d_conv: k, d_state: n } = this.#config;
    return { conv: [e, k], ssm: [e, n] }; // conv: the last k inputs of the convolution, oldest first
  }

  /**
   * u (b, l, d), any l >= 0, from any state (null = zeros) -> y (b, l, d) and the state after the last token.
   */
  forward(
    u: Tensor,
    state: LayerState | null,
    context: SequenceContext = {},
  ): { y: Tensor; state: LayerState } {
    const { d_inner: e, d_state: n, d_conv: k, dt_rank: r, mixer_rms_eps: eps } = this.#config;
    const [x, z] = this.in_proj.split(u, [e, e]) as [Tensor, Tensor]; // (b, l, e)
    const conv = causalConv1d(x, reshape(this.conv1d.weight, [e, k]), this.conv1d.bias, {
      activation: 'silu',
      window: state?.conv,
      ...context,
    });
    const selected = this.x_proj.split(conv.y, [r, n, n]);
    const normed = eps === null ? selected : selected.map((part) => rmsNorm(part, null, { eps }).y);
    const [dtLow, B, C] = normed as [Tensor, Tensor, Tensor]; // (b, l, r), (b, l, n)
    const scan = selectiveScan(conv.y, linear(dtLow, this.dt_proj.weight), neg(exp(this.A_log)), B, C, {
      D: this.D,
      z,
      deltaBias: this.dt_proj.bias,
      deltaSoftplus: true,
      state: state?.ssm,
      ...context,
    });
    return { y: this.out_proj.forward(scan.y), state: { conv: conv.window, ssm: scan.state } };
  }
}
