/**
 * The attention layer of hybrid models (mamba_ssm/modules/mha.py). Per token t, with heads of p elements:
 *   [q, k, v, up, gate] = in_proj u ;  [q, k, v] = conv1d [q, k, v]        optional, no activation
 *   q, k = rotate(., t base^(-i/s))                     the first rotary_emb_dim elements of each head
 *   y = sum_j softmax_j(softmax_scale q . k[j]) v[j]    over the tokens j <= t of the document
 *   out = out_proj [y, up * silu(gate)]
 * Each of the num_heads_kv heads of keys and values serves num_heads / num_heads_kv query heads. The state
 * holds the (rotated) keys and the values of every token of the document, and the last d_conv inputs of the
 * convolution. Upstream keeps the outputs of the convolution there after a prompt, and its decoding without
 * flash attention looks at the first key only: what it generates differs from its own forward pass. Here a
 * token read alone gives what it gives within a text.
 * Letters: b batch, l length, d model, h heads, p head dim, k conv width, s rotated pairs.
 */
import type { Init } from '../nn/init.ts';
import { Conv1d, Linear } from '../nn/layers.ts';
import { Module } from '../nn/module.ts';
import { attention } from '../ops/attention.ts';
import { causalConv1d } from '../ops/causal-conv.ts';
import { appendKeys, rotaryAngles } from '../ops/key-cache.ts';
import { rotate } from '../ops/rotation.ts';
import { concat, mul, reshape, silu, split } from '../tensor/primitives.ts';
import type { Tensor } from '../tensor/tensor.ts';
import type { AttentionConfig } from './config-stack.ts';
import type { LayerShapes, LayerState, Mixer, SequenceContext } from './mixer.ts';

export class Attention extends Module implements Mixer {
  readonly in_proj: Linear; // weight ((num_heads + 2 num_heads_kv) p + 2 m, d), rows [q; k; v; up; gate]
  readonly conv1d: Conv1d | null; // over [q, k, v]
  readonly out_proj: Linear; // weight (d, num_heads p + m)
  readonly #config: AttentionConfig;

  /** `outScale` shrinks out_proj by 1 / sqrt(number of residual branches) (GPT-2's rule). */
  constructor(init: Init, d: number, config: AttentionConfig, outScale: number) {
    super();
    const { num_heads, head_dim: p, d_conv: k, qkv_proj_bias, out_proj_bias } = config;
    const [channels, m] = [qkvWidth(config), mlpWidth(config)];
    this.#config = config;
    this.in_proj = new Linear(init, d, channels + 2 * m, { bias: qkv_proj_bias });
    this.conv1d = k > 0 ? new Conv1d(init, channels, k, { bias: true }) : null;
    this.out_proj = new Linear(init, num_heads * p + m, d, { bias: out_proj_bias, scale: outScale });
  }

  get stateShapes(): LayerShapes {
    const { num_heads_kv: h, head_dim: p, d_conv: k } = this.#config;
    const keys = ['positions', h, p] as const;
    return { k: keys, v: keys, ...(k > 0 ? { conv: [qkvWidth(this.#config), k] } : {}) };
  }

  /**
   * u (b, l, d), any l >= 0, from any state (null = before any token) -> y (b, l, d) and the state after the
   * last token.
   */
  forward(
    u: Tensor,
    state: LayerState | null,
    context: SequenceContext = {},
  ): { y: Tensor; state: LayerState } {
    const { num_heads, num_heads_kv, head_dim: p, d_conv, softmax_scale: softmaxScale } = this.#config;
    const [b, l] = u.dims(3);
    const m = mlpWidth(this.#config);
    const documents = { ...context, past: state ? context.positions : null };
    const [qkv, up, gate] = this.in_proj.split(u, [qkvWidth(this.#config), ...(m > 0 ? [m, m] : [])]);
    const conv = this.conv1d
      ? causalConv1d(qkv!, reshape(this.conv1d.weight, [-1, d_conv]), this.conv1d.bias, {
          window: state?.conv,
          ...context,
        })
      : null;
    const heads = [num_heads, num_heads_kv, num_heads_kv];
    const [q, k, v] = split(
      conv?.y ?? qkv!,
      2,
      heads.map((h) => h * p),
    ).map((part, i) => reshape(part, [b, l, heads[i]!, p])) as [Tensor, Tensor, Tensor];
    const turn = this.#rotation(b, l, documents);
    const keys = appendKeys(state?.k ?? null, turn(k), documents);
    const values = appendKeys(state?.v ?? null, v, documents);
    const looked = attention(turn(q), keys.all, values.all, { ...documents, softmaxScale });
    const y = reshape(looked, [b, l, num_heads * p]);
    const all = up && gate ? concat([y, mul(up, silu(gate))], 2) : y;
    const window: LayerState = conv ? { conv: conv.window } : {};
    return { y: this.out_proj.forward(all), state: { k: keys.kept, v: values.kept, ...window } };
  }

  /** Turns queries or keys (b, l, h, p) by their places. */
  #rotation(
    b: number,
    l: number,
    documents: Pick<SequenceContext, 'sequenceIds'> & { past?: readonly number[] | null },
  ): (x: Tensor) => Tensor {
    const { rotary_emb_dim, rotary_emb_base: base, rotary_emb_interleaved, head_dim: p } = this.#config;
    const s = rotary_emb_dim / 2;
    if (s === 0) return (x) => x;
    const { past, sequenceIds } = documents;
    const theta = rotaryAngles(b, l, s, { past, sequenceIds, base, device: this.in_proj.weight.device });
    const pairing = rotary_emb_interleaved ? 'adjacent' : s;
    return (x) => reshape(rotate(reshape(x, [b, l, 1, x.shape[2]!, p]), theta, { pairing }), x.shape);
  }
}

function qkvWidth({ num_heads, num_heads_kv, head_dim }: AttentionConfig): number {
  return (num_heads + 2 * num_heads_kv) * head_dim;
}

/** Channels of the parallel branch: half of mlp_dim, which is rounded up to a multiple of 256. */
function mlpWidth({ mlp_dim }: AttentionConfig): number {
  return Math.ceil(mlp_dim / 256) * 128;
}
