/**
 * The recurrent state of a language model, as a value: what the model remembers of everything it has read.
 * Its size is constant, but for attention layers, which keep keys and values of every token of the document.
 * It can be cloned, cut into rows and joined again, saved to bytes and continued in another process.
 */
import { FormatError, StateError } from '../base/errors.ts';
import { sameShape, showShape } from '../base/shape.ts';
import { concat, slice } from '../tensor/primitives.ts';
import { keep, scope, TENSORS, type TensorOwner } from '../tensor/scope.ts';
import { noGrad } from '../tensor/tape.ts';
import { Tensor } from '../tensor/tensor.ts';
import type { LayerShapes, LayerState } from './mixer.ts';
import { decodeStateBytes, encodeStateBytes } from './state-bytes.ts';

/** What State needs to know of a model. */
export interface StateModel {
  readonly device: Tensor['device'];
  /** Identifies architecture and weights, as of the last refresh. */
  readonly fingerprint: string;
  /** Recomputes the fingerprint from the weights. */
  refreshFingerprint(): Promise<string>;
  /** Shapes of one row of each layer's state. */
  readonly stateShapes: readonly LayerShapes[];
}

export class State implements TensorOwner {
  readonly layers: readonly LayerState[];
  /** Tokens read so far, per row. */
  readonly tokens: readonly number[];
  /**
   * Those of each row's current document: what attention layers hold keys and values of. Without
   * such layers the same as `tokens`.
   */
  readonly positions: readonly number[];
  /** The model that made it. */
  readonly model: StateModel;

  constructor(
    layers: readonly LayerState[],
    tokens: readonly number[],
    model: StateModel,
    positions: readonly number[] = tokens,
  ) {
    this.layers = layers;
    this.tokens = tokens;
    this.model = model;
    this.positions = positions;
  }

  /** Before any token, for `batch` rows. Lives until it is disposed. */
  static zeros(model: StateModel, batch: number): State {
    const tokens = new Array<number>(batch).fill(0);
    const layers = model.stateShapes.map((shapes) =>
      mapLayer(shapes, (shape) =>
        keep(Tensor.zeros([batch, ...extents(shape, tokens)], { device: model.device })),
      ),
    );
    return new State(layers, tokens, model);
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

  /**
   * A new state made of these rows, in this order; repeats are allowed (a fork). Lives until it is disposed.
   */
  rows(indices: readonly number[]): State {
    if (indices.length === 0) throw new StateError('State.rows: expected at least one row, got none.');
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
    const positions = parts.map(({ state, row }) => state.positions[row]!);
    const most = Math.max(...positions);
    const gather = (i: number, name: string, grows: boolean) =>
      keep(
        noGrad(() =>
          scope(() => {
            const rows = parts.map(({ state, row }) => {
              const tensor = slice(state.layers[i]![name]!, 0, row, row + 1);
              return grows ? withPositions(tensor, most) : tensor;
            });
            return concat(rows, 0);
          }),
        ),
      );
    const layers = first.model.stateShapes.map((shapes, i) =>
      mapLayer(shapes, (shape, name) => gather(i, name, shape[0] === 'positions')),
    );
    const tokens = parts.map(({ state, row }) => state.tokens[row]!);
    return new State(layers, tokens, first.model, positions);
  }

  /** The same values outside the gradient graph, for truncated backpropagation through time. */
  detach(): State {
    const layers = this.layers.map((layer) => mapLayer(layer, (tensor) => tensor.detach()));
    return new State(layers, this.tokens, this.model, this.positions);
  }

  /** Every tensor by its name in files: `layers.0.ssm`. */
  *namedTensors(): Generator<[string, Tensor]> {
    for (const [i, layer] of this.layers.entries())
      for (const [name, tensor] of Object.entries(layer)) yield [`layers.${i}.${name}`, tensor];
  }

  /** A safetensors file with the tensors of namedTensors(), the fingerprint and the token counts. */
  async toBytes(): Promise<Uint8Array> {
    const tensors = [];
    for (const [name, tensor] of this.namedTensors())
      tensors.push({ name, shape: tensor.shape, data: await tensor.floats() });
    return encodeStateBytes(tensors, {
      fingerprint: await this.model.refreshFingerprint(),
      tokens: JSON.stringify(this.tokens),
      ...(this.positions.some((count, row) => count !== this.tokens[row])
        ? { positions: JSON.stringify(this.positions) }
        : {}),
    });
  }

  /** Shapes of the tensors of a state of `model` with such positions, by their names in files. */
  static namedShapes(model: StateModel, positions: readonly number[]): Map<string, readonly number[]> {
    return new Map(
      model.stateShapes.flatMap((shapes, i) =>
        Object.entries(shapes).map(([name, shape]): [string, readonly number[]] => [
          `layers.${i}.${name}`,
          [positions.length, ...extents(shape, positions)],
        ]),
      ),
    );
  }

  /** The state with these values, by the names of namedShapes(). Lives until it is disposed. */
  static fromValues(
    values: ReadonlyMap<string, Float32Array>,
    model: StateModel,
    tokens: readonly number[],
    positions: readonly number[] = tokens,
  ): State {
    const { device } = model;
    const layers = model.stateShapes.map((shapes, i) =>
      mapLayer(shapes, (shape, name) =>
        keep(
          Tensor.from(values.get(`layers.${i}.${name}`)!, [tokens.length, ...extents(shape, positions)], {
            device,
          }),
        ),
      ),
    );
    return new State(layers, tokens, model, positions);
  }

  /**
   * Reads what toBytes() wrote. Throws StateError for the state of another model (other architecture or other
   * weights), FormatError for damaged bytes.
   */
  static fromBytes(bytes: Uint8Array, model: StateModel): State {
    const { tensors, metadata } = decodeStateBytes(bytes);
    const tokens = parseCounts('token counts', metadata.tokens);
    const positions =
      metadata.positions === undefined ? tokens : parseCounts('positions', metadata.positions);
    const expected = State.namedShapes(model, positions);
    const wrong = [...expected].find(([path, shape]) => !sameShape(tensors.get(path)?.shape ?? [], shape));
    const isUneven = positions.length !== tokens.length;
    if (metadata.fingerprint !== model.fingerprint || wrong || isUneven || tensors.size !== expected.size) {
      const why = wrong ? ` (${wrong[0]} should be ${showShape(wrong[1])})` : '';
      throw new StateError(
        `State.fromBytes: expected a state of this model (${model.fingerprint}), got one of ${metadata.fingerprint}${why}. ` +
          'Load the model that made it, or start from an empty state.',
      );
    }
    const values = new Map([...tensors].map(([name, { data }]) => [name, data]));
    return State.fromValues(values, model, tokens, positions);
  }

  dispose(): void {
    for (const tensor of this[TENSORS]()) tensor.dispose();
  }

  *[TENSORS](): Generator<Tensor> {
    for (const layer of this.layers) yield* Object.values(layer);
  }
}

function mapLayer<T, R>(
  layer: Readonly<Record<string, T>>,
  fn: (value: T, name: string) => R,
): Record<string, R> {
  return Object.fromEntries(Object.entries(layer).map(([name, value]) => [name, fn(value, name)]));
}

/** The growing axis is as long as the row with the most positions needs. */
function extents(shape: readonly (number | 'positions')[], positions: readonly number[]): number[] {
  return shape.map((extent) => (extent === 'positions' ? Math.max(0, ...positions) : extent));
}

/** (1, positions, ...) cut or filled with zeros. */
function withPositions(x: Tensor, count: number): Tensor {
  const [, extent, ...rest] = x.shape as [number, number, ...number[]];
  if (extent >= count) return slice(x, 1, 0, count);
  return concat([x, Tensor.zeros([1, count - extent, ...rest], { device: x.device })], 1);
}

function parseCounts(what: string, text: string | undefined): number[] {
  let value: unknown;
  try {
    value = JSON.parse(text ?? '');
  } catch {
    value = null;
  }
  if (!Array.isArray(value) || value.length === 0 || !value.every((n) => Number.isSafeInteger(n) && n >= 0)) {
    throw new FormatError(
      `State.fromBytes: expected a list of ${what}, got ${text ?? 'none'}. The file is not a state.`,
    );
  }
  return value as number[];
}
