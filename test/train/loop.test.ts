import { beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { useDevice } from '../../src/backend/backend.ts';
import { createReference } from '../../src/backend/reference/index.ts';
import { ConfigError } from '../../src/base/errors.ts';
import type { LanguageModel } from '../../src/models/language-model.ts';
import { AdamW } from '../../src/train/adamw.ts';
import {
  type Batch,
  type BatchStream,
  contiguousStreams,
  IGNORE_INDEX,
  randomWindows,
} from '../../src/train/data-batches.ts';
import { packedWindows } from '../../src/train/data-packed.ts';
import { type Evaluation, evaluate } from '../../src/train/evaluate.ts';
import { DivergenceError, type TrainEvent, type TrainOptions, train } from '../../src/train/loop.ts';
import type { LmFigures, LmScores, StepMetrics } from '../../src/train/metrics.ts';
import { makeSchedule } from '../../src/train/schedule.ts';
import { trainStep } from '../../src/train/step.ts';
import { languageModelling } from '../../src/train/task-lm.ts';
import { devices } from '../kernels/devices.ts';
import { maxAbsDiff } from '../support/oracle.ts';
import { settle } from '../support/settle.ts';
import { toyModel, toyRng, toyTokens, weightsOf } from './toy.ts';

beforeEach(settle);

beforeAll(() => useDevice(createReference()));

/** A clock that gains one second per look. */
const ticks = () => {
  let time = 0;
  return () => (time += 1000);
};

type LmOptions = TrainOptions<Batch, Evaluation, LmFigures, LmScores>;
type Setup = Partial<LmOptions> & { stream?: BatchStream; model?: LanguageModel };

async function run({ stream, model = toyModel(), ...options }: Setup = {}) {
  const optimizer = new AdamW(model.namedParameters());
  const events: TrainEvent[] = [];
  const result = await train({
    task: languageModelling(model),
    optimizer,
    batches: stream ?? randomWindows({ tokens: toyTokens(), batch: 2, length: 16, rng: toyRng() }),
    schedule: makeSchedule({ peak: 1e-2, kind: 'constant' }),
    budget: { steps: 4 },
    logEvery: 2,
    now: ticks(),
    onProgress: (event) => void events.push(event),
    ...options,
  });
  const metrics = events.flatMap((event) => (event.kind === 'metrics' ? event.metrics : []));
  return { model, optimizer, result, events, metrics, weights: await weightsOf(model) };
}

describe('train', () => {
  test('learns, and reports mean losses, tokens and speed', async () => {
    const { result, metrics } = await run({ budget: { steps: 40 }, logEvery: 10, evaluate: undefined });
    expect(result).toMatchObject({
      stopped: 'finished',
      step: 40,
      tokens: 40 * 32,
      elapsedSeconds: 40,
      validation: null,
    });
    expect(metrics.map((m) => m.step)).toEqual([10, 20, 30, 40]);
    expect(metrics[0]).toMatchObject({
      tokens: 320,
      tokensPerSecond: 32,
      elapsedSeconds: 10,
      validation: null,
      lr: 1e-2,
    });
    expect(metrics[0]!.bitsPerByte).toBeCloseTo(metrics[0]!.loss / Math.LN2, 12);
    expect(metrics[0]!.loss).toBeLessThan(Math.log(256) + 0.5);
    expect(metrics[3]!.loss).toBeLessThan(0.8 * metrics[0]!.loss);
  });

  test('a mean loss covers exactly the steps since the last report', async () => {
    const { events, metrics } = await run({ budget: { steps: 5 }, logEvery: 2 });
    const losses = events.flatMap((event) => (event.kind === 'step' ? event.loss : []));
    const mean = (...values: number[]): number => values.reduce((a, b) => a + b, 0) / values.length;
    expect(metrics.map((m) => m.step)).toEqual([2, 4, 5]);
    expect(metrics.map((m) => m.loss)).toEqual([
      mean(losses[0]!, losses[1]!),
      mean(losses[2]!, losses[3]!),
      losses[4],
    ]);
  });

  test('stops when the minutes are over and lets the schedule follow them', async () => {
    const schedule = makeSchedule({ peak: 1, final: 0, kind: 'cosine' });
    const { result, metrics } = await run({
      schedule: { ...schedule, peak: 1e-3 },
      budget: { minutes: 0.1 },
      logEvery: 1,
    });
    expect(result).toMatchObject({ stopped: 'finished', step: 6, elapsedSeconds: 6 }); // a step takes one second
    metrics.forEach(({ lr }, i) => {
      expect(lr).toBeCloseTo((1e-3 * (1 + Math.cos((Math.PI * i) / 6))) / 2, 12);
    });
  });

  test('evaluates on time and at the end, saves on time and at the end', async () => {
    const tokens = toyTokens();
    const model = toyModel();
    const saves: number[] = [];
    const { result, metrics, events } = await run({
      model,
      budget: { steps: 5 },
      logEvery: 10,
      evaluateEvery: 2,
      saveEvery: 3,
      evaluate: () => evaluate(model, tokens, { window: 64 }),
      save: async (position) => void saves.push(position.step),
    });
    expect(metrics.map((m: StepMetrics) => [m.step, m.validation !== null])).toEqual([
      [2, true],
      [4, true],
      [5, true],
    ]);
    expect(saves).toEqual([3, 5]);
    expect(events.filter((event) => event.kind === 'saved')).toHaveLength(2);
    expect(result.validation?.loss).toBe(metrics[2]!.validation!.loss);
    expect(result.validation?.bitsPerByte).toBeCloseTo(result.validation!.loss / Math.LN2, 12);
  });

  test('a signal finishes the step, saves and returns', async () => {
    const controller = new AbortController();
    const saves: number[] = [];
    const { result } = await run({
      budget: { steps: 10 },
      signal: controller.signal,
      save: async (position) => void saves.push(position.step),
      onProgress: (event) => {
        if (event.kind === 'step' && event.step === 3) controller.abort();
      },
    });
    expect(result).toMatchObject({ stopped: 'interrupted', step: 3, validation: null });
    expect(saves).toEqual([3]);
  });

  test('lets timers run between steps', async () => {
    let fired = 0;
    const timer = setInterval(() => fired++, 0);
    await run({ budget: { steps: 20 } });
    clearInterval(timer);
    expect(fired).toBeGreaterThan(0);
  });

  test.each([
    ['accumulate', { accumulate: 0 }],
    ['logEvery', { logEvery: 1.5 }],
    ['steps', { budget: { steps: -1 } }],
    ['minutes', { budget: { minutes: Number.NaN } }],
  ])('refuses a wrong %s', async (name, options) => {
    await expect(run(options)).rejects.toThrow(ConfigError);
    await expect(run(options)).rejects.toThrow(name);
  });
});

describe('divergence', () => {
  test('stops at the first loss that is not finite, and saves nothing after it', async () => {
    const model = toyModel();
    const saves: number[] = [];
    const running = run({
      model,
      budget: { steps: 10 },
      saveEvery: 1,
      save: async (position) => void saves.push(position.step),
      onProgress: (event) => {
        if (event.kind !== 'saved' || event.step !== 2) return;
        const { weight } = model.backbone.norm_f;
        weight.write(new Float32Array(weight.size).fill(Number.NaN));
      },
    });
    await expect(running).rejects.toThrow(DivergenceError);
    await expect(running).rejects.toThrow(/loss NaN and gradient norm NaN in step 3/);
    expect(saves).toEqual([1, 2]);
  });
});

/** Fixed batches. */
const fixed = (batches: Batch[]): BatchStream => {
  let at = 0;
  return {
    next: async () => batches[at++ % batches.length]!,
    state: () => ({ kind: 'fixed', data: '', batch: 0, length: 0, position: [at] }),
    restore: (state) => {
      at = state.position[0]!;
    },
  };
};

describe('gradients', () => {
  const tokens = toyTokens();

  test('accumulation gives the gradient of the whole batch, with ignored targets', async () => {
    const whole = await randomWindows({ tokens, batch: 4, length: 12, rng: toyRng() }).next();
    whole.targets.fill(IGNORE_INDEX, 5, 20); // the halves count 33 and 48 - 15 targets
    const half = (row: number): Batch => ({
      batch: 2,
      length: 12,
      inputs: whole.inputs.slice(row * 12, (row + 2) * 12),
      targets: whole.targets.slice(row * 12, (row + 2) * 12),
    });
    // SGD would show the gradient itself; AdamW's moments after one step do too: m = 0.1 g.
    const moments = async (batches: Batch[]): Promise<{ m: number[]; loss: number }> => {
      const model = toyModel();
      const optimizer = new AdamW(model.namedParameters(), { maxNorm: null });
      const { loss } = await trainStep(batches, { task: languageModelling(model), optimizer, lr: 1e-3 });
      const m: number[] = [];
      for (const [name, tensor] of optimizer.namedTensors())
        if (name.startsWith('m.')) m.push(...(await tensor.floats()));
      return { m, loss };
    };
    const [once, twice] = [await moments([whole]), await moments([half(0), half(2)])];
    const largest = Math.max(...once.m.map(Math.abs));
    expect(Math.abs(once.loss - twice.loss)).toBeLessThan(1e-6);
    expect(maxAbsDiff(once.m, twice.m)).toBeLessThan(1e-6 * largest); // some float32 roundings
  });

  test('checkpointing changes nothing, bit for bit', async () => {
    const plain = await run();
    const checkpointed = await run({ checkpointing: true });
    expect(checkpointed.weights).toEqual(plain.weights);
  });

  test('a batch without targets is no step backwards', async () => {
    const batch = await randomWindows({ tokens, batch: 1, length: 8, rng: toyRng() }).next();
    batch.targets.fill(IGNORE_INDEX);
    const { weights } = await run({ stream: fixed([batch]), budget: { steps: 1 } });
    expect(weights.every(Number.isFinite)).toBe(true);
  });
});

describe('carried state', () => {
  test('rows read on where they stopped: the losses are those of one long sequence', async () => {
    const tokens = toyTokens();
    // A learning rate too small to move a float32 weight: the model stays the same over the steps.
    const schedule = makeSchedule({ peak: 1e-30, kind: 'constant' });
    const options = { schedule, budget: { steps: 3 }, logEvery: 1 };
    const carried = await run({
      ...options,
      stream: contiguousStreams({ tokens, batch: 1, length: 10 }),
      carryState: true,
    });
    const model = toyModel();
    const optimizer = new AdamW(model.namedParameters(), { weightDecay: 0 });
    const ids = await tokens.read(0, 31);
    const whole = { batch: 1, length: 30, inputs: ids.slice(0, 30), targets: ids.slice(1) };
    const { loss } = await trainStep([whole], { task: languageModelling(model), optimizer, lr: 1e-30 });
    const mean = carried.metrics.reduce((sum, metrics) => sum + metrics.loss, 0) / 3;
    expect(Math.abs(mean - loss)).toBeLessThan(1e-6);
    const alone = await run({ ...options, stream: contiguousStreams({ tokens, batch: 1, length: 10 }) });
    expect(Math.abs(alone.metrics[1]!.loss - carried.metrics[1]!.loss)).toBeGreaterThan(1e-5);
  });

  test('a reset row starts from zeros, the others go on', async () => {
    const tokens = toyTokens();
    const stream = contiguousStreams({ tokens, batch: 2, length: 10 });
    const [first, second] = [await stream.next(), await stream.next()];
    const model = toyModel();
    const step = (batch: Batch, state: Awaited<ReturnType<typeof trainStep>>['state']) =>
      trainStep([batch], {
        task: languageModelling(model),
        optimizer: new AdamW(model.namedParameters(), { weightDecay: 0 }),
        lr: 1e-30,
        state,
        carry: true,
      });
    const warm = await step(first, null);
    const after = await step({ ...second, resets: [false, true] }, warm.state!.clone());
    const cold = await step({ ...second, resets: [true, true] }, warm.state!.clone());
    const kept = await step({ ...second, resets: [false, false] }, warm.state!);
    const row = async (outcome: typeof after, index: number) => {
      const one = outcome.state!.rows([index]);
      const values = Array.from(await one.layers[1]!.ssm!.floats());
      one.dispose();
      return values;
    };
    expect(await row(after, 0)).toEqual(await row(kept, 0));
    expect(await row(after, 1)).toEqual(await row(cold, 1));
    expect(await row(cold, 1)).not.toEqual(await row(kept, 1));
    for (const { state } of [after, cold, kept]) state!.dispose();
    model.dispose();
  });
});

describe.each(devices)('memory on $label', ({ backend }) => {
  beforeAll(() => useDevice(backend));
  const tokens = toyTokens([0, 100, 250]);
  test.each<[string, Setup, () => BatchStream]>([
    ['random windows', {}, () => randomWindows({ tokens: toyTokens(), batch: 2, length: 16, rng: toyRng() })],
    [
      'packed documents',
      { accumulate: 2 },
      () => packedWindows({ tokens, batch: 2, length: 16, rng: toyRng() }),
    ],
    [
      'carried state',
      { carryState: true },
      () => contiguousStreams({ tokens: toyTokens(), batch: 2, length: 16 }),
    ],
    [
      'checkpointing',
      { checkpointing: true },
      () => randomWindows({ tokens: toyTokens(), batch: 2, length: 16, rng: toyRng() }),
    ],
  ])('a steady step makes no new buffers: %s', async (_, options, stream) => {
    const counts: number[] = [];
    const live: number[] = [];
    await run({
      ...options,
      stream: stream(),
      budget: { steps: 8 },
      onProgress: (event) => {
        if (event.kind !== 'step') return;
        counts.push(backend.memory.newBuffers);
        live.push(backend.memory.liveBytes);
      },
    });
    expect(counts.slice(3)).toEqual(counts.slice(3).fill(counts[2]!));
    expect(live.slice(3)).toEqual(live.slice(3).fill(live[2]!));
  });
});
