/**
 * The stack that every model reads with: embedding, pre-norm residual blocks of mixers (and optional MLPs),
 * final norm. The skeleton of mamba_ssm/models/mixer_seq_simple.py with its delayed residual add: each norm
 * receives the branch output and the stream, and hands on their sum in float32.
 */
import type { Init } from '../nn/init.ts';
import { Embedding, GatedMlp, Norm } from '../nn/layers.ts';
import { Module } from '../nn/module.ts';
import { add } from '../tensor/primitives.ts';
import { scope } from '../tensor/scope.ts';
import { recompute } from '../tensor/tape.ts';
import type { Tensor } from '../tensor/tensor.ts';
import { Attention } from './attention.ts';
import { type ModelConfig, paddedVocabSize } from './config.ts';
import { atPlaces, type Inputs, lastTokens } from './inputs.ts';
import { Mamba1 } from './mamba1.ts';
import { Mamba2 } from './mamba2.ts';
import { Mamba3 } from './mamba3.ts';
import type { LayerShapes, LayerState, SequenceContext } from './mixer.ts';

export interface BackboneOptions {
  /** Only the last token of each row: (b, 1, d). */
  lastOnly?: boolean;
  /** Also the residual stream after every block. */
  hiddenStates?: boolean;
  /** Recomputes each block during backward() instead of keeping its intermediates. */
  checkpointing?: boolean;
  /** Sees the embedded tokens (b, l, d) and gives what is read in their place. */
  onEmbedded?: (h: Tensor) => Tensor;
}

/** Pre-norm block: norm, mixer, and with d_intermediate a second norm and a gated MLP. */
class Block extends Module {
  readonly norm: Norm;
  readonly mixer: AnyMixer;
  readonly norm2: Norm | null;
  readonly mlp: GatedMlp | null;

  constructor(init: Init, config: ModelConfig, layer: number) {
    super();
    const branches = config.n_layer * (config.d_intermediate > 0 ? 2 : 1);
    const scale = 1 / Math.sqrt(branches);
    const norm = { rms: config.rms_norm, eps: config.norm_eps };
    this.norm = new Norm(init, config.d_model, norm);
    this.mixer = mixerOf(init, config, layer, scale);
    this.norm2 = config.d_intermediate > 0 ? new Norm(init, config.d_model, norm) : null;
    this.mlp =
      config.d_intermediate > 0 ? new GatedMlp(init, config.d_model, config.d_intermediate, { scale }) : null;
  }

  /** h, residual (b, l, d) -> the branch output, the stream before it, and the layer's state. */
  forward(h: Tensor, residual: Tensor | null, state: LayerState | null, context: SequenceContext) {
    const normed = this.norm.forward(h, residual);
    const mixed = this.mixer.forward(normed.y, state, context);
    if (!this.norm2 || !this.mlp) return { h: mixed.y, residual: normed.residual, state: mixed.state };
    const second = this.norm2.forward(mixed.y, normed.residual);
    return { h: this.mlp.forward(second.y), residual: second.residual, state: mixed.state };
  }
}

/** The mixers of every architecture; all have in_proj and out_proj. */
export type AnyMixer = Mamba1 | Mamba2 | Mamba3 | Attention;

function mixerOf(init: Init, config: ModelConfig, layer: number, scale: number): AnyMixer {
  const { attn_cfg, attn_layer_idx } = config;
  if (attn_cfg && attn_layer_idx.includes(layer)) return new Attention(init, config.d_model, attn_cfg, scale);
  if (config.model_type === 'mamba1') return new Mamba1(init, config, scale);
  if (config.model_type === 'mamba2') return new Mamba2(init, config, scale);
  return new Mamba3(init, config, scale);
}

export class Backbone extends Module {
  readonly embeddings: Embedding;
  readonly layers: Block[];
  readonly norm_f: Norm;

  constructor(init: Init, config: ModelConfig) {
    super();
    this.embeddings = new Embedding(init, paddedVocabSize(config), config.d_model);
    this.layers = Array.from({ length: config.n_layer }, (_, i) => new Block(init, config, i));
    this.norm_f = new Norm(init, config.d_model, { rms: config.rms_norm, eps: config.norm_eps });
  }

  /** Shapes of one row of each layer's state. */
  get stateShapes(): LayerShapes[] {
    return this.layers.map(({ mixer }) => mixer.stateShapes);
  }

  /**
   * Tokens from any state (null = before any) -> what the head reads (b, l, d), the states after
   * them, and the blocks' outputs.
   */
  forward(
    { input, context: sequence, lengths, places }: Inputs,
    start: { layers: readonly LayerState[]; positions: readonly number[] } | null,
    options: BackboneOptions = {},
  ): { hidden: Tensor; layers: LayerState[]; blocks: Tensor[] } {
    const { lastOnly, hiddenStates, checkpointing, onEmbedded } = options;
    const blocks: Tensor[] = [];
    const layers: LayerState[] = [];
    const context = { ...sequence, positions: start?.positions ?? null };
    const run = checkpointing ? runAgain : runBlock;
    const embedded = this.embeddings.forward(input);
    let h = onEmbedded ? onEmbedded(embedded) : embedded;
    let residual: Tensor | null = null;
    this.layers.forEach((block, i) => {
      const out = run(block, h, residual, start?.layers[i] ?? null, context);
      if (hiddenStates) blocks.push(atPlaces(add(out.h, out.residual), places));
      ({ h, residual } = out);
      layers.push(out.state);
    });
    if (lastOnly) {
      h = lastTokens(h, lengths);
      residual = residual && lastTokens(residual, lengths);
    }
    const { y } = this.norm_f.forward(h, residual); // (b, l, d)
    return { hidden: lastOnly ? y : atPlaces(y, places), layers, blocks };
  }
}

type BlockResult = { h: Tensor; residual: Tensor; state: LayerState };

function runBlock(
  block: Block,
  h: Tensor,
  residual: Tensor | null,
  state: LayerState | null,
  context: SequenceContext,
): BlockResult {
  return scope(() => block.forward(h, residual, state, context));
}

/** runBlock with its intermediates recomputed during backward(). */
function runAgain(
  block: Block,
  h: Tensor,
  residual: Tensor | null,
  state: LayerState | null,
  context: SequenceContext,
): BlockResult {
  const names = Object.keys(block.mixer.stateShapes);
  const { sequenceIds, lengths } = context;
  // The context's tensors are inputs too: they must live until the backward pass.
  const given = { h, residual, sequenceIds, lengths, ...state };
  const inputs = Object.entries(given).filter((entry): entry is [string, Tensor] => Boolean(entry[1]));
  const outputs = recompute(
    (...xs) => {
      const { h, residual, sequenceIds, lengths, ...before } = Object.fromEntries(
        inputs.map(([name], i) => [name, xs[i]!]),
      );
      const again = { ...context, sequenceIds, lengths };
      const out = block.forward(h!, residual ?? null, state && before, again);
      return [out.h, out.residual, ...names.map((name) => out.state[name]!)];
    },
    inputs.map(([, tensor]) => tensor),
  );
  const [nextH, nextResidual, ...after] = outputs as [Tensor, Tensor, ...Tensor[]];
  const next = Object.fromEntries(names.map((name, i) => [name, after[i]!]));
  return { h: nextH, residual: nextResidual, state: next };
}
