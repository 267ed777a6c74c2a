/**
 * The same step of a model over and over: the second one of a batch is recorded, and from then on it is
 * replayed in one call of the device. The numbers are those of model.step(), to the bit.
 */
import { stridesOf } from '../base/shape.ts';
import type { LanguageModel } from '../models/language-model.ts';
import { State } from '../models/state.ts';
import { concat, reshape } from '../tensor/primitives.ts';
import * as raw from '../tensor/raw.ts';
import { keep, scope, TENSORS } from '../tensor/scope.ts';
import { noGrad } from '../tensor/tape.ts';
import { Tensor } from '../tensor/tensor.ts';

type Storage = Tensor['storage'];
type Recording = ReturnType<Tensor['device']['record']>['recording'];

export interface Stepped {
  /** (b, v). */
  logits: Tensor;
  state: State;
  /** Whether they are the stepper's, to be used until its next step, and not the caller's to dispose. */
  isLent: boolean;
}

export class Stepper {
  readonly #model: LanguageModel;
  /** States that grow need other sizes in each step. */
  readonly #isFixed: boolean;
  /** The recording of the last batch size. */
  readonly #held: Holding = { recorded: null };
  #batch = 0;
  #host = new Float32Array();

  constructor(model: LanguageModel) {
    forgotten.register(this, this.#held);
    this.#model = model;
    this.#isFixed = !model.stateShapes.some((shapes) =>
      Object.values(shapes).some((shape) => shape.includes('positions')),
    );
  }

  /** As model.step(): one token per row. `state` may be what this stepper lent; it is over then. */
  step(ids: readonly number[], state: State): Stepped {
    const model = this.#model;
    const { vocab_size } = model.config;
    const isKnown = ids.every((id) => Number.isInteger(id) && id >= 0 && id < vocab_size);
    // What is wrong is told by the model.
    if (!isKnown || ids.length !== state.batch || !state.fits(model)) return eager(model, ids, state);
    const { recorded } = this.#held;
    if (recorded?.isFor(ids.length)) return recorded.step(ids, state);
    this.#held.recorded = null;
    try {
      // A batch that is used once is not worth a recording.
      if (!this.#isFixed || this.#batch !== ids.length) return eager(model, ids, state);
      this.#held.recorded = new RecordedStep(model, ids, state);
      return this.#held.recorded.first();
    } finally {
      this.#batch = ids.length;
      recorded?.dispose(); // not before: `state` may be what it lent
    }
  }

  /** The logits of a step on the host, until the next are read. */
  async read(logits: Tensor): Promise<Float32Array> {
    if (this.#host.length !== logits.size) this.#host = new Float32Array(logits.size);
    await logits.readInto(this.#host);
    return this.#host;
  }

  dispose(): void {
    this.#held.recorded?.dispose();
    this.#held.recorded = null;
    this.#batch = 0;
  }
}

interface Holding {
  recorded: RecordedStep | null;
}

/** Safety net for generators that are dropped half way. */
const forgotten = new FinalizationRegistry<Holding>(({ recorded }) => recorded?.dispose());

function eager(model: LanguageModel, ids: readonly number[], state: State): Stepped {
  return { ...model.step(ids, state), isLent: false };
}

/**
 * A step of one batch size, and two sets of buffers for its state. It works in place on the first; from there
 * to the second and back where somebody still holds the state before.
 */
class RecordedStep {
  readonly #model: LanguageModel;
  readonly #precision: LanguageModel['precision'];
  readonly #ids: Tensor;
  readonly #logits: Tensor;
  readonly #recording: Recording;
  readonly #inPlace: () => void;
  /** From the first side to the second, and back. */
  readonly #across: readonly [() => void, () => void];
  #sides: [State, State];
  /** Where the state is. */
  #side: 0 | 1 = 1;

  /** Does the step, too: see first(). */
  constructor(model: LanguageModel, ids: readonly number[], state: State) {
    const { device } = model;
    this.#model = model;
    this.#precision = model.precision;
    const before = state.clone();
    const input = keep(Tensor.from(Int32Array.from(ids), [ids.length, 1], { device }));
    try {
      const { result, recording } = device.record([input.storage, ...storagesOf(before)], () =>
        noGrad(() => scope(() => forward(model, input, before))),
      );
      this.#ids = input;
      this.#logits = result.logits;
      this.#recording = recording;
      this.#sides = [before, result.state];
    } catch (error) {
      before.dispose();
      input.dispose();
      throw error;
    }
    const [first, second] = this.#sides.map(storagesOf) as [Storage[], Storage[]];
    const pairs = first.map((a, i) => [a, second[i]!] as const);
    this.#across = [() => this.#recording.replay(), this.#recording.exchanged(pairs)];
    this.#inPlace = this.#recording.inPlace(pairs);
  }

  isFor(batch: number): boolean {
    const isSame = this.#sides[0].batch === batch && this.#model.precision === this.#precision;
    return isSame && this.#recording.isCurrent;
  }

  /** What the step gave that was recorded. */
  first(): Stepped {
    return { logits: this.#logits, state: this.#sides[this.#side], isLent: true };
  }

  step(ids: readonly number[], state: State): Stepped {
    if (state.layers !== this.#sides[this.#side].layers) this.#enter(state);
    this.#ids.write(ids);
    const other = this.#side === 0 ? 1 : 0;
    this.#vacate(other); // scratch of a step in place, too
    if (this.#side === 0 && !isHeld(this.#sides[0])) {
      this.#inPlace();
    } else {
      this.#across[this.#side]();
      this.#side = other;
    }
    const { layers, model } = this.#sides[this.#side];
    this.#sides[this.#side] = new State(
      layers,
      state.tokens.map((count) => count + 1),
      model,
    );
    return this.first();
  }

  /** Takes over the values of a state from elsewhere. */
  #enter(state: State): void {
    this.#side = 0;
    this.#vacate(0);
    const targets = [...this.#sides[0][TENSORS]()];
    for (const [i, tensor] of [...state[TENSORS]()].entries()) {
      raw.scatterStrided(tensor, targets[i]!, stridesOf(tensor.shape), 0, false);
    }
  }

  /** Leaves a copy to those who hold the state of a side, so that it can be overwritten. */
  #vacate(side: 0 | 1): void {
    const state = this.#sides[side];
    if (!isHeld(state)) return;
    const layers = state.layers.map((layer) =>
      Object.fromEntries(
        Object.entries(layer).map(([name, tensor]) => [
          name,
          new Tensor(tensor.block.separate(), tensor.shape, tensor.dtype),
        ]),
      ),
    );
    state.dispose();
    this.#sides[side] = new State(layers, state.tokens, state.model);
  }

  dispose(): void {
    for (const owner of [this.#ids, this.#logits, ...this.#sides]) owner.dispose();
    this.#recording.dispose();
  }
}

/** A step whose state lies in buffers of its own. */
function forward(model: LanguageModel, ids: Tensor, before: State): { logits: Tensor; state: State } {
  const { logits, state } = model.forward(ids, { state: before });
  const layers = state.layers.map((layer) =>
    Object.fromEntries(
      Object.entries(layer).map(([name, tensor]) => {
        const isAlone = tensor.block.refs === 1 && tensor.offset === 0 && tensor.sizeBytes > 0;
        return [name, isAlone ? tensor : concat([tensor], 0)];
      }),
    ),
  );
  const [b, , v] = logits.dims(3);
  return { logits: reshape(logits, [b, v]), state: new State(layers, state.tokens, model) };
}

function storagesOf(state: State): Storage[] {
  return Array.from(state[TENSORS](), ({ storage }) => storage);
}

/** Whether anybody else has handles on the memory of this state. */
function isHeld(state: State): boolean {
  for (const layer of state.layers) for (const name in layer) if (layer[name]!.block.refs > 1) return true;
  return false;
}
