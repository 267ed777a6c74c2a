import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { useDevice } from '../../src/backend/backend.ts';
import { createReference } from '../../src/backend/reference/index.ts';
import { ConfigError, StateError } from '../../src/base/errors.ts';
import { openPretrained } from '../../src/io/pretrained.node.ts';
import { LanguageModel } from '../../src/models/language-model.ts';
import { keep, scope } from '../../src/tensor/scope.ts';
import { backward } from '../../src/tensor/tape.ts';
import { Tensor } from '../../src/tensor/tensor.ts';
import { AdamW, decays } from '../../src/train/adamw.ts';
import { devices, reportMissing } from '../kernels/devices.ts';
import { fixturePath, maxAbsDiff, readFixture } from '../support/oracle.ts';

const device = createReference();
beforeAll(() => useDevice(device));

const parameter = (data: number[], shape = [data.length]): Tensor => {
  const tensor = keep(Tensor.from(data, shape));
  tensor.requiresGrad = true;
  return tensor;
};
const setGrad = (tensor: Tensor, data: number[]): void => {
  tensor.grad = keep(Tensor.from(data, tensor.shape));
};

describe('AdamW', () => {
  test('decays matrices and filters only, and never A_log', () => {
    const model = new LanguageModel({ d_model: 8, n_layer: 1, vocab_size: 10, bias: true });
    const decayed = [...model.namedParameters()].filter(([name, tensor]) => decays(name, tensor));
    expect(decayed.map(([name]) => name.replace('backbone.layers.0.mixer.', ''))).toEqual([
      'backbone.embeddings.weight',
      'in_proj.weight',
      'conv1d.weight',
      'x_proj.weight',
      'dt_proj.weight',
      'out_proj.weight',
    ]);
    model.dispose();
  });

  test.each([
    ['mamba2', ['in_proj.weight', 'conv1d.weight', 'out_proj.weight']],
    ['mamba3', ['in_proj.weight', 'B_bias', 'C_bias', 'mimo_x', 'mimo_z', 'mimo_o', 'out_proj.weight']],
  ] as const)('decays of %s what has rank 2 and above, as the official code does', (model_type, names) => {
    const shape = { d_model: 8, n_layer: 1, vocab_size: 10, headdim: 4, d_state: 4 };
    const mimo = { is_mimo: true, mimo_rank: 2 };
    const model = new LanguageModel(
      model_type === 'mamba2' ? { model_type, ...shape } : { model_type, ...shape, ...mimo },
    );
    const decayed = [...model.namedParameters()].filter(([name, tensor]) => decays(name, tensor));
    expect(
      decayed
        .map(([name]) => name.replace('backbone.layers.0.mixer.', ''))
        .slice(1)
        .sort(),
    ).toEqual([...names].sort());
    model.dispose();
  });

  test('two steps by hand, in float64', async () => {
    const w = parameter([1, -2], [1, 2]);
    const b = parameter([0.5]);
    const optimizer = new AdamW(
      [
        ['w', w],
        ['b', b],
      ],
      { maxNorm: 1, weightDecay: 0.1, betas: [0.9, 0.95], eps: 1e-8 },
    );
    const grads = [
      [3, 0, 4],
      [0.1, -0.2, 0.3],
    ];
    const theta = [1, -2, 0.5];
    const [m, v] = [
      [0, 0, 0],
      [0, 0, 0],
    ];
    for (const [t, grad] of grads.entries()) {
      setGrad(w, grad.slice(0, 2));
      setGrad(b, grad.slice(2));
      const norm = optimizer.step(0.01);
      const expectedNorm = Math.hypot(...grad);
      expect(Math.abs((await norm.item()) - expectedNorm)).toBeLessThan(1e-6 * expectedNorm);
      norm.dispose();
      const scale = Math.min(1, 1 / (expectedNorm + 1e-6));
      for (let i = 0; i < 3; i++) {
        const g = grad[i]! * scale;
        if (i < 2) theta[i]! *= 1 - 0.01 * 0.1; // b is a vector: no decay
        m[i] = 0.9 * m[i]! + 0.1 * g;
        v[i] = 0.95 * v[i]! + 0.05 * g * g;
        const [c1, c2] = [1 - 0.9 ** (t + 1), 1 - 0.95 ** (t + 1)];
        theta[i]! -= ((0.01 / c1) * m[i]!) / (Math.sqrt(v[i]! / c2) + 1e-8);
      }
    }
    // A few float32 roundings of values up to 2.
    expect(maxAbsDiff([...(await w.floats()), ...(await b.floats())], theta)).toBeLessThan(2 ** -21);
    expect(w.grad).toBeNull();
    for (const tensor of [w, b]) tensor.dispose();
    optimizer.dispose();
  });

  test('goes on from saved moments bit for bit', async () => {
    const run = async (stop: boolean): Promise<number[]> => {
      const w = parameter([1, 2, 3, 4], [2, 2]);
      let optimizer = new AdamW([['w', w]]);
      for (let t = 0; t < 4; t++) {
        if (stop && t === 2) {
          const saved = new Map<string, Float32Array>();
          for (const [name, tensor] of optimizer.namedTensors()) saved.set(name, await tensor.floats());
          const { steps } = optimizer;
          optimizer.dispose();
          optimizer = new AdamW([['w', w]]);
          await optimizer.restore(steps, async (name) => saved.get(name)!);
        }
        setGrad(w, [0.3 * t, -1, 0.01, 2 - t]);
        optimizer.step(0.1).dispose();
      }
      const result = Array.from(await w.floats());
      w.dispose();
      optimizer.dispose();
      return result;
    };
    expect(await run(true)).toEqual(await run(false));
  });

  test('refuses options out of range, a step without gradients, foreign moments', async () => {
    const w = parameter([1, 2]);
    expect(() => new AdamW([['w', w]], { betas: [1, 0.9], eps: 0, maxNorm: -1 })).toThrow(ConfigError);
    const optimizer = new AdamW([['w', w]]);
    expect(() => optimizer.step(0.1)).toThrow(StateError);
    await expect(optimizer.restore(1, async () => new Float32Array(3))).rejects.toThrow(StateError);
    w.dispose();
    optimizer.dispose();
  });
});

reportMissing();

/** Each with the layout its weights are read from. */
const TRACES = ['mamba1-tied/hf', 'mamba2-tied/hf', 'mamba3-siso/orig'];
const CASES = devices.flatMap(({ label, backend }) => TRACES.map((path) => ({ label, backend, path })));

describe.each(CASES)(
  'five steps of an independent float64 implementation: $path on $label',
  ({ backend, path }) => {
    const trace = `${path.split('/')[0]}/train.safetensors`;
    const LR = 2e-3;
    const STEPS = 5;
    /** Error of float32 gradients relative to the tensor's largest: about 100 roundings. The gradient tests demand 1e-4. */
    const GRADIENT_ERROR = 1e-5;
    const name = (ours: string): string =>
      `param.${ours.replace(/^backbone\./, '').replace('embeddings', 'embedding')}`;
    const losses: number[] = [];
    const norms: number[] = [];
    const actual = new Map<string, Float32Array>();
    const bounds = new Map<string, Float64Array>();

    /**
     * How far float32 may end from float64, per element. With u = m' / sqrt(v') (m', v' the corrected moments, averages over
     * the steps), an error of at most d in every gradient changes u by at most (1 + |u|) d / sqrt(v'): m' moves by at most d,
     * and so does sqrt(v'), a root mean square. |u| <= 1.03 over five steps with these betas (Cauchy-Schwarz over the
     * weights of both averages), so one step moves the element by at most lr * min(2.06, 2.03 d / sqrt(v')). Where the
     * gradient is smaller than its error the sign itself is open: that is the 2.06. Rounding of the parameter is added.
     */
    beforeAll(async () => {
      await useDevice(backend);
      const pretrained = await openPretrained(fixturePath(path));
      const model = new LanguageModel(pretrained.config, { seed: null });
      const names = new Map([...model.namedParameters()]);
      for (const [own, tensor] of names) tensor.write(await pretrained.tensor(own));
      await pretrained.close();
      const { data: ids } = (await readFixture(trace))('batches');
      const optimizer = new AdamW(names, { maxNorm: 1 });
      const largest = new Map<string, number>();
      for (let step = 0; step < STEPS; step++) {
        const at = (row: number, t: number): number => ids[(step * 2 + row) * 33 + t]!;
        const window = (shift: number) =>
          Int32Array.from({ length: 64 }, (_, i) => at(Math.floor(i / 32), (i % 32) + shift));
        const loss = scope(() => {
          const out = model.loss(Tensor.from(window(0), [2, 32]), Tensor.from(window(1), [2, 32]));
          backward(out.loss);
          return out.loss;
        });
        losses.push(await loss.item());
        loss.dispose();
        for (const [own, { grad }] of names) {
          const top = (await grad!.floats()).reduce((max, g) => Math.max(max, Math.abs(g)), 0);
          largest.set(own, Math.max(largest.get(own) ?? 0, top));
        }
        const norm = optimizer.step(LR);
        norms.push(await norm.item());
        norm.dispose();
        const clip = Math.min(1, 1 / norms.at(-1)!);
        for (const [moment, v] of optimizer.namedTensors()) {
          if (!moment.startsWith('v.')) continue;
          const param = moment.slice(2);
          const bound = bounds.get(param) ?? new Float64Array(v.size);
          const error =
            GRADIENT_ERROR * largest.get(param)! * Math.max(clip, ...norms.map((n) => Math.min(1, 1 / n)));
          (await v.floats()).forEach((value, i) => {
            const root = Math.sqrt(value / (1 - 0.95 ** (step + 1)));
            bound[i]! += LR * Math.min(2.06, (2.03 * error) / (root + 1e-8)) + 2 ** -23;
          });
          bounds.set(param, bound);
        }
      }
      for (const [own, tensor] of names) actual.set(own, await tensor.floats());
      optimizer.dispose();
      model.dispose();
    });
    afterAll(() => expect(losses).toHaveLength(STEPS));

    test('losses and gradient norms', async () => {
      const expected = await readFixture(trace);
      expect(maxAbsDiff(losses, expected('loss').data)).toBeLessThan(2e-5);
      const relative = norms.map((norm, i) => norm / expected('grad_norm').data[i]!);
      expect(maxAbsDiff(relative, new Array(STEPS).fill(1))).toBeLessThan(GRADIENT_ERROR);
    });

    test('every parameter after the last step', async () => {
      const expected = await readFixture(trace);
      let open = 0;
      let total = 0;
      for (const [own, data] of actual) {
        const target = expected(name(own)).data;
        const bound = bounds.get(own)!;
        const worst = data.reduce((max, x, i) => Math.max(max, Math.abs(x - target[i]!) / bound[i]!), 0);
        expect(worst, own).toBeLessThan(1);
        open += bound.filter((limit) => limit > LR / 10).length;
        total += data.length;
      }
      // The bound says something: for all but a few elements it is a small part of one step.
      expect(open / total).toBeLessThan(0.05);
    });
  },
);
