/**
 * A classifier: the backbone reads a text, its hidden states are pooled into one vector, a linear layer
 * scores the classes. With two directions a second backbone reads the text from its end, and the pooled
 * vectors stand side by side (2d features).
 */
import { ShapeError } from '../base/errors.ts';
import { Rng } from '../base/rng.ts';
import type { Tokenizer } from '../base/tokenizer.ts';
import type { Init } from '../nn/init.ts';
import { Linear } from '../nn/layers.ts';
import { addLora } from '../nn/lora.ts';
import { Module } from '../nn/module.ts';
import { type Precision, withPrecision } from '../tensor/precision.ts';
import { concat } from '../tensor/primitives.ts';
import { scope } from '../tensor/scope.ts';
import { Tensor } from '../tensor/tensor.ts';
import { Backbone } from './backbone.ts';
import {
  type ClassifierConfig,
  type ClassifierHeadInput,
  featureWidth,
  resolveHead,
} from './classifier-config.ts';
import { type ModelConfigInput, resolveConfig } from './config.ts';
import { fingerprintOf, vectorsOf } from './fingerprint.ts';
import { type Ids, type InputOptions, type Inputs, packInputs } from './inputs.ts';
import type { LayerShapes } from './mixer.ts';
import { pool, poolPiece } from './pooling.ts';
import { State, type StateModel } from './state.ts';

export type Direction = 'forward' | 'reverse';

export interface ClassifyOptions extends Pick<InputOptions, 'lengths' | 'attentionMask'> {
  /** Recomputes each block during backward() instead of keeping its intermediates. */
  checkpointing?: boolean;
  /**
   * Sees the embedded tokens (b, l, d) of a stack, padding behind the real ones, and
   * gives what is read in their place.
   */
  onEmbedded?: (h: Tensor, direction: Direction) => Tensor;
  /** The same for the pooled features (b, features). */
  onPooled?: (features: Tensor) => Tensor;
}

export class Classifier extends Module implements StateModel {
  readonly backbone: Backbone;
  /** Null with one direction. */
  readonly backbone_reverse: Backbone | null;
  /** weight (classes, features), bias (classes). */
  readonly score: Linear;
  readonly config: ClassifierConfig;
  tokenizer: Tokenizer | null = null;
  /** What projections, head and, in prompts of Mamba-2 and -3, the state compute their products in; may be set at
   *  any time. */
  precision: Precision = 'f32';
  #fingerprint: string;

  /**
   * Random weights from `seed` (default 0), embeddings from N(0, embeddingStd^2) (default 0.02, as language
   * models have them); a null seed leaves them uninitialised, for loading. Lives on the current device.
   */
  constructor(
    config: ClassifierHeadInput & { backbone: ModelConfigInput },
    options: { seed?: number | null; embeddingStd?: number } = {},
  ) {
    super();
    const backbone = resolveConfig(config.backbone);
    this.config = { ...resolveHead(config), backbone };
    const { seed = 0, embeddingStd } = options;
    const init: Init = { rng: seed === null ? null : new Rng(seed), samples: [], embeddingStd };
    const { bidirectional, labels } = this.config;
    this.backbone = new Backbone(init, backbone);
    this.backbone_reverse = bidirectional ? new Backbone(init, backbone) : null;
    this.score = new Linear(init, featureWidth(this.config, backbone.d_model), labels.length, { bias: true });
    if (this.config.lora) for (const stack of this.stacks) addLora(stack, this.config.lora, init);
    this.#fingerprint = fingerprintOf(backbone, init.samples);
  }

  /** The backbones, in the order of `directions`. */
  get stacks(): readonly Backbone[] {
    return this.backbone_reverse ? [this.backbone, this.backbone_reverse] : [this.backbone];
  }

  /** One stack, or two. */
  get directions(): readonly Direction[] {
    return this.backbone_reverse ? ['forward', 'reverse'] : ['forward'];
  }

  get fingerprint(): string {
    return this.#fingerprint;
  }

  /** Where the weights live. */
  get device(): Tensor['device'] {
    return this.backbone.embeddings.weight.device;
  }

  /** Recomputes the fingerprint from the small parameters. */
  async refreshFingerprint(): Promise<string> {
    this.#fingerprint = fingerprintOf(this.config.backbone, await vectorsOf(this));
    return this.#fingerprint;
  }

  /** Of the backbones alone, whatever the head and the adapters: which weights an adapter stands beside. */
  async baseFingerprint(): Promise<string> {
    const samples = await Promise.all(this.stacks.map(vectorsOf));
    return fingerprintOf(this.config.backbone, samples.flat());
  }

  /** Of one stack. */
  get stateShapes(): LayerShapes[] {
    return this.backbone.stateShapes;
  }

  /** The state of one stack before any token, for `batch` rows. Lives until it is disposed. */
  initialState(batch = 1): State {
    return State.zeros(this, batch);
  }

  /**
   * Whole texts as rows of ids -> logits (b, classes), differentiable. Padding and the other rows of a batch
   * change nothing. Throws ShapeError for a row without tokens.
   */
  forward(ids: Ids, options: ClassifyOptions = {}): { logits: Tensor } {
    return this.#scope(() => {
      const inputs = { ...packInputs(ids, options, this.device), places: null };
      expectTokens(inputs);
      const { checkpointing, onEmbedded, onPooled } = options;
      const pooled = this.directions.map((direction) => {
        const read = direction === 'forward' ? inputs : reversed(inputs);
        const { hidden } = this.#stack(direction).forward(read, null, {
          checkpointing,
          onEmbedded: onEmbedded && ((h) => onEmbedded(h, direction)),
        });
        return pool(hidden, this.config.pooling, inputs.lengths);
      });
      const features = pooled.length === 1 ? pooled[0]! : concat(pooled, 1);
      return { logits: this.classify(onPooled ? onPooled(features) : features) };
    });
  }

  /**
   * The next piece of each row, from the state of the piece before: pooled (b, width) of this piece alone,
   * which a RunningPool gathers, and the state after it. For the reverse stack the pieces come from the end,
   * and so do the tokens in each. `lengths`: real tokens per row, where rows are padded.
   */
  readPiece(
    ids: Ids,
    state: State | null = null,
    direction: Direction = 'forward',
    options: Pick<InputOptions, 'lengths'> = {},
  ): { pooled: Tensor; state: State } {
    return this.#scope(() => {
      const inputs = packInputs(ids, options, this.device);
      expectTokens(inputs);
      const [b, l] = inputs.input.dims(2);
      const { hidden, layers } = this.#stack(direction).forward(inputs, state);
      const before = state?.tokens ?? new Array<number>(b).fill(0);
      const tokens = before.map((count, row) => count + (inputs.lengths?.[row] ?? l));
      const pooled = poolPiece(hidden, this.config.pooling, inputs.lengths);
      // A text is one document: its tokens are its positions.
      return { pooled, state: new State(layers, tokens, this) };
    });
  }

  /** Pooled features (b, features), those of two directions side by side -> logits (b, classes). */
  classify(features: Tensor): Tensor {
    return this.#scope(() => this.score.forward(features));
  }

  /** scope() in the precision of this model. */
  #scope<T>(fn: () => T): T {
    return withPrecision(this.precision, () => scope(fn));
  }

  #stack(direction: Direction): Backbone {
    return direction === 'forward' ? this.backbone : this.backbone_reverse!;
  }
}

function expectTokens({ input, lengths }: Inputs): void {
  const [, l] = input.dims(2);
  const row = l === 0 ? 0 : (lengths?.indexOf(0) ?? -1);
  if (row >= 0)
    throw new ShapeError(`Classifier: expected at least one token in every row, got none in row ${row}.`);
}

/** Each row from its last real token to its first. */
function reversed({ input, lengths, context, places }: Inputs): Inputs {
  if (!input.host) {
    throw new ShapeError('Classifier: expected ids made with Tensor.from(Int32Array) for two directions.');
  }
  const [b, l] = input.dims(2);
  const host = input.host.slice();
  for (let row = 0; row < b; row++) host.subarray(row * l, row * l + (lengths?.[row] ?? l)).reverse();
  return { input: Tensor.from(host, [b, l], { device: input.device }), lengths, context, places };
}
