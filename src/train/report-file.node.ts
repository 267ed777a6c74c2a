/** Writes the report of a run, and draws its loss in the terminal. */
import { readFile } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { plot } from 'asciichart';
import { writeFileAtomic } from '../io/file.ts';
import { type ReportData, renderReport } from './report.ts';

const require = createRequire(import.meta.url);

/** Writes the HTML file `path`. */
export async function writeReport(path: string, data: ReportData): Promise<void> {
  const read = (name: string): Promise<string> => readFile(require.resolve(`uplot/dist/${name}`), 'utf8');
  const [script, style] = [await read('uPlot.iife.min.js'), await read('uPlot.min.css')];
  await writeFileAtomic(path, renderReport(data, { script, style }));
}

/** What a chart of the loss needs of a metrics entry. */
export interface LossEntry {
  step: number;
  /** In nats. */
  loss: number;
  /** Shown instead by language models. */
  bitsPerToken?: number;
}

/**
 * The training loss over the run as lines of text with a caption: in bits per token where the entries have
 * them, else in nats; empty for fewer than two entries. The first twentieth of a run falls so steeply that it
 * would flatten the rest; it is left out.
 */
export function lossChart(metrics: readonly LossEntry[], { width = 64, height = 10 } = {}): string {
  const shown = metrics.slice(Math.floor(metrics.length / 20));
  if (shown.length < 2) return '';
  const columns = Math.min(width, shown.length);
  const series = Array.from({ length: columns }, (_, i) => {
    const from = Math.floor((i * shown.length) / columns);
    const part = shown.slice(from, Math.floor(((i + 1) * shown.length) / columns));
    return part.reduce((sum, entry) => sum + (entry.bitsPerToken ?? entry.loss), 0) / part.length;
  });
  const lines = plot(series, { height, format: (value) => value.toFixed(2).padStart(7) });
  const last = shown.at(-1)!;
  const unit = last.bitsPerToken === undefined ? 'nats' : 'bits per token';
  return `${lines}\n        training loss, ${unit}, up to step ${last.step}`;
}
