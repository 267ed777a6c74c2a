/**
 * A language model: the backbone, which reads tokens from any state, and a head that predicts the next one.
 * Parameters carry the Hugging Face names (`backbone.layers.0.mixer.in_proj.weight`).
 */
import { ShapeError, StateError } from '../base/errors.ts';
import { Rng } from '../base/rng.ts';
import type { Tokenizer } from '../base/tokenizer.ts';
import type { Init } from '../nn/init.ts';
import { Linear } from '../nn/layers.ts';
import { Module } from '../nn/module.ts';
import { crossEntropy } from '../ops/cross-entropy.ts';
import { linear } from '../ops/linear.ts';
import { type Precision, withPrecision } from '../tensor/precision.ts';
import { reshape } from '../tensor/primitives.ts';
import { scope } from '../tensor/scope.ts';
import { noGrad } from '../tensor/tape.ts';
import type { Tensor } from '../tensor/tensor.ts';
import { Backbone, type BackboneOptions } from './backbone.ts';
import { type ModelConfig, type ModelConfigInput, paddedVocabSize, resolveConfig } from './config.ts';
import { fingerprintOf, vectorsOf } from './fingerprint.ts';
import {
  type Ids,
  type InputOptions,
  type Inputs,
  packInputs,
  positionsAfter,
  withoutPadding,
} from './inputs.ts';
import type { LayerShapes } from './mixer.ts';
import { State, type StateModel } from './state.ts';

export interface ForwardOptions extends InputOptions, BackboneOptions {
  /** Where to continue from; zeros when omitted. It is not changed. */
  state?: State | null;
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

export class LanguageModel extends Module implements StateModel {
  readonly backbone: Backbone;
  /** Null when tied to the embedding. */
  readonly lm_head: Linear | null;
  readonly config: ModelConfig;
  tokenizer: Tokenizer | null = null;
  /** The id that ends a text, where there is no tokenizer to say it. */
  eosId: number | null = null;
  /** The Jinja source that turns messages into text; null for models that were not taught to chat. */
  chatTemplate: string | null = null;
  /** What projections, head and, in prompts of Mamba-2 and -3, the state compute their products in; may be set at
   *  any time. */
  precision: Precision = 'f32';
  #fingerprint: string;

  /**
   * Random weights from `seed` (default 0); null leaves them uninitialised, for
   * loading. Lives on the current device.
   */
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
    this.#fingerprint = fingerprintOf(this.config, await vectorsOf(this));
    return this.#fingerprint;
  }

  get stateShapes(): LayerShapes[] {
    return this.backbone.stateShapes;
  }

  /** The state before any token, for `batch` rows. Lives until it is disposed. */
  initialState(batch = 1): State {
    return State.zeros(this, batch);
  }

  /**
   * Any number of tokens from any state. Throws ShapeError for ids outside the vocabulary,
   * StateError for another model's state.
   */
  forward(ids: Ids, options: ForwardOptions = {}): ForwardResult {
    return this.#scope(() => this.#run(packInputs(ids, options, this.device), options));
  }

  /** forward() without the head: the hidden states that embeddings are pooled from. */
  encode(ids: Ids, options: ForwardOptions = {}): EncodeResult {
    return this.#scope(() => this.#encode(packInputs(ids, options, this.device), options));
  }

  /** Hidden states after the final norm (..., d) -> logits (..., v). */
  head(hidden: Tensor): Tensor {
    return this.#scope(() =>
      this.lm_head ? this.lm_head.forward(hidden) : linear(hidden, this.backbone.embeddings.weight),
    );
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
   * Mean cross-entropy in nats of `targets` (b, l; -100 does not count, nor do those at padding), and the
   * state after it. The logits are not kept.
   */
  loss(ids: Ids, targets: Tensor, options: ForwardOptions = {}): { loss: Tensor; state: State } {
    return this.#scope(() => {
      const inputs = packInputs(ids, options, this.device);
      const { logits, state } = this.#run(inputs, options);
      return { loss: crossEntropy(logits, withoutPadding(targets, inputs)), state };
    });
  }

  /** scope() in the precision of this model. */
  #scope<T>(fn: () => T): T {
    return withPrecision(this.precision, () => scope(fn));
  }

  #run(inputs: Inputs, options: ForwardOptions): ForwardResult {
    const { hidden, state, blocks } = this.#encode(inputs, options);
    return { logits: this.head(hidden), state, hidden: options.hiddenStates ? [...blocks, hidden] : [] };
  }

  #encode(inputs: Inputs, options: ForwardOptions): EncodeResult {
    const { input, lengths } = inputs;
    const [b, l] = input.dims(2);
    const { state: start = null, lastOnly = false } = options;
    this.#checkStart(b, start);
    if (lastOnly && (l === 0 || lengths?.some((n) => n === 0))) {
      throw new ShapeError(
        'forward: expected at least one token in every row with lastOnly, got an empty row.',
      );
    }
    const { hidden, layers, blocks } = this.backbone.forward(inputs, start, options);
    const before = start?.tokens ?? new Array<number>(b).fill(0);
    const tokens = before.map((count, row) => count + (lengths?.[row] ?? l));
    const positions = this.config.attn_cfg ? positionsAfter(inputs, start?.positions ?? before) : tokens;
    return { hidden, state: new State(layers, tokens, this, positions), blocks };
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
