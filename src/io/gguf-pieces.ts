/**
 * Vocabularies of GGUF files that are not byte-level BPE, as a tokenizer.json: pieces with scores
 * (tokenizer.ggml.model llama: Llama, Mistral, Zephyr) and words with their pieces (bert).
 */
import { FormatError } from '../base/errors.ts';
import { isObject, type Json, type JsonObject } from './json.ts';

/** Llama's are at most 16 characters long; splitting takes the square of the length. */
const MAX_PIECE_CHARS = 512;

/** What the token list of a file tells, without the tokens that only pad it. */
export interface TokenList {
  readonly tokens: readonly (readonly [id: number, token: string])[];
  /** Whether a token is a name (control, unknown, user defined) and not a piece of text. */
  isSpecial(id: number): boolean;
  /** The file, for messages. */
  readonly name: string;
}

/**
 * BPE from scores, as transformers' converter does it: a piece is the merge of every two pieces that give
 * it, pieces of higher score first.
 */
export function llamaModel(list: TokenList, scores: Float32Array, unkToken: string | null): JsonObject {
  const { tokens, name } = list;
  const vocab = idsOf(list, (token) => token);
  const merges: { left: string; right: string; score: number; ids: [number, number] }[] = [];
  for (const [id, token] of tokens) {
    if (list.isSpecial(id)) continue;
    const score = scores[id] ?? Number.NaN;
    if (Number.isNaN(score) || token.length > MAX_PIECE_CHARS) {
      throw new FormatError(
        `openGguf: expected pieces of at most ${MAX_PIECE_CHARS} characters with scores in ${name}, got ${JSON.stringify(token.slice(0, 40))} (id ${id}, score ${score}). Convert the file again.`,
      );
    }
    for (let at = 1; at < token.length; at++) {
      const [left, right] = [token.slice(0, at), token.slice(at)];
      const ids = [vocab.get(left), vocab.get(right)] as const;
      if (ids[0] === undefined || ids[1] === undefined || list.isSpecial(ids[0]) || list.isSpecial(ids[1]))
        continue;
      merges.push({ left, right, score, ids: [ids[0], ids[1]] });
    }
  }
  const chars = (text: string): number => [...text].length;
  merges.sort(
    (a, b) =>
      b.score - a.score ||
      chars(b.left) - chars(a.left) ||
      chars(b.right) - chars(a.right) ||
      a.ids[0] - b.ids[0] ||
      a.ids[1] - b.ids[1],
  );
  return {
    type: 'BPE',
    dropout: null,
    unk_token: unkToken,
    continuing_subword_prefix: null,
    end_of_word_suffix: null,
    fuse_unk: true,
    byte_fallback: true,
    ignore_merges: false,
    vocab: Object.fromEntries(vocab),
    merges: merges.map(({ left, right }) => [left, right]),
  };
}

/**
 * What surrounds the model in a tokenizer.json of Llama; `addsSpace`: a space goes in front of every text.
 */
export function llamaParts(addsSpace: boolean): JsonObject {
  const toPieces: Json = { type: 'Replace', pattern: { String: ' ' }, content: '▁' };
  const prepend: Json[] = addsSpace ? [{ type: 'Prepend', prepend: '▁' }] : [];
  const strip: Json[] = addsSpace ? [{ type: 'Strip', content: ' ', start: 1, stop: 0 }] : [];
  const toText: Json = { type: 'Replace', pattern: { String: '▁' }, content: ' ' };
  return {
    normalizer: { type: 'Sequence', normalizers: [...prepend, toPieces] },
    pre_tokenizer: null,
    decoder: {
      type: 'Sequence',
      decoders: [toText, { type: 'ByteFallback' }, { type: 'Fuse' }, ...strip],
    },
  };
}

/**
 * Whether a tokenizer.json is one of Llama, and if so, whether it puts a space
 * in front; null if it is another.
 */
export function llamaSpace({ model, normalizer, pre_tokenizer: words }: JsonObject): boolean | null {
  if (!isObject(model) || model.type !== 'BPE' || model.byte_fallback !== true || (words ?? null) !== null) {
    return null;
  }
  const got = JSON.stringify(normalizer);
  return [true, false].find((adds) => JSON.stringify(llamaParts(adds).normalizer) === got) ?? null;
}

/** Scores that give the merges back in their order; pieces that nothing merges to come last. */
export function llamaScores(tokens: readonly string[], merges: readonly string[]): number[] {
  const rankOf = new Map<string, number>();
  for (const [rank, merge] of merges.entries()) {
    const merged = merge.replace(' ', '');
    if (!rankOf.has(merged)) rankOf.set(merged, rank);
  }
  return tokens.map((token) => -(rankOf.get(token) ?? merges.length));
}

/** WordPiece; the file marks the beginnings of words (▁), a tokenizer.json what goes on (##). */
export function bertModel(list: TokenList, unkToken: string | null): JsonObject {
  const piece = (token: string): string => (token.startsWith('▁') ? token.slice(1) : `##${token}`);
  return {
    type: 'WordPiece',
    unk_token: unkToken ?? '[UNK]',
    continuing_subword_prefix: '##',
    max_input_chars_per_word: 100,
    vocab: Object.fromEntries(idsOf(list, piece)),
  };
}

export const BERT_PARTS: JsonObject = {
  normalizer: {
    type: 'BertNormalizer',
    clean_text: true,
    handle_chinese_chars: true,
    strip_accents: null,
    lowercase: true,
  },
  pre_tokenizer: { type: 'BertPreTokenizer' },
  decoder: { type: 'WordPiece', prefix: '##', cleanup: true },
};

/** Token -> id; special tokens keep their names. */
export function idsOf(list: TokenList, rename: (token: string) => string): Map<string, number> {
  const vocab = new Map<string, number>();
  for (const [id, token] of list.tokens) {
    const name = list.isSpecial(id) ? token : rename(token);
    if (vocab.has(name)) {
      throw new FormatError(
        `openGguf: expected every token of ${list.name} once, got ${JSON.stringify(name)} again at id ${id}. Convert the file again.`,
      );
    }
    vocab.set(name, id);
  }
  return vocab;
}
