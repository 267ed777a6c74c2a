/** Measurements as bench/results/<section>.json, and all of them as bench/results.md. Nothing in that page is typed by hand. */
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { table } from '../../scripts/lib/markdown.mjs';
import { median } from '../_report.mjs';

const FOLDER = new URL('../results/', import.meta.url);
const PAGE = new URL('../results.md', import.meta.url);

/** Width of one unit of a ratio in the bars, and the longest bar. */
const BAR_PER_UNIT = 2;
const BAR_LONGEST = 40;

const fixed = (x) => (x >= 100 ? x.toFixed(0) : x.toPrecision(3));
const spread = (values, show = fixed) =>
  `${show(median(values))} (${show(Math.min(...values))}..${show(Math.max(...values))})`;
const percent = (x) => (100 * x).toFixed(0);

/** Of each round: what is measured side by side is divided side by side. */
export const ratios = ({ ours, theirs }) => theirs.map((rate, i) => ours[i] / rate);

/** The ratio at which ours would run at the limit of its round. */
const allowedRatios = ({ ours, theirs, share }) =>
  share.length === theirs.length ? theirs.map((rate, i) => ours[i] / share[i] / rate) : [];

/** One row as cells, and whether it is as wanted (null: nothing was). */
function cells(row) {
  const { label, peer, ours, theirs, share, bound, wanted, wantedShare, wantedMemory, problem } = row;
  const all = ratios(row);
  const allowed = allowedRatios(row);
  const ratio = all.length ? median(all) : null;
  const bar = ratio ? '█'.repeat(Math.max(1, Math.min(BAR_LONGEST, Math.round(ratio * BAR_PER_UNIT)))) : '';
  const memory = row.theirsMib ? row.oursMib / row.theirsMib : null;
  const checks = [
    wanted && [`${wanted} x`, ratio !== null && ratio >= wanted],
    wantedShare && [
      `${percent(wantedShare)} % of the limit`,
      share.length > 0 && median(share) >= wantedShare,
    ],
    wantedMemory && [`${wantedMemory} of the memory`, memory !== null && memory <= wantedMemory],
  ].filter(Boolean);
  return [
    label,
    spread(ours),
    peer,
    theirs.length ? spread(theirs) : (problem ?? '-'),
    ratio === null ? '-' : `${bar} **${spread(all)}**`,
    checks.map(([text, isMet]) => `${text}: ${isMet ? 'met' : '**not met**'}`).join(', ') || '-',
    share.length ? `${percent(median(share))} % (${bound})` : '-',
    allowed.length ? `${fixed(median(allowed))} x` : '-',
    memory === null ? '-' : `${row.oursMib.toFixed(0)} / ${row.theirsMib.toFixed(0)} MiB`,
  ];
}

const COLUMNS = [
  'what',
  'mamba.ts, tokens/s',
  'beside',
  'its tokens/s',
  'ratio',
  'wanted',
  'of the limit',
  'ratio at the limit',
  'memory',
];

/** A section: { title, note, machine, rows } or, from a program that prints its own report, { title, note, machine, text }. */
function sectionText({ title, note, machine, rows, text }) {
  const body = rows ? table(COLUMNS, rows.map(cells)) : `\`\`\`\n${text.trim()}\n\`\`\``;
  return [`## ${title}`, note, ...machine, body].join('\n\n');
}

export function printSection(section) {
  console.log(`\n${sectionText(section)}`);
}

/** Replaces one section, and writes the page of all that there are, in the order of `names`. */
export function writeSection(name, section, names) {
  mkdirSync(FOLDER, { recursive: true });
  writeFileSync(new URL(`${name}.json`, FOLDER), `${JSON.stringify(rounded(section), null, 1)}\n`);
  const sections = names
    .map((other) => new URL(`${other}.json`, FOLDER))
    .filter((path) => existsSync(path))
    .map((path) => sectionText(JSON.parse(readFileSync(path, 'utf8'))));
  const page = ['# Beside other programs', INTRODUCTION, ...sections].join('\n\n');
  writeFileSync(PAGE, `${page}\n`);
}

const INTRODUCTION = `Written by \`npm run bench peers -- --write\` from the measurements in \`bench/results/\`. Both sides have the same shapes, random
weights and threads. They are measured in turns, the other one first; each is a process of its own that waits meanwhile. Figures are
medians with the least and the most of all rounds, ratios those of each round. Memory is the most that the process held. The limit is
what the machine allows for our side of the work, measured in the same rounds ([how](../docs/guide/bench.md)): products and recurrence at the
CPU's peak, nothing else, or the weights read once. Where the ratio at the limit is below the wanted one, no program could reach it here.`;

/** Five digits: more would be noise in the repository. */
function rounded(value) {
  return JSON.parse(JSON.stringify(value, (_, x) => (typeof x === 'number' ? Number(x.toPrecision(5)) : x)));
}
