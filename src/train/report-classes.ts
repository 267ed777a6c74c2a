/**
 * Pieces of a classification report: confusion matrix, reliability diagram, texts whose tokens are shaded.
 */
import type { CalibrationBin } from './calibration.ts';
import { clip, type ExcerptedText, magnitude } from './explained-text.ts';
import { type Html, html, table } from './report-html.ts';

/** A matrix of more classes cannot be read. */
const MATRIX_CLASSES = 24;
const LABEL_CHARS = 28;
const SHOWN_CONFUSIONS = 20;
/** Steps of a shade. */
const LEVELS = 8;
/** Blue and vermilion of Okabe and Ito's palette, which colour-blind readers tell apart. */
const BLUE = '0,114,178';
const ORANGE = '213,94,0';

/** Examples by true class (rows) and predicted class (columns), shaded by the share of the row. */
export function confusionMatrix(labels: readonly string[], confusion: readonly (readonly number[])[]): Html {
  const totals = confusion.map((row) => row.reduce((sum, count) => sum + count, 0));
  if (labels.length > MATRIX_CLASSES) return frequentConfusions(labels, confusion, totals);
  const isSteep = labels.length > 5 || labels.some((label) => label.length > 12);
  const heads = labels.map((label) => html`<th title="${label}"><span>${shortLabel(label)}</span></th>`);
  const rows = labels.map((label, i) => {
    const cells = confusion[i]!.map((count, j) => cell(count, totals[i]!, i === j));
    return html`<tr><th title="${label}">${shortLabel(label)}</th>${cells}<td class="sum">${totals[i]!}</td></tr>\n`;
  });
  const corner = html`<th class="corner">true ↓ &nbsp; predicted →</th>`;
  return html`<p class="note">Rows: the true class. Columns: the predicted class. Each cell has the number of texts
and its share of the row; blue is right, orange is wrong.</p>
<div class="wide"><table class="matrix${isSteep ? ' steep' : ''}">
<thead><tr>${corner}${heads}<th><span>all</span></th></tr></thead><tbody>
${rows}</tbody></table></div>`;
}

function cell(count: number, total: number, isRight: boolean): Html {
  if (count === 0) return html`<td class="none">0</td>`;
  const share = count / total;
  const color = isRight ? BLUE : ORANGE;
  const style = `background:rgba(${color},${(0.06 + 0.64 * share).toFixed(3)})`;
  return html`<td style="${style}">${count}<small>${percent(share)}</small></td>`;
}

function frequentConfusions(
  labels: readonly string[],
  confusion: readonly (readonly number[])[],
  totals: readonly number[],
): Html {
  const pairs = confusion.flatMap((row, i) =>
    row.flatMap((count, j) => (count > 0 && i !== j ? [{ i, j, count }] : [])),
  );
  pairs.sort((a, b) => b.count - a.count);
  const rows = pairs
    .slice(0, SHOWN_CONFUSIONS)
    .map(({ i, j, count }) => [labels[i]!, labels[j]!, count, percent(count / totals[i]!)]);
  return html`<p class="note">${labels.length} classes are too many for a matrix. The most frequent of
${pairs.length} confusions:</p>
<div class="named">${table(['true', 'predicted', 'texts', 'of the class'], rows)}</div>`;
}

/** Accuracy by confidence as a drawing, with its numbers. */
export function reliability(bins: readonly CalibrationBin[]): Html {
  const [size, left, top, histogram] = [300, 56, 8, 56];
  const most = Math.max(1, ...bins.map((bin) => bin.count));
  const x = (share: number): string => (left + share * size).toFixed(1);
  const y = (share: number): string => (top + (1 - share) * size).toFixed(1);
  const under = top + size + 14 + histogram; // the foot of the histogram
  const bars = bins.map(({ from, to, count, confidence, accuracy }) => {
    if (confidence === null || accuracy === null) return null;
    const width = ((to - from) * size - 1.5).toFixed(1);
    const high = (histogram * count) / most;
    return html`<g><title>confidence ${percent(from)} to ${percent(to)}: ${count} texts,
mean confidence ${confidence.toFixed(3)}, accuracy ${accuracy.toFixed(3)}</title>
<rect class="bar" x="${x(from)}" y="${y(accuracy)}" width="${width}" height="${(accuracy * size).toFixed(1)}"/>
<circle class="dot" cx="${x(confidence)}" cy="${y(accuracy)}" r="3.5"/>
<rect class="count" x="${x(from)}" y="${(under - high).toFixed(1)}" width="${width}"
  height="${high.toFixed(1)}"/></g>\n`;
  });
  const ticks = [0, 0.25, 0.5, 0.75, 1].map(
    (tick) => html`<line class="rule" x1="${x(0)}" x2="${x(1)}" y1="${y(tick)}" y2="${y(tick)}"/>
<text class="left" x="${left - 6}" y="${y(tick)}" dy=".35em">${percent(tick)}</text>
<text x="${x(tick)}" y="${under + 16}">${percent(tick)}</text>\n`,
  );
  const middle = `translate(11 ${y(0.5)}) rotate(-90)`;
  const filled = bins.filter((bin) => bin.count > 0);
  const rows = filled.map(({ from, to, count, confidence, accuracy }) => [
    `${percent(from)} to ${percent(to)}`,
    count,
    confidence!.toFixed(3),
    accuracy!.toFixed(3),
  ]);
  const box = `0 0 ${left + size + 20} ${under + 40}`;
  return html`<div class="beside">
<svg class="reliability" role="img" aria-label="accuracy by confidence" viewBox="${box}">
${ticks}${bars}<line class="ideal" x1="${x(0)}" y1="${y(0)}" x2="${x(1)}" y2="${y(1)}"/>
<text transform="${middle}">accuracy</text>
<text class="left" x="${left - 6}" y="${under - histogram / 2}" dy=".35em">texts</text>
<text x="${x(0.5)}" y="${under + 34}">confidence</text></svg>
${table(['confidence', 'texts', 'mean', 'accuracy'], rows)}</div>`;
}

/** What the shades mean; once per section. */
export const SHADES_LEGEND = html`<p class="note legend">
<span class="words">${shadeNames('n').reverse().map(swatch)}</span> against the predicted label (underlined),
<span class="words">${shadeNames('p').map(swatch)}</span> for it. Weights are gradient × input of the label's logit
minus the mean of the others'; shades are relative to the strongest token of each text, and pointing at a token
shows its weight.</p>`;

/** A text with what was said of it; its tokens are shaded where they have weights. */
export function explainedText({ text, where, label, prediction, tokens, cut }: ExcerptedText): Html {
  const truth = label === null ? null : html`<span>truth <b>${shortLabel(label)}</b></span>`;
  const most = tokens ? Math.max(...tokens.map((token) => magnitude(token.weight))) : 0;
  const body = tokens ? tokens.map((token) => shaded(token, most)) : text;
  const dots = html`<i class="cut">…</i>`;
  const words = [cut.before ? dots : null, body, cut.after ? dots : null];
  const said = html`predicted <b>${shortLabel(prediction.label)}</b> ${prediction.score.toFixed(4)}`;
  return html`<article><header><span>${said}</span>${truth}<code>${where}</code></header>
<div class="words" dir="auto">${words}</div></article>\n`;
}

function shaded({ text, weight }: { text: string; weight: number }, most: number): Html {
  const level = most > 0 ? Math.round((LEVELS * magnitude(weight)) / most) : 0;
  const shade = level > 0 ? html` class="${weight > 0 ? 'p' : 'n'}${level}"` : null;
  const space = text.length - text.trimStart().length;
  const indent = space < text.length ? space : 0; // a word is shaded without the space before it
  const title = `${weight > 0 ? '+' : ''}${weight.toPrecision(3)}`;
  return html`${text.slice(0, indent)}<span${shade} title="${title}">${text.slice(indent)}</span>`;
}

function shadeNames(sign: 'p' | 'n'): string[] {
  return Array.from({ length: LEVELS }, (_, i) => `${sign}${i + 1}`);
}

function swatch(name: string): Html {
  return html`<span class="${name}">&nbsp;</span>`;
}

function shortLabel(label: string): string {
  return label.length > LABEL_CHARS ? `${clip(label, LABEL_CHARS - 1)}…` : label;
}

/** 0.0123 as 1.2 %, 0.123 as 12 %. */
function percent(share: number): string {
  const value = 100 * share;
  return `${value > 0 && value < 9.95 ? value.toFixed(1) : value.toFixed(0)}%`;
}

const SHADES = Array.from({ length: LEVELS }, (_, i) => {
  const alpha = (0.07 + (0.6 * (i + 1)) / LEVELS).toFixed(2);
  return `.p${i + 1} { background: rgba(${BLUE},${alpha}); } .n${i + 1} { background: rgba(${ORANGE},${alpha}); }`;
}).join('\n');

export const CLASSES_STYLE = `
.note { color: #666; font-size: .87rem; max-width: 46rem; }
.verdict { font-weight: 600; border-left: 4px solid #0072b2; padding: .2rem 0 .2rem .8rem; max-width: 46rem; }
.matrix { border-collapse: separate; border-spacing: 2px; font-size: .85rem; }
.matrix th { padding: .2rem .5rem .2rem 0; vertical-align: middle; color: inherit; }
.matrix tbody th { position: sticky; left: 0; background: #fff; }
.matrix thead th { vertical-align: bottom; text-align: center; padding: .2rem; }
.matrix thead .corner { text-align: left; color: #666; font-size: .8rem; padding-right: .8rem; }
.matrix.steep thead th:not(.corner) span { writing-mode: vertical-rl; transform: rotate(180deg); max-height: 12rem; }
.matrix td { min-width: 2.1rem; padding: .2rem .25rem; text-align: center; vertical-align: middle; line-height: 1.25; border-radius: 3px;
  font-variant-numeric: tabular-nums; white-space: nowrap; }
.matrix:not(.steep) td { min-width: 4.5rem; padding: .4rem .5rem; } .matrix:not(.steep) .sum { min-width: 2rem; }
.matrix small { display: block; font-size: .68rem; opacity: .85; }
.matrix .none { color: #bbb; background: #fafaf8; } .matrix .sum { color: #666; }
.grid small { display: block; color: #666; font-weight: normal; }
.named td:nth-child(2), .named thead th:nth-child(2) { text-align: left; }
.beside { display: flex; flex-wrap: wrap; gap: 2rem; align-items: flex-start; }
.reliability { width: 24rem; max-width: 100%; }
.reliability text { font-size: 11px; fill: #666; text-anchor: middle; } .reliability .left { text-anchor: end; }
.reliability .bar { fill: rgba(${BLUE},.3); } .reliability .dot { fill: rgb(${BLUE}); } .reliability .count { fill: #b9b9b2; }
.reliability .rule { stroke: #e6e6e2; } .reliability .ideal { stroke: #888; stroke-dasharray: 4 4; }
article { margin: .8rem 0; border: 1px solid #e6e6e2; border-radius: 4px; break-inside: avoid; }
article header { display: flex; flex-wrap: wrap; gap: .1rem 1.2rem; padding: .35rem .8rem; background: #f5f5f2; font-size: .87rem; }
article code { margin-left: auto; color: #666; overflow-wrap: anywhere; }
article .words { padding: .6rem .8rem; }
.words { white-space: pre-wrap; overflow-wrap: anywhere; unicode-bidi: isolate; line-height: 1.7; }
.words span { border-radius: 2px; } .words .cut { color: #999; padding: 0 .2rem; }
.words :is(${shadeNames('n')
  .slice(LEVELS / 4)
  .map((name) => `.${name}`)
  .join(', ')}) { text-decoration: underline dotted rgb(${ORANGE}) 2px; text-underline-offset: 3px; }
.legend .words span { display: inline-block; width: .9rem; line-height: 1.2; text-decoration: none; }
${SHADES}
`;
