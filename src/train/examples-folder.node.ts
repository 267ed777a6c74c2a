/**
 * Examples from a folder per class, one text file each: aclImdb's layout. In a class folder the `.txt` files
 * are the examples, or, where there is none, all files but a README. Names that begin with a dot and files
 * beside the class folders are left out.
 */
import { readdir, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { setImmediate } from 'node:timers/promises';
import { FormatError } from '../base/errors.ts';
import { fileError } from '../io/file.ts';
import type { ExampleCollector } from './examples-collect.ts';
import { readWholeText } from './examples-text.node.ts';

/** Files after which others may run. */
const PAUSE_EVERY = 64;

/** aclImdb's texts without a label stand in a folder like a class. */
export const UNLABELLED_FOLDER = 'unsup';

export interface FolderEntries {
  folders: string[];
  files: string[];
}

/** What is directly in a folder, sorted by name, hidden names left out. */
export async function listFolder(path: string): Promise<FolderEntries> {
  const entries = await readdir(path, { withFileTypes: true }).catch((error) => {
    throw fileError('data', `a readable folder ${path}`, error);
  });
  const visible = entries.filter(({ name }) => !name.startsWith('.'));
  const isFolder = await Promise.all(
    visible.map((entry) =>
      entry.isSymbolicLink() ? leadsToFolder(join(path, entry.name)) : entry.isDirectory(),
    ),
  );
  const names = (wanted: boolean) =>
    visible
      .filter((_, i) => isFolder[i] === wanted)
      .map(({ name }) => name)
      .sort();
  return { folders: names(true), files: names(false) };
}

async function leadsToFolder(link: string): Promise<boolean> {
  return stat(link).then(
    (found) => found.isDirectory(),
    () => false,
  );
}

/**
 * Reads the folders in `path` as classes. Without labels asked for, a folder that has only text files is read
 * too. Throws FormatError for classes without files and for folders without classes.
 */
export async function readClassFolders(
  path: string,
  collector: ExampleCollector,
  onNotice?: (message: string) => void,
): Promise<void> {
  const { folders, files } = await listFolder(path);
  const { isLabelled } = collector.fields;
  const classes = isLabelled ? folders.filter((name) => name !== UNLABELLED_FOLDER) : folders;
  if (classes.length < folders.length) {
    onNotice?.(`${join(path, UNLABELLED_FOLDER)} is left out: its texts have no labels.`);
  }
  if (classes.length === 0) {
    const texts = exampleFiles(files);
    if (!isLabelled && texts.length > 0) return readFiles(path, texts, '', collector);
    throw new FormatError(
      `${path}: expected a folder for each class, got ${folders.length > 0 ? `only ${UNLABELLED_FOLDER}` : showFiles(files)}. ` +
        'Make one folder per class, or name the files themselves (.jsonl, .csv, .tsv, .parquet).',
    );
  }
  for (const name of classes) {
    const folder = join(path, name);
    const inside = await listFolder(folder);
    const texts = exampleFiles(inside.files);
    if (texts.length > 0) {
      await readFiles(folder, texts, name, collector);
      continue;
    }
    const got =
      inside.folders.length > 0 ? `only folders (${inside.folders.slice(0, 3).join(', ')})` : 'none';
    throw new FormatError(
      `${folder}: expected the text files of the class ${JSON.stringify(name)}, got ${got}. ` +
        'Add files, or remove the folder.',
    );
  }
}

function exampleFiles(files: readonly string[]): string[] {
  const texts = files.filter((name) => /\.txt$/i.test(name));
  return texts.length > 0 ? texts : files.filter((name) => !/^readme(\.\w+)?$/i.test(name));
}

function showFiles(files: readonly string[]): string {
  if (files.length === 0) return 'an empty folder';
  const rest = files.length > 3 ? ` and ${files.length - 3} more` : '';
  return `only files (${files.slice(0, 3).join(', ')}${rest})`;
}

async function readFiles(
  folder: string,
  names: readonly string[],
  label: string,
  collector: ExampleCollector,
): Promise<void> {
  for (const [i, name] of names.entries()) {
    const path = join(folder, name);
    collector.addText(readWholeText(path), label, path);
    if (i % PAUSE_EVERY === 0) await setImmediate();
  }
}
