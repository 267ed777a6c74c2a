/** Every rule of `npm run check` fails on a tree that breaks it, and is silent on a tree that does not. */
import { describe, expect, it } from 'vitest';
import { checkRules, showFinding } from '../../scripts/lib/rules.mjs';
import { makeTree } from './tree.ts';

const PACKAGE = JSON.stringify({
  name: 'house',
  exports: { '.': { node: { default: './dist/index.node.js' }, default: './dist/index.js' } },
  dependencies: { shipped: '1.0.0' },
  devDependencies: { tool: '1.0.0' },
});

const findingsOf = (files: Record<string, string>): string[] =>
  checkRules(makeTree({ 'package.json': PACKAGE, ...files })).map(showFinding);

const lines = (count: number): string => '// line\n'.repeat(count);
// Written in pieces, so that this file does not break the rule it tests.
const machinePath = (folder: string): string => `see ${['', folder, 'notes.txt'].join('/')}`;

const GOOD: Record<string, string> = {
  'src/base/errors.ts': 'export class E extends Error {}\n',
  'src/backend/backend.ts': "import type { E } from '../base/errors.ts';\nexport type B = E;\n",
  'src/tensor/tensor.ts': "import type { B } from '../backend/backend.ts';\nexport type T = B;\n",
  'src/models/config.ts': 'export const c = 1;\n',
  'src/io/pretrained.ts':
    "import { c } from '../models/config.ts';\nimport { x } from 'shipped/part';\nexport { c, x };\n",
  'src/io/file.ts': "import { readFileSync } from 'node:fs';\nexport { readFileSync };\n",
  'src/train/data.node.ts': "import { readFileSync } from '../io/file.ts';\nexport { readFileSync };\n",
  'src/index.ts': "export type { T } from './tensor/tensor.ts';\n",
  'src/index.node.ts': "export * from './index.ts';\nexport { readFileSync } from './io/file.ts';\n",
  'src/cli/main.ts':
    "import { argv } from 'node:process';\nimport { readFileSync } from '../index.node.ts';\nexport { argv, readFileSync };\n",
  'bench/one.mjs':
    "import { readFileSync } from 'house';\nimport '../dist/index.js';\nimport 'tool';\nreadFileSync;\n",
  'vitest.config.ts': 'export default {};\n',
  'README.md': 'Look at docs/root/list.md, https://example.org/root/x and ./home/a/b.\n',
};

/** What is added to GOOD, and the finding that must come of it. */
const BAD: [rule: string, path: string, text: string, finding: string][] = [
  ['layers: upward', 'src/base/up.ts', "import { t } from '../tensor/tensor.ts';\nt;\n", 'layers: src/base/up.ts:1 base may not import tensor/tensor.ts.'],
  ['layers: type-only', 'src/text/up.ts', "\nimport type { c } from '../models/config.ts';\n", 'layers: src/text/up.ts:2 text may not import models/config.ts.'],
  ['layers: import type of', 'src/nn/up.ts', "export type C = import('../models/config.ts').c;\n", 'layers: src/nn/up.ts:1 nn may not import models/config.ts.'],
  ['layers: re-export', 'src/ops/up.ts', "export * from '../nn/module.ts';\n", 'layers: src/ops/up.ts:1 ops may not import nn/module.ts.'],
  ['layers: dynamic', 'src/tensor/up.ts', "export const load = () => import('../ops/norm.ts');\n", 'layers: src/tensor/up.ts:1 tensor may not import ops/norm.ts.'],
  ['layers: one file of a folder', 'src/io/up.ts', "import '../models/mamba1.ts';\n", 'layers: src/io/up.ts:1 io may not import models/mamba1.ts.'],
  ['layers: another backend file', 'src/tensor/native.ts', "import '../backend/wasm.ts';\n", 'layers: src/tensor/native.ts:1 tensor may not import backend/wasm.ts.'],
  ['layers: command line past the entry points', 'src/cli/info.ts', "import '../base/errors.ts';\n", 'layers: src/cli/info.ts:1 src/cli may import only the public entry points, not src/base/errors.ts.'],
  ['layers: bench into src', 'bench/two.mjs', "import '../src/base/errors.ts';\n", 'layers: bench/two.mjs:1 bench may import only the public entry points, not src/base/errors.ts.'],
  ['layers: bench into dist', 'bench/three.mjs', "import '../dist/base/errors.js';\n", 'layers: bench/three.mjs:1 bench may import only the public entry points, not src/base/errors.ts.'],
  ['layers: unknown folder', 'src/extras/a.ts', "import '../base/errors.ts';\n", 'layers: src/extras/a.ts:1 src/extras is not a layer.'],
  ['purity: node module', 'src/text/read.ts', "import { readFile } from 'node:fs/promises';\nreadFile;\n", 'purity: src/text/read.ts:1 neutral code may not import node:fs/promises.'],
  ['purity: node module without prefix', 'src/text/read.ts', "import { join } from 'path';\njoin;\n", 'purity: src/text/read.ts:1 neutral code may not import path.'],
  ['purity: Node-only file', 'src/train/loop.ts', "import '../io/file.ts';\n", 'purity: src/train/loop.ts:1 neutral code may not import src/io/file.ts, which needs Node.'],
  ['packages: development only', 'src/text/p.ts', "import 'tool';\n", 'packages: src/text/p.ts:1 tool is not in the dependencies of package.json.'],
  ['packages: unknown', 'bench/p.mjs', "import '@some/where/deep';\n", 'packages: bench/p.mjs:1 @some/where is not in the dependencies or devDependencies of package.json.'],
  ['exports: default', 'src/base/d.ts', '\nexport default 1;\n', 'exports: src/base/d.ts:2 default export.'],
  ['exports: default function', 'src/base/d.ts', 'export default function f() {}\n', 'exports: src/base/d.ts:1 default export.'],
  ['exports: as default', 'src/base/d.ts', 'const a = 1;\nexport { a as default };\n', 'exports: src/base/d.ts:2 default export.'],
  ['extensions: missing', 'src/base/e.ts', "import './errors';\n", 'extensions: src/base/e.ts:1 relative import ./errors. End it in .ts.'],
  ['extensions: of the output', 'src/base/e.ts', "import './errors.js';\n", 'extensions: src/base/e.ts:1 relative import ./errors.js. End it in .ts.'],
  ['lines: TypeScript', 'src/base/long.ts', lines(601), 'lines: src/base/long.ts:601 601 lines, the limit is 600.'],
  ['lines: C++', 'native/kernels/long.cc', lines(601), 'lines: native/kernels/long.cc:601 601 lines, the limit is 600.'],
  ['words: a build folder', 'docs/a.md', `x\n${machinePath('work')}\n`, 'words: docs/a.md:2 names a folder of one machine'],
  ['words: a home folder', 'docs/a.md', machinePath('home/somebody'), 'words: docs/a.md:1 names a folder of one machine'],
]; // biome-ignore format: one case a line reads as a table

describe('rules of the house', () => {
  it('are silent on a good tree', () => {
    expect(findingsOf(GOOD)).toEqual([]);
  });

  it.each(BAD)('%s', (_rule, path, text, finding) => {
    const found = findingsOf({ ...GOOD, [path]: text });
    expect(found).toHaveLength(1);
    expect(found[0]!.startsWith(finding)).toBe(true);
  });

  it('cycles: a ring of three, type-only imports included', () => {
    const found = findingsOf({
      'src/base/a.ts': "import { b } from './b.ts';\nexport const a = b;\n",
      'src/base/b.ts': "import type { C } from './c.ts';\nexport const b: C = 1;\n",
      'src/base/c.ts': "export type { a as C } from './a.ts';\n",
    });
    expect(found).toHaveLength(1);
    expect(found[0]).toContain(
      'cycles: src/base/c.ts:1 import cycle src/base/a.ts -> src/base/b.ts -> src/base/c.ts',
    );
  });

  it('lines: from 401 to 600 is a notice', () => {
    expect(findingsOf({ 'src/base/a.ts': lines(400) })).toEqual([]);
    for (const count of [401, 600]) {
      const [finding] = checkRules(makeTree({ 'package.json': PACKAGE, 'src/base/a.ts': lines(count) }));
      expect(finding).toMatchObject({ rule: 'lines', notice: true });
    }
  });
});
