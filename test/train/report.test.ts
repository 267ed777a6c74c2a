import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Script } from 'node:vm';
import { describe, expect, test } from 'vitest';
import type { StepMetrics } from '../../src/train/metrics.ts';
import { formatMetrics, parseMetrics } from '../../src/train/metrics.ts';
import { formatCount, formatDuration, progressLine } from '../../src/train/progress.ts';
import { curves, type ReportData, renderReport } from '../../src/train/report.ts';
import { lossChart, writeReport } from '../../src/train/report-file.node.ts';
import { html, table } from '../../src/train/report-html.ts';
import { trainLmProgress } from '../../src/train/train-lm-progress.ts';
import { type LmRunSummary, lmReport } from '../../src/train/train-lm-report.ts';

const entry = (step: number, more: Partial<StepMetrics> = {}): StepMetrics => ({
  step,
  tokens: step * 100,
  loss: 4 / step,
  bitsPerToken: 4 / step / Math.LN2,
  bitsPerByte: null,
  lr: 1e-3,
  gradNorm: 1,
  tokensPerSecond: 1000,
  elapsedSeconds: step,
  validation: null,
  ...more,
});
const metrics = [
  entry(1),
  entry(2),
  entry(3, { validation: { loss: 1, perplexity: Math.E, bitsPerToken: 1.5, bitsPerByte: null } }),
];

const run = {
  settings: { data: ['book.txt'] },
  config: { d_model: 64 },
  parameterCount: 1000,
  device: 'wasm',
  step: 3,
  tokens: 300,
  elapsedSeconds: 3,
  validation: null,
  metrics,
  bytes: true,
} as unknown as LmRunSummary;

/** What the page draws. */
function drawn(page: string) {
  return JSON.parse(/<script type="application\/json">(.*?)<\/script>/s.exec(page)![1]!);
}

describe('report', () => {
  const hostile = `</script><script>alert("1")</script> & <b>'`;
  const data: ReportData = {
    title: hostile,
    results: [['held-out', hostile]],
    sections: [
      curves([
        {
          title: hostile,
          x: [1, 2],
          lines: [{ label: hostile, stroke: '#000', digits: 1, values: [1, null] }],
        },
      ]),
      { title: hostile, body: [hostile, table([hostile], [[hostile, 1]])] },
      { title: 'safe', body: html`<b title="${hostile}">${hostile}</b>` },
    ],
    configuration: { [hostile]: { [hostile]: hostile, list: [1, hostile], none: null, deep: { hostile } } },
  };

  test('nothing from outside becomes markup or script', () => {
    const page = renderReport(data, { script: 'SCRIPT</script>', style: 'STYLE</style>' });
    expect(page).not.toContain('alert("1")');
    expect(page.match(/<script/g)).toHaveLength(3);
    expect(page.match(/<\/script>/g)).toHaveLength(3);
    expect(page.match(/<\/style>/g)).toHaveLength(2);
    expect(page).not.toMatch(/<b>'/);
    expect(drawn(page)[0].title).toBe(hostile);
  });

  test('the curves are those of the metrics', () => {
    const [loss, rate] = drawn(renderReport(lmReport(run), { script: '', style: '' }));
    expect(loss.title).toBe('Loss, bits per byte');
    expect(loss.x).toEqual([1, 2, 3]);
    expect(loss.lines[0].values).toEqual(metrics.map((m) => m.bitsPerToken));
    expect(loss.lines[1].values).toEqual([null, null, 1.5]);
    expect(rate.lines[0].values).toEqual([1e-3, 1e-3, 1e-3]);
  });

  test('a sample is shown with its prompt apart', () => {
    const sample = { prompt: 'Call <me>', text: ' Ishmael' };
    expect(renderReport(lmReport(run, { sample }), { script: '', style: '' })).toContain(
      '<pre><b>Call &lt;me&gt;</b> Ishmael</pre>',
    );
  });

  test('the file needs no network', async () => {
    const folder = await mkdtemp(join(tmpdir(), 'mamba-report-'));
    const path = join(folder, 'deep', 'report.html');
    await writeReport(path, { ...data, title: 'plain' });
    const page = await readFile(path, 'utf8');
    await rm(folder, { recursive: true });
    expect(page).toContain('uPlot');
    const scripts = [...page.matchAll(/<script>(.*?)<\/script>/gs)].map((match) => match[1]!);
    expect(scripts).toHaveLength(2);
    for (const script of scripts) expect(() => new Script(script)).not.toThrow(); // uPlot and our drawing parse
    expect(page).not.toMatch(/(src|href)\s*=/);
    expect(page).not.toMatch(/@import|url\(/);
  });

  test('a run too short for a curve', () => {
    const page = renderReport(lmReport({ ...run, metrics: [entry(1)] }), { script: '', style: '' });
    expect(page).toContain('nothing to draw');
    expect(lossChart([entry(1)])).toBe('');
  });
});

test('the terminal chart of a run that has no bits is in nats', () => {
  const entries = [3, 2, 1].map((loss, i) => ({ step: i + 1, loss }));
  const chart = lossChart(entries, { height: 4 });
  expect(chart).toContain('training loss, nats, up to step 3');
  expect(chart.trimStart()).toMatch(/^3\.00/);
});

test('the terminal chart spans the run', () => {
  const lines = lossChart(
    Array.from({ length: 300 }, (_, i) => entry(i + 1)),
    { width: 40, height: 5 },
  ).split('\n');
  expect(lines).toHaveLength(7);
  expect(lines[6]).toContain('up to step 300');
  expect(Number.parseFloat(lines[0]!)).toBeGreaterThan(Number.parseFloat(lines[5]!));
});

test('metrics survive the disk, up to a step and up to a cut line', () => {
  const text = formatMetrics(metrics);
  expect(parseMetrics(text)).toEqual(metrics);
  expect(parseMetrics(text, 2)).toEqual(metrics.slice(0, 2));
  expect(parseMetrics(text.slice(0, -20))).toEqual(metrics.slice(0, 2));
  expect(parseMetrics('')).toEqual([]);
});

describe('progress line', () => {
  const events = (count: number, stream: { isTTY?: boolean; columns?: number }, stepMs: number): string => {
    let out = '';
    let time = 0;
    const line = progressLine(
      { ...stream, write: (text) => void (out += text) },
      { bytes: true, steps: count, now: () => time },
    );
    for (let step = 1; step <= count; step++) {
      time += stepMs;
      line.handle({
        kind: 'step',
        step,
        tokens: step * 50,
        loss: Math.LN2,
        progress: step / count,
        elapsedSeconds: (step * stepMs) / 1000,
      });
    }
    line.end();
    return out;
  };

  test('plain lines every few seconds, and the last', () => {
    const lines = events(12, {}, 1000).trimEnd().split('\n');
    expect(lines).toEqual([
      'step 5/12  loss 0.693  1.000 bits/byte  50 tokens/s  0:07 left',
      'step 10/12  loss 0.693  1.000 bits/byte  50 tokens/s  0:02 left',
      'step 12/12  loss 0.693  1.000 bits/byte  50 tokens/s  0:00 left',
    ]);
  });

  test('one live line on a terminal, never wider than it', () => {
    const out = events(3, { isTTY: true, columns: 30 }, 1000);
    const shown = out.split('\r\u001b[2K').slice(1);
    expect(shown).toHaveLength(3);
    for (const line of shown) expect(line.replace('\n', '').length).toBeLessThan(30);
    expect(out.match(/\n/g)).toHaveLength(1);
  });

  test.each([
    [0, '0:00'],
    [59.6, '1:00'],
    [3723, '1:02:03'],
  ])('%d s is %s', (seconds, text) => expect(formatDuration(seconds)).toBe(text));

  test.each([
    [999, '999'],
    [1500, '1.5k'],
    [2.5e6, '2.5M'],
    [3e9, '3.0G'],
  ])('%d is %s', (count, text) => expect(formatCount(count)).toBe(text));
});

test('a run tells what it reads, evaluates and resumes', () => {
  let out = '';
  let time = 0;
  const progress = trainLmProgress({ write: (text) => void (out += text) }, { now: () => (time += 1500) });
  const data = (doneBytes: number): void =>
    progress.handle({ kind: 'data', progress: { phase: 'encode', doneBytes, totalBytes: 200 } });
  data(50); // 1.5 s after the beginning: too early
  data(100);
  progress.handle({ kind: 'download', doneBytes: 1500, totalBytes: null });
  progress.handle({ kind: 'evaluation', doneTokens: 1, totalTokens: 3 });
  progress.end();
  expect(out).toBe('reading the text (encode): 50 %\nevaluating: 33 %\n');
});
