/**
 * A tokenizer.json as `@huggingface/tokenizers` must be given it. Checks come first, because the library
 * trusts the file; then the parts that it reads differently from Hugging Face's own implementation are said
 * in words on which both agree. One difference is left: a byte without a token (Falcon has none for some
 * control characters) is dropped after merging, there before, so that its neighbours may merge.
 */
import { FormatError, UnsupportedError } from '../base/errors.ts';

export type JsonObject = { [key: string]: unknown };

/** Far above any vocabulary in use; a larger id is damage and would make arrays of its size. */
const MAX_ID = 2 ** 24;
/** Most parts of a normalizer or pre-tokenizer inside each other. */
const MAX_DEPTH = 32;

/**
 * GPT-2's words. The library's own expression takes JavaScript's idea of white
 * space, which has U+FEFF, not U+0085.
 */
const GPT2_WORDS = "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+";
const PUNCTUATION = '[\\p{P}\\x21-\\x2F\\x3A-\\x40\\x5B-\\x60\\x7B-\\x7E]';
/** Chinese characters beyond U+FFFF, around which BERT puts spaces; the library looks at halves of them. */
const RARE_CHINESE =
  '[\\x{20000}-\\x{2A6DF}\\x{2A700}-\\x{2B73F}\\x{2B740}-\\x{2B81F}\\x{2B920}-\\x{2CEAF}\\x{2F800}-\\x{2FA1F}]';

/** Throws FormatError for a file no program could use, UnsupportedError for what the library cannot do. */
export function jsonForLibrary(json: JsonObject): JsonObject {
  const model = checkedModel(json.model);
  return {
    ...json,
    model,
    normalizer: normalizer(json.normalizer ?? null),
    pre_tokenizer: preTokenizer(json.pre_tokenizer ?? null),
    post_processor: json.post_processor ?? null,
    decoder: decoder(json.decoder ?? null),
    added_tokens: checkedAdded(json.added_tokens ?? []),
  };
}

function fail(expected: string, got: string): never {
  throw new FormatError(
    `tokenizer: expected ${expected} in tokenizer.json, got ${got}. Download the file again.`,
  );
}

const isObject = (value: unknown): value is JsonObject =>
  typeof value === 'object' && value !== null && !Array.isArray(value);
const show = (value: unknown): string => (JSON.stringify(value) ?? 'nothing').slice(0, 60);
const isId = (id: unknown): boolean => Number.isInteger(id) && Number(id) >= 0 && Number(id) < MAX_ID;

function checkedAdded(tokens: unknown): JsonObject[] {
  if (!Array.isArray(tokens)) fail('a list of added_tokens', show(tokens));
  for (const token of tokens) {
    if (!isObject(token) || typeof token.content !== 'string' || !isId(token.id)) {
      fail('added tokens with content and id', show(token));
    }
  }
  return tokens.filter(({ content }) => content !== '');
}

function checkedModel(model: unknown): JsonObject {
  if (!isObject(model)) fail('a model', show(model));
  const { vocab } = model;
  // Older files leave the type out.
  const guess = Array.isArray(vocab) ? 'Unigram' : Array.isArray(model.merges) ? 'BPE' : 'WordPiece';
  const type = model.type ?? guess;
  if (type === 'Unigram') return { ...model, type, ...checkedPieces(vocab, model.unk_id ?? null) };
  if (type !== 'BPE' && type !== 'WordPiece') fail('a model of type BPE, WordPiece or Unigram', show(type));
  if (!isObject(vocab)) fail('a vocab of tokens and ids', show(vocab));
  for (const token of Object.keys(vocab)) {
    if (!isId(vocab[token]))
      fail(`an id of the token ${show(token)} in 0..${MAX_ID - 1}`, show(vocab[token]));
  }
  if (type === 'BPE') checkMerges(model, vocab);
  else if (typeof model.unk_token !== 'string' || !Object.hasOwn(vocab, model.unk_token)) {
    fail('an unk_token of the vocabulary', show(model.unk_token));
  }
  return { ...model, type };
}

function checkMerges(model: JsonObject, vocab: JsonObject): void {
  const { merges, continuing_subword_prefix: prefix } = model;
  if (prefix) {
    throw new UnsupportedError(
      `tokenizer: expected a BPE without continuing_subword_prefix, got ${show(prefix)}. No Mamba model has one.`,
    );
  }
  if (!Array.isArray(merges)) fail('a list of merges', show(merges));
  for (const merge of merges) {
    const parts: unknown = typeof merge === 'string' ? merge.split(' ') : merge;
    const [left, right] = Array.isArray(parts) ? parts : [];
    const isPair = Array.isArray(parts) && parts.length === 2;
    if (!isPair || typeof left !== 'string' || typeof right !== 'string') {
      fail('merges of two tokens', show(merge));
    }
    for (const token of [left, right, left + right]) {
      if (!Object.hasOwn(vocab, token))
        fail(`the merge ${show(merge)} made of tokens`, `no token ${show(token)}`);
    }
  }
}

function checkedPieces(vocab: unknown, unkId: unknown): JsonObject {
  if (!Array.isArray(vocab) || vocab.length === 0) fail('a vocab of pieces and scores', show(vocab));
  for (const entry of vocab) {
    const [piece, score] = Array.isArray(entry) ? entry : [];
    if (typeof piece !== 'string' || typeof score !== 'number') fail('pieces with scores', show(entry));
  }
  if (!isId(unkId) || Number(unkId) >= vocab.length) fail('an unk_id of the vocabulary', show(unkId));
  return { unk_id: unkId };
}

/** `change` applied to every part; a Sequence keeps its parts under `list`. */
function mapParts(part: unknown, list: string, change: (part: JsonObject) => JsonObject, depth = 0): unknown {
  if (part === null) return null;
  if (!isObject(part) || typeof part.type !== 'string') fail('a part with a type', show(part));
  if (depth > MAX_DEPTH) fail(`at most ${MAX_DEPTH} sequences inside each other`, 'more');
  if (part.type !== 'Sequence') return change(part);
  const parts = part[list];
  if (!Array.isArray(parts)) fail(`a Sequence with ${list}`, show(part));
  return { ...part, [list]: parts.map((one) => mapParts(one, list, change, depth + 1)) };
}

function normalizer(part: unknown): unknown {
  return mapParts(part, 'normalizers', (one) => {
    if (one.type === 'Replace') return replace(one);
    if (one.type === 'Prepend' && typeof one.prepend !== 'string') fail('text to prepend', show(one.prepend));
    if (one.type !== 'BertNormalizer' || one.handle_chinese_chars !== true) return one;
    const spaced = { type: 'Replace', pattern: { Regex: RARE_CHINESE }, content: ' $& ' };
    return { type: 'Sequence', normalizers: [spaced, one] };
  });
}

const decoder = (part: unknown): unknown =>
  mapParts(part, 'decoders', (one) => (one.type === 'Replace' ? replace(one) : one));

/** The library hands `content` to String.replaceAll, for which $ is special. */
function replace(part: JsonObject): JsonObject {
  checkPattern(part);
  if (typeof part.content !== 'string') fail('the content of a Replace', show(part.content));
  return { ...part, content: part.content.replaceAll('$', '$$$$') };
}

function checkPattern({ pattern }: JsonObject): void {
  const text = isObject(pattern) ? (pattern.Regex ?? pattern.String) : undefined;
  if (typeof text !== 'string' || text === '') fail('a pattern with Regex or String', show(pattern));
}

const isolated = (regex: string): JsonObject => ({
  type: 'Split',
  pattern: { Regex: regex },
  behavior: 'Isolated',
  invert: false,
});

function preTokenizer(part: unknown): unknown {
  return mapParts(part, 'pretokenizers', (one) => {
    switch (one.type) {
      case 'ByteLevel':
        return one.use_regex !== false && one.add_prefix_space !== true
          ? { type: 'Sequence', pretokenizers: [isolated(GPT2_WORDS), { ...one, use_regex: false }] }
          : one;
      case 'Digits':
        return isolated(one.individual_digits === true ? '\\p{N}' : '\\p{N}+');
      case 'Whitespace':
        return { ...isolated('\\w+|[^\\w\\s]+'), behavior: 'Removed', invert: true };
      case 'Punctuation':
        return punctuation(one);
      case 'Metaspace':
        // Before there were schemes.
        return one.prepend_scheme === undefined && one.add_prefix_space === false
          ? { ...one, prepend_scheme: 'never' }
          : one;
      case 'Split':
        return split(one);
      default:
        return one;
    }
  });
}

function punctuation(part: JsonObject): JsonObject {
  const { behavior = 'Isolated' } = part;
  if (behavior === 'Isolated') return isolated(PUNCTUATION);
  if (behavior === 'Contiguous') return isolated(`${PUNCTUATION}+`);
  throw unsupported(part);
}

function split(part: JsonObject): JsonObject {
  checkPattern(part);
  if (part.behavior === 'Isolated') return { ...part, invert: false };
  if (part.behavior === 'Removed') return part;
  throw unsupported(part);
}

function unsupported({ type, behavior }: JsonObject): UnsupportedError {
  return new UnsupportedError(
    `tokenizer: expected a ${type} with behavior Isolated or Removed, got ${show(behavior)}. ` +
      'No Mamba model splits text this way.',
  );
}
