/**
 * The tensors a model of a configuration has, under our names (the Hugging Face ones), in
 * the order of the forward pass.
 */
import type { Shape } from '../base/shape.ts';
import { type ClassifierHead, featureWidth } from '../models/classifier-config.ts';
import {
  type AttentionConfig,
  type Mamba1Config,
  type Mamba2Config,
  type Mamba3Config,
  type ModelConfig,
  paddedVocabSize,
  rotatedPairs,
} from '../models/config.ts';
import { gatedMlpWidth } from '../nn/layers.ts';

export const EMBEDDINGS = 'backbone.embeddings.weight';
export const LM_HEAD = 'lm_head.weight';
export const SCORE = 'score.weight';

/** Of a language model, or with `head` a classifier. */
export function expectedTensors(config: ModelConfig, head: ClassifierHead | null = null): Map<string, Shape> {
  const { d_model: d } = config;
  const tensors = new Map<string, Shape>();
  addBackbone(new TensorList(tensors, 'backbone', head), config);
  if (!head) {
    if (!config.tie_embeddings) tensors.set(LM_HEAD, [paddedVocabSize(config), d]);
    return tensors;
  }
  if (head.bidirectional) addBackbone(new TensorList(tensors, 'backbone_reverse', head), config);
  tensors.set(SCORE, [head.labels.length, featureWidth(head, d)]);
  tensors.set('score.bias', [head.labels.length]);
  return tensors;
}

/** The last names of the linear layers of a backbone, which LoRA may adapt. */
export function linearNames(config: ModelConfig): string[] {
  const linears = new Set<string>();
  const layers = config.attn_cfg ? [[], [0]] : [[]];
  for (const attn_layer_idx of layers)
    addBackbone(new TensorList(new Map(), 'backbone', null, linears), {
      ...config,
      n_layer: 1,
      attn_layer_idx,
    });
  return [...linears];
}

/** Tensors below a path; matrices that LoRA adapts have its two beside them. */
class TensorList {
  readonly #tensors: Map<string, Shape>;
  readonly #path: string;
  readonly #head: ClassifierHead | null;
  readonly #linears: Set<string>;

  constructor(
    tensors: Map<string, Shape>,
    path: string,
    head: ClassifierHead | null,
    linears = new Set<string>(),
  ) {
    this.#tensors = tensors;
    this.#path = path;
    this.#head = head;
    this.#linears = linears;
  }

  at(path: string): TensorList {
    return new TensorList(this.#tensors, `${this.#path}.${path}`, this.#head, this.#linears);
  }

  add(name: string, shape: Shape, isThere = true): void {
    if (isThere) this.#tensors.set(`${this.#path}.${name}`, shape);
  }

  linear(name: string, outputs: number, inputs: number, bias = false): void {
    const lora = this.#head?.lora;
    this.#linears.add(name);
    this.add(`${name}.weight`, [outputs, inputs]);
    this.add(`${name}.bias`, [outputs], bias);
    if (!lora?.targets.includes(name)) return;
    this.add(`${name}.lora.A`, [lora.rank, inputs]);
    this.add(`${name}.lora.B`, [outputs, lora.rank]);
  }

  conv(e: number, k: number, bias: boolean): void {
    this.add('conv1d.weight', [e, 1, k]);
    this.add('conv1d.bias', [e], bias);
  }
}

function addBackbone(list: TensorList, config: ModelConfig): void {
  const { d_model: d, d_intermediate } = config;
  const norm = (at: TensorList, name: string): void => {
    at.add(`${name}.weight`, [d]);
    at.add(`${name}.bias`, [d], !config.rms_norm);
  };
  list.add('embeddings.weight', [paddedVocabSize(config), d]);
  for (let i = 0; i < config.n_layer; i++) {
    const block = list.at(`layers.${i}`);
    norm(block, 'norm');
    const mixer = block.at('mixer');
    if (config.attn_cfg && config.attn_layer_idx.includes(i)) addAttention(mixer, d, config.attn_cfg);
    else addMixer(mixer, config);
    if (d_intermediate === 0) continue;
    const f = gatedMlpWidth(d_intermediate);
    norm(block, 'norm2');
    block.at('mlp').linear('fc1', 2 * f, d);
    block.at('mlp').linear('fc2', d, f);
  }
  norm(list, 'norm_f');
}

function addMixer(list: TensorList, config: ModelConfig): void {
  if (config.model_type === 'mamba1') addMamba1(list, config);
  else if (config.model_type === 'mamba2') addMamba2(list, config);
  else addMamba3(list, config);
}

function addMamba1(list: TensorList, config: Mamba1Config): void {
  const { d_model: d, d_inner: e, d_state: n, dt_rank: r, d_conv: k, bias } = config;
  list.linear('in_proj', 2 * e, d, bias);
  list.conv(e, k, config.conv_bias);
  list.linear('x_proj', r + 2 * n, e);
  list.add('dt_proj.weight', [e, r]);
  list.add('dt_proj.bias', [e]);
  list.add('A_log', [e, n]);
  list.add('D', [e]);
  list.linear('out_proj', d, e, bias);
}

function addMamba2(list: TensorList, config: Mamba2Config): void {
  const { d_model: d, d_inner: e, d_ssm, d_state: n, ngroups: g, headdim, d_conv: k, bias } = config;
  const h = d_ssm / headdim;
  const conv = d_ssm + 2 * g * n;
  list.linear('in_proj', 2 * (e - d_ssm) + d_ssm + conv + h, d, bias);
  list.conv(conv, k, config.conv_bias);
  for (const name of ['dt_bias', 'A_log']) list.add(name, [h]);
  list.add('D', [config.D_has_hdim ? d_ssm : h]);
  list.add('norm.weight', [d_ssm], config.rmsnorm);
  list.linear('out_proj', d, e, bias);
}

function addMamba3(list: TensorList, config: Mamba3Config): void {
  const { d_model: d, d_inner: e, d_state: n, ngroups: g, headdim: p, mimo_rank: r } = config;
  const h = e / p;
  list.linear('in_proj', 2 * e + 2 * r * g * n + 3 * h + rotatedPairs(config), d);
  list.add('dt_bias', [h]);
  for (const name of ['B_bias', 'C_bias']) list.add(name, [h, r, n]);
  for (const name of ['B_norm.weight', 'C_norm.weight']) list.add(name, [n]);
  list.add('D', [h]);
  for (const name of ['mimo_x', 'mimo_z', 'mimo_o']) list.add(name, [h, r, p], config.is_mimo);
  list.add('norm.weight', [e], config.is_outproj_norm);
  list.linear('out_proj', d, e);
}

function addAttention(list: TensorList, d: number, config: AttentionConfig): void {
  const { num_heads, num_heads_kv, head_dim, mlp_dim, d_conv } = config;
  const qkv = (num_heads + 2 * num_heads_kv) * head_dim;
  const mlp = Math.ceil(mlp_dim / 256) * 256;
  list.linear('in_proj', qkv + mlp, d, config.qkv_proj_bias);
  if (d_conv > 0) list.conv(qkv, d_conv, true);
  list.linear('out_proj', d, num_heads * head_dim + mlp / 2, config.out_proj_bias);
}
