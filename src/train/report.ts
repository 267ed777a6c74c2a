/**
 * The report of a run: one HTML file with results, curves, what the task adds, and configuration.
 * Everything is inside it, so it opens from a disk or a mail without a network. Charts are drawn by
 * uPlot, whose files the caller reads.
 */
import { type Content, escapeJson, fields, Html, html } from './report-html.ts';

export interface ReportData {
  title: string;
  /** What came out, in order: what it is, and its value. */
  results: readonly (readonly [label: string, value: string])[];
  /** Between the results and the configuration, in order: `curves`, and pieces made by the tag `html`. */
  sections: readonly ReportSection[];
  /** Settings and model configuration by section. */
  configuration: Readonly<Record<string, Readonly<Record<string, unknown>>>>;
  /** CSS of the task's own pieces. */
  style?: string;
}

export interface ReportSection {
  title: string;
  body: Content;
}

/** A line chart; each list of values is as long as `x`. */
export interface Chart {
  title: string;
  /** Steps. */
  x: readonly number[];
  lines: readonly ChartLine[];
}

export interface ChartLine {
  label: string;
  /** A CSS colour. */
  stroke: string;
  /** Decimals shown. */
  digits: number;
  /** Null where the line has no point. */
  values: readonly (number | null)[];
  /** Marks every point: for lines with few of them. */
  points?: boolean;
}

/** The texts of uPlot's script and style sheet. */
export interface ReportAssets {
  script: string;
  style: string;
}

export const TRAINING_COLOR = '#3b6fd4';
export const HELD_OUT_COLOR = '#d4553b';

/** The HTML of the report. */
export function renderReport(data: ReportData, assets: ReportAssets): string {
  const { title, results, sections, configuration } = data;
  const script = new Html(assets.script.replaceAll('</script', '<\\/script'));
  const page = html`<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>${title}</title>
<style>${css(assets.style)}</style>
<style>${css(STYLE + (data.style ?? ''))}</style>
</head>
<body>
<h1>${title}</h1>
<table class="results">${fields(results)}</table>
${sections.map((section) => html`<h2>${section.title}</h2>\n${section.body}\n`)}
<h2>Configuration</h2>
${Object.entries(configuration).map(
  ([name, values]) =>
    html`<details><summary>${name}</summary><table>${fields(Object.entries(values))}</table></details>\n`,
)}
<script>${script}</script>
<script>${new Html(DRAW)}</script>
</body>
</html>
`;
  return page.markup;
}

/** The section of the charts, the first across the whole page. */
export function curves(charts: readonly Chart[]): ReportSection {
  const body = charts.some((chart) => chart.x.length > 1)
    ? html`<div class="charts"><script type="application/json">${escapeJson(charts)}</script></div>`
    : html`<p>Fewer than two entries: nothing to draw.</p>`;
  return { title: 'Curves', body };
}

/** The charts that every training run has. */
export function runCharts(
  metrics: readonly { step: number; lr: number; gradNorm: number; tokensPerSecond: number }[],
): Chart[] {
  const x = metrics.map((entry) => entry.step);
  const single = (label: string, digits: number, stroke: string, values: number[]): Chart => ({
    title: label,
    x,
    lines: [{ label, stroke, digits, values }],
  });
  return [
    single(
      'Learning rate',
      6,
      '#7a5cc0',
      metrics.map((entry) => entry.lr),
    ),
    single(
      'Gradient norm',
      3,
      '#2f8f6b',
      metrics.map((entry) => entry.gradNorm),
    ),
    single(
      'Tokens per second',
      0,
      '#a07a1f',
      metrics.map((entry) => entry.tokensPerSecond),
    ),
  ];
}

function css(text: string): Html {
  return new Html(text.replaceAll('</style', '<\\/style'));
}

const STYLE = `
:root { color-scheme: light; }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #222; background: #fff; }
h1 { font-size: 1.5rem; overflow-wrap: anywhere; } h2 { font-size: 1.1rem; margin-top: 2rem; }
table { border-collapse: collapse; } th, td { text-align: left; vertical-align: top; padding: .15rem 1.5rem .15rem 0; overflow-wrap: anywhere; }
th { font-weight: normal; color: #666; white-space: nowrap; }
.results td { font-weight: 600; }
pre { white-space: pre-wrap; background: #f5f5f2; padding: 1rem; border-radius: 4px; }
details { margin: .3rem 0; } summary { cursor: pointer; }
.charts { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(26rem, 100%), 1fr)); gap: 1.5rem; }
.charts > div:first-of-type { grid-column: 1 / -1; }
.wide { overflow-x: auto; }
.grid th, .grid td { padding: .2rem .9rem .2rem 0; border-bottom: 1px solid #e6e6e2; overflow-wrap: normal; }
.grid td, .grid thead th:not(:first-child) { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
.grid tbody th { color: inherit; white-space: normal; overflow-wrap: anywhere; min-width: 7rem; }
.grid .strong > * { font-weight: 600; }
@media (max-width: 40rem) { .grid th, .grid td { padding-right: .6rem; font-size: .87rem; } .grid tbody th { min-width: 4rem; } }
@media print {
  body { max-width: none; margin: 0; font-size: 12px; print-color-adjust: exact; -webkit-print-color-adjust: exact; }
  h2, .note { break-after: avoid; } ::details-content { content-visibility: visible; block-size: auto; }
  tr, .charts > div { break-inside: avoid; } .wide { overflow: visible; }
}
`;

/** Runs in the page. */
const DRAW = `
(() => {
  const draw = (root) => JSON.parse(root.firstChild.textContent).map(({ title, x, lines }, i) => {
    const box = root.appendChild(document.createElement('div'));
    const size = () => ({ width: Math.max(200, box.clientWidth), height: i === 0 ? 320 : 200 });
    const series = lines.map(({ label, stroke, digits, points = false }) => ({
      label, stroke, width: 1.5, spanGaps: true, points: { show: points },
      value: (_, value) => (value == null ? '-' : value.toFixed(digits)),
    }));
    const ticks = (_, values) => values.map((value) => value.toLocaleString([], { maximumSignificantDigits: 6 }));
    const plot = new uPlot({ title, ...size(), scales: { x: { time: false } }, axes: [{}, { size: 70, values: ticks }],
      series: [{ label: 'step' }, ...series] }, [x, ...lines.map((line) => line.values)], box);
    return () => plot.setSize(size());
  });
  const plots = [...document.querySelectorAll('.charts')].flatMap(draw);
  addEventListener('resize', () => plots.forEach((resize) => resize()));
})();
`;
