/**
 * The documents do not lie: every `ts` block type-checks against the public types, every `ts run` block runs, every
 * relative link leads to a file, and the two READMEs hold the same code.
 */
import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { transformSync } from 'esbuild';
import ts from 'typescript';
import { describe, expect, it } from 'vitest';
import { ROOT } from '../../scripts/lib/run.mjs';
import { type Block, codeBlocks } from './blocks.ts';

const markdownIn = (folder: string): string[] =>
  existsSync(join(ROOT, folder))
    ? readdirSync(join(ROOT, folder), { recursive: true, encoding: 'utf8' })
        .filter((name) => name.endsWith('.md'))
        .map((name) => join(folder, name))
    : [];

const documents = [
  'README.md',
  'README.zh-CN.md',
  'CONTRIBUTING.md',
  'CHANGELOG.md',
  ...markdownIn('docs'),
].sort();
const textOf = (name: string): string => readFileSync(join(ROOT, name), 'utf8');
const blocks = documents.flatMap((name) => codeBlocks(name, textOf(name)));

/** Parsed library files, shared by all programs of this file. */
const parsed = new Map<string, ts.SourceFile | undefined>();

/** Type errors of blocks, each as a module of its own that imports the package by its name. */
function typeErrors(checked: readonly Block[]): string[] {
  const { config } = ts.readConfigFile(join(ROOT, 'tsconfig.test.json'), ts.sys.readFile);
  const { options } = ts.parseJsonConfigFileContent({ ...config, files: [], include: [] }, ts.sys, ROOT);
  const byPath = new Map(checked.map((block, i) => [join(ROOT, `docs-block-${i}.ts`), block]));
  const host = ts.createCompilerHost(options);
  const { fileExists, readFile, getSourceFile } = host;
  const virtual = (path: string): string | undefined => {
    const block = byPath.get(path);
    return block && `${block.code}\nexport {};\n`;
  };
  host.fileExists = (path) => byPath.has(path) || fileExists(path);
  host.readFile = (path) => virtual(path) ?? readFile(path);
  host.getSourceFile = (path, settings, ...rest) => {
    const text = virtual(path);
    if (text !== undefined) return ts.createSourceFile(path, text, settings);
    if (!parsed.has(path)) parsed.set(path, getSourceFile(path, settings, ...rest));
    return parsed.get(path);
  };
  const program = ts.createProgram([...byPath.keys()], options, host);
  return [...byPath].flatMap(([path, block]) => {
    const file = program.getSourceFile(path)!;
    return [...program.getSyntacticDiagnostics(file), ...program.getSemanticDiagnostics(file)].map(
      ({ messageText }) => `${block.where}: ${ts.flattenDiagnosticMessageText(messageText, ' ')}`,
    );
  });
}

/** Runs a block in Node against the built package. */
function run(block: Block): { status: number | null; stderr: string } {
  const folder = join(ROOT, '.cache/docs'); // inside the package: its own name resolves from here
  mkdirSync(folder, { recursive: true });
  const path = join(folder, `${block.where.replace(/[^\w.]+/g, '-')}.mjs`);
  writeFileSync(path, transformSync(block.code, { loader: 'ts', format: 'esm' }).code);
  const { status, stderr } = spawnSync(process.execPath, [path], { cwd: folder, encoding: 'utf8' });
  return { status, stderr };
}

describe('code blocks', () => {
  it('are found where they are, with their marks', () => {
    const found = codeBlocks(
      'a.md',
      'x\n```ts run\nlet a = 1;\n```\n```sh\nls\n```\n```ts\nlet b = 2;\n\n```\n',
    );
    expect(found).toEqual([
      { where: 'a.md:3', code: 'let a = 1;', run: true },
      { where: 'a.md:9', code: 'let b = 2;\n', run: false },
    ]);
    expect(() => codeBlocks('a.md', '```ts\nlet a = 1;\n')).toThrow('a.md:1: a code block is not closed.');
  });

  it('the type check sees errors and unknown names', () => {
    const block = (code: string): Block => ({ where: 'a.md:1', code, run: false });
    const wrong = [block('const a: number = "x";'), block("import { thereIsNoSuchName } from 'mamba-ts';")];
    expect(typeErrors(wrong)).toHaveLength(2);
  });

  it('type-check', () => {
    expect(blocks.length).toBeGreaterThan(0);
    expect(typeErrors(blocks)).toEqual([]);
  });

  it.each(blocks.filter((block) => block.run))('$where runs', (block) => {
    expect(run(block)).toEqual({ status: 0, stderr: '' });
  });
});

describe('documents', () => {
  it.each(documents)('%s: relative links lead somewhere', (name) => {
    const links = [...textOf(name).matchAll(/\]\((?!https?:|mailto:|#)([^)#\s]+)[^)]*\)/g)].map(
      (match) => match[1]!,
    );
    expect(links.filter((link) => !existsSync(join(ROOT, dirname(name), link)))).toEqual([]);
  });

  it('the READMEs hold the same code', () => {
    const code = (name: string): string[] => codeBlocks(name, textOf(name)).map((block) => block.code);
    expect(code('README.zh-CN.md')).toEqual(code('README.md'));
  });

  it('decisions are short, numbered and complete', () => {
    const names = readdirSync(join(ROOT, 'docs/decisions')).sort();
    names.forEach((name, i) => {
      expect(name).toMatch(new RegExp(`^${String(i + 1).padStart(3, '0')}-[a-z0-9-]+\\.md$`));
      const text = textOf(`docs/decisions/${name}`);
      expect(text.split('\n').length, name).toBeLessThanOrEqual(31);
      for (const part of ['Status:', '## Context', '## Decision', '## What would change our mind']) {
        expect(text, name).toContain(part);
      }
    });
  });
});
