/** The tokenizer of a run: bytes, a BPE trained on the run's own text, or that of a folder, a file or a hub. */
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { ConfigError } from '../base/errors.ts';
import type { Tokenizer } from '../base/tokenizer.ts';
import { expectPath, readTextIfPresent } from '../io/file.ts';
import { type LocateOptions, locateTokenizer } from '../io/locate.node.ts';
import { TOKENIZER_FILES } from '../io/model-files.ts';
import { byteTokenizer, tokenizerFromFiles, tokenizerFromJson, trainBpe } from '../text/index.ts';

export interface RunTokenizerOptions extends LocateOptions {
  /** Of `bpe:SIZE`: everything in lower case. */
  lowercase?: boolean;
}

/**
 * `bytes`, `bpe:SIZE` (trained on `texts`), a folder with tokenizer files, one such file, or a hub id. Throws ConfigError for a
 * specification that is none of them.
 */
export async function openTokenizer(
  specification: string,
  texts: () => Promise<readonly string[]>,
  options: RunTokenizerOptions = {},
): Promise<Tokenizer> {
  if (specification === 'bytes') return byteTokenizer();
  if (specification.startsWith('bpe:')) {
    const vocabSize = Number(specification.slice(4));
    if (!Number.isInteger(vocabSize)) {
      throw new ConfigError(
        `tokenizer: expected bpe:SIZE with a whole number, got ${specification}. Try bpe:4096.`,
      );
    }
    const { tokenizerJson, tokenizerConfig } = trainBpe(await texts(), {
      vocabSize,
      lowercase: options.lowercase,
    });
    return tokenizerFromJson(tokenizerJson, tokenizerConfig);
  }
  return tokenizerFromFiles(await readTokenizerFiles(await locateTokenizer(specification, options)));
}

async function readTokenizerFiles(folder: string): Promise<Record<string, string>> {
  const found = await expectPath('tokenizer', 'bytes, bpe:SIZE, a folder or a hub id', folder);
  if (!found.isDirectory()) return { 'tokenizer.json': await readFile(folder, 'utf8') };
  const files: Record<string, string> = {};
  for (const name of TOKENIZER_FILES) {
    const text = await readTextIfPresent(join(folder, name));
    if (text !== null) files[name] = text;
  }
  return files;
}
