/**
 * Opens labelled texts: finds the files, reads them by their kind, splits off
 * validation, checks what belongs together.
 */
import { stat } from 'node:fs/promises';
import { extname, join, resolve } from 'node:path';
import { ConfigError, FormatError } from '../base/errors.ts';
import { listCorpusFiles } from './corpus-files.node.ts';
import {
  checkLabels,
  countSeen,
  type Example,
  type ExampleParts,
  inferLabels,
  missingLabels,
  splitExamples,
} from './examples.ts';
import { ExampleCollector } from './examples-collect.ts';
import { readCsv } from './examples-csv.node.ts';
import { listFolder, readClassFolders } from './examples-folder.node.ts';
import { readJsonArray, readJsonLines } from './examples-json.node.ts';
import { readParquet } from './examples-parquet.node.ts';
import { readWholeText } from './examples-text.node.ts';
import { type Imdb, type ImdbOptions, openImdb } from './imdb.node.ts';

const PARTS = ['train', 'valid', 'test'] as const;
type Part = (typeof PARTS)[number];
const IMDB = 'imdb';

export type ExamplesEvent =
  | { kind: 'download'; doneBytes: number; totalBytes: number | null }
  /** Examples read so far, of the sources that are being read. */
  | { kind: 'read'; examples: number }
  /** Something was left out or is odd, and reading went on. */
  | { kind: 'notice'; message: string };

interface SharedOptions {
  /** The columns of the text, joined by line breaks; empty ones are left out. Default `text`. */
  textFields?: readonly string[];
  /** The column of the class. Default `label`. */
  labelField?: string;
  /** Where the data called `imdb` is kept and comes from. */
  imdb?: Omit<ImdbOptions, 'onProgress' | 'onRead'>;
  onProgress?: (event: ExamplesEvent) => void;
}

export interface ReadExamplesOptions extends SharedOptions {
  /** False: there is no label column, and `.txt` files and folders of them are texts. Default true. */
  isLabelled?: boolean;
  /** What is read of `imdb` and of a folder with `train` and `test` in it. Default `test`. */
  part?: Part;
}

export interface OpenExamplesOptions extends SharedOptions {
  data: readonly string[];
  /** Default: what `data` has as its own, else a share of the training data. */
  valid?: readonly string[];
  /** Default: what `data` has as its own, else nothing. */
  test?: readonly string[];
  /** Of each class, when there is no other validation data. Default 0.1. */
  validShare?: number;
  seed: number;
}

/**
 * All examples of `sources`, in order: `.jsonl`, `.ndjson`, `.json` (an array of objects), `.csv`, `.tsv`,
 * `.parquet`, globs of them, folders with a folder per class, folders with `train` and `test` (and `valid`)
 * in them, or the word `imdb`, which fetches the Large Movie Review Dataset.
 *
 * Throws FormatError that lists all bad records with file and line, ConfigError for columns and paths that
 * are not there, FileError for what cannot be read.
 */
export async function readExamples(
  sources: readonly string[],
  options: ReadExamplesOptions = {},
): Promise<Example[]> {
  return new Reading(options).read(sources, options.part ?? 'test');
}

/**
 * The parts of a data set. A source in `data` that has parts of its own (`imdb`, a folder with `train` in it)
 * gives those that are not named otherwise. Throws as readExamples, and ConfigError for fewer than two
 * classes or labels that are not in the training data.
 */
export async function openExamples(options: OpenExamplesOptions): Promise<ExampleParts> {
  const { data, validShare = 0.1, seed, onProgress } = options;
  const reading = new Reading(options);
  const sourcesOf = async (part: 'valid' | 'test'): Promise<readonly string[]> => {
    const named = options[part] ?? [];
    if (named.length > 0) return named;
    const own = await Promise.all(data.map((source) => hasPart(source, part)));
    return data.filter((_, i) => own[i]);
  };
  const notice = (message: string): void => onProgress?.({ kind: 'notice', message });
  const all = await reading.read(data, 'train');
  const labels = inferLabels(all);
  const optional = async (part: 'valid' | 'test', name: string): Promise<Example[]> => {
    const sources = await sourcesOf(part);
    const examples = sources.length > 0 ? await reading.read(sources, part) : [];
    checkLabels(name, examples, labels);
    const missing = examples.length > 0 ? missingLabels(examples, labels) : [];
    if (missing.length > 0) notice(`The ${name} has no examples of ${missing.join(', ')}.`);
    const seen = countSeen(examples, all);
    if (seen > 0)
      notice(
        `${seen} of the ${examples.length} texts of the ${name} are also in the training data: their scores flatter.`,
      );
    return examples;
  };
  const valid = await optional('valid', 'validation data');
  const test = await optional('test', 'test data');
  if (valid.length > 0) return { train: all, valid, test, labels };
  return { ...splitExamples(all, validShare, seed), test, labels };
}

async function isFolder(path: string): Promise<boolean> {
  return stat(path).then(
    (found) => found.isDirectory(),
    () => false,
  );
}

/** The parts that a folder consists of; null if its folders are classes. */
async function partsOf(folder: string): Promise<string[] | null> {
  const { folders } = await listFolder(folder);
  const isSplit = folders.includes('train') && folders.every((name) => PARTS.some((part) => part === name));
  return isSplit ? folders : null;
}

async function hasPart(source: string, part: 'valid' | 'test'): Promise<boolean> {
  if (source === IMDB) return part === 'test';
  return (await isFolder(source)) && ((await partsOf(source))?.includes(part) ?? false);
}

class Reading {
  readonly #options: ReadExamplesOptions;
  #imdb: Promise<Imdb> | null = null; // one pass over the archive gives both parts

  constructor(options: ReadExamplesOptions) {
    this.#options = options;
  }

  async read(sources: readonly string[], part: Part): Promise<Example[]> {
    const { textFields = ['text'], labelField = 'label', isLabelled = true, onProgress } = this.#options;
    const collector = new ExampleCollector({ textFields, labelField, isLabelled }, (examples) =>
      onProgress?.({ kind: 'read', examples }),
    );
    const seen = new Set<string>();
    if (sources.length === 0) {
      throw new ConfigError('data: expected at least one path, got none. Name a file, a folder or imdb.');
    }
    for (const source of sources) {
      if (source === IMDB) await this.#readImdb(part, collector);
      else if (await isFolder(source)) await this.#readFolder(source, part, collector);
      else {
        for (const { path } of await listCorpusFiles([source])) {
          if (!seen.has(resolve(path))) await readFile(path, collector);
          seen.add(resolve(path));
        }
      }
    }
    return collector.finish();
  }

  async #readImdb(part: Part, collector: ExampleCollector): Promise<void> {
    if (part === 'valid') throw noPart(IMDB, part, ['train', 'test']);
    const { imdb, onProgress } = this.#options;
    this.#imdb ??= openImdb({
      ...imdb,
      onProgress: (progress) => onProgress?.({ kind: 'download', ...progress }),
      onRead: (examples) => onProgress?.({ kind: 'read', examples }),
    });
    const parts = await this.#imdb;
    for (const { text, label, where } of parts[part]) collector.addText(text, label, where);
  }

  async #readFolder(folder: string, part: Part, collector: ExampleCollector): Promise<void> {
    const parts = await partsOf(folder);
    if (parts !== null && !parts.includes(part)) throw noPart(folder, part, parts);
    await readClassFolders(parts === null ? folder : join(folder, part), collector, (message) =>
      this.#options.onProgress?.({ kind: 'notice', message }),
    );
  }
}

function noPart(source: string, part: Part, parts: readonly string[]): ConfigError {
  return new ConfigError(
    `data: expected a part ${part} in ${source}, got ${parts.join(', ')}. Name the data of that part.`,
  );
}

async function readFile(path: string, collector: ExampleCollector): Promise<void> {
  const before = collector.records;
  const extension = extname(path).toLowerCase();
  if (extension === '.jsonl' || extension === '.ndjson') await readJsonLines(path, collector);
  else if (extension === '.json') await readJsonArray(path, collector);
  else if (extension === '.csv') await readCsv(path, ',', collector);
  else if (extension === '.tsv') await readCsv(path, '\t', collector);
  else if (extension === '.parquet') await readParquet(path, collector);
  else if (extension === '.txt' && !collector.fields.isLabelled) {
    collector.addText(readWholeText(path), '', path);
  } else {
    throw new ConfigError(
      `data: expected .jsonl, .ndjson, .json, .csv, .tsv, .parquet or a folder per class, got ${path}. ` +
        'Convert it, or give it the ending of what it is.',
    );
  }
  if (collector.records > before) return;
  throw new FormatError(
    `${path}: expected examples, got none. The file is empty or has nothing but a header: check it.`,
  );
}
