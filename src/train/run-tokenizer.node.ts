/**
 * The tokenizer of a run: bytes, a vocabulary made from the run's own text, or
 * that of a folder, a file or a hub.
 */
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { ConfigError } from '../base/errors.ts';
import type { Tokenizer } from '../base/tokenizer.ts';
import { expectPath, readTextIfPresent } from '../io/file.ts';
import { type LocateOptions, locateTokenizer } from '../io/locate.node.ts';
import { TOKENIZER_FILES } from '../io/model-files.ts';
import { byteTokenizer, tokenizerFromFiles, tokenizerFromJson, trainBpe, trainWords } from '../text/index.ts';

export interface RunTokenizerOptions extends LocateOptions {
  /** Of a vocabulary made from the texts: everything in lower case. Default false. */
  lowercase?: boolean;
}

/** Vocabularies made from texts, by their names in front of `:SIZE`. */
const MAKERS = { bpe: trainBpe, words: trainWords };

/**
 * `bytes`, `bpe:SIZE` or `words:SIZE` (made from `texts`), a folder with tokenizer files, one such file, or a
 * hub id. Throws ConfigError for a specification that is none of them.
 */
export async function openTokenizer(
  specification: string,
  texts: () => Promise<readonly string[]>,
  options: RunTokenizerOptions = {},
): Promise<Tokenizer> {
  if (specification === 'bytes') return byteTokenizer();
  const [, kind, size] = /^(bpe|words):(.*)$/.exec(specification) ?? [];
  if (kind !== undefined) {
    const vocabSize = Number(size);
    if (!Number.isInteger(vocabSize)) {
      throw new ConfigError(
        `tokenizer: expected ${kind}:SIZE with a whole number, got ${specification}. Try ${kind}:4096.`,
      );
    }
    const { lowercase = false } = options;
    const made = MAKERS[kind as keyof typeof MAKERS](await texts(), { vocabSize, lowercase });
    return tokenizerFromJson(made.tokenizerJson, made.tokenizerConfig);
  }
  return tokenizerFromFiles(await readTokenizerFiles(await locateTokenizer(specification, options)));
}

async function readTokenizerFiles(folder: string): Promise<Record<string, string>> {
  const found = await expectPath('tokenizer', 'bytes, bpe:SIZE, words:SIZE, a folder or a hub id', folder);
  if (!found.isDirectory()) return { 'tokenizer.json': await readFile(folder, 'utf8') };
  const files: Record<string, string> = {};
  for (const name of TOKENIZER_FILES) {
    const text = await readTextIfPresent(join(folder, name));
    if (text !== null) files[name] = text;
  }
  return files;
}
