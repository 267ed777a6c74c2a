/**
 * Which files of a repository make a model. The same choice over the files of a hub and over those in the
 * cache: safetensors before torch weights before GGUF, with configuration and tokenizer, and nothing else.
 */
import { ConfigError, UnsupportedError } from '../base/errors.ts';
import {
  CONFIG_FILE,
  CONSOLIDATED_FILE,
  GGUF,
  PARAMS_FILE,
  TOKENIZER_FILES,
  WEIGHTS_FILES,
} from './model-files.ts';

export interface Choice {
  /** Small files, first to be fetched. */
  texts: readonly string[];
  /** The weights or their index. */
  main: string;
}

interface Listed {
  name: string;
  sizeBytes: number;
}

const INDEX = /\.index\.json$/;
/** Both are inside tokenizer.json. */
const OLD_TOKENIZER: ReadonlySet<string> = new Set(['vocab.json', 'merges.txt']);

export const isIndex = (name: string): boolean => INDEX.test(name);

/**
 * The model in `files`, at `path` (a file or a folder) if that is given. Throws UnsupportedError where there
 * is none, or where one of several GGUF files must be named: `repo` is for the message.
 */
export function chooseModel(files: readonly Listed[], repo: string, path: string | null): Choice {
  const names = new Set(files.map(({ name }) => name));
  const isFile = path !== null && names.has(path);
  const folder = isFile ? path.slice(0, path.lastIndexOf('/') + 1) : path === null ? '' : `${path}/`;
  const inFolder = files.filter(({ name }) => name.startsWith(folder));
  if (path !== null && inFolder.length === 0) {
    throw new ConfigError(
      `hub: expected a file or folder ${path} in ${repo}, got none of that name. It has ${listed(files)}.`,
    );
  }
  const here = (name: string): boolean => names.has(folder + name);
  const main = isFile ? path : mainOf(inFolder, here, folder, repo);
  const tokenizer = tokenizerFiles(here);
  const params = main.endsWith(CONSOLIDATED_FILE) ? [PARAMS_FILE] : [];
  const texts = GGUF.test(main) ? tokenizer : [CONFIG_FILE, ...tokenizer, ...params].filter(here);
  return { texts: texts.map((name) => folder + name), main };
}

function mainOf(
  inFolder: readonly Listed[],
  here: (name: string) => boolean,
  folder: string,
  repo: string,
): string {
  const weights = WEIGHTS_FILES.find(here);
  if (weights !== undefined) return folder + weights;
  const ggufs = inFolder.filter(({ name }) => GGUF.test(name));
  if (ggufs.length === 1) return ggufs[0]!.name;
  if (ggufs.length > 1) {
    throw new UnsupportedError(
      `hub: expected one model in ${repo}, got ${ggufs.length} GGUF files: ${listed(ggufs)}. ` +
        `Name one, as in ${repo}/${ggufs[0]!.name}.`,
    );
  }
  throw new UnsupportedError(
    `hub: expected ${WEIGHTS_FILES.join(', ')} or a .gguf file in ${repo}, got ${listed(inFolder)}. ` +
      'If one of these holds the weights, name it behind the id.',
  );
}

/** The tokenizer in `files`; empty if there is none. */
export function chooseTokenizer(files: readonly Listed[]): string[] {
  const names = new Set(files.map(({ name }) => name));
  return tokenizerFiles((name) => names.has(name));
}

function tokenizerFiles(here: (name: string) => boolean): string[] {
  return TOKENIZER_FILES.filter((name) => here(name) && !(OLD_TOKENIZER.has(name) && here('tokenizer.json')));
}

const MAX_LISTED = 30;

function listed(files: readonly Listed[]): string {
  if (files.length === 0) return 'no files';
  const shown = files
    .slice(0, MAX_LISTED)
    .map(({ name, sizeBytes }) => `${name} (${formatBytes(sizeBytes)})`);
  const rest = files.length - shown.length;
  return shown.join(', ') + (rest > 0 ? ` and ${rest} more` : '');
}

/** 5600000000 -> 5.6 GB; decimal units, as the hub shows them. */
export function formatBytes(bytes: number): string {
  const units = ['B', 'kB', 'MB', 'GB', 'TB'];
  let unit = 0;
  for (; bytes >= 999.5 && unit < units.length - 1; unit++) bytes /= 1000;
  return `${unit === 0 || bytes >= 99.95 ? bytes.toFixed(0) : bytes.toFixed(1)} ${units[unit]}`;
}
