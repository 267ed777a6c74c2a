/**
 * Encoding a text that goes on in the middle of another. Llama's vocabularies put a space in front of every text; in
 * front of a continuation it would be one space too many.
 */
import { Tokenizer as HuggingFaceTokenizer } from '@huggingface/tokenizers';
import { anyOf } from './words.ts';

type JsonObject = { [key: string]: unknown };

/**
 * Encodes without the space in front of the text. What comes behind an added token inside the text is encoded as
 * always: there the space belongs to the ids that the model was trained with. Null if the tokenizer adds no space;
 * `library` is the opened tokenizer, whose vocabulary is shared, `encode` its encoding.
 */
export function continuationEncoder(
  tokenizerJson: JsonObject,
  tokenizerConfig: JsonObject,
  library: HuggingFaceTokenizer,
  encode: (text: string) => number[],
): ((text: string) => number[]) | null {
  const normalizer = withoutPrefix(tokenizerJson.normalizer);
  const words = withoutPrefix(tokenizerJson.pre_tokenizer);
  if (normalizer === tokenizerJson.normalizer && words === tokenizerJson.pre_tokenizer) return null;
  const empty = { type: 'BPE', vocab: {}, merges: [] };
  const changed = { ...tokenizerJson, normalizer, pre_tokenizer: words, model: empty };
  const bare = new HuggingFaceTokenizer(changed, tokenizerConfig);
  bare.model = library.model;
  const added = [...library.get_added_tokens_decoder().values()];
  const cut = anyOf(added.map(({ content }) => content));
  return (text) => {
    const found = cut?.exec(text) ?? null;
    const head = found ? text.slice(0, found.index) : text;
    const takesSpace = found && added.some(({ content, lstrip }) => lstrip && content === found[0]);
    const first = bare.encode(takesSpace ? head.trimEnd() : head, { add_special_tokens: false }).ids;
    return found ? [...first, ...encode(text.slice(found.index))] : first;
  };
}

/** A normalizer or pre-tokenizer that adds no space in front; the same object if it never did. */
function withoutPrefix(part: unknown): unknown {
  if (typeof part !== 'object' || part === null) return part;
  const { type, prepend_scheme: scheme, add_prefix_space: adds } = part as JsonObject;
  if (type === 'Prepend') return null;
  if (type === 'Metaspace' && scheme !== 'never') return { ...part, prepend_scheme: 'never' };
  if (type === 'ByteLevel' && adds === true) return { ...part, add_prefix_space: false };
  for (const list of ['normalizers', 'pretokenizers']) {
    const parts = (part as JsonObject)[list];
    if (type !== 'Sequence' || !Array.isArray(parts)) continue;
    const changed = parts.map(withoutPrefix);
    if (changed.some((one, i) => one !== parts[i])) {
      return { ...part, [list]: changed.filter((one) => one !== null) };
    }
  }
  return part;
}
