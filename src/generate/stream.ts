/** Text in, text out: decodes the engine's tokens as they come, ends at stop strings, and hands out states that fit the text. */
import { ConfigError } from '../base/errors.ts';
import type { Tokenizer } from '../base/tokenizer.ts';
import type { LanguageModel } from '../models/language-model.ts';
import type { State } from '../models/state.ts';
import { type FinishReason, generateTokens, type TokenOptions } from './engine.ts';
import { StopFilter } from './stop-filter.ts';

export interface GenerateOptions extends TokenOptions {
  /** Ends the text before any of these; they may span tokens. Needs a tokenizer. */
  stop?: string | readonly string[];
}

export interface GeneratedPart {
  /** Never half a character, never part of a stop string. All parts together are what the tokens decode to. */
  text: string;
  /** The ids behind the text; all of them when the model has no tokenizer. */
  tokens: number[];
  /**
   * After prompt and tokens of all parts so far. Valid until the next part is asked for or the loop is left: clone() it to keep it. The
   * state of the last part is the caller's, to dispose when done.
   */
  state: State;
  /** Set in the last part only. */
  finishReason: FinishReason | null;
}

/** Tokens whose text is not given out yet; `state` is the one after them. */
interface Pending {
  tokens: number[];
  /** Where their text starts in the whole output. */
  start: number;
  state: State;
}

/**
 * Streams a completion of `prompt`, text or ids. An empty prompt starts from the tokenizer's end-of-text id, or from a newline if
 * the tokens are bytes. The last part has a finishReason. A token that straddles the start of a stop string counts as given out if any
 * of its text was.
 *
 * Throws ConfigError for options out of range and for text without a tokenizer; see generateTokens() for the rest.
 */
export async function* generate(
  model: LanguageModel,
  prompt: string | readonly number[],
  options: GenerateOptions = {},
): AsyncGenerator<GeneratedPart, void, undefined> {
  const { stop = [], ...tokenOptions } = options;
  const stops = typeof stop === 'string' ? [stop] : stop;
  const ids = promptIds(model.tokenizer, prompt, options);
  if (stops.length > 0) requireTokenizer(model.tokenizer, 'for stop strings');
  const output = new PartBuffer(model.tokenizer, new StopFilter(stops));
  const steps = generateTokens(model, [ids], tokenOptions);
  try {
    for await (const { rows, state } of steps) {
      const part = output.push(rows[0]!.token, state, rows[0]!.finishReason);
      if (rows[0]!.finishReason) state.dispose(); // the engine's last state is ours
      if (part) yield part;
      if (part?.finishReason) return;
    }
  } finally {
    output.dispose();
  }
}

/** Collects tokens until their text is certain. Holds its own handles on states; they share memory with the engine's. */
class PartBuffer {
  readonly #decoder: ReturnType<Tokenizer['streamDecoder']> | null;
  readonly #filter: StopFilter;
  #pending: Pending[] = [];
  /** Tokens that have no text yet: bytes of an incomplete character. */
  #silent: number[] = [];
  #decoded = 0;
  #emitted = 0;
  /** After the last token given out. */
  #state: State | null = null;

  constructor(tokenizer: Tokenizer | null, filter: StopFilter) {
    this.#decoder = tokenizer?.streamDecoder() ?? null;
    this.#filter = filter;
  }

  /** The part that this step completes, or null. `token` null: the prompt was read, or the row ended without a token. */
  push(token: number | null, state: State, finishReason: FinishReason | null): GeneratedPart | null {
    this.#state ??= state.detach();
    if (token !== null) this.#silent.push(token);
    let decoded = token === null ? '' : (this.#decoder?.push(token) ?? '');
    if (finishReason) decoded += this.#decoder?.flush() ?? '';
    if (this.#silent.length > 0 && (decoded !== '' || finishReason || !this.#decoder)) {
      this.#pending.push({ tokens: this.#silent, start: this.#decoded, state: state.detach() });
      this.#silent = [];
    }
    this.#decoded += decoded.length;
    let { text, stopped } = this.#filter.push(decoded);
    if (finishReason && !stopped) text += this.#filter.flush();
    this.#emitted += text.length;
    const isLast = finishReason !== null || stopped;
    const tokens = this.#release(!this.#decoder || (isLast && !stopped));
    if (text === '' && !isLast && (this.#decoder || tokens.length === 0)) return null;
    const part = { text, tokens, state: this.#state, finishReason: stopped ? 'stop' : finishReason } as const;
    if (isLast) this.#state = null; // the caller's from now on
    return part;
  }

  /** Moves past the tokens whose text has begun to go out. */
  #release(isAll: boolean): number[] {
    const count = isAll
      ? this.#pending.length
      : this.#pending.findLastIndex(({ start }) => start < this.#emitted) + 1;
    const released = this.#pending.splice(0, count);
    for (const { state } of released) {
      this.#state!.dispose();
      this.#state = state;
    }
    return released.flatMap(({ tokens }) => tokens);
  }

  dispose(): void {
    for (const { state } of this.#pending) state.dispose();
    this.#pending = [];
    this.#state?.dispose();
  }
}

function promptIds(
  tokenizer: Tokenizer | null,
  prompt: string | readonly number[],
  options: GenerateOptions,
): readonly number[] {
  const ids = typeof prompt === 'string' ? requireTokenizer(tokenizer, 'for text').encode(prompt) : prompt;
  if (ids.length > 0) return ids;
  if (options.state) {
    throw new ConfigError(
      'generate: expected a prompt to continue a state with, got an empty one. Give at least one token.',
    );
  }
  const start = tokenizer?.eosId ?? (tokenizer?.kind === 'bytes' ? NEWLINE : null);
  if (start !== null) return [start];
  throw new ConfigError(
    'generate: expected a prompt, got an empty one, and the tokenizer has no end-of-text id to start from. Give a prompt.',
  );
}

/** What a byte model starts from: a text may begin after a line break. */
const NEWLINE = 10;

function requireTokenizer(tokenizer: Tokenizer | null, purpose: string): Tokenizer {
  if (tokenizer) return tokenizer;
  throw new ConfigError(
    `generate: expected a model with a tokenizer ${purpose}, got none. Pass token ids, or set model.tokenizer.`,
  );
}
