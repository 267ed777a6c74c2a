/**
 * The package as a user gets it: packed, installed into an empty folder, imported, bundled for a browser,
 * type-checked by a consumer. Nothing here looks into src/.
 */
import { spawnSync } from 'node:child_process';
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { build as bundle } from 'esbuild';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { npm, ROOT } from '../../scripts/lib/run.mjs';

const manifest = JSON.parse(readFileSync(join(ROOT, 'package.json'), 'utf8'));
const entries = Object.keys(manifest.exports).filter((name) => name !== './package.json');
const specifiers = entries.map((name) => name.replace(/^\./, manifest.name));

const home = mkdtempSync(join(tmpdir(), 'mamba-ts-package-'));
const consumer = join(home, 'consumer');
const installed = join(consumer, 'node_modules', manifest.name);

/** The environment of a user: nothing of the npm that runs this test, except where its program is. */
const env = Object.fromEntries(
  Object.entries(process.env).filter(([name]) => !/^npm_|^INIT_CWD$|^NODE_OPTIONS$/i.test(name)),
);

async function npmOrFail(args: string[], cwd: string): Promise<void> {
  const { code, output } = await npm(args, { cwd, env, capture: true });
  if (code !== 0) throw new Error(`npm ${args.join(' ')} ended with code ${code}\n${output}`);
}

function node(args: string[]): { code: number | null; stdout: string; stderr: string } {
  const { status, stdout, stderr } = spawnSync(process.execPath, args, {
    cwd: consumer,
    env,
    encoding: 'utf8',
  });
  return { code: status, stdout, stderr };
}

function write(name: string, text: string): string {
  writeFileSync(join(consumer, name), text);
  return name;
}

beforeAll(async () => {
  // `npm test` has built everything; a run of this file alone builds here.
  const built = spawnSync(process.execPath, [join(ROOT, 'scripts/build.mjs')], { encoding: 'utf8' });
  if (built.status !== 0) throw new Error(`${built.stdout}${built.stderr}`);
  mkdirSync(consumer);
  writeFileSync(
    join(consumer, 'package.json'),
    '{ "name": "consumer", "private": true, "type": "module" }\n',
  );
  await npmOrFail(['pack', '--ignore-scripts', '--pack-destination', home], ROOT);
  const tarball = readdirSync(home).find((name) => name.endsWith('.tgz'));
  const flags = ['--prefer-offline', '--no-audit', '--no-fund', '--loglevel=error'];
  await npmOrFail(['install', ...flags, join(home, tarball!)], consumer);
}, 180_000);

afterAll(() => rmSync(home, { recursive: true, force: true }));

describe('the packed package', () => {
  it('holds what it needs and nothing of the workshop', () => {
    for (const name of ['README.md', 'LICENSE', 'dist/backend/kernels.wasm', 'native/include/kernels.h']) {
      expect(existsSync(join(installed, name)), name).toBe(true);
    }
    for (const name of ['src', 'test', 'node_modules', 'native/build', 'native/test', '.cache']) {
      expect(existsSync(join(installed, name)), name).toBe(false);
    }
  });

  it('runs no script at install', () => {
    const { scripts } = JSON.parse(readFileSync(join(installed, 'package.json'), 'utf8'));
    expect(Object.keys(scripts).filter((name) => /^(?:pre|post)?install$|^prepare$/.test(name))).toEqual([]);
  });

  it.each(specifiers)('%s: Node imports it, every export has a value', (specifier) => {
    const program = `const names = Object.entries(await import('${specifier}'));
      console.log(JSON.stringify({ names: names.length, empty: names.filter(([, v]) => v === undefined).length }));`;
    const { code, stdout, stderr } = node(['--input-type=module', '-e', program]);
    expect(stderr).toBe('');
    expect(code).toBe(0);
    const { names, empty } = JSON.parse(stdout);
    expect(names).toBeGreaterThan(0);
    expect(empty).toBe(0);
  });

  it('the neutral entry point bundles for a browser without Node modules', async () => {
    const entryPoint = join(consumer, write('page.js', `export * from '${manifest.name}';\n`));
    // esbuild refuses `node:` imports for the platform `browser`; the metafile shows that none was left external.
    const result = await bundle({
      entryPoints: [entryPoint],
      bundle: true,
      write: false,
      metafile: true,
      format: 'esm',
      platform: 'browser',
      logLevel: 'silent',
    });
    const external = Object.values(result.metafile.inputs).flatMap((input) =>
      input.imports.filter((i) => i.external),
    );
    expect(external).toEqual([]);
    expect(Object.keys(result.metafile.inputs).some((name) => name.endsWith('dist/index.js'))).toBe(true);
    expect(Object.keys(result.metafile.inputs).some((name) => name.endsWith('index.node.js'))).toBe(false);
  });

  it('a bundled program keeps the methods that the entry point attaches', async () => {
    const source = `import { Classifier, LanguageModel, Tensor, useDevice } from '${manifest.name}';
      await useDevice('reference');
      const model = new LanguageModel({ d_model: 4, n_layer: 1, vocab_size: 8 });
      console.log(typeof model.generate, typeof Classifier.prototype.predict, typeof Tensor.ones([1]).add);`;
    const outfile = join(consumer, 'bundle.mjs');
    await bundle({
      entryPoints: [join(consumer, write('program.js', source))],
      bundle: true,
      outfile,
      format: 'esm',
      platform: 'browser',
      logLevel: 'silent',
    });
    expect(node([outfile]).stdout.trim()).toBe('function function function');
  });

  it.each([
    ['nodenext', 'nodenext', ['node']],
    ['esnext', 'bundler', []],
  ])('a consumer type-checks with module %s, moduleResolution %s', (module, moduleResolution, types) => {
    const imports = specifiers.map((name, i) => `import * as entry${i} from '${name}';`);
    const uses = specifiers.map((_, i) => `entry${i}`);
    const text = `${imports.join('\n')}\nexport const all: object[] = [${uses.join(', ')}];\n`;
    // A name that does not exist must be refused: it shows that the types are read and are not \`any\`.
    const wrong = `\n// @ts-expect-error\nimport { thereIsNoSuchName } from '${manifest.name}';\nthereIsNoSuchName;\n`;
    const options = {
      module,
      moduleResolution,
      types,
      typeRoots: [join(ROOT, 'node_modules/@types')],
      target: 'es2022',
      lib: ['es2023', 'dom', 'dom.iterable'],
      strict: true,
      skipLibCheck: false,
      noEmit: true,
    };
    const file = write(`consumer-${moduleResolution}.ts`, text + wrong);
    const project = write(
      `tsconfig.${moduleResolution}.json`,
      JSON.stringify({ compilerOptions: options, files: [file] }),
    );
    const { code, stdout } = node([
      join(ROOT, 'node_modules/typescript/bin/tsc'),
      '-p',
      project,
      '--pretty',
      'false',
    ]);
    expect(stdout).toBe('');
    expect(code).toBe(0);
  });

  it('the command answers --help', () => {
    for (const [name, file] of Object.entries<string>(manifest.bin)) {
      expect(existsSync(join(consumer, 'node_modules/.bin', name)), name).toBe(true);
      const { code, stdout } = node([join(installed, file), '--help']);
      expect(stdout).toContain(`Usage: ${name}`);
      expect(code).toBe(0);
    }
  });
});
