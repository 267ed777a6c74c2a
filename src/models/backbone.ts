/**
 * The stack that every model reads with: embedding, pre-norm residual blocks of mixers (and optional MLPs), final norm.
 * The skeleton of mamba_ssm/models/mixer_seq_simple.py with its delayed residual add: each norm receives the branch
 * output and the stream, and hands on their sum in float32.
 */
import type { Init } from '../nn/init.ts';
import { Embedding, GatedMlp, Norm } from '../nn/layers.ts';
import { Module } from '../nn/module.ts';
import { add } from '../tensor/primitives.ts';
import { scope } from '../tensor/scope.ts';
import { recompute } from '../tensor/tape.ts';
import type { Tensor } from '../tensor/tensor.ts';
import { type ModelConfig, paddedVocabSize } from './config.ts';
import { atPlaces, type Inputs, lastTokens } from './inputs.ts';
import { Mamba1, type SequenceContext } from './mamba1.ts';
import type { LayerState } from './state.ts';

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
  readonly mixer: Mamba1;
  readonly norm2: Norm | null;
  readonly mlp: GatedMlp | null;

  constructor(init: Init, config: ModelConfig) {
    super();
    const branches = config.n_layer * (config.d_intermediate > 0 ? 2 : 1);
    const scale = 1 / Math.sqrt(branches);
    const norm = { rms: config.rms_norm, eps: config.norm_eps };
    this.norm = new Norm(init, config.d_model, norm);
    this.mixer = new Mamba1(init, config, scale);
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

export class Backbone extends Module {
  readonly embeddings: Embedding;
  readonly layers: Block[];
  readonly norm_f: Norm;
  readonly #config: ModelConfig;

  constructor(init: Init, config: ModelConfig) {
    super();
    this.#config = config;
    this.embeddings = new Embedding(init, paddedVocabSize(config), config.d_model);
    this.layers = Array.from({ length: config.n_layer }, () => new Block(init, config));
    this.norm_f = new Norm(init, config.d_model, { rms: config.rms_norm, eps: config.norm_eps });
  }

  /** Shapes of one row of each layer's state. */
  get stateShapes(): { conv: number[]; ssm: number[] }[] {
    const { d_inner: e, d_conv: k, d_state: n } = this.#config;
    return this.layers.map(() => ({ conv: [e, k], ssm: [e, n] }));
  }

  /** Tokens from any state (null = zeros) -> what the head reads (b, l, d), the states after them, and the blocks' outputs. */
  forward(
    { input, context, lengths, places }: Inputs,
    states: readonly LayerState[] | null,
    options: BackboneOptions = {},
  ): { hidden: Tensor; layers: LayerState[]; blocks: Tensor[] } {
    const { lastOnly, hiddenStates, checkpointing, onEmbedded } = options;
    const blocks: Tensor[] = [];
    const layers: LayerState[] = [];
    const run = checkpointing ? runAgain : runBlock;
    const embedded = this.embeddings.forward(input);
    let h = onEmbedded ? onEmbedded(embedded) : embedded;
    let residual: Tensor | null = null;
    this.layers.forEach((block, i) => {
      const out = run(block, h, residual, states?.[i] ?? null, context);
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
  const inputs = [h, ...(residual ? [residual] : []), ...(state ? [state.conv, state.ssm] : [])];
  const outputs = recompute((...xs) => {
    const rest = xs.slice(residual ? 2 : 1);
    const before = state ? { conv: rest[0]!, ssm: rest[1]! } : null;
    const out = block.forward(xs[0]!, residual ? xs[1]! : null, before, context);
    return [out.h, out.residual, out.state.conv, out.state.ssm];
  }, inputs);
  const [nextH, nextResidual, conv, ssm] = outputs as [Tensor, Tensor, Tensor, Tensor];
  return { h: nextH, residual: nextResidual, state: { conv, ssm } };
}
