/** What a model gives, on the host and by name, and how near two ways of computing it must be. */
import { expect } from 'vitest';
import type { Backend } from '../../src/backend/backend.ts';
import type { ReferenceBackend } from '../../src/backend/reference/index.ts';
import type { LanguageModel } from '../../src/models/language-model.ts';
import type { State } from '../../src/models/state.ts';
import { scope } from '../../src/tensor/scope.ts';
import { backward, noGrad } from '../../src/tensor/tape.ts';
import type { Tensor } from '../../src/tensor/tensor.ts';

export type Floats = Float32Array | Float64Array;

/** Logits and states of one way of feeding, on the host, by name. */
export type Values = Record<string, Floats>;

/** All 64 bits where the device keeps them. */
export async function values(tensor: Tensor): Promise<Floats> {
  const { device } = tensor;
  return 'readF64' in device ? (device as ReferenceBackend).readF64(tensor, tensor.size) : tensor.floats();
}

/** Angles as points on the circle: 0 and a whole turn are the same. */
export async function stateValues(state: State): Promise<Values> {
  const result: Values = {};
  for (const [name, tensor] of state.namedTensors()) {
    const stored = await values(tensor);
    result[name] = name.endsWith('.angle')
      ? join([stored.map((angle) => Math.cos(angle)), stored.map((angle) => Math.sin(angle))])
      : stored;
  }
  return result;
}

/** Unit roundoff of what the device stores. */
export const unitOf = (backend: Backend) =>
  backend.description.includes('float64 storage') ? 2 ** -53 : 2 ** -24;

/** First-order bound of the difference of two float computations, relative to the largest value of the tensor. */
export function expectClose(actual: Values, expected: Values, relative: number): void {
  expect(Object.keys(actual)).toEqual(Object.keys(expected));
  for (const [name, want] of Object.entries(expected)) {
    const got = actual[name]!;
    expect(got.length, name).toBe(want.length);
    let scale = 0;
    let worst = 0;
    for (let i = 0; i < want.length; i++) {
      scale = Math.max(scale, Math.abs(want[i]!));
      const error = Math.abs(got[i]! - want[i]!);
      worst = Math.max(worst, error); // a NaN stays and fails
    }
    expect(worst, `${name}, of ${scale}`).toBeLessThanOrEqual(relative * scale);
  }
}

export const join = (parts: readonly Floats[]): Float64Array =>
  Float64Array.from(parts.flatMap((p) => [...p]));

/** Runs pieces one after the other, each from the state of the one before. */
export async function feed(
  model: LanguageModel,
  pieces: readonly number[][][],
  first?: State,
): Promise<Values> {
  const outputs = scope(() =>
    noGrad(() => {
      let state = first;
      return pieces.map((ids) => {
        const out = model.forward(ids, { state });
        state = out.state;
        return { logits: out.logits, state: out.state };
      });
    }),
  );
  const logits = [];
  for (const out of outputs) logits.push(await values(out.logits));
  const result = { logits: join(logits), ...(await stateValues(outputs.at(-1)!.state)) };
  for (const out of outputs) {
    out.logits.dispose();
    out.state.dispose();
  }
  return result;
}

/** Gradients of all parameters by name, and the loss. */
export async function gradients(model: LanguageModel, loss: () => Tensor): Promise<Values> {
  const value = scope(() => {
    const result = loss();
    backward(result);
    return result.detach();
  });
  const result: Values = { loss: await values(value) };
  value.dispose();
  for (const [name, tensor] of model.namedParameters()) {
    if (tensor.grad) result[name] = await values(tensor.grad);
  }
  model.zeroGrad();
  return result;
}
