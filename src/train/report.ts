/**
 * The report of a run: one HTML file with curves, results, configuration and a sample. Everything is inside it, so it
 * opens from a disk or a mail without a network. Charts are drawn by uPlot, whose files the caller reads.
 */
import type { StepMetrics } from './metrics.ts';

export interface ReportData {
  title: string;
  /** What came out, in order: what it is, and its value. */
  results: readonly (readonly [label: string, value: string])[];
  /** Settings and model configuration by section. */
  configuration: Readonly<Record<string, Readonly<Record<string, unknown>>>>;
  metrics: readonly StepMetrics[];
  /** Whether a token is a byte: curves are then in bits per byte, else in bits per token. */
  bytes: boolean;
  /** Text that the model wrote. */
  sample?: { prompt: string; text: string };
}

/** The texts of uPlot's script and style sheet. */
export interface ReportAssets {
  script: string;
  style: string;
}

/** The HTML of the report. */
export function renderReport(data: ReportData, assets: ReportAssets): string {
  const { title, results, configuration, metrics, sample } = data;
  const rows = (entries: readonly (readonly [string, unknown])[]): string =>
    entries
      .map(([label, value]) => `<tr><th>${escapeHtml(label)}</th><td>${escapeHtml(show(value))}</td></tr>`)
      .join('\n');
  const sections = Object.entries(configuration).map(
    ([name, fields]) =>
      `<details><summary>${escapeHtml(name)}</summary><table>${rows(Object.entries(fields))}</table></details>`,
  );
  const written = sample
    ? `<h2>Sample</h2>\n<pre><b>${escapeHtml(sample.prompt)}</b>${escapeHtml(sample.text)}</pre>`
    : '';
  return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>${escapeHtml(title)}</title>
<style>${assets.style.replaceAll('</style', '<\\/style')}</style>
<style>${STYLE}</style>
</head>
<body>
<h1>${escapeHtml(title)}</h1>
<table class="results">${rows(results)}</table>
<h2>Curves</h2>
${metrics.length > 1 ? '<div id="charts"></div>' : '<p>Fewer than two entries: nothing to draw.</p>'}
${written}
<h2>Configuration</h2>
${sections.join('\n')}
<script type="application/json" id="data">${escapeJson(JSON.stringify(charts(data)))}</script>
<script>${assets.script.replaceAll('</script', '<\\/script')}</script>
<script>${DRAW}</script>
</body>
</html>
`;
}

interface Chart {
  title: string;
  /** Steps, then one row per line; null where a line has no point. */
  data: (number | null)[][];
  lines: { label: string; stroke: string; digits: number }[];
}

function charts({ metrics, bytes }: ReportData): Chart[] {
  const steps = metrics.map((entry) => entry.step);
  const unit = bytes ? 'bits per byte' : 'bits per token';
  const single = (
    title: string,
    digits: number,
    stroke: string,
    pick: (entry: StepMetrics) => number,
  ): Chart => ({
    title,
    data: [steps, metrics.map(pick)],
    lines: [{ label: title, stroke, digits }],
  });
  return [
    {
      title: `Loss, ${unit}`,
      data: [
        steps,
        metrics.map((entry) => entry.bitsPerToken),
        metrics.map((entry) => entry.validation?.bitsPerToken ?? null),
      ],
      lines: [
        { label: 'training', stroke: '#3b6fd4', digits: 3 },
        { label: 'held-out', stroke: '#d4553b', digits: 3 },
      ],
    },
    single('Learning rate', 6, '#7a5cc0', (entry) => entry.lr),
    single('Gradient norm', 3, '#2f8f6b', (entry) => entry.gradNorm),
    single('Tokens per second', 0, '#a07a1f', (entry) => entry.tokensPerSecond),
  ];
}

function show(value: unknown): string {
  if (typeof value === 'string') return value;
  if (Array.isArray(value)) return value.map(show).join(', ');
  return value === null || value === undefined ? '-' : String(value);
}

const ENTITIES: Record<string, string> = {
  '&': '&amp;',
  '<': '&lt;',
  '>': '&gt;',
  '"': '&quot;',
  "'": '&#39;',
};

function escapeHtml(text: string): string {
  return text.replace(/[&<>"']/g, (char) => ENTITIES[char]!);
}

/** JSON that may stand in a script element. */
function escapeJson(json: string): string {
  return json.replace(/</g, '\\u003c');
}

const STYLE = `
:root { color-scheme: light; }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #222; background: #fff; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.1rem; margin-top: 2rem; }
table { border-collapse: collapse; } th, td { text-align: left; vertical-align: top; padding: .15rem 1.5rem .15rem 0; overflow-wrap: anywhere; }
th { font-weight: normal; color: #666; white-space: nowrap; }
.results td { font-weight: 600; }
pre { white-space: pre-wrap; background: #f5f5f2; padding: 1rem; border-radius: 4px; }
details { margin: .3rem 0; } summary { cursor: pointer; }
#charts { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(26rem, 100%), 1fr)); gap: 1.5rem; }
#charts > :first-child { grid-column: 1 / -1; }
`;

/** Runs in the page. */
const DRAW = `
(() => {
  const root = document.getElementById('charts');
  if (!root) return;
  const charts = JSON.parse(document.getElementById('data').textContent);
  const plots = charts.map(({ title, data, lines }, i) => {
    const box = root.appendChild(document.createElement('div'));
    const size = () => ({ width: Math.max(200, box.clientWidth), height: i === 0 ? 320 : 200 });
    const series = lines.map(({ label, stroke, digits }) => ({
      label, stroke, width: 1.5, spanGaps: true,
      points: { show: label === 'held-out' },
      value: (_, value) => (value == null ? '-' : value.toFixed(digits)),
    }));
    const plot = new uPlot({ title, ...size(), scales: { x: { time: false } }, axes: [{}, { size: 70 }],
      series: [{ label: 'step' }, ...series] }, data, box);
    return () => plot.setSize(size());
  });
  addEventListener('resize', () => plots.forEach((resize) => resize()));
})();
`;
