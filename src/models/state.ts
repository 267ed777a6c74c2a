/**
 * The recurrent state of a language model, as a value: what the model remembers of everything it has read, of constant size.
 * It can be cloned, cut into rows and joined again, saved to bytes and continued in another process.
 */
import { FormatError, StateError } from '../base/errors.ts';
import { sameShape, showShape } from '../base/shape.ts';
import { concat, slice } from '../tensor/primitives.ts';
import { keep, scope, TENSORS, type TensorOwner } from '../tensor/scope.ts';
import { noGrad } from '../tensor/tape.ts';
import { Tensor } from '../tensor/tensor.ts';
import { decodeStateBytes, encodeStateBytes } from './state-bytes.ts';

/** One layer: Mamba-1 has conv (b, e, k), the last k inputs of the convolution, oldest first, and ssm (b, e, n). */
export type LayerState = { conv: Tensor; ssm: Tensor };

/** What State needs to know of a model. */
export interface StateModel {
  readonly device: Tensor['device'];
  /** Identifies architecture and weights, as of the last refresh. */
  readonly fingerprint: string;
  /** Recomputes the fingerprint from the weights. */
  refreshFingerprint(): Promise<string>;
  /** Shapes of one row of each layer's state. */
  readonly stateShapes: readonly Record<string, readonly number[]>[];
}

export class State implements TensorOwner {
  readonly layers: readonly LayerState[];
  /** Tokens read so far, per row. */
  readonly tokens: readonly number[];
  /** The model that made it. */
  readonly model: StateModel;

  constructor(layers: readonly LayerState[], tokens: readonly number[], model: StateModel) {
    this.layers = layers;
    this.tokens = tokens;
    this.model = model;
  }

  /** Before any token, for `batch` rows. Lives until it is disposed. */
  static zeros(model: StateModel, batch: number): State {
    const zeros = (shape: readonly number[]) =>
      keep(Tensor.zeros([batch, ...shape], { device: model.device }));
    const layers = model.stateShapes.map(({ conv, ssm }) => ({ conv: zeros(conv!), ssm: zeros(ssm!) }));
    return new State(layers, new Array<number>(batch).fill(0), model);
  }

  /** Whether `model` can go on from here: it made the state, or has the same architecture and weights. */
  fits(model: StateModel): boolean {
    return this.model === model || this.model.fingerprint === model.fingerprint;
  }

  /** Rows (sequences). */
  get batch(): number {
    return this.tokens.length;
  }

  get sizeBytes(): number {
    return [...this[TENSORS]()].reduce((sum, tensor) => sum + tensor.sizeBytes, 0);
  }

  /** An independent copy that lives until it is disposed. */
  clone(): State {
    return this.rows(this.tokens.map((_, i) => i));
  }

  /** A new state made of these rows, in this order; repeats are allowed (a fork). Lives until it is disposed. */
  rows(indices: readonly number[]): State {
    const bad = indices.find((i) => !Number.isInteger(i) || i < 0 || i >= this.batch);
    if (bad !== undefined)
      throw new StateError(`State.rows: expected rows in [0, ${this.batch}), got ${bad}.`);
    return State.join(indices.map((i) => ({ state: this, row: i })));
  }

  /** This state with rows replaced: row indices[i] becomes row i of `from`. */
  withRows(indices: readonly number[], from: State): State {
    if (indices.length !== from.batch || new Set(indices).size !== indices.length) {
      throw new StateError(
        `State.withRows: expected ${from.batch} different rows, got [${indices.join(', ')}].`,
      );
    }
    const bad = indices.find((i) => !Number.isInteger(i) || i < 0 || i >= this.batch);
    if (bad !== undefined)
      throw new StateError(`State.withRows: expected rows in [0, ${this.batch}), got ${bad}.`);
    return State.join(
      this.tokens.map((_, row) => {
        const at = indices.indexOf(row);
        return at === -1 ? { state: this, row } : { state: from, row: at };
      }),
    );
  }

  /** Gathers rows of several states of one model into one batch. */
  static join(parts: readonly { state: State; row: number }[]): State {
    const first = parts[0]?.state;
    if (!first) throw new StateError('State.join: expected at least one row, got none.');
    if (parts.some(({ state }) => !state.fits(first.model))) {
      throw new StateError('State.join: expected states of one model, got states of different ones.');
    }
    const gather = (pick: (layer: LayerState) => Tensor, i: number) =>
      keep(
        noGrad(() =>
          scope(() =>
            concat(
              parts.map(({ state, row }) => slice(pick(state.layers[i]!), 0, row, row + 1)),
              0,
            ),
          ),
        ),
      );
    const layers = first.layers.map((_, i) => ({
      conv: gather((layer) => layer.conv, i),
      ssm: gather((layer) => layer.ssm, i),
    }));
    return new State(
      layers,
      parts.map(({ state, row }) => state.tokens[row]!),
      first.model,
    );
  }

  /** The same values outside the gradient graph, for truncated backpropagation through time. */
  detach(): State {
    const layers = this.layers.map(({ conv, ssm }) => ({ conv: conv.detach(), ssm: ssm.detach() }));
    return new State(layers, this.tokens, this.model);
  }

  /** A safetensors file with the tensors `layers.N.conv` and `layers.N.ssm`, the fingerprint and the token counts. */
  async toBytes(): Promise<Uint8Array> {
    const entries = this.layers.flatMap((layer, i) =>
      Object.entries(layer).map(([name, tensor]) => ({ name: `layers.${i}.${name}`, tensor })),
    );
    const tensors = [];
    for (const { name, tensor } of entries)
      tensors.push({ name, shape: tensor.shape, data: await tensor.floats() });
    return encodeStateBytes(tensors, {
      fingerprint: await this.model.refreshFingerprint(),
      tokens: JSON.stringify(this.tokens),
    });
  }

  /**
   * Reads what toBytes() wrote. Throws StateError for the state of another model (other architecture or other weights), FormatError for
   * damaged bytes.
   */
  static fromBytes(bytes: Uint8Array, model: StateModel): State {
    const { tensors, metadata } = decodeStateBytes(bytes);
    const shapes = model.stateShapes;
    const tokens = parseTokens(metadata.tokens);
    const expected = shapes.flatMap((layer, i) =>
      Object.entries(layer).map(([name, shape]) => ({
        path: `layers.${i}.${name}`,
        shape: [tokens.length, ...shape],
      })),
    );
    const wrong = expected.find(({ path, shape }) => !sameShape(tensors.get(path)?.shape ?? [], shape));
    if (metadata.fingerprint !== model.fingerprint || wrong || tensors.size !== expected.length) {
      const why = wrong ? ` (${wrong.path} should be ${showShape(wrong.shape)})` : '';
      throw new StateError(
        `State.fromBytes: expected a state of this model (${model.fingerprint}), got one of ${metadata.fingerprint}${why}. ` +
          'Load the model that made it, or start from an empty state.',
      );
    }
    const tensor = (path: string): Tensor => {
      const { data, shape } = tensors.get(path)!;
      return keep(Tensor.from(data, shape, { device: model.device }));
    };
    const layers = shapes.map((_, i) => ({
      conv: tensor(`layers.${i}.conv`),
      ssm: tensor(`layers.${i}.ssm`),
    }));
    return new State(layers, tokens, model);
  }

  dispose(): void {
    for (const tensor of this[TENSORS]()) tensor.dispose();
  }

  *[TENSORS](): Generator<Tensor> {
    for (const { conv, ssm } of this.layers) {
      yield conv;
      yield ssm;
    }
  }
}

function parseTokens(text: string | undefined): number[] {
  let value: unknown;
  try {
    value = JSON.parse(text ?? '');
  } catch {
    value = null;
  }
  if (!Array.isArray(value) || value.length === 0 || !value.every((n) => Number.isSafeInteger(n) && n >= 0)) {
    throw new FormatError(
      `State.fromBytes: expected a list of token counts, got ${text ?? 'none'}. The file is not a state.`,
    );
  }
  return value as number[];
}
