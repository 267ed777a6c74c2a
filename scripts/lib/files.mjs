/** The project's own files: what git tracks or would track; without git, a walk that skips what is generated. */
import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, readdirSync, readFileSync, statSync } from 'node:fs';
import { join, relative, sep } from 'node:path';

const GENERATED = new Set(['node_modules', 'dist', '.git', '.cache', 'out']);

export const toPosix = (path) => path.split(sep).join('/');

function walk(folder, found) {
  for (const entry of readdirSync(folder, { withFileTypes: true })) {
    const path = join(folder, entry.name);
    if (entry.isDirectory()) {
      if (!GENERATED.has(entry.name) && !toPosix(path).endsWith('native/build')) walk(path, found);
    } else if (entry.isFile()) {
      found.push(path);
    }
  }
  return found;
}

/** Every file under a folder, sorted, as paths relative to it with forward slashes. */
export function filesUnder(folder) {
  if (!existsSync(folder)) return [];
  return walk(folder, [])
    .map((path) => toPosix(relative(folder, path)))
    .sort();
}

/** The project's files, sorted, relative to `root` with forward slashes. */
export function projectFiles(root) {
  if (!existsSync(join(root, '.git'))) return filesUnder(root);
  const git = spawnSync('git', ['ls-files', '-z', '--cached', '--others', '--exclude-standard'], {
    cwd: root,
    encoding: 'utf8',
    maxBuffer: 1 << 28,
  });
  if (git.status !== 0) return filesUnder(root);
  const unique = new Set(git.stdout.split('\0').filter((path) => path !== ''));
  return [...unique].filter((path) => existsSync(join(root, path))).sort();
}

export const lineCount = (text) =>
  text === '' ? 0 : text.split('\n').length - (text.endsWith('\n') ? 1 : 0);

/** One hash over the names and contents of files and folders; what does not exist counts as absent. */
export function contentHash(root, paths) {
  const hash = createHash('sha256');
  for (const path of paths) {
    const full = join(root, path);
    const files = !existsSync(full)
      ? []
      : statSync(full).isDirectory()
        ? filesUnder(full).map((name) => join(full, name))
        : [full];
    hash.update(`${path}:${files.length}\n`);
    for (const file of files) {
      hash.update(`${toPosix(relative(root, file))}\n`);
      hash.update(readFileSync(file));
    }
  }
  return hash.digest('hex');
}
