/**
 * A language model: embedding, a pre-norm residual stack of mixers (and optional MLPs), final norm, head.
 * The skeleton of mamba_ssm/models/mixer_seq_simple.py with its delayed residual add: each norm receives the branch output and the
 * stream, and hands on their sum in float32. Parameters carry the Hugging Face names (`backbone.layers.0.mixer.in_proj.weight`).
 */
import { DTypeError, ShapeError, StateError } from '../base/errors.ts';
import { Rng } from '../base/rng.ts';
import { sizeOf } from '../base/shape.ts';
import type { Tokenizer } from '../base/tokenizer.ts';
import type { Init } from '../nn/init.ts';
import { Embedding, GatedMlp, Linear, Norm } from '../nn/layers.ts';
import { Module } from '../nn/module.ts';
import { crossEntropy } from '../ops/cross-entropy.ts';
import { linear } from '../ops/linear.ts';
import { add, gatherRows, reshape } from '../tensor/primitives.ts';
import { keep, scope } from '../tensor/scope.ts';
import { noGrad, recompute } from '../tensor/tape.ts';
import { Tensor } from '../tensor/tensor.ts';
import { type ModelConfig, type ModelConfigInput, paddedVocabSize, resolveConfig } from './config.ts';
import { fingerprintOf } from './fingerprint.ts';
import { Mamba1, type SequenceContext } from './mamba1.ts';
import { type LayerState, State, type StateModel } from './state.ts';

/** Rows of token ids, ragged allowed, or an i32 tensor (b, l). */
export type Ids = readonly (readonly number[] | Int32Array)[] | Tensor;

export interface ForwardOptions {
  /** Where to continue from; zeros when omitted. It is not changed. */
  state?: State | null;
  /** Real tokens per row; the rest is padding that never reaches the state. Follows from ragged ids by itself. */
  lengths?: readonly number[] | Int32Array;
  /** Document of each token, rows like those of the ids or (b, l): packed documents do not see each other. */
  sequenceIds?: readonly (readonly number[])[] | Tensor;
  /** Logits of the last token of each row only: (b, 1, v). */
  lastOnly?: boolean;
  /** Also returns the residual stream after every block, and after the final norm. */
  hiddenStates?: boolean;
  /** Recomputes each block during backward() instead of keeping its intermediates. */
  checkpointing?: boolean;
}

export interface ForwardResult {
  /** (b, l, v), v the padded vocabulary. Positions beyond a row's length are meaningless. */
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
    return scope(() => {
      const { input, context, lengths } = this.#prepare(ids, options);
      const [b, l] = input.dims(2);
      const hidden: Tensor[] = [];
      let h = this.backbone.embeddings.forward(input);
      let residual: Tensor | null = null;
      const layers: LayerState[] = [];
      this.backbone.layers.forEach((block, i) => {
        const before = options.state?.layers[i] ?? null;
        const run = options.checkpointing ? runAgain : runBlock;
        const out = run(block, h, residual, before, context);
        if (options.hiddenStates) hidden.push(add(out.h, out.residual));
        ({ h, residual } = out);
        layers.push(out.state);
      });
      if (options.lastOnly) {
        h = lastTokens(h, lengths);
        residual = residual && lastTokens(residual, lengths);
      }
      const final = this.backbone.norm_f.forward(h, residual).y; // (b, l, d)
      if (options.hiddenStates) hidden.push(final);
      const logits = this.lm_head
        ? this.lm_head.forward(final)
        : linear(final, this.backbone.embeddings.weight);
      const before = options.state?.tokens ?? new Array<number>(b).fill(0);
      const tokens = before.map((count, row) => count + (lengths?.[row] ?? l));
      return { logits, state: new State(layers, tokens, this), hidden };
    });
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

  /** Mean cross-entropy in nats of `targets` (b, l; -100 does not count), and the state after it. The logits are not kept. */
  loss(ids: Ids, targets: Tensor, options: ForwardOptions = {}): { loss: Tensor; state: State } {
    return scope(() => {
      const { logits, state } = this.forward(ids, options);
      const loss = crossEntropy(logits, targets);
      return { loss, state };
    });
  }

  #prepare(
    ids: Ids,
    options: ForwardOptions,
  ): { input: Tensor; context: SequenceContext; lengths: number[] | null } {
    const { device } = this;
    const { input, ragged } = packIds(ids, device);
    const [b, l] = input.dims(2);
    const lengths = options.lengths ? [...options.lengths] : ragged;
    if (lengths && (lengths.length !== b || lengths.some((n) => !Number.isInteger(n) || n < 0 || n > l))) {
      throw new ShapeError(`forward: expected ${b} lengths in [0, ${l}], got [${lengths.join(', ')}].`);
    }
    if (options.lastOnly && (l === 0 || lengths?.some((n) => n === 0))) {
      throw new ShapeError(
        'forward: expected at least one token in every row with lastOnly, got an empty row.',
      );
    }
    const { state } = options;
    if (state && !state.fits(this)) {
      throw new StateError(
        `forward: expected a state of this model (${this.fingerprint}), got one of ${state.model.fingerprint}. Start from an empty state.`,
      );
    }
    if (state && state.batch !== b) {
      throw new StateError(
        `forward: expected a state of ${b} rows, got ${state.batch}. Use state.rows() to choose or repeat rows.`,
      );
    }
    const { sequenceIds } = options;
    const packed = !sequenceIds
      ? null
      : sequenceIds instanceof Tensor
        ? sequenceIds
        : packSequenceIds(sequenceIds, lengths, b, l, device);
    return {
      input,
      context: {
        sequenceIds: packed,
        lengths: lengths && Tensor.from(Int32Array.from(lengths), [b], { device }),
      },
      lengths,
    };
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

/** (b, l, d) -> (b, 1, d) at the last real token of each row. */
function lastTokens(x: Tensor, lengths: readonly number[] | null): Tensor {
  const [b, l, d] = x.dims(3);
  const at = Int32Array.from({ length: b }, (_, row) => row * l + (lengths?.[row] ?? l) - 1);
  return gatherRows(reshape(x, [b * l, d]), Tensor.from(at, [b, 1], { device: x.device }));
}

/** Host rows to an i32 tensor (b, l), padded with 0; `ragged` are the lengths when they differ. */
function packIds(ids: Ids, device: Tensor['device']): { input: Tensor; ragged: number[] | null } {
  if (ids instanceof Tensor) {
    if (ids.dtype !== 'i32') throw new DTypeError(`forward: expected i32 ids, got ${ids.dtype}.`);
    return { input: ids, ragged: null };
  }
  if (ids.length === 0 || !ids.every((row) => typeof row === 'object')) {
    const got = ids.length === 0 ? 'none' : 'ids without rows';
    throw new ShapeError(
      `forward: expected rows of ids such as [[1, 2, 3]], got ${got}. Wrap a single row in a list.`,
    );
  }
  const lengths = ids.map((row) => row.length);
  const l = Math.max(...lengths);
  const host = new Int32Array(sizeOf([ids.length, l]));
  ids.forEach((row, i) => {
    row.forEach((id, t) => {
      if (!Number.isInteger(id))
        throw new DTypeError(`forward: expected integer ids, got ${id} in row ${i}.`);
      host[i * l + t] = id;
      // The 32 bits of a larger number would be another id.
      if (host[i * l + t] !== id)
        throw new ShapeError(`forward: expected ids in the vocabulary, got ${id} in row ${i}.`);
    });
  });
  return {
    input: Tensor.from(host, [ids.length, l], { device }),
    ragged: lengths.some((n) => n !== l) ? lengths : null,
  };
}

/** Rows as long as the ids' (or l), padded with 0: padding is no document's. */
function packSequenceIds(
  rows: readonly (readonly number[])[],
  lengths: readonly number[] | null,
  b: number,
  l: number,
  device: Tensor['device'],
): Tensor {
  const host = new Int32Array(b * l);
  const isFit = (row: readonly number[], i: number) => row.length === l || row.length === lengths?.[i];
  if (rows.length !== b || !rows.every(isFit)) {
    const got = rows.map((row) => row.length).join(', ');
    throw new ShapeError(
      `forward: expected a sequence id for each token of ${b} rows, got rows of [${got}]. Give one per id.`,
    );
  }
  rows.forEach((row, i) => {
    host.set(row, i * l);
  });
  return Tensor.from(host, [b, l], { device });
}
