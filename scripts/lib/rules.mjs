/**
 * The rules of the house that neither the compiler nor the linter knows. Each finding is
 * { rule, file, line, message, remedy, notice? }; a notice does not fail the check.
 */
import { readFileSync } from 'node:fs';
import { builtinModules } from 'node:module';
import { join, posix } from 'node:path';
import { lineCount, projectFiles } from './files.mjs';
import { readModule } from './imports.mjs';
import { entryPoints, isNodeOnly, LAYERS, mayImport, OUTSIDE } from './layers.mjs';

const MAX_LINES = 600;
const LONG_LINES = 400;
const SIZED = /\.(?:ts|cc|h|mjs)$/;
const MODULE = /\.(?:ts|mjs|js)$/;
/** Folders on the machine of whoever wrote the line; written so that this file does not match itself. */
const MACHINE_PATH = /(?<![\w.\-/:])\/(?:work|root|home\/[\w.-]+|Users\/[\w.-]+)\//;
const CONFIG_FILES = /^[\w.-]+\.config\.(?:ts|mjs|js)$/;

const builtin = new Set(builtinModules);
const isNodeModule = (specifier) => specifier.startsWith('node:') || builtin.has(specifier);
const isRelative = (specifier) => /^\.\.?\//.test(specifier) || specifier === '.' || specifier === '..';
const packageName = (specifier) =>
  specifier
    .split('/')
    .slice(0, specifier.startsWith('@') ? 2 : 1)
    .join('/');
const inFolder = (path, folder) => path.startsWith(`${folder}/`);

/** Reads every text file once; modules with their imports. */
function readProject(root) {
  const files = new Map();
  for (const path of projectFiles(root)) {
    const bytes = readFileSync(join(root, path));
    if (bytes.subarray(0, 8192).includes(0)) continue; // binary
    const text = bytes.toString('utf8');
    files.set(path, {
      text,
      ...(MODULE.test(path) ? readModule(path, text) : { imports: [], defaultExports: [] }),
    });
  }
  const packageJson = JSON.parse(files.get('package.json')?.text ?? '{}');
  return { files, packageJson };
}

function* relativeImports(path, module) {
  for (const { specifier, line } of module.imports) {
    if (isRelative(specifier)) yield { target: posix.join(posix.dirname(path), specifier), specifier, line };
  }
}

function* layerRule({ files, packageJson }) {
  const entries = entryPoints(packageJson);
  for (const [path, module] of files) {
    const outside = OUTSIDE.find((folder) => inFolder(path, folder));
    for (const { target: written, line } of relativeImports(path, module)) {
      const target = written.replace(/^dist\/(.*)\.js$/, 'src/$1.ts'); // programs may import the built file
      if (!inFolder(target, 'src')) continue;
      const found = { rule: 'layers', file: path, line };
      if (outside) {
        if (inFolder(target, outside) || entries.has(target)) continue;
        yield {
          ...found,
          message: `${outside} may import only the public entry points, not ${target}`,
          remedy: 'Export what you need from an entry point.',
        };
      } else if (inFolder(path, 'src') && path.split('/').length > 2) {
        const [from, to] = [path.slice(4), target.slice(4)];
        const [layer] = from.split('/');
        if (!(layer in LAYERS)) {
          yield {
            ...found,
            message: `src/${layer} is not a layer`,
            remedy: 'Add it to scripts/lib/layers.mjs or move the file.',
          };
        } else if (!mayImport(from, to)) {
          yield {
            ...found,
            message: `${layer} may not import ${to}`,
            remedy: `Allowed: ${LAYERS[layer].join(', ') || 'nothing'}. Move the shared part down.`,
          };
        }
      }
    }
  }
}

function* cycleRule({ files }) {
  const state = new Map(); // path -> 'open' | 'done'
  const trail = [];
  const findings = [];
  const visit = (path) => {
    state.set(path, 'open');
    trail.push(path);
    for (const { target, line } of relativeImports(path, files.get(path))) {
      if (state.get(target) === 'open') {
        const ring = [...trail.slice(trail.indexOf(target)), target];
        findings.push({
          rule: 'cycles',
          file: path,
          line,
          message: `import cycle ${ring.join(' -> ')}`,
          remedy: 'Move what both need into a third file; type-only imports count too.',
        });
      } else if (files.has(target) && !state.has(target)) visit(target);
    }
    trail.pop();
    state.set(path, 'done');
  };
  for (const path of files.keys()) if (inFolder(path, 'src') && !state.has(path)) visit(path);
  yield* findings;
}

function* purityRule({ files }) {
  for (const [path, module] of files) {
    if (!inFolder(path, 'src') || isNodeOnly(path)) continue;
    for (const { specifier, line } of module.imports) {
      if (isNodeModule(specifier)) {
        yield {
          rule: 'purity',
          file: path,
          line,
          message: `neutral code may not import ${specifier}`,
          remedy: 'Move this into a .node.ts file, or pass what it gives as a parameter.',
        };
      }
    }
    for (const { target, line } of relativeImports(path, module)) {
      if (inFolder(target, 'src') && isNodeOnly(target)) {
        yield {
          rule: 'purity',
          file: path,
          line,
          message: `neutral code may not import ${target}, which needs Node`,
          remedy: 'Export it from src/index.node.ts, or register it there.',
        };
      }
    }
  }
}

function* packageRule({ files, packageJson }) {
  const { dependencies, optionalDependencies, peerDependencies, devDependencies, name } = packageJson;
  const shipped = { ...dependencies, ...optionalDependencies, ...peerDependencies };
  const known = { ...shipped, ...devDependencies, [name]: '' };
  for (const [path, module] of files) {
    if (!MODULE.test(path)) continue;
    const inSource = inFolder(path, 'src');
    for (const { specifier, line } of module.imports) {
      if (isRelative(specifier) || isNodeModule(specifier) || specifier.startsWith('#')) continue;
      const wanted = packageName(specifier);
      if (wanted in (inSource ? shipped : known)) continue;
      yield {
        rule: 'packages',
        file: path,
        line,
        message: `${wanted} is not in the ${inSource ? 'dependencies' : 'dependencies or devDependencies'} of package.json`,
        remedy: 'Add it with npm install --save-exact, or do without.',
      };
    }
  }
}

function* moduleFormRule({ files }) {
  for (const [path, module] of files) {
    if (!CONFIG_FILES.test(path)) {
      for (const line of module.defaultExports) {
        yield {
          rule: 'exports',
          file: path,
          line,
          message: 'default export',
          remedy: 'Export it by name: names survive renaming and search.',
        };
      }
    }
    for (const { target, specifier, line } of relativeImports(path, module)) {
      const wanted = path.endsWith('.ts') ? /\.(?:ts|mjs|json)$/ : /\.(?:ts|mjs|js|json)$/;
      if (wanted.test(specifier)) continue;
      const remedy = files.has(target.replace(/(?:\.js)?$/, '.ts'))
        ? 'End it in .ts.'
        : 'Name the file with its extension.';
      yield { rule: 'extensions', file: path, line, message: `relative import ${specifier}`, remedy };
    }
  }
}

function* sizeRule({ files }) {
  for (const [path, { text }] of files) {
    if (!SIZED.test(path)) continue;
    const lines = lineCount(text);
    if (lines <= LONG_LINES) continue;
    const notice = lines <= MAX_LINES;
    yield {
      rule: 'lines',
      file: path,
      line: lines,
      message: `${lines} lines, ${notice ? `look again above ${LONG_LINES}` : `the limit is ${MAX_LINES}`}`,
      remedy: 'Split it where a reader would expect a second file.',
      notice,
    };
  }
}

function* wordRule({ files }) {
  for (const [path, { text }] of files) {
    let number = 0;
    for (const line of text.split('\n')) {
      number++;
      const match = MACHINE_PATH.exec(line);
      if (!match) continue;
      yield {
        rule: 'words',
        file: path,
        line: number,
        message: `names a folder of one machine: ${match[0]}`,
        remedy: 'Use a path relative to the project, or take it as an argument.',
      };
    }
  }
}

/** Runs every rule over the tree at `root`; findings in the order of the rules. */
export function checkRules(root) {
  const project = readProject(root);
  const rules = [layerRule, cycleRule, purityRule, packageRule, moduleFormRule, sizeRule, wordRule];
  return rules.flatMap((rule) => [...rule(project)]);
}

export function showFinding({ rule, file, line, message, remedy, notice }) {
  return `${notice ? 'notice: ' : ''}${rule}: ${file}:${line} ${message}. ${remedy}`;
}
