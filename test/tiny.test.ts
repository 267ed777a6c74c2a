/** The whole library in two seconds: make a model, train it, let it write, save it, load it, go on. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import {
  byteTokenizer,
  crossEntropy,
  LanguageModel,
  loadModel,
  noGrad,
  State,
  saveModel,
  scope,
  Tensor,
} from '../src/index.node.ts';
import { AdamW } from '../src/train/adamw.ts';

const folder = mkdtempSync(join(tmpdir(), 'mamba-ts-tiny-'));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const TEXT = 'the quick brown fox jumps over the lazy dog. ';

async function write(model: LanguageModel, prompt: string, state?: State) {
  let text = '';
  for await (const part of model.generate(prompt, { temperature: 0, maxTokens: 30, state })) {
    text += part.text;
    if (part.finishReason) return { text, state: part.state };
  }
  throw new Error('no last part');
}

describe('the whole library', () => {
  it('trains, writes, saves, loads and goes on', async () => {
    const model = new LanguageModel({ vocab_size: 256, d_model: 32, n_layer: 2 }, { seed: 1 });
    model.tokenizer = byteTokenizer();
    const ids = model.tokenizer.encode(TEXT.repeat(2));
    const inputs = [ids.slice(0, -1)];
    const targets = Tensor.from(Int32Array.from(ids.slice(1)), [1, ids.length - 1]);
    const optimizer = new AdamW(model.namedParameters(), { weightDecay: 0 });

    const losses: number[] = [];
    for (let step = 0; step < 60; step++) {
      const loss = scope(() => {
        const loss = crossEntropy(model.forward(inputs).logits, targets);
        loss.backward();
        return loss.detach();
      });
      losses.push(await loss.item());
      loss.dispose();
      optimizer.step(0.01).dispose();
    }
    expect(losses[0]).toBeGreaterThan(0.9 * Math.log(256)); // it starts from knowing nothing
    expect(losses.at(-1)).toBeLessThan(0.1);

    await model.refreshFingerprint(); // states belong to these weights from here on
    const first = await write(model, TEXT.slice(0, 15));
    expect(first.text).toBe(TEXT.slice(15, 45));

    await saveModel(model, folder);
    const bytes = await first.state.toBytes();
    const loaded = await loadModel(folder);
    expect(loaded.config).toEqual(model.config);
    const before = noGrad(() => model.forward(inputs));
    const after = loaded.forward(inputs);
    expect(await after.logits.data()).toEqual(await before.logits.data());

    const second = await write(loaded, TEXT[0]!, State.fromBytes(bytes, loaded));
    expect(second.text).toBe(TEXT.slice(1, 31));
  });
});
