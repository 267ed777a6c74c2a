/**
 * The original layout with torch weights (zip and legacy container) against the stored float64 results, on the fastest device: logits and
 * greedy tokens. Everything else about these models: oracles.test.ts.
 */
import { afterAll, describe, expect, test } from 'vitest';
import { useDevice } from '../../src/backend/backend.ts';
import { loadModel } from '../../src/load-model.node.ts';
import type { State } from '../../src/models/state.ts';
import { devices } from '../kernels/devices.ts';
import { fixturePath, maxAbsDiff, readFixture, rowsOf } from '../support/oracle.ts';

const LOGITS = 2e-5;
const { backend } = devices.find(({ label }) => label.startsWith('native')) ?? devices.at(-1)!;

describe.each([
  ['mamba1-tied', 'orig'],
  ['mamba1-tied', 'legacy'],
  ['mamba1-odd', 'orig'],
  ['mamba1-bf16', 'orig'],
])('%s/%s', async (name, layout) => {
  await useDevice(backend);
  const model = await loadModel(fixturePath(`${name}/${layout}`));
  const expected = await readFixture(`${name}/expected.safetensors`);
  const { vocab_size: vocab } = model.config;
  afterAll(() => model.dispose());

  test('logits', async () => {
    for (const length of ['S7', 'S64']) {
      const { logits } = model.forward(rowsOf(expected(`input_ids.${length}`)));
      expect(maxAbsDiff(await logits.floats(), expected(`logits.${length}`).data)).toBeLessThan(LOGITS);
    }
  });

  test('greedy tokens', async () => {
    const wanted = [...expected('greedy.tokens').data];
    let ids = [...expected('greedy.prompt').data];
    let state: State | null = null;
    const tokens: number[] = [];
    while (tokens.length < wanted.length) {
      const out = model.forward([ids], { state, lastOnly: true });
      const logits = (await out.logits.floats()).subarray(0, vocab);
      ids = [logits.indexOf(Math.max(...logits))];
      tokens.push(ids[0]!);
      state = out.state;
    }
    expect(tokens).toEqual(wanted);
  });
});
