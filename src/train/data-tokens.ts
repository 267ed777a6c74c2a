/**
 * Token data: a long row of ids that is read in ranges and may hold several documents. It lives in memory or
 * in a file; slices are views. Every id handed out has been checked against the vocabulary.
 */
import { ConfigError, FormatError } from '../base/errors.ts';

export interface TokenData {
  /** For messages. */
  readonly name: string;
  /** The same for the same ids; a resumed run compares it. */
  readonly fingerprint: string;
  readonly length: number;
  /** Every id is below this. */
  readonly vocabSize: number;
  /** Whether documents begin elsewhere than at position 0. */
  readonly severalDocuments: boolean;
  /** The ids at [start, end), in a fresh array. Throws FormatError for an id outside the vocabulary. */
  read(start: number, end: number): Promise<Int32Array>;
  /** The positions in [start, end) at which a document begins, ascending. */
  documentStarts(start: number, end: number): Promise<number[]>;
  close(): Promise<void>;
}

export interface MemoryTokensOptions {
  vocabSize: number;
  /** Positions at which documents begin, ascending. Default: one document, `[0]`. */
  documentStarts?: readonly number[];
  name?: string;
}

/** Ids that are in memory already. Throws FormatError for ids outside the vocabulary. */
export function memoryTokens(ids: ArrayLike<number>, options: MemoryTokensOptions): TokenData {
  const name = options.name ?? 'memory';
  checkIds(ids, options.vocabSize, name, 0);
  const starts = options.documentStarts ?? [0];
  return {
    name,
    fingerprint: `memory-${ids.length}-${hash(ids)}-${hash(starts)}`,
    length: ids.length,
    vocabSize: options.vocabSize,
    severalDocuments: starts.some((start) => start > 0),
    read: async (start, end) => {
      const out = new Int32Array(end - start);
      for (let i = 0; i < out.length; i++) out[i] = ids[start + i]!;
      return out;
    },
    documentStarts: async (start, end) => starts.filter((position) => position >= start && position < end),
    close: async () => {},
  };
}

/** The ids at [start, end) as token data of their own. Closing a slice does nothing; close the whole. */
export function sliceTokens(tokens: TokenData, start: number, end: number, name = tokens.name): TokenData {
  if (
    !(Number.isInteger(start) && Number.isInteger(end) && start >= 0 && start <= end && end <= tokens.length)
  ) {
    throw new ConfigError(
      `sliceTokens: expected a range within 0..${tokens.length}, got ${start}..${end}. Choose one inside ${tokens.name}.`,
    );
  }
  return {
    name,
    fingerprint: `${tokens.fingerprint}[${start}:${end}]`,
    length: end - start,
    vocabSize: tokens.vocabSize,
    severalDocuments: tokens.severalDocuments,
    read: (from, to) => tokens.read(start + from, start + to),
    documentStarts: async (from, to) => {
      const starts = await tokens.documentStarts(start + from, start + to);
      return starts.map((position) => position - start);
    },
    close: async () => {},
  };
}

/** Holds out the last `fraction` of the tokens (0 < fraction < 1). Both parts are views. */
export function splitTokens(tokens: TokenData, fraction = 0.1): { train: TokenData; valid: TokenData } {
  if (!(fraction > 0 && fraction < 1)) {
    throw new ConfigError(
      `splitTokens: expected a fraction between 0 and 1, got ${fraction}. 0.1 holds out the last tenth.`,
    );
  }
  const border = Math.floor(tokens.length * (1 - fraction));
  return {
    train: sliceTokens(tokens, 0, border, `${tokens.name} (training part)`),
    valid: sliceTokens(tokens, border, tokens.length, `${tokens.name} (held-out part)`),
  };
}

/** Throws ConfigError unless a model with `modelVocabSize` ids has one for every token of the data. */
export function checkVocabulary(tokens: TokenData, modelVocabSize: number): void {
  if (tokens.vocabSize <= modelVocabSize) return;
  throw new ConfigError(
    `data: expected ids below the model's vocab_size ${modelVocabSize}, got a tokenizer with ${tokens.vocabSize} ` +
      `for ${tokens.name}. Use the model's own tokenizer or a larger vocab_size.`,
  );
}

/** Throws ConfigError if not even one window of `length` inputs and its last target fits. */
export function checkWindow(op: string, tokens: TokenData, length: number, batch = 1): void {
  for (const [what, value] of Object.entries({ length, batch })) {
    if (Number.isInteger(value) && value > 0) continue;
    throw new ConfigError(
      `${op}: expected ${what} to be a positive integer, got ${value}. Correct the option.`,
    );
  }
  if (tokens.length > length) return;
  throw new ConfigError(
    `${op}: expected more than ${length} tokens for a window of ${length}, got ${tokens.length} in ${tokens.name}. ` +
      'Give more text or a shorter length.',
  );
}

/** `first` is the position of ids[0], for the message. */
export function checkIds(ids: ArrayLike<number>, vocabSize: number, name: string, first: number): void {
  for (let i = 0; i < ids.length; i++) {
    const id = ids[i]!;
    if (id >= 0 && id < vocabSize && Number.isInteger(id)) continue;
    throw new FormatError(
      `${name}: expected ids in 0..${vocabSize - 1}, got ${id} at token ${first + i}. ` +
        'The data was made with another tokenizer or is damaged.',
    );
  }
}

/** FNV-1a over 32-bit values, as hexadecimal. */
function hash(values: ArrayLike<number>): string {
  let state = 0x811c9dc5;
  for (let i = 0; i < values.length; i++) {
    for (let shift = 0; shift < 32; shift += 8) {
      state = Math.imul(state ^ ((values[i]! >>> shift) & 0xff), 0x01000193);
    }
  }
  return (state >>> 0).toString(16);
}
