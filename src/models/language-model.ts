/**
 * A language model: embedding, a pre-norm residual stack of mixers (and optional MLPs), final norm, head.
 * The skeleton of mamba_ssm/models/mixer_seq_simple.py with its delayed residual add: each norm receives the branch output and the
 * stream, and hands on their sum in float32. Parameters carry the Hugging Face names (`backbone.layers.0.mixer.in_proj.weight`).
 */
import { ShapeError, StateError } from '../base/errors.ts';
import { Rng } from '../base/rng.ts';
import type { Tokenizer } from '../base/tokenizer.ts';
import type { Init } from '../nn/init.ts';
import { Embedding, GatedMlp, Linear, Norm } from '../nn/layers.ts';
import { Module } from '../nn/module.ts';
import { crossEntropy } from '../ops/cross-entropy.ts';
import { linear } from '../ops/linear.ts';
import { add, reshape } from '../tensor/primitives.ts';
import { keep, scope } from '../tensor/scope.ts';
import { noGrad, recompute } from '../tensor/tape.ts';
import { Tensor } from '../tensor/tensor.ts';
import { type ModelConfig, type ModelConfigInput, paddedVocabSize, resolveConfig } from './config.ts';
import { fingerprintOf } from './fingerprint.ts';
import {
  atPlaces,
  type Ids,
  type InputOptions,
  type Inputs,
  lastTokens,
  packInputs,
  withoutPadding,
} from './inputs.ts';
import { Mamba1, type SequenceContext } from './mamba1.ts';
import { type LayerState, State, type StateModel } from './state.ts';

export interface ForwardOptions extends InputOptions {
  /** Where to continue from; zeros when omitted. It is not changed. */
  state?: State | null;
  /** Only the last token of each row: (b, 1, v). */
  lastOnly?: boolean;
  /** Also returns the residual stream after every block, and after the final norm. */
  hiddenStates?: boolean;
  /** Recomputes each block during backward() instead of keeping its intermediates. */
  checkpointing?: boolean;
}

export interface EncodeResult {
  /** (b, l, d) after the final norm: what the head reads. Positions of padding are meaningless. */
  hidden: Tensor;
  state: State;
  /** With hiddenStates: the residual stream (b, l, d) after each block. */
  blocks: Tensor[];
}

export interface ForwardResult {
  /** (b, l, v), v the padded vocabulary. Positions of padding, and beyond a row's length, are meaningless. */
  logits: Tensor;
  state: State;
  /** With hiddenStates: n_layer tensors (b, l, d), then the output of the final norm. */
  hidden: Tensor[];
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

class Backbone extends Module {
  readonly embeddings: Embedding;
  readonly layers: Block[];
  readonly norm_f: Norm;

  constructor(init: Init, config: ModelConfig) {
    super();
    this.embeddings = new Embedding(init, paddedVocabSize(config), config.d_model);
    this.layers = Array.from({ length: config.n_layer }, () => new Block(init, config));
    this.norm_f = new Norm(init, config.d_model, { rms: config.rms_norm, eps: config.norm_eps });
  }
}

export class LanguageModel extends Module implements StateModel {
  readonly backbone: Backbone;
  /** Null when tied to the embedding. */
  readonly lm_head: Linear | null;
  readonly config: ModelConfig;
  tokenizer: Tokenizer | null = null;
  /** The Jinja source that turns messages into text; null for models that were not taught to chat. */
  chatTemplate: string | null = null;
  #fingerprint: string;

  /** Random weights from `seed` (default 0); null leaves them uninitialised, for loading. Lives on the current device. */
  constructor(config: ModelConfigInput, options: { seed?: number | null } = {}) {
    super();
    this.config = resolveConfig(config);
    const { seed = 0 } = options;
    const init: Init = { rng: seed === null ? null : new Rng(seed), samples: [] };
    this.backbone = new Backbone(init, this.config);
    this.lm_head = this.config.tie_embeddings
      ? null
      : new Linear(init, this.config.d_model, paddedVocabSize(this.config));
    this.#fingerprint = fingerprintOf(this.config, init.samples);
  }

  get fingerprint(): string {
    return this.#fingerprint;
  }

  /** Where the weights live. */
  get device(): Tensor['device'] {
    return this.backbone.embeddings.weight.device;
  }

  /** Recomputes the fingerprint from the small parameters: after loading, and whenever a state is written. */
  async refreshFingerprint(): Promise<string> {
    const samples = [];
    for (const [, tensor] of this.namedParameters())
      if (tensor.shape.length === 1) samples.push(await tensor.floats());
    this.#fingerprint = fingerprintOf(this.config, samples);
    return this.#fingerprint;
  }

  get stateShapes(): { conv: number[]; ssm: number[] }[] {
    const { d_inner: e, d_conv: k, d_state: n, n_layer } = this.config;
    return Array.from({ length: n_layer }, () => ({ conv: [e, k], ssm: [e, n] }));
  }

  /** The state before any token, for `batch` rows. Lives until it is disposed. */
  initialState(batch = 1): State {
    const zeros = (shape: number[]) => keep(Tensor.zeros([batch, ...shape], { device: this.device }));
    const layers = this.stateShapes.map(({ conv, ssm }) => ({ conv: zeros(conv), ssm: zeros(ssm) }));
    return new State(layers, new Array<number>(batch).fill(0), this);
  }

  /** Any number of tokens from any state. Throws ShapeError for ids outside the vocabulary, StateError for another model's state. */
  forward(ids: Ids, options: ForwardOptions = {}): ForwardResult {
    return scope(() => this.#run(packInputs(ids, options, this.device), options));
  }

  /** forward() without the head: the hidden states that embeddings are pooled from. */
  encode(ids: Ids, options: ForwardOptions = {}): EncodeResult {
    return scope(() => this.#encode(packInputs(ids, options, this.device), options));
  }

  /** Hidden states after the final norm (..., d) -> logits (..., v). */
  head(hidden: Tensor): Tensor {
    return this.lm_head ? this.lm_head.forward(hidden) : linear(hidden, this.backbone.embeddings.weight);
  }

  /** One token per row: ids (b) -> logits (b, v) and the next state, without recording gradients. */
  step(ids: readonly number[] | Int32Array, state: State): { logits: Tensor; state: State } {
    return noGrad(() =>
      scope(() => {
        const out = this.forward(
          Array.from(ids, (id) => [id]),
          { state },
        );
        return { logits: reshape(out.logits, [ids.length, out.logits.shape[2]!]), state: out.state };
      }),
    );
  }

  /**
   * Mean cross-entropy in nats of `targets` (b, l; -100 does not count, nor do those at padding), and the state after it. The logits
   * are not kept.
   */
  loss(ids: Ids, targets: Tensor, options: ForwardOptions = {}): { loss: Tensor; state: State } {
    return scope(() => {
      const inputs = packInputs(ids, options, this.device);
      const { logits, state } = this.#run(inputs, options);
      return { loss: crossEntropy(logits, withoutPadding(targets, inputs)), state };
    });
  }

  #run(inputs: Inputs, options: ForwardOptions): ForwardResult {
    const { hidden, state, blocks } = this.#encode(inputs, options);
    return { logits: this.head(hidden), state, hidden: options.hiddenStates ? [...blocks, hidden] : [] };
  }

  #encode({ input, context, lengths, places }: Inputs, options: ForwardOptions): EncodeResult {
    const [b, l] = input.dims(2);
    const { state: start = null, lastOnly = false } = options;
    this.#checkStart(b, start);
    if (lastOnly && (l === 0 || lengths?.some((n) => n === 0))) {
      throw new ShapeError(
        'forward: expected at least one token in every row with lastOnly, got an empty row.',
      );
    }
    const blocks: Tensor[] = [];
    const layers: LayerState[] = [];
    const run = options.checkpointing ? runAgain : runBlock;
    let h = this.backbone.embeddings.forward(input);
    let residual: Tensor | null = null;
    this.backbone.layers.forEach((block, i) => {
      const out = run(block, h, residual, start?.layers[i] ?? null, context);
      if (options.hiddenStates) blocks.push(atPlaces(add(out.h, out.residual), places));
      ({ h, residual } = out);
      layers.push(out.state);
    });
    if (lastOnly) {
      h = lastTokens(h, lengths);
      residual = residual && lastTokens(residual, lengths);
    }
    const { y } = this.backbone.norm_f.forward(h, residual); // (b, l, d)
    const before = start?.tokens ?? new Array<number>(b).fill(0);
    const tokens = before.map((count, row) => count + (lengths?.[row] ?? l));
    return { hidden: lastOnly ? y : atPlaces(y, places), state: new State(layers, tokens, this), blocks };
  }

  #checkStart(b: number, state: State | null): void {
    if (!state) return;
    if (!state.fits(this)) {
      throw new StateError(
        `forward: expected a state of this model (${this.fingerprint}), got one of ${state.model.fingerprint}. Start from an empty state.`,
      );
    }
    if (state.batch !== b) {
      throw new StateError(
        `forward: expected a state of ${b} rows, got ${state.batch}. Use state.rows() to choose or repeat rows.`,
      );
    }
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
