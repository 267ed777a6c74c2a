import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Script } from 'node:vm';
import { describe, expect, test } from 'vitest';
import type { StepMetrics } from '../../src/train/metrics.ts';
import { formatMetrics, parseMetrics } from '../../src/train/metrics.ts';
import { formatCount, formatDuration, progressLine } from '../../src/train/progress.ts';
import { type ReportData, renderReport } from '../../src/train/report.ts';
import { lossChart, writeReport } from '../../src/train/report-file.node.ts';
import { trainLmProgress } from '../../src/train/train-lm-progress.ts';

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

describe('report', () => {
  const hostile = `</script><script>alert("1")</script> & <b>'`;
  const data: ReportData = {
    title: hostile,
    results: [['held-out', hostile]],
    configuration: { [hostile]: { [hostile]: hostile, list: [1, hostile], none: null } },
    metrics,
    bytes: true,
    sample: { prompt: hostile, text: hostile },
  };

  test('nothing from outside becomes markup or script', () => {
    const html = renderReport(data, { script: 'SCRIPT</script>', style: 'STYLE</style>' });
    expect(html).not.toContain('alert("1")');
    expect(html.match(/<script/g)).toHaveLength(3);
    expect(html.match(/<\/script>/g)).toHaveLength(3);
    expect(html.match(/<\/style>/g)).toHaveLength(2);
    expect(html).not.toMatch(/<b>'/);
  });

  test('the curves are those of the metrics', () => {
    const html = renderReport(data, { script: '', style: '' });
    const json = /<script type="application\/json" id="data">(.*?)<\/script>/s.exec(html)![1]!;
    const [loss, rate] = JSON.parse(json);
    expect(loss.title).toBe('Loss, bits per byte');
    expect(loss.data).toEqual([[1, 2, 3], metrics.map((m) => m.bitsPerToken), [null, null, 1.5]]);
    expect(rate.data).toEqual([
      [1, 2, 3],
      [1e-3, 1e-3, 1e-3],
    ]);
  });

  test('the file needs no network', async () => {
    const folder = await mkdtemp(join(tmpdir(), 'mamba-report-'));
    const path = join(folder, 'deep', 'report.html');
    await writeReport(path, { ...data, title: 'plain' });
    const html = await readFile(path, 'utf8');
    await rm(folder, { recursive: true });
    expect(html).toContain('uPlot');
    const scripts = [...html.matchAll(/<script>(.*?)<\/script>/gs)].map((match) => match[1]!);
    expect(scripts).toHaveLength(2);
    for (const script of scripts) expect(() => new Script(script)).not.toThrow(); // uPlot and our drawing parse
    expect(html).not.toMatch(/(src|href)\s*=/);
    expect(html).not.toMatch(/@import|url\(/);
  });

  test('a run too short for a curve', () => {
    expect(renderReport({ ...data, metrics: [entry(1)] }, { script: '', style: '' })).toContain(
      'nothing to draw',
    );
    expect(lossChart([entry(1)])).toBe('');
  });
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
