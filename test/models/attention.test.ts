/**
 * The attention layer against stored float64 results (test/fixtures/ops/attention.py): outputs, state and
 * every gradient, the text at once and token by token.
 */
import { readFileSync } from 'node:fs';
import { describe, expect, test } from 'vitest';
import { withDevice } from '../../src/backend/backend.ts';
import { memorySource } from '../../src/base/source.ts';
import { openSafetensors } from '../../src/io/safetensors.ts';
import { Attention } from '../../src/models/attention.ts';
import type { AttentionConfig } from '../../src/models/config.ts';
import type { LayerState } from '../../src/models/mixer.ts';
import { concat, slice } from '../../src/tensor/primitives.ts';
import { backward } from '../../src/tensor/tape.ts';
import { Tensor } from '../../src/tensor/tensor.ts';
import { devices } from '../kernels/devices.ts';
import { maxAbsDiff, relativeError, type Stored } from '../support/oracle.ts';

const root = new URL('../fixtures/ops/', import.meta.url);
const cases = JSON.parse(readFileSync(new URL('mha.json', root), 'utf8')) as Record<
  string,
  Omit<AttentionConfig, 'causal'> & { d_model: number }
>;
const file = await openSafetensors(memorySource(readFileSync(new URL('mha.safetensors', root)), 'mha'));
const stored = new Map<string, Stored>();
for (const [name, { shape }] of file.tensors) {
  stored.set(name, { shape, data: (await file.read(name)) as Stored['data'] });
}

describe.each(devices)('attention layer on $label', ({ backend: device }) => {
  describe.each(Object.entries(cases))('%s', (name, { d_model, ...config }) => {
    const tensor = (key: string, requiresGrad = false): Tensor => {
      const { data, shape } = stored.get(`${name}/${key}`)!;
      return Tensor.from(data, shape, { device, requiresGrad });
    };
    const make = () => {
      const layer = new Attention(
        { rng: null, samples: [], device },
        d_model,
        { ...config, causal: true },
        1,
      );
      const parameters = new Map(layer.namedParameters());
      for (const [path, parameter] of parameters) parameter.write(stored.get(`${name}/param.${path}`)!.data);
      const given = [...stored.keys()].filter((key) => key.startsWith(`${name}/param.`));
      expect([...parameters.keys()].sort()).toEqual(given.map((key) => key.split('/param.')[1]!).sort());
      return { layer, parameters };
    };
    const matches = async (key: string, value: Tensor) => {
      const { data, shape } = stored.get(`${name}/out.${key}`)!;
      expect(value.shape, key).toEqual(shape);
      expect(maxAbsDiff(await value.floats(), data), key).toBeLessThan(2e-5);
    };

    test('a text at once, and its gradients', async () => {
      const { layer, parameters } = make();
      const u = tensor('in.u', true);
      const { y, state } = withDevice(device, () => layer.forward(u, null));
      expect(Object.keys(state).sort()).toEqual(Object.keys(layer.stateShapes).sort());
      await matches('y', y);
      for (const [key, value] of Object.entries(state)) await matches(key, value);
      withDevice(device, () => backward(y, tensor('cotangent.y')));
      for (const [path, of] of [['u', u] as const, ...parameters]) {
        const { data } = stored.get(`${name}/grad.${path}`)!;
        expect(relativeError(await of.grad!.floats(), data), path).toBeLessThan(1e-4);
      }
    });

    test('token by token', async () => {
      const { layer } = make();
      const u = tensor('in.u');
      const [b, l] = u.dims(3);
      const ys: Tensor[] = [];
      let state: LayerState | null = null;
      withDevice(device, () => {
        for (let t = 0; t < l; t++) {
          const positions = new Array<number>(b).fill(t);
          const next = layer.forward(slice(u, 1, t, t + 1), state, { positions });
          ys.push(next.y);
          state = next.state;
        }
      });
      await matches('y', concat(ys, 1));
      for (const [key, value] of Object.entries(state!)) await matches(key, value as Tensor);
    });
  });
});
