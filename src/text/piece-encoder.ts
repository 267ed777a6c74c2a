/**
 * A text as a model reads it: cut to a number of tokens, with its special tokens around it, and encoded the
 * same way whether it comes whole or in pieces. Long texts are cut into segments at places that their
 * characters alone decide, chosen so that the usual tokenizers (byte-level BPE, WordPiece, Llama's, bytes)
 * give the ids of the uncut text.
 */
import { ConfigError, UnsupportedError } from '../base/errors.ts';
import type { Tokenizer } from '../base/tokenizer.ts';

/** Segments in UTF-16 units: cut at the first good place from `least`, anywhere at `most`. */
interface Segments {
  least: number;
  most: number;
}

const SEGMENTS: Segments = { least: 4096, most: 65_536 };
/** A search for a place to cut goes over all that is pending: not for every single character that arrives. */
const STEP = 1024;
/** How far a forced cut moves to the front rather than to part a character from its marks. */
const MAX_BACK = 16;

/**
 * Where tokens of the usual vocabularies never cross: in front of a single space between words. What
 * stands before it is none of the brackets that special tokens end with, behind which Llama's
 * vocabularies count spaces differently.
 */
const CUT = /(?<=[\p{L}\p{N}.,;:!?]) (?=[^\s\x85])/gu;

export interface PieceEncoderOptions {
  /**
   * Tokens at most, special ones included; the text is cut at its end, as
   * transformers does. Default null: all.
   */
  maxTokens?: number | null;
  /** @internal Other segments, for tests. */
  segments?: Segments;
}

/**
 * Encodes a text that arrives in pieces, which may end within a word or a character. All that push() gave and
 * then end() are together the ids of the text, however it was cut into pieces.
 *
 * Throws ConfigError for a maxTokens without room for one token beside the special ones.
 */
export class PieceEncoder {
  readonly #tokenizer: Tokenizer;
  readonly #ends: Ends;
  readonly #segments: Segments;
  /** How many tokens the text itself may have. */
  readonly #room: number;
  #pending = '';
  /** So long must `pending` be before it is looked at again. */
  #enough: number;
  /** Tokens of the text so far. */
  #count = 0;
  #isBegun = false;

  constructor(tokenizer: Tokenizer, options: PieceEncoderOptions = {}) {
    const { maxTokens = null, segments = SEGMENTS } = options;
    this.#tokenizer = tokenizer;
    this.#ends = endsOf(tokenizer);
    this.#segments = segments;
    this.#enough = segments.least + STEP;
    const special = this.#ends.before.length + this.#ends.after.length;
    if (maxTokens !== null && (!Number.isSafeInteger(maxTokens) || maxTokens <= special)) {
      const beside = special > 0 ? ` (${special} are special tokens)` : '';
      throw new ConfigError(
        `maxTokens: expected an integer >= ${special + 1}${beside} or null, got ${maxTokens}. Allow more tokens.`,
      );
    }
    this.#room = maxTokens === null ? Number.POSITIVE_INFINITY : maxTokens - special;
  }

  /** Whether the text has as many tokens as it may: what comes now is not looked at. */
  get isFull(): boolean {
    return this.#count >= this.#room;
  }

  /** The ids that are certain with this piece; often none, until some thousand characters have come. */
  push(piece: string): number[] {
    if (this.isFull) return [];
    this.#pending += piece;
    if (this.#pending.length < this.#enough) return [];
    const ids: number[] = [];
    let start = 0;
    let end = cutOf(this.#pending, start, this.#segments);
    while (end > start && !this.isFull) {
      this.#count += this.#encode(ids, start, end, this.#count, this.#isBegun);
      this.#isBegun = true;
      start = end;
      end = cutOf(this.#pending, start, this.#segments);
    }
    this.#pending = this.isFull ? '' : this.#pending.slice(start);
    this.#enough = Math.max(this.#segments.least, this.#pending.length) + STEP;
    return ids;
  }

  /**
   * The ids of what is pending, as if the text ended here, and the special tokens behind it. Changes nothing.
   */
  end(): number[] {
    const ids: number[] = [];
    let start = 0;
    let isBegun = this.#isBegun;
    let count = this.#count;
    while (!isBegun || (start < this.#pending.length && count < this.#room)) {
      const cut = cutOf(this.#pending, start, this.#segments);
      const end = cut > start ? cut : this.#pending.length;
      count += this.#encode(ids, start, end, count, isBegun);
      isBegun = true;
      start = end;
    }
    append(ids, this.#ends.after);
    return ids;
  }

  /**
   * Appends the ids of a segment as far as there is room behind `count` tokens,
   * and gives how many of the text.
   */
  #encode(ids: number[], start: number, end: number, count: number, isContinuation: boolean): number {
    if (!isContinuation) append(ids, this.#ends.before);
    const encoded = this.#tokenizer.encode(this.#pending.slice(start, end), { isContinuation });
    const kept = encoded.length > this.#room - count ? encoded.slice(0, this.#room - count) : encoded;
    append(ids, kept);
    return kept.length;
  }
}

/**
 * The ids of a whole text: what a PieceEncoder gives in all. Only as much of it
 * is encoded as `maxTokens` needs.
 */
export function encodeText(tokenizer: Tokenizer, text: string, maxTokens: number | null = null): number[] {
  const encoder = new PieceEncoder(tokenizer, { maxTokens });
  const ids = encoder.push(text);
  append(ids, encoder.end());
  return ids;
}

/** Where the segment from `start` ends; `start` when more of the text must be seen, or it is the last one. */
function cutOf(text: string, start: number, { least, most }: Segments): number {
  CUT.lastIndex = start + least;
  const found = CUT.exec(text.length > start + most + 2 ? text.slice(0, start + most + 2) : text);
  if (found) return found.index;
  // One unit more than the next, which may be half of a character.
  if (text.length < start + most + 2) return start;
  let cut = start + most;
  while (cut > start + most - MAX_BACK && !isBetweenCharacters(text, cut)) cut--;
  // Marks without end: only the halves of a character must stay together.
  return isBetweenCharacters(text, cut) ? cut : start + most - (isPair(text, start + most) ? 1 : 0);
}

/**
 * Whether neither a surrogate pair, nor a line break of two, nor a character and its
 * marks or joiners go on at `at`.
 */
function isBetweenCharacters(text: string, at: number): boolean {
  if (isPair(text, at) || text.startsWith('\r\n', at - 1)) return false;
  return !/^[\p{M}\u200d]/u.test(text.slice(at, at + 2)) && text[at - 1] !== '\u200d';
}

function isPair(text: string, at: number): boolean {
  return /^[\ud800-\udbff][\udc00-\udfff]/.test(text.slice(at - 1, at + 1));
}

interface Ends {
  before: readonly number[];
  after: readonly number[];
}

const known = new WeakMap<Tokenizer, Ends>();
/** Texts of one or two usual tokens; more than one, should special tokens be among theirs. */
const PROBES = ['a', 'b', 'the', '1', '.', 'A', 'x y'];

/** What the tokenizer's rules put around a text, whatever the text is. */
function endsOf(tokenizer: Tokenizer): Ends {
  let ends = known.get(tokenizer);
  if (!ends) {
    ends = findEnds(tokenizer);
    known.set(tokenizer, ends);
  }
  return ends;
}

function findEnds(tokenizer: Tokenizer): Ends {
  const probes = PROBES.map((text) => ({
    inner: tokenizer.encode(text),
    whole: tokenizer.encode(text, { addSpecialTokens: true }),
  }));
  const [first] = probes;
  const added = first!.whole.length - first!.inner.length;
  const isWhole = (before: number) =>
    probes.every(({ inner, whole }) => {
      const ids = [
        ...first!.whole.slice(0, before),
        ...inner,
        ...first!.whole.slice(before + first!.inner.length),
      ];
      return whole.length === ids.length && ids.every((id, i) => id === whole[i]);
    });
  for (let before = 0; before <= added; before++) {
    if (!isWhole(before)) continue;
    return {
      before: first!.whole.slice(0, before),
      after: first!.whole.slice(before + first!.inner.length),
    };
  }
  throw new UnsupportedError(
    'tokenizer: expected special tokens in front of a text and behind it, got a post_processor that changes the text. ' +
      'Use a tokenizer.json whose post_processor is a template.',
  );
}

/** Array.push with arguments overflows the stack for long lists. */
function append(to: number[], ids: readonly number[]): void {
  for (const id of ids) to.push(id);
}
