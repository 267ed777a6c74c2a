/**
 * 100,000 tokens: the whole text at once, in chunks through the state, and token by token (its tail) agree; memory of the chunked run is
 * that of one chunk. On the compiled devices; the reference is too slow for this length.
 */
import { describe, expect, test } from 'vitest';
import { withDevice } from '../../src/backend/backend.ts';
import { Rng } from '../../src/base/rng.ts';
import { LanguageModel } from '../../src/models/language-model.ts';
import type { State } from '../../src/models/state.ts';
import { scope } from '../../src/tensor/scope.ts';
import { noGrad } from '../../src/tensor/tape.ts';
import { devices } from '../kernels/devices.ts';
import { maxAbsDiff } from '../support/oracle.ts';

const LENGTH = 100_000;
const CHUNK = 4096;
const TAIL = 200;
/**
 * The state forgets: errors do not pile up over the length, only over its memory of at most 1 / dt_min = 1000 tokens. Logits are below 1 here and each run
 * rounds every token a few dozen times: sqrt(1000) * 30 * 2^-24 = 6e-5.
 */
const BOUND = 6e-5;

const fast = devices.filter(({ backend }) => backend.name !== 'reference');

describe.each(fast)('100,000 tokens on $label', ({ backend }) => {
  test('whole, chunked and streamed agree, memory stays flat', async () => {
    const rng = new Rng(1);
    const ids = Int32Array.from({ length: LENGTH }, () => rng.below(40));
    const model = withDevice(
      backend,
      () => new LanguageModel({ d_model: 8, n_layer: 2, vocab_size: 40, d_state: 4 }),
    );
    const read = (part: Int32Array, state: State | null) =>
      withDevice(backend, () => noGrad(() => model.forward([part], { state, lastOnly: true })));

    const whole = read(ids, null);
    const expected = await whole.logits.floats();

    const peaks: number[] = [];
    let state: State | null = null;
    let last = whole.logits;
    for (let at = 0; at < LENGTH; at += CHUNK) {
      backend.resetPeak();
      const before = backend.memory.liveBytes;
      const out: ReturnType<typeof read> = read(ids.subarray(at, at + CHUNK), state);
      peaks.push(backend.memory.peakBytes - before);
      state?.dispose();
      ({ state, logits: last } = out);
    }
    expect(maxAbsDiff(await last.floats(), expected)).toBeLessThan(BOUND);
    for (const [i, layer] of state!.layers.entries()) {
      const [a, b] = [await layer.ssm!.floats(), await whole.state.layers[i]!.ssm!.floats()];
      expect(maxAbsDiff(a, b)).toBeLessThan(BOUND);
    }
    expect(state!.tokens).toEqual([LENGTH]);
    expect(Math.max(...peaks)).toBeLessThanOrEqual(peaks[0]! + state!.sizeBytes);

    let stream = read(ids.subarray(0, LENGTH - TAIL), null).state;
    for (const id of ids.subarray(LENGTH - TAIL)) {
      const previous = stream;
      stream = withDevice(backend, () =>
        scope(() => {
          const out = model.step([id], previous);
          last = out.logits;
          return { state: out.state, logits: out.logits };
        }),
      ).state;
      previous.dispose();
    }
    expect(maxAbsDiff(await last.floats(), expected)).toBeLessThan(BOUND);
    model.dispose();
  });
});
