import { describe, expect, test } from 'vitest';
import type { ClassifierConfig } from '../../src/models/classifier-config.ts';
import { type CalibrationBin, calibrationBins } from '../../src/train/calibration.ts';
import { type ExplainedText, excerpt } from '../../src/train/explained-text.ts';
import { renderReport } from '../../src/train/report.ts';
import { scoreClasses } from '../../src/train/scores.ts';
import {
  type ClassifyRunSummary,
  classifyReport,
  classifyReportJson,
} from '../../src/train/train-classify-report.ts';

const truth = [0, 0, 0, 0, 1, 1, 1, 1];
/** The chance of class 1: six of eight are right. */
const chances = [0.1, 0.2, 0.3, 0.9, 0.8, 0.7, 0.95, 0.45];
const answers = chances.map((p) => [1 - p, p]);
const scoresFor = (labels: string[]) =>
  scoreClasses(
    labels,
    truth,
    answers.map((row) => labels.map((_, k) => row[k] ?? 0)),
  );
const withAccuracy = (accuracy: number) => ({ ...scoresFor(['neg', 'pos']), accuracy });

const text = (more: Partial<ExplainedText> = {}): ExplainedText => ({
  text: 'good, not bad',
  where: 'reviews.csv:7',
  label: 'neg',
  prediction: { label: 'pos', score: 0.98765 },
  tokens: [
    { text: 'good,', weight: 0.5 },
    { text: ' not', weight: -0.25 },
    { text: ' bad', weight: 0 },
  ],
  ...more,
});

function runOf(more: Partial<ClassifyRunSummary> = {}, labels = ['neg', 'pos']): ClassifyRunSummary {
  return {
    settings: { data: ['reviews.csv'], lr: 1e-3, from: null },
    config: {
      labels,
      pooling: 'mean',
      bidirectional: false,
      maxTokens: 128,
      lora: null,
      backbone: { d_model: 64, n_layer: 2 } as ClassifierConfig['backbone'],
    },
    parameterCount: 100_000,
    trainedCount: 100_000,
    device: 'wasm',
    step: 20,
    tokens: 4000,
    elapsedSeconds: 8,
    metrics: [5, 10, 15, 20].map((step) => ({
      step,
      loss: 1 / step,
      lr: 1e-3,
      gradNorm: 1,
      tokensPerSecond: 500,
      validation: step === 10 ? { loss: 0.5, accuracy: 0.7, macroF1: 0.69 } : null,
    })),
    history: [
      { epoch: 1, step: 10, trainLoss: 0.6, validation: { loss: 0.5, accuracy: 0.7, macroF1: 0.69 } },
      { epoch: 2, step: 20, trainLoss: 0.3, validation: { loss: 0.4, accuracy: 0.75, macroF1: 0.74 } },
    ],
    keptStep: 20,
    validation: scoresFor(labels),
    test: scoresFor(labels),
    baselines: [
      { name: 'naive Bayes', scores: withAccuracy(0.5), seconds: 0.25 },
      { name: 'linear', detail: '12 words', scores: withAccuracy(0.625), seconds: 1.5 },
    ],
    calibration: calibrationBins(truth, answers),
    errors: [text()],
    examples: [text({ label: null })],
    ...more,
  };
}

const render = (run: ClassifyRunSummary): string =>
  renderReport(classifyReport(run), { script: '', style: '' });
const titles = (page: string): string[] => [...page.matchAll(/<h2>(.*?)<\/h2>/g)].map((match) => match[1]!);

describe('the page of a classification run', () => {
  const page = render(runOf());

  test('has its sections in order', () => {
    expect(titles(page)).toEqual([
      'Scores',
      'Beside simple baselines',
      'Curves',
      'Epochs',
      'Classes, test',
      'Confusion, test',
      'Calibration, test',
      'Most confident errors',
      'Which words decided',
      'Configuration',
    ]);
    expect(page).toContain('<h1>Classification of reviews.csv</h1>');
    expect(page).toContain('<th>test accuracy</th><td>0.7500</td>');
    expect(page).not.toContain('of them trained');
  });

  test('draws losses and scores over one axis of steps', () => {
    const charts = JSON.parse(/<script type="application\/json">(.*?)<\/script>/s.exec(page)![1]!);
    expect(charts.map((chart: { title: string }) => chart.title)).toEqual([
      'Loss, nats',
      'Validation',
      'Learning rate',
      'Gradient norm',
      'Tokens per second',
    ]);
    expect(charts[0].x).toEqual([5, 10, 15, 20]);
    expect(charts[0].lines[0].values).toEqual([0.2, 0.1, 1 / 15, 0.05]);
    expect(charts[0].lines[1].values).toEqual([null, 0.5, null, 0.4]);
    expect(charts[1].lines[0].values).toEqual([null, 0.7, null, 0.75]);
    const bare = render(runOf({ metrics: [] }));
    const drawn = JSON.parse(/<script type="application\/json">(.*?)<\/script>/s.exec(bare)![1]!);
    expect(drawn[0]).toMatchObject({ x: [10, 20], lines: [{ values: [0.6, 0.3] }, { values: [0.5, 0.4] }] });
  });

  test('shows counts and row shares of the confusion', () => {
    expect(page).toMatch(
      /<th title="neg">neg<\/th><td style="[^"]*">3<small>75%<\/small><\/td><td style="[^"]*">1<small>25%/,
    );
    expect(page).toContain('<td class="sum">4</td>');
  });

  test('marks the epoch that was kept', () => {
    expect(page).toMatch(/<tr class="strong"><th>2, kept<\/th><td>20<\/td><td>0\.3000<\/td>/);
  });

  test('orders model and baselines by accuracy', () => {
    const rows = [...page.matchAll(/<th>(this model|naive Bayes|linear)(?:<small>.*?)?<\/th>/g)].map(
      (m) => m[1],
    );
    expect(rows).toEqual(['this model', 'linear', 'naive Bayes']);
    expect(page).toContain('<small>12 words</small>');
  });

  test('shades tokens for and against, spaces outside, with the weight to point at', () => {
    expect(page).toContain(
      '<span class="p8" title="+0.500">good,</span> <span class="n4" title="-0.250">not</span> <span title="0.00">bad</span>',
    );
    expect(page).toContain('predicted <b>pos</b> 0.9877');
    expect(page.match(/truth <b>neg/g)).toHaveLength(1); // the example has no known label
    expect(page.match(/class="note legend"/g)).toHaveLength(2);
    const broken = render(runOf({ examples: [text({ tokens: [{ text: 'x', weight: Number.NaN }] })] }));
    expect(broken).toContain('<span title="NaN">x</span>');
  });

  test('tells how many parameters were trained', () => {
    expect(render(runOf({ trainedCount: 1500 }))).toContain('<td>1.5k (1.50 %)</td>');
  });
});

test('texts, labels and places cannot become markup', () => {
  const hostile = `</script></div><img src=x onerror="alert('1')"><style>&amp;`;
  const item = text({
    text: hostile,
    where: hostile,
    label: hostile,
    prediction: { label: hostile, score: 1 },
    tokens: [{ text: hostile, weight: 1 }],
  });
  const baselines = [{ name: hostile, detail: hostile, scores: withAccuracy(0.9), seconds: 1 }];
  const many = [hostile, ...Array.from({ length: 29 }, (_, i) => `${hostile}${i}`)];
  const errors = [item, { ...item, tokens: null }];
  const settings = { data: [hostile], [hostile]: { [hostile]: hostile } };
  for (const labels of [[hostile, 'pos'], many]) {
    const page = render(runOf({ settings, errors, examples: [item], baselines }, labels));
    expect(page).not.toContain('<img');
    expect(page).not.toMatch(/="[^"]*onerror="/);
    expect(page.match(/<\/script>/g)).toHaveLength(3);
    expect(page.match(/<\/style>/g)).toHaveLength(2);
    expect(page.match(/<article>/g)!.length).toBe(page.match(/<\/article>/g)!.length);
    expect(page.match(/<div/g)!.length).toBe(page.match(/<\/div>/g)!.length);
  }
});

describe('what may be missing', () => {
  test('no test part: everything is of the validation part', () => {
    const run = runOf({ test: null });
    expect(titles(render(run))).toContain('Confusion, validation');
    expect(render(run)).toContain('<th>validation accuracy</th>');
    expect(classifyReportJson(run)).toMatchObject({ part: 'validation', test: null });
  });

  test('no evaluation, baselines, epochs or texts: no empty sections', () => {
    const run = runOf({
      test: null,
      validation: null,
      baselines: [],
      calibration: [],
      errors: [],
      examples: [],
      history: [],
      metrics: [],
    });
    expect(titles(render(run))).toEqual(['Curves', 'Configuration']);
    expect(render(run)).toContain('nothing to draw');
    expect(classifyReportJson(run)).toMatchObject({ part: null, verdict: [] });
  });

  test('no baselines', () => {
    expect(titles(render(runOf({ baselines: [] })))).not.toContain('Beside simple baselines');
  });

  test('texts without explanations need no legend', () => {
    const page = render(runOf({ errors: [text({ tokens: null })], examples: [] }));
    expect(page).toContain('<div class="words" dir="auto">good, not bad</div>');
    expect(page).not.toContain('class="note legend"');
  });
});

test('too many classes for a matrix: the most frequent confusions', () => {
  const labels = Array.from({ length: 30 }, (_, i) => `class ${i}`);
  const truths = [0, 0, 0, 1, 2];
  const given = [1, 1, 0, 1, 29];
  const scores = scoreClasses(
    labels,
    truths,
    given.map((k) => labels.map((_, j) => (j === k ? 1 : 0))),
  );
  const page = render(runOf({ test: scores }, labels));
  expect(page).not.toContain('class="matrix');
  expect(page).toContain('30 classes are too many for a matrix');
  const [first] = /<tr><th>class 0<\/th><td>class 1<\/td>.*?<\/tr>/.exec(page)!;
  expect(first).toContain('<td>2</td><td>67%</td>');
  expect(page.indexOf('<td>class 1</td>')).toBeLessThan(page.indexOf('<td>class 29</td>'));
  expect(render(runOf({}, labels.slice(0, 2)))).toContain('class="matrix"');
});

describe('excerpts', () => {
  test('a long text without weights keeps its beginning, no character cut in two', () => {
    const { text: shown, cut } = excerpt(text({ text: `${'x'.repeat(799)}😀 and more`, tokens: null }));
    expect(shown).toBe('x'.repeat(799));
    expect(cut).toEqual({ before: false, after: true });
  });

  test('a long text with weights keeps the tokens that decided', () => {
    const tokens = Array.from({ length: 1000 }, (_, i) => ({
      text: ` ${i % 10}`,
      weight: i === 700 ? -9 : 0.001,
    }));
    const long = text({ text: tokens.map((token) => token.text).join(''), tokens });
    const item = excerpt(long);
    expect(item.tokens).toHaveLength(400);
    expect(item.tokens).toContainEqual({ text: ' 0', weight: -9 });
    expect(item.text).toHaveLength(800);
    expect(item.cut).toEqual({ before: true, after: true });
    expect(render(runOf({ errors: [long] })).match(/class="cut"/g)).toHaveLength(2);
  });

  test('a short text stays as it is', () => {
    expect(excerpt(text())).toEqual({ ...text(), cut: { before: false, after: false } });
  });

  test('tokens of a text that the model did not read to its end', () => {
    const item = excerpt(text({ text: 'y'.repeat(5000) }));
    expect(item.tokens).toHaveLength(3);
    expect(item.text).toHaveLength(800);
  });
});

test('the JSON has the same under stable names', () => {
  const run = runOf();
  const json = JSON.parse(JSON.stringify(classifyReportJson(run)));
  expect(Object.keys(json)).toEqual([
    'title',
    'labels',
    'settings',
    'config',
    'parameterCount',
    'trainedCount',
    'device',
    'step',
    'tokens',
    'elapsedSeconds',
    'history',
    'keptStep',
    'validation',
    'test',
    'part',
    'baselines',
    'verdict',
    'calibration',
    'errors',
    'examples',
  ]);
  expect(json.labels).toEqual(['neg', 'pos']);
  expect(json.test).toEqual(run.test);
  expect(json.baselines).toEqual(run.baselines);
  expect(json.part).toBe('test');
  expect(json.errors).toEqual([{ ...text(), cut: { before: false, after: false } }]);
});

describe('calibration', () => {
  test('gives the error of the scores', () => {
    const bins = calibrationBins(truth, answers);
    const gap = (bin: CalibrationBin): number =>
      bin.count * Math.abs((bin.accuracy ?? 0) - (bin.confidence ?? 0));
    expect(bins).toHaveLength(15);
    const sum = bins.reduce((total, bin) => total + gap(bin), 0);
    expect(sum / truth.length).toBeCloseTo(scoresFor(['neg', 'pos']).calibrationError, 12);
  });

  test('bins are open below and closed above', () => {
    const bins = calibrationBins(
      [0, 1],
      [
        [0.5, 0.5],
        [0, 1],
      ],
      2,
    );
    expect(bins).toEqual([
      { from: 0, to: 0.5, count: 1, confidence: 0.5, accuracy: 1 },
      { from: 0.5, to: 1, count: 1, confidence: 1, accuracy: 1 },
    ]);
    expect(calibrationBins([], [], 1)).toEqual([
      { from: 0, to: 1, count: 0, confidence: null, accuracy: null },
    ]);
  });
});
