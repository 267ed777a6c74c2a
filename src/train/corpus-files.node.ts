/**
 * From paths to the files of a corpus: files, folders (recursive) and globs, in an
 * order that is the same everywhere.
 */
import { readdir, realpath, stat } from 'node:fs/promises';
import { isAbsolute, join, parse, resolve } from 'node:path';
import { ConfigError } from '../base/errors.ts';
import { errorCode, FileError, fileError } from '../io/file.ts';

/** Text, or a byte range of it; `.jsonl` and `.ndjson` files are read line by line. */
export interface CorpusFile {
  path: string;
  kind: 'text' | 'jsonl';
  startBytes: number;
  endBytes: number;
}

/**
 * The files that `sources` name, each once, in the order of the sources and sorted by name within a folder or
 * glob. In globs `*` and `?` stand for characters of one name and `**` for any folders; a path that exists is
 * never a glob. Names that begin with a dot are left out unless spelled out. Files that are described already
 * pass unchanged. Throws ConfigError if a path names nothing.
 */
export async function listCorpusFiles(sources: readonly (string | CorpusFile)[]): Promise<CorpusFile[]> {
  const files: CorpusFile[] = [];
  const seen = new Set<string>();
  for (const source of sources) {
    if (typeof source !== 'string') {
      files.push(source);
      continue;
    }
    const found = await filesOf(source);
    if (found.length === 0) {
      throw new ConfigError(
        `data: expected files at ${source}, got none. Check the path (globs know *, ? and **).`,
      );
    }
    for (const path of found) {
      if (!seen.has(resolve(path))) files.push(await describe(path));
      seen.add(resolve(path));
    }
  }
  if (files.length > 0) return files;
  throw new ConfigError('data: expected at least one path, got none. Name a file, a folder or a glob.');
}

async function describe(path: string): Promise<CorpusFile> {
  const { size } = await stat(path).catch((error) => {
    throw fileError('data', `a readable file ${path}`, error);
  });
  return { path, kind: /\.(jsonl|ndjson)$/i.test(path) ? 'jsonl' : 'text', startBytes: 0, endBytes: size };
}

async function filesOf(path: string): Promise<string[]> {
  const kind = await kindOf(path);
  if (kind === 'file') return [path];
  if (kind === 'folder') return walk(path, new Set());
  if (kind === 'other') {
    throw new FileError(
      `data: expected a file or folder at ${path}, got a device or pipe. Save it to a file first.`,
    );
  }
  if (!isPattern(path)) return [];
  const { root } = parse(path);
  const segments = path.slice(root.length).split(process.platform === 'win32' ? /[\\/]+/ : /\/+/);
  const found = await expand(isAbsolute(path) ? root : '', segments);
  return [...new Set(found)];
}

async function kindOf(path: string): Promise<'file' | 'folder' | 'other' | 'missing'> {
  try {
    const found = await stat(path);
    if (found.isFile()) return 'file';
    return found.isDirectory() ? 'folder' : 'other';
  } catch (error) {
    if (['ENOENT', 'ENOTDIR', 'ELOOP'].includes(errorCode(error))) return 'missing';
    throw fileError('data', `a readable path ${path}`, error);
  }
}

/** All files below a folder; `above` holds the real folders on the way, so that links in a circle end. */
async function walk(folder: string, above: ReadonlySet<string>): Promise<string[]> {
  const real = await realpath(folder);
  if (above.has(real)) return [];
  const files: string[] = [];
  for (const name of await visibleNames(folder)) {
    const path = join(folder, name);
    const kind = await kindOf(path);
    if (kind === 'file') files.push(path);
    if (kind === 'folder') files.push(...(await walk(path, new Set([...above, real]))));
  }
  return files;
}

async function expand(folder: string, segments: readonly string[]): Promise<string[]> {
  const [segment, ...rest] = segments as [string, ...string[]];
  if (!isPattern(segment)) return expandName(folder, segment, rest);
  if (segment === '**') return expandDeep(folder, rest.length === 0 ? ['*'] : rest, new Set());
  const matches = segmentPattern(segment);
  const names = segment.startsWith('.') ? await allNames(folder) : await visibleNames(folder);
  const found: string[] = [];
  for (const name of names) {
    if (matches.test(name)) found.push(...(await expandName(folder, name, rest)));
  }
  return found;
}

async function expandName(folder: string, name: string, rest: readonly string[]): Promise<string[]> {
  const path = join(folder, name);
  const kind = await kindOf(path);
  if (rest.length === 0) return kind === 'file' ? [path] : [];
  return kind === 'folder' ? expand(path, rest) : [];
}

/** `rest` in this folder and in every folder below it. */
async function expandDeep(
  folder: string,
  rest: readonly string[],
  above: ReadonlySet<string>,
): Promise<string[]> {
  const real = await realpath(folder || '.');
  if (above.has(real)) return [];
  const found = await expand(folder, rest);
  for (const name of await visibleNames(folder)) {
    const path = join(folder, name);
    if ((await kindOf(path)) === 'folder') {
      found.push(...(await expandDeep(path, rest, new Set([...above, real]))));
    }
  }
  return found;
}

async function allNames(folder: string): Promise<string[]> {
  const names = await readdir(folder || '.').catch((error) => {
    throw fileError('data', `a readable folder ${folder}`, error);
  });
  return names.sort();
}

async function visibleNames(folder: string): Promise<string[]> {
  return (await allNames(folder)).filter((name) => !name.startsWith('.'));
}

function isPattern(text: string): boolean {
  return /[*?]/.test(text);
}

/** A glob segment as an expression: `*` any characters, `?` one. */
function segmentPattern(segment: string): RegExp {
  const source = segment
    .replace(/[\\^$.+()[\]{}|]/g, '\\$&')
    .replace(/\*+/g, '.*')
    .replace(/\?/g, '.');
  return new RegExp(`^${source}$`, 'su');
}
