/** Writes the report of a run, and draws its loss in the terminal. */
import { readFile } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { plot } from 'asciichart';
import { writeFileAtomic } from '../io/file.ts';
import type { StepMetrics } from './metrics.ts';
import { type ReportData, renderReport } from './report.ts';

const require = createRequire(import.meta.url);

/** Writes the HTML file `path`. */
export async function writeReport(path: string, data: ReportData): Promise<void> {
  const read = (name: string): Promise<string> => readFile(require.resolve(`uplot/dist/${name}`), 'utf8');
  const [script, style] = [await read('uPlot.iife.min.js'), await read('uPlot.min.css')];
  await writeFileAtomic(path, renderReport(data, { script, style }));
}

/**
 * The training loss over the run in bits per token, as lines of text with a caption; empty for fewer than two entries.
 * The first twentieth of a run falls so steeply that it would flatten the rest; it is left out.
 */
export function lossChart(metrics: readonly StepMetrics[], { width = 64, height = 10 } = {}): string {
  const shown = metrics.slice(Math.floor(metrics.length / 20));
  if (shown.length < 2) return '';
  const columns = Math.min(width, shown.length);
  const series = Array.from({ length: columns }, (_, i) => {
    const from = Math.floor((i * shown.length) / columns);
    const part = shown.slice(from, Math.floor(((i + 1) * shown.length) / columns));
    return part.reduce((sum, entry) => sum + entry.bitsPerToken, 0) / part.length;
  });
  const lines = plot(series, { height, format: (value) => value.toFixed(2).padStart(7) });
  return `${lines}\n        training loss, bits per token, up to step ${shown.at(-1)!.step}`;
}
