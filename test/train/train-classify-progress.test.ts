import { expect, test } from 'vitest';
import { resolveConfig } from '../../src/models/config.ts';
import type { TrainClassifyEvent } from '../../src/train/train-classify-events.ts';
import { CLASSIFY_DEFAULTS } from '../../src/train/train-classify-options.ts';
import { trainClassifyProgress } from '../../src/train/train-classify-progress.ts';

type Event<K> = Extract<TrainClassifyEvent, { kind: K }>;

const begin = (more: Partial<Event<'begin'>> = {}): TrainClassifyEvent => ({
  kind: 'begin',
  settings: { ...CLASSIFY_DEFAULTS, data: ['x.csv'] },
  config: {
    labels: ['neg', 'pos'],
    pooling: 'mean',
    bidirectional: false,
    maxTokens: 512,
    lora: null,
    backbone: resolveConfig({ d_model: 64, n_layer: 1, vocab_size: 256 }),
  },
  parameterCount: 10_000,
  trainedCount: 10_000,
  device: 'native',
  texts: { train: 320, valid: 40, test: 0 },
  cutTexts: 0,
  stepsPerEpoch: 10,
  steps: 30,
  step: 0,
  metrics: [],
  ...more,
});

const entry = (step: number, loss: number, accuracy?: number): Event<'metrics'>['metrics'] => ({
  step,
  tokens: step,
  loss,
  lr: 1,
  gradNorm: 1,
  tokensPerSecond: 1,
  elapsedSeconds: step,
  validation: accuracy === undefined ? null : { loss: 1 - accuracy, accuracy, macroF1: accuracy, auc: null },
});
const metrics = (...args: Parameters<typeof entry>): TrainClassifyEvent => ({
  kind: 'metrics',
  metrics: entry(...args),
});
const step = (n: number): TrainClassifyEvent => ({
  kind: 'step',
  step: n,
  tokens: n * 100,
  loss: 0.5,
  progress: n / 30,
  elapsedSeconds: n,
});

/** What is written; a second passes with each event. */
function told(events: TrainClassifyEvent[], stream: { isTTY?: boolean; columns?: number } = {}): string {
  let out = '';
  let time = 0;
  const progress = trainClassifyProgress(
    { ...stream, write: (text) => void (out += text) },
    { now: () => time },
  );
  for (const event of events) {
    time += 1000;
    progress.handle(event);
  }
  progress.end();
  return out;
}

test('what is trained on what', () => {
  expect(told([begin()]).trimEnd().split('\n')).toEqual([
    'mamba1, 10.0k parameters (d_model 64, 1 layer, mean pooling) on native',
    '2 classes (neg, pos); 320 texts to learn from, 40 held out',
    '10 steps per epoch',
  ]);
  const settings = { ...CLASSIFY_DEFAULTS, from: 'base', tune: 'lora' } as const;
  const more = told([
    begin({ settings, trainedCount: 150, cutTexts: 80, texts: { train: 320, valid: 40, test: 9 }, step: 7 }),
  ]);
  expect(more).toContain('starting from base\n');
  expect(more).toContain('150 of the parameters are trained (1.50 %, lora)\n');
  expect(more).toContain('40 held out, 9 for the test\n');
  expect(more).toContain('80 of the texts to learn from (25 %) fill the 1024 tokens that are read');
  expect(more).toContain('resumed after step 7\n');
});

test('a line per evaluation: the mean training loss since the one before, and the best so far', () => {
  const lines = told([
    begin(),
    metrics(4, 2),
    metrics(10, 1, 0.5),
    metrics(20, 0.5, 0.75),
    metrics(25, 0.4, 0.6),
  ])
    .trimEnd()
    .split('\n')
    .slice(3);
  expect(lines).toEqual([
    'epoch 1/3  training loss 1.4000  evaluation loss 0.5000  evaluation accuracy 0.5000  macro-F1 0.5000  best so far',
    'epoch 2/3  training loss 0.5000  evaluation loss 0.2500  evaluation accuracy 0.7500  macro-F1 0.7500  best so far',
    'epoch 2.5/3  training loss 0.4000  evaluation loss 0.4000  evaluation accuracy 0.6000  macro-F1 0.6000',
  ]);
});

test('a resumed run goes on with the entries it has', () => {
  const out = told([begin({ step: 14, metrics: [entry(10, 1, 0.9), entry(14, 2)] }), metrics(20, 1, 0.8)]);
  expect(out).toContain('epoch 2/3  training loss 1.4000');
  expect(out).not.toContain('best so far');
});

test('the live line says where in the epoch, and gives way to what stays', () => {
  const out = told([begin({ steps: null }), step(13), metrics(13, 1), metrics(20, 1, 0.5)], {
    isTTY: true,
    columns: 100,
  });
  expect(out).toContain('\r\u001b[2Kepoch 2  step 3/10  loss 0.500  ');
  expect(out).toContain('left\r\u001b[2Kepoch 2  training loss');
  const plain = told([begin(), ...Array.from({ length: 12 }, (_, i) => step(i + 1))]);
  expect(plain.match(/^epoch \d\/3 {2}step .*$/gm)).toHaveLength(2);
});

test('reading, downloads, notices and baselines', () => {
  const events: TrainClassifyEvent[] = [
    { kind: 'notice', message: 'left out: unsup' },
    { kind: 'download', doneBytes: 50, totalBytes: 200 },
    { kind: 'download', doneBytes: 5000, totalBytes: null },
    { kind: 'read', examples: 1000 },
    { kind: 'evaluation', doneTexts: 3, totalTexts: 9 },
    { kind: 'baselines' },
  ];
  const out = told(events, { isTTY: true, columns: 80 });
  for (const text of ['left out: unsup\n', '25 %', '5.0k bytes', '1000 texts', '3 of 9 texts', 'naive Bayes'])
    expect(out).toContain(text);
  expect(out.endsWith('\n')).toBe(true);
});
