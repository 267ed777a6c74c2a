/**
 * Installs the packages of package-lock.json when node_modules lacks any of them. Looks at names and
 * versions, not at file times: a fresh clone and an old tree are judged alike.
 */
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { npm, ROOT, ScriptError, stage } from './run.mjs';

const NODE_FLOOR = 20;

const readJson = (path) => JSON.parse(readFileSync(path, 'utf8'));

/** Why an install is needed, or null. */
export function missingPackages(root) {
  const installedPath = join(root, 'node_modules/.package-lock.json');
  if (!existsSync(installedPath)) return 'node_modules is missing';
  const { dependencies, devDependencies } = readJson(join(root, 'package.json'));
  const locked = readJson(join(root, 'package-lock.json')).packages;
  const installed = readJson(installedPath).packages;
  for (const [name, range] of Object.entries({ ...dependencies, ...devDependencies })) {
    const wanted = locked['']?.dependencies?.[name] ?? locked['']?.devDependencies?.[name];
    if (wanted !== range) return `package-lock.json has no ${name}@${range}`;
  }
  for (const [path, entry] of Object.entries(locked)) {
    if (path === '' || entry.link) continue;
    const present = installed[path];
    // Packages for other platforms and optional peers are rightly absent.
    if (!present && (entry.optional || entry.devOptional || entry.peer)) continue;
    if (present?.version !== entry.version || !existsSync(join(root, path))) {
      return `${path.replace(/^.*node_modules\//, '')}@${entry.version} is not installed`;
    }
  }
  return null;
}

function checkNode() {
  const major = Number(process.versions.node.split('.')[0]);
  if (major < NODE_FLOOR) {
    throw new ScriptError(
      `node: expected version ${NODE_FLOOR} or later, got ${process.versions.node}. Update Node.js.`,
    );
  }
}

/** `npm ci`, or `npm install` where the lockfile does not fit package.json. */
export async function installPackages() {
  checkNode();
  const reason = missingPackages(ROOT);
  if (reason === null) return;
  await stage(`packages: installing (${reason})`, async () => {
    const flags = ['--include=dev', '--no-audit', '--no-fund', '--loglevel=error'];
    let result = await npm(['ci', ...flags], { capture: true });
    const lockProblem = /EUSAGE|EJSONPARSE|can only install|lock ?file|package-lock/i;
    if (result.code !== 0 && lockProblem.test(result.output)) {
      result = await npm(['install', ...flags], { capture: true });
    }
    if (result.code !== 0) {
      throw new ScriptError(
        `${result.output.trim()}\ninstall: npm ended with code ${result.code}. Is the package registry reachable?`,
      );
    }
  });
}
