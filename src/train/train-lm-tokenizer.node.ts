/** The tokenizer of a run: bytes, a BPE trained on the run's own text, or the files of a folder. */
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { ConfigError } from '../base/errors.ts';
import type { Tokenizer } from '../base/tokenizer.ts';
import { expectPath, readTextIfPresent } from '../io/file.ts';
import { TOKENIZER_FILES } from '../io/model-files.ts';
import { byteTokenizer, tokenizerFromFiles, tokenizerFromJson, trainBpe } from '../text/index.ts';
import { readDocuments } from './corpus-documents.node.ts';
import { type CorpusFile, listCorpusFiles } from './corpus-files.node.ts';

/** BPE merges settle long before this much text. */
const BPE_TEXT_CHARS = 1 << 25;

/** Throws ConfigError for a specification that is none of `bytes`, `bpe:SIZE`, a folder. */
export async function openTokenizer(
  specification: string,
  sources: readonly (string | CorpusFile)[],
  textField: string,
): Promise<Tokenizer> {
  if (specification === 'bytes') return byteTokenizer();
  if (specification.startsWith('bpe:')) {
    const vocabSize = Number(specification.slice(4));
    if (!Number.isInteger(vocabSize)) {
      throw new ConfigError(
        `tokenizer: expected bpe:SIZE with a whole number, got ${specification}. Try bpe:4096.`,
      );
    }
    const { tokenizerJson, tokenizerConfig } = trainBpe(await collectText(sources, textField), { vocabSize });
    return tokenizerFromJson(tokenizerJson, tokenizerConfig);
  }
  return tokenizerFromFiles(await readTokenizerFiles(specification));
}

async function collectText(sources: readonly (string | CorpusFile)[], textField: string): Promise<string[]> {
  const texts: string[] = [];
  let total = 0;
  for (const file of await listCorpusFiles(sources)) {
    for await (const piece of readDocuments(file, { textField, raw: false })) {
      if (typeof piece !== 'string') continue;
      texts.push(piece);
      total += piece.length;
      if (total >= BPE_TEXT_CHARS) return texts;
    }
  }
  return texts;
}

async function readTokenizerFiles(folder: string): Promise<Record<string, string>> {
  const found = await expectPath('tokenizer', 'bytes, bpe:SIZE, or a folder', folder);
  if (!found.isDirectory()) return { 'tokenizer.json': await readFile(folder, 'utf8') };
  const files: Record<string, string> = {};
  for (const name of TOKENIZER_FILES) {
    const text = await readTextIfPresent(join(folder, name));
    if (text !== null) files[name] = text;
  }
  return files;
}
