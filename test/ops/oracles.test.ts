/**
 * The fused ops against stored float64 results of independent implementations (test/fixtures/ops), outputs and gradients,
 * on every device. Bounds are those of docs/numerics.md: 2e-5 absolute for outputs, 1e-4 relative for gradients.
 */
import { readFileSync } from 'node:fs';
import { describe, expect, test } from 'vitest';
import { withDevice } from '../../src/backend/backend.ts';
import { memorySource } from '../../src/base/source.ts';
import { openSafetensors } from '../../src/io/safetensors.ts';
import { attention } from '../../src/ops/attention.ts';
import { causalConv1d } from '../../src/ops/causal-conv.ts';
import { gatedRmsNorm } from '../../src/ops/gated-norm.ts';
import { layerNorm, rmsNorm } from '../../src/ops/norm.ts';
import { selectiveScan, selectiveStateUpdate } from '../../src/ops/selective-scan.ts';
import { ssd } from '../../src/ops/ssd.ts';
import { ssdCore } from '../../src/ops/ssd-core.ts';
import { concat, permute, reshape } from '../../src/tensor/primitives.ts';
import { scope } from '../../src/tensor/scope.ts';
import { backwardFrom } from '../../src/tensor/tape.ts';
import { Tensor } from '../../src/tensor/tensor.ts';
import { devices } from '../kernels/devices.ts';
import { maxAbsDiff, relativeError, type Stored } from '../support/oracle.ts';
import { mimo, siso } from './mamba3-runs.ts';

type Attributes = Record<string, string | number | [number, number] | null>;
type Inputs = (name: string) => Tensor;
/** Maps stored inputs to named outputs, each in the layout of the fixture. */
type Run = (input: Inputs, has: (name: string) => boolean, attributes: Attributes) => Record<string, Tensor>;

async function load(family: string) {
  const root = new URL('../fixtures/ops/', import.meta.url);
  const cases = JSON.parse(readFileSync(new URL(`${family}.json`, root), 'utf8')) as Record<
    string,
    Attributes
  >;
  const file = await openSafetensors(
    memorySource(readFileSync(new URL(`${family}.safetensors`, root)), family),
  );
  const tensors = new Map<string, Stored>();
  for (const [name, { shape }] of file.tensors) {
    tensors.set(name, { shape, data: (await file.read(name)) as Stored['data'] });
  }
  return { cases, tensors };
}

/** (b, d, l) <-> (b, l, d). */
const swap = (x: Tensor): Tensor => permute(x, [0, 2, 1]);
/** Token-wise B or C: (b, n, l) or (b, g, n, l) to channels last; constant (d, n) stays. */
const tokenwise = (x: Tensor): Tensor =>
  x.shape.length === 3 ? swap(x) : x.shape.length === 4 ? permute(x, [0, 3, 1, 2]) : x;

/** Mamba-2's scan, as upstream stores it and in files of our own (ssd.py). */
const mamba2: Run = (input, has, { dt_limit, chunk_size }) => {
  const optional = (name: string) => (has(name) ? input(name) : null);
  const { y, state } = ssd(input('x'), input('dt'), input('A'), input('B'), input('C'), {
    D: optional('D'),
    z: optional('z'),
    dtBias: optional('dt_bias'),
    dtSoftplus: true,
    dtLimit: (dt_limit as [number, number] | null) ?? undefined,
    state: optional('init'),
    sequenceIds: optional('sequence_ids'),
    lengths: optional('lengths'),
    chunkSize: chunk_size === undefined ? undefined : Number(chunk_size),
  });
  return { y, final_state: state };
};

const families: Record<string, Run> = {
  selective_scan: (input, has, { delta_softplus }) => {
    const optional = (name: string) => (has(name) ? input(name) : null);
    const { y, state } = selectiveScan(
      swap(input('u')),
      swap(input('delta')),
      input('A'),
      tokenwise(input('B')),
      tokenwise(input('C')),
      {
        D: optional('D'),
        z: has('z') ? swap(input('z')) : null,
        deltaBias: optional('delta_bias'),
        deltaSoftplus: delta_softplus === 1,
      },
    );
    return { y: swap(y), last_state: state };
  },
  causal_conv1d: (input, has, { silu }) => {
    const x = swap(input('x'));
    const weight = input('weight');
    const [e, k] = weight.dims(2);
    // The stored initial state has the last k - 1 inputs; ours has k, the oldest of which no output sees.
    const oldest = Tensor.zeros([x.shape[0]!, e, 1]);
    const window = has('init') ? concat([oldest, input('init')], 2) : null;
    const bias = has('bias') ? input('bias') : null;
    const result = causalConv1d(x, weight, bias, { activation: silu === 1 ? 'silu' : null, window });
    return { y: swap(result.y), last_W_inputs: reshape(result.window, [x.shape[0]!, e, k]) };
  },
  norms: (input, has, attributes): Record<string, Tensor> => {
    const eps = Number(attributes.eps);
    if (attributes.kind === 'rms_gated') {
      return {
        out: gatedRmsNorm(input('x'), input('weight'), {
          z: has('z') ? input('z') : null,
          groupSize: attributes.group_size === null ? undefined : Number(attributes.group_size),
          normBeforeGate: attributes.norm_before_gate === 1,
          eps,
        }),
      };
    }
    const options = { residual: input('residual'), eps };
    const { y, residual } = has('bias')
      ? layerNorm(input('x'), input('weight'), input('bias'), options)
      : rmsNorm(input('x'), input('weight'), options);
    return { y, residual_out: residual };
  },
  ssd: mamba2,
  ssd_edges: mamba2,
  ssd_core: (input, has, { chunk_size }) => {
    const optional = (name: string) => (has(name) ? input(name) : null);
    const { y, state } = ssdCore(input('x'), input('decay'), input('scale'), input('B'), input('C'), {
      own: optional('own'),
      D: optional('D'),
      state: optional('init'),
      sequenceIds: optional('sequence_ids'),
      lengths: optional('lengths'),
      chunkSize: Number(chunk_size),
    });
    return { y, final_state: state };
  },
  state_update: (input, has, { dt_softplus }) => {
    const flat = (name: string, keep: number) => {
      const x = input(name);
      return x.shape.length > keep ? reshape(x, flatHeads(x.shape, name)) : x;
    };
    const optional = (name: string, keep: number) => (has(name) ? flat(name, keep) : null);
    const { y, state } = selectiveStateUpdate(
      flat('state', 3),
      flat('x', 2),
      flat('dt', 2),
      flat('A', 2),
      input('B'),
      input('C'),
      {
        D: optional('D', 1),
        z: optional('z', 2),
        dtBias: optional('dt_bias', 1),
        dtSoftplus: dt_softplus === 1,
      },
    );
    return { y: reshape(y, input('x').shape), state: reshape(state, input('state').shape) };
  },
  attention: (input, has, { past, scale }) => {
    const q = input('q');
    const y = attention(q, input('k'), input('v'), {
      past: new Array<number>(q.shape[0]!).fill(Number(past)),
      sequenceIds: has('sequence_ids') ? input('sequence_ids') : null,
      softmaxScale: scale === null ? null : Number(scale),
    });
    return { y };
  },
  mamba3_siso: siso,
  mamba3_mimo: mimo,
};

/** Heads and their channels become one axis. */
function flatHeads(shape: readonly number[], name: string): number[] {
  const lead = name === 'A' || name === 'D' || name === 'dt_bias' ? 0 : 1;
  return [...shape.slice(0, lead), shape[lead]! * shape[lead + 1]!, ...shape.slice(lead + 2)];
}

for (const [family, run] of Object.entries(families)) {
  const { cases, tensors } = await load(family);
  describe.each(devices)(`${family} on $label`, ({ backend }) => {
    test.each(Object.entries(cases))('%s', async (name, attributes) => {
      const has = (input: string) => tensors.has(`${name}/in.${input}`);
      const inputs = new Map<string, Tensor>();
      const input = (key: string): Tensor => {
        const known = inputs.get(key);
        if (known) return known;
        const { data, shape } = tensors.get(`${name}/in.${key}`)!;
        const made = Tensor.from(data, shape, {
          device: backend,
          requiresGrad: !(data instanceof Int32Array),
        });
        inputs.set(key, made);
        return made;
      };
      const outputs = withDevice(backend, () => run(input, has, attributes));
      for (const [key, output] of Object.entries(outputs)) {
        const expected = tensors.get(`${name}/out.${key}`)!;
        expect(output.shape).toEqual(expected.shape);
        expect(maxAbsDiff(await output.floats(), expected.data), key).toBeLessThan(2e-5);
      }
      const seeds = Object.entries(outputs).flatMap(([key, output]) => {
        const stored = tensors.get(`${name}/cotangent.${key}`);
        return stored ? [{ output, grad: Tensor.from(stored.data, stored.shape, { device: backend }) }] : [];
      });
      const grads = [...tensors].filter(([key]) => key.startsWith(`${name}/grad.`));
      expect(grads.length > 0).toBe(seeds.length > 0);
      withDevice(backend, () =>
        scope(() => {
          backwardFrom(
            seeds.map(({ output }) => output),
            seeds.map(({ grad }) => grad),
          );
        }),
      );
      for (const [key, expected] of grads) {
        const of = inputs.get(key.replace(`${name}/grad.`, ''))!;
        expect(relativeError(await of.grad!.floats(), expected.data), key).toBeLessThan(1e-4);
      }
      for (const tensor of [...inputs.values(), ...Object.values(outputs)]) tensor.dispose();
    });
  });
}
