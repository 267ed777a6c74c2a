/** How big the project is: lines per folder, and what a page pays for the neutral entry point. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';
import { build } from 'esbuild';
import { lineCount, projectFiles } from './files.mjs';
import { ScriptError } from './run.mjs';

const COUNTED = /\.(?:ts|mjs|cc|h|css|html)$/;

/** { folder: lines }, with the folders of src/ one by one. */
export function linesPerFolder(root) {
  const lines = {};
  for (const path of projectFiles(root)) {
    if (!COUNTED.test(path)) continue;
    const parts = path.split('/');
    const folder =
      parts.length === 1
        ? '(root)'
        : parts[0] === 'src'
          ? parts.slice(0, Math.min(2, parts.length - 1)).join('/')
          : parts[0];
    lines[folder] = (lines[folder] ?? 0) + lineCount(readFileSync(join(root, path), 'utf8'));
  }
  return Object.fromEntries(Object.entries(lines).sort(([a], [b]) => (a < b ? -1 : 1)));
}

/** Bundles an entry point as a page would: minified, for browsers. Fails on any `node:` import. */
export async function bundleForBrowser(entry) {
  const options = {
    entryPoints: [entry],
    bundle: true,
    minify: true,
    write: false,
    format: 'esm',
    platform: 'browser',
    target: 'es2022',
    logLevel: 'silent',
  };
  try {
    return (await build(options)).outputFiles[0].text;
  } catch (error) {
    throw new ScriptError(`size: ${entry} does not bundle for a browser: ${error.message}`);
  }
}

/** Everything that has a budget. */
export async function measure(root) {
  const folders = linesPerFolder(root);
  const total = (match) =>
    Object.entries(folders).reduce((sum, [name, lines]) => sum + (match(name) ? lines : 0), 0);
  const code = await bundleForBrowser(join(root, 'src/index.ts'));
  return {
    folders,
    measured: {
      linesSrc: total((name) => name === 'src' || name.startsWith('src/')),
      linesNative: total((name) => name === 'native'),
      gzipBytesIndex: gzipSync(code, { level: 9 }).length,
    },
  };
}

/** Findings in the form of rules.mjs for what is over its budget. */
export function overBudget(measured, budget) {
  return Object.entries(budget)
    .filter(([name, limit]) => measured[name] > limit)
    .map(([name, limit]) => ({
      rule: 'size',
      file: 'scripts/size-budget.json',
      line: 1,
      message: `${name} is ${measured[name]}, the budget is ${limit}`,
      remedy: 'Make it smaller, or raise the budget in a commit that says why.',
    }));
}
