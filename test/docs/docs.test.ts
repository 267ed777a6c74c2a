/**
 * The documents do not lie: every `ts` block type-checks against the public types, every `ts run` and `sh run` block runs,
 * every relative link leads to a file, and a translation holds the same code.
 */
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import ts from 'typescript';
import { beforeAll, describe, expect, it } from 'vitest';
import { ROOT } from '../../scripts/lib/run.mjs';
import { type Block, codeBlocks, sharedCode } from './blocks.ts';
import { runShell, runTypeScript, workplace } from './workplace.ts';

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

/** Each translated document with the one it is a translation of, whose code it shares. */
const translations = documents
  .filter((name) => name.endsWith('.zh-CN.md'))
  .map((name) => [name, name.replace('.zh-CN.md', '.md')] as const);
const isTranslated = (name: string): boolean => translations.some(([translation]) => translation === name);
/** By document: blocks go on from what those before them have made. */
const programs = documents
  .filter((name) => !isTranslated(name))
  .map((name) => [name, blocks.filter((block) => block.run && block.name === name)] as const)
  .filter(([, runnable]) => runnable.length > 0);

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

/** What went wrong with a block; empty if nothing did. A command may report progress, a program may not complain. */
function complaint(folder: string, block: Block): string {
  const name = block.where.replace(/[^\w.]+/g, '-');
  const { status, stdout, stderr } =
    block.language === 'sh' ? runShell(folder, block.code) : runTypeScript(folder, name, block.code);
  if (status !== 0) return `ended with ${status}\n${stdout}${stderr}`;
  return block.language === 'sh' ? '' : stderr;
}

describe('code blocks', () => {
  it('are found where they are, with their marks', () => {
    const found = codeBlocks(
      'a.md',
      'x\n```ts run\nlet a = 1;\n```\n```sh\nls # all\n```\n```ts\nlet b = 2;\n\n```\n',
    );
    expect(found).toEqual([
      { name: 'a.md', language: 'ts', where: 'a.md:3', code: 'let a = 1;', run: true },
      { name: 'a.md', language: 'sh', where: 'a.md:6', code: 'ls # all', run: false },
      { name: 'a.md', language: 'ts', where: 'a.md:9', code: 'let b = 2;\n', run: false },
    ]);
    expect(found.map(sharedCode)).toEqual(['ts run\nlet a = 1;', 'sh\nls', 'ts\nlet b = 2;\n']);
    expect(() => codeBlocks('a.md', '```ts\nlet a = 1;\n')).toThrow('a.md:1: a code block is not closed.');
  });

  it('the type check sees errors and unknown names', () => {
    const block = (code: string): Block => ({
      name: 'a.md',
      language: 'ts',
      where: 'a.md:1',
      code,
      run: false,
    });
    const wrong = [block('const a: number = "x";'), block("import { thereIsNoSuchName } from 'mamba-ts';")];
    expect(typeErrors(wrong)).toHaveLength(2);
  });

  it('type-check', () => {
    const checked = blocks.filter(({ language }) => language === 'ts');
    expect(checked.length).toBeGreaterThan(0);
    expect(typeErrors(checked)).toEqual([]);
  });
});

describe.each(programs)('%s', (name, runnable) => {
  let folder: string;
  beforeAll(() => {
    folder = workplace(`docs/${name.replace(/\W+/g, '-')}`);
  });

  it.each(runnable)(
    '$where runs',
    (block) => {
      expect(complaint(folder, block)).toBe('');
    },
    240_000, // seconds each, but they train and save, and others may use the machine
  );
});

describe('documents', () => {
  it.each(documents)('%s: relative links lead somewhere', (name) => {
    const links = [...textOf(name).matchAll(/\]\((?!https?:|mailto:|#)([^)#\s]+)[^)]*\)/g)].map(
      (match) => match[1]!,
    );
    expect(links.filter((link) => !existsSync(join(ROOT, dirname(name), link)))).toEqual([]);
  });

  it.each(translations)('%s holds the code of %s', (translation, original) => {
    const codeOf = (name: string): string[] => codeBlocks(name, textOf(name)).map(sharedCode);
    expect(codeOf(translation)).toEqual(codeOf(original));
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
