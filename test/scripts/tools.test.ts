/** The small judges behind the scripts: is an install needed, did an input change, is a size over its budget. */
import { mkdirSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { contentHash, lineCount, projectFiles } from '../../scripts/lib/files.mjs';
import { missingPackages } from '../../scripts/lib/install.mjs';
import { replaceBetween, table } from '../../scripts/lib/markdown.mjs';
import { bundleForBrowser, linesPerFolder, overBudget } from '../../scripts/lib/size.mjs';
import { makeTree } from './tree.ts';

const json = (value: unknown): string => JSON.stringify(value);
const locked = (packages: Record<string, unknown>): string =>
  json({ packages: { '': { dependencies: { a: '1.0.0' } }, ...packages } });

function installTree(wanted: Record<string, unknown>, installed: Record<string, unknown> | null): string {
  const root = makeTree({
    'package.json': json({ dependencies: { a: '1.0.0' } }),
    'package-lock.json': locked(wanted),
  });
  if (installed === null) return root;
  for (const path of Object.keys(installed)) mkdirSync(join(root, path), { recursive: true });
  writeFileSync(join(root, 'node_modules/.package-lock.json'), json({ packages: installed }));
  return root;
}

describe('missingPackages', () => {
  const a = { 'node_modules/a': { version: '1.0.0' } };

  it('is content when everything of the lockfile is there', () => {
    expect(missingPackages(installTree(a, a))).toBeNull();
  });

  it('does not ask for packages of other platforms, nor mind extra ones', () => {
    const wanted = { ...a, 'node_modules/o': { version: '1.0.0', optional: true } };
    expect(missingPackages(installTree(wanted, { ...a, 'node_modules/x': { version: '9.0.0' } }))).toBeNull();
  });

  it('names what is missing', () => {
    expect(missingPackages(installTree(a, null))).toBe('node_modules is missing');
    expect(missingPackages(installTree(a, { 'node_modules/b': { version: '1.0.0' } }))).toBe(
      'a@1.0.0 is not installed',
    );
    expect(missingPackages(installTree(a, { 'node_modules/a': { version: '0.9.0' } }))).toBe(
      'a@1.0.0 is not installed',
    );
  });

  it('sees a folder that was deleted by hand', () => {
    const root = installTree(a, a);
    rmSync(join(root, 'node_modules/a'), { recursive: true });
    expect(missingPackages(root)).toBe('a@1.0.0 is not installed');
  });

  it('sees a package.json that the lockfile does not know yet', () => {
    const root = installTree(a, a);
    writeFileSync(join(root, 'package.json'), json({ dependencies: { a: '1.0.0', b: '2.0.0' } }));
    expect(missingPackages(root)).toBe('package-lock.json has no b@2.0.0');
  });
});

describe('contentHash', () => {
  it('changes with contents, names and removals, not with times', () => {
    const root = makeTree({ 'src/a.ts': 'one', 'src/b.ts': 'two', 'other.ts': 'x' });
    const hashes = [contentHash(root, ['src'])];
    writeFileSync(join(root, 'src/a.ts'), 'one');
    writeFileSync(join(root, 'other.ts'), 'y');
    expect(contentHash(root, ['src'])).toBe(hashes[0]);
    writeFileSync(join(root, 'src/a.ts'), 'uno');
    hashes.push(contentHash(root, ['src']));
    rmSync(join(root, 'src/b.ts'));
    hashes.push(contentHash(root, ['src']));
    rmSync(join(root, 'src'), { recursive: true });
    hashes.push(contentHash(root, ['src']));
    expect(new Set(hashes).size).toBe(4);
  });
});

describe('size', () => {
  it('counts lines per folder and leaves out what is generated', () => {
    const root = makeTree({
      'src/index.ts': 'a\n',
      'src/base/x.ts': 'a\nb\n',
      'dist/index.js': 'a\n',
      'node_modules/p/i.ts': 'a\n',
      'README.md': 'a\n',
    });
    expect(projectFiles(root)).toEqual(['README.md', 'src/base/x.ts', 'src/index.ts']);
    expect(linesPerFolder(root)).toEqual({ src: 1, 'src/base': 2 });
    expect([lineCount(''), lineCount('a'), lineCount('a\n'), lineCount('a\n\n')]).toEqual([0, 1, 1, 2]);
  });

  it('complains about what is over its budget only', () => {
    expect(overBudget({ a: 10, b: 11 }, { a: 10, b: 10 }).map(({ message }) => message)).toEqual([
      'b is 11, the budget is 10',
    ]);
  });

  it('refuses a bundle that needs Node', async () => {
    const root = makeTree({
      'good.ts': 'export const a: number = 1;\n',
      'bad.ts': "import { readFileSync } from 'node:fs';\nexport { readFileSync };\n",
    });
    expect(await bundleForBrowser(join(root, 'good.ts'))).toContain('export');
    await expect(bundleForBrowser(join(root, 'bad.ts'))).rejects.toThrow(/node:fs/);
  });
});

describe('markdown', () => {
  it('replaces what is between the marks and nothing else', () => {
    const page = 'a\n<!-- begin t -->\nold\n<!-- end t -->\nb\n';
    const once = replaceBetween(page, 't', 'new\n');
    expect(once).toBe('a\n<!-- begin t -->\nnew\n<!-- end t -->\nb\n');
    expect(replaceBetween(once, 't', 'new')).toBe(once);
    expect(() => replaceBetween(page, 'other', 'x')).toThrow('Add both marks.');
  });

  it('writes tables with numbers to the right', () => {
    expect(table(['name', 'GB/s'], [['scan', 3]])).toBe('| name | GB/s |\n| --- | --: |\n| scan | 3 |');
  });
});
