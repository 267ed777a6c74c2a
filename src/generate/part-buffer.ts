/**
 * From the tokens of one sequence to parts of text: tokens wait until their text is certain,
 * and the state waits with them.
 */
import type { Tokenizer } from '../base/tokenizer.ts';
import type { State } from '../models/state.ts';
import type { TokenLogprob } from './logprobs.ts';
import type { FinishReason, RowToken } from './sequence.ts';
import { StopFilter } from './stop-filter.ts';

/** A state of a whole batch that several sequences look at. */
export class SharedState {
  readonly state: State;
  readonly #isHeld: boolean;
  #holders = 1;

  /**
   * With `isHeld` it has its own handles on the memory of `state`, which are freed with the last sequence.
   */
  constructor(state: State, isHeld: boolean) {
    this.state = isHeld ? state.detach() : state;
    this.#isHeld = isHeld;
  }

  retain(): this {
    this.#holders++;
    return this;
  }

  release(): void {
    if (--this.#holders === 0 && this.#isHeld) this.state.dispose();
  }
}

/** A sequence's row of a state. */
export interface Place {
  shared: SharedState;
  index: number;
}

export interface TextPart {
  text: string;
  tokens: number[];
  logprobs: (TokenLogprob | null)[] | null;
  finishReason: FinishReason | null;
  /** After prompt and tokens of all parts so far. Until the next push() or dispose(). */
  place: Place;
}

type Entry = Pick<RowToken, 'token' | 'logprob'>;

/** Tokens whose text is not given out yet; `place` is the state after them. */
interface Pending {
  entries: Entry[];
  /** Where their text starts in the whole completion. */
  start: number;
  place: Place;
}

export class PartBuffer {
  readonly #decoder: ReturnType<Tokenizer['streamDecoder']> | null;
  readonly #filter: StopFilter;
  readonly #hasLogprobs: boolean;
  /**
   * Only a stop string takes back tokens whose state has passed: without any, the state
   * of a part is always the latest.
   */
  readonly #looksBack: boolean;
  #pending: Pending[] = [];
  /** Tokens that have no text yet: bytes of an incomplete character. */
  #silent: Entry[] = [];
  #decoded = 0;
  #emitted = 0;
  /** After the last token given out. */
  #place: Place | null = null;

  constructor(tokenizer: Tokenizer | null, stops: readonly string[], hasLogprobs: boolean) {
    this.#hasLogprobs = hasLogprobs;
    this.#decoder = tokenizer?.streamDecoder({ isContinuation: true }) ?? null;
    this.#filter = new StopFilter(stops);
    this.#looksBack = stops.length > 0;
  }

  /**
   * The part that this step completes, or null. A step without a token: the prompt was read, or the sequence
   * has ended. `echo` is the prompt, to be given out as it is before anything else.
   */
  push(step: RowToken, place: Place, echo: readonly Entry[] = []): TextPart | null {
    this.#place ??= hold(place);
    const shown = this.#echo(echo);
    const { token, finishReason } = step;
    if (token !== null) this.#silent.push(step);
    let decoded = token === null ? '' : (this.#decoder?.push(token) ?? '');
    if (finishReason) decoded += this.#decoder?.flush() ?? '';
    if (this.#silent.length > 0 && (decoded !== '' || finishReason || !this.#decoder)) {
      this.#pending.push({ entries: this.#silent, start: this.#decoded, place: hold(place) });
      this.#silent = [];
    }
    this.#decoded += decoded.length;
    const { text, stopped } = this.#filter.push(decoded);
    const rest = finishReason && !stopped ? this.#filter.flush() : '';
    this.#emitted += text.length + rest.length;
    const isLast = finishReason !== null || stopped;
    const entries = [...shown.entries, ...this.#release(!this.#decoder || (isLast && !stopped))];
    if (!this.#looksBack) this.#place = place;
    const all = shown.text + text + rest;
    if (all === '' && !isLast && (this.#decoder || entries.length === 0)) return null;
    return {
      text: all,
      tokens: entries.map((entry) => entry.token!),
      logprobs: this.#hasLogprobs ? entries.map(({ logprob }) => logprob) : null,
      finishReason: stopped ? 'stop' : finishReason,
      place: this.#place!,
    };
  }

  /** Stop strings do not apply to a prompt. A character it leaves incomplete goes out with the completion. */
  #echo(prompt: readonly Entry[]): { text: string; entries: Entry[] } {
    let text = '';
    const entries: Entry[] = [];
    for (const entry of prompt) {
      this.#silent.push(entry);
      const decoded = this.#decoder?.push(entry.token!) ?? '';
      if (decoded === '' && this.#decoder) continue;
      text += decoded;
      entries.push(...this.#silent.splice(0));
    }
    return { text, entries };
  }

  /** Moves past the tokens whose text has begun to go out. */
  #release(isAll: boolean): Entry[] {
    const count = isAll
      ? this.#pending.length
      : this.#pending.findLastIndex(({ start }) => start < this.#emitted) + 1;
    const released = this.#pending.splice(0, count);
    for (const { place } of released) {
      this.#place!.shared.release();
      this.#place = place;
    }
    return released.flatMap(({ entries }) => entries);
  }

  dispose(): void {
    for (const { place } of this.#pending) place.shared.release();
    this.#place?.shared.release();
    this.#pending = [];
    this.#place = null;
  }
}

function hold(place: Place): Place {
  return { shared: place.shared.retain(), index: place.index };
}
