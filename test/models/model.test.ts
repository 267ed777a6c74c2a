/** Every configuration on every device, and in float64, where the laws hold to the last digits. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { createReference } from '../../src/backend/reference/index.ts';
import { LanguageModel, loadModel, noGrad, saveModel, useDevice } from '../../src/index.node.ts';
import { devices, reportMissing } from '../kernels/devices.ts';
import { checkModel } from './checker.ts';
import { CONFIGS } from './configs.ts';

reportMissing();

describe.each([{ label: 'reference f64', backend: createReference({ storage: 'f64' }) }, ...devices])(
  'language models on $label',
  ({ backend }) => {
    for (const [name, config] of Object.entries(CONFIGS)) checkModel(name, config, backend);
  },
);

describe('saved and loaded', () => {
  const root = mkdtempSync(join(tmpdir(), 'mamba-ts-model-'));
  afterAll(() => rmSync(root, { recursive: true, force: true }));

  it.each(Object.entries(CONFIGS))('%s: the same bits', async (name, config) => {
    await useDevice('reference');
    const model = new LanguageModel(config, { seed: 2 });
    await saveModel(model, join(root, name));
    const loaded = await loadModel(join(root, name));
    const rows = [[0, 1, 2, 3]];
    const [a, b] = [noGrad(() => model.forward(rows)), noGrad(() => loaded.forward(rows))];
    expect(await b.logits.data()).toEqual(await a.logits.data());
    expect(await b.state.toBytes()).toEqual(await a.state.toBytes());
  });
});
