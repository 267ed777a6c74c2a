/** Explanations of a classifier that has learned something: weights go with what taking a word away does to the score. */
import { expect, it } from 'vitest';
import { Classifier, noGrad, tokenizerFromJson, trainWords, useDevice } from '../../src/index.node.ts';
import { gradientTimesInput } from '../../src/predict/explain.ts';
import { AdamW, classification, labelledBatches, trainStep } from '../../src/train/index.ts';
import { devices } from '../kernels/devices.ts';
import { toyExamples } from '../train/labelled-toy.ts';

const LABELS = ['land', 'sea'];

async function learned() {
  const examples = toyExamples(240);
  const { tokenizerJson, tokenizerConfig } = trainWords(
    examples.map(({ text }) => text),
    { vocabSize: 100 },
  );
  const tokenizer = tokenizerFromJson(tokenizerJson, tokenizerConfig);
  const texts = examples.map(({ text, label }) => ({
    ids: Int32Array.from(tokenizer.encode(text)),
    label: LABELS.indexOf(label),
  }));
  const model = new Classifier(
    { backbone: { d_model: 16, n_layer: 2, vocab_size: tokenizer.vocabSize }, labels: LABELS },
    { seed: 2, embeddingStd: 0.2 },
  );
  const optimizer = new AdamW(model.namedParameters());
  const batches = labelledBatches({ texts, batch: 20, seed: 1 });
  const task = classification(model);
  for (let step = 0; step < 60; step++)
    await trainStep([await batches.next()], { task, optimizer, lr: 0.01 });
  return { model, texts: texts.slice(0, 40) };
}

async function scoreOf(model: Classifier, ids: Int32Array): Promise<number> {
  const [land, sea] = await noGrad(() => model.forward([ids])).logits.floats();
  return sea! - land!;
}

function correlation(a: readonly number[], b: readonly number[]): number {
  const centered = (x: readonly number[]) => x.map((v) => v - x.reduce((s, w) => s + w, 0) / x.length);
  const [u, v] = [centered(a), centered(b)];
  const dot = (x: readonly number[], y: readonly number[]) => x.reduce((s, w, i) => s + w * y[i]!, 0);
  return dot(u, v) / Math.sqrt(dot(u, u) * dot(v, v));
}

it('tells what words are worth: as the score moves when one is taken away', async () => {
  await useDevice(devices.at(-1)!.backend);
  const { model, texts } = await learned();
  const [held, plain, removed]: number[][] = [[], [], []];
  for (const { ids } of texts) {
    const whole = await scoreOf(model, ids);
    held!.push(...(await gradientTimesInput(model, ids, 1)).weights);
    plain!.push(...(await gradientTimesInput(model, ids, 1, (pass) => pass())).weights);
    for (let t = 0; t < ids.length; t++)
      removed!.push(
        whole -
          (await scoreOf(
            model,
            ids.filter((_, i) => i !== t),
          )),
      );
  }
  const [agreement, blind] = [correlation(held!, removed!), correlation(plain!, removed!)];
  // Half the variance would be 0.7; words also change what others mean. The plain gradient is blind behind a norm.
  expect(agreement).toBeGreaterThan(0.5);
  expect(blind).toBeLessThan(agreement / 2);
});
