/** The text that a language model's own vocabulary is learned from. */
import { readDocuments } from './corpus-documents.node.ts';
import { type CorpusFile, listCorpusFiles } from './corpus-files.node.ts';

/** BPE merges settle long before this much text. */
const BPE_TEXT_CHARS = 1 << 25;

/** The beginning of a corpus. */
export async function collectText(
  sources: readonly (string | CorpusFile)[],
  textField: string,
): Promise<string[]> {
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
