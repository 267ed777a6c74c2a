/**
 * Reading prompts: in pieces, a bounded number of tokens per pass, so that memory grows neither with the
 * length nor with the number of prompts. A row is cut at the same places whatever it is batched with; short
 * pieces share a pass with others about as long.
 */

import { turn } from '../base/turn.ts';
import type { LanguageModel } from '../models/language-model.ts';
import type { State } from '../models/state.ts';
import { reshape, slice } from '../tensor/primitives.ts';
import { scope } from '../tensor/scope.ts';
import { noGrad } from '../tensor/tape.ts';
import type { Tensor } from '../tensor/tensor.ts';
import { type TokenLogprob, tokenLogprob } from './logprobs.ts';
import type { TokenSettings } from './token-options.ts';

/** The state in use; replacing it frees the one before, unless that was lent. */
export class Held {
  state: State;
  #isLent = false;

  constructor(state: State) {
    this.state = state;
  }

  replace(next: State, isLent = false): void {
    if (next !== this.state && !this.#isLent) this.state.dispose();
    this.state = next;
    this.#isLent = isLent;
  }

  /** A state that does not end with its lender. */
  own(): State {
    if (this.#isLent) this.replace(this.state.detach());
    return this.state;
  }

  dispose(): void {
    if (!this.#isLent) this.state.dispose();
  }

  /** Runs the model on some rows, puts their new state in place, and gives what else came out. */
  advance<T extends { state: State; isLent?: boolean }>(
    rows: readonly number[],
    run: (state: State) => T,
  ): T {
    if (rows.length === this.state.batch && rows.every((row, i) => row === i)) {
      const out = run(this.state);
      this.replace(out.state, out.isLent);
      return out;
    }
    const before = this.state.rows(rows);
    try {
      const out = run(before);
      this.replace(this.state.withRows(rows, out.state));
      if (!out.isLent) out.state.dispose();
      return out;
    } finally {
      before.dispose();
    }
  }
}

/** What one forward pass reads. */
export interface Pass {
  /** Indices of the prompts. */
  rows: number[];
  /** The piece of each. */
  ids: readonly number[][];
  /** Where in their prompts the pieces begin. */
  at: number;
  /** Positions in `rows` of the prompts that end here. */
  ending: number[];
}

/** Pieces of at most `limit` tokens, as many side by side as fit with the padding between them. */
export function* passesOf(prompts: readonly (readonly number[])[], limit: number): Generator<Pass> {
  const longest = prompts.reduce((most, { length }) => Math.max(most, length), 0);
  for (let at = 0; at < longest; at += limit) {
    const pieceOf = (row: number) => Math.min(prompts[row]!.length - at, limit);
    const left = prompts.flatMap(({ length }, row) => (length > at ? [row] : []));
    left.sort((a, b) => pieceOf(b) - pieceOf(a) || a - b);
    while (left.length > 0) {
      const rows = left.splice(0, Math.floor(limit / pieceOf(left[0]!))).sort((a, b) => a - b);
      yield {
        rows,
        ids: rows.map((row) => prompts[row]!.slice(at, at + limit)),
        at,
        ending: indicesOf(rows, (row) => prompts[row]!.length <= at + limit),
      };
    }
  }
}

export interface PromptsRead {
  /** The logits after the last token of each prompt; null when the signal came first. */
  logits: Float32Array[] | null;
  /** With echo: per prompt an entry per token, null for the first, which nothing predicts. */
  promptLogprobs: (TokenLogprob | null)[][] | null;
}

/** Reads the prompts into the held state, row by row of the same index. */
export async function readPrompts(
  model: LanguageModel,
  prompts: readonly (readonly number[])[],
  held: Held,
  settings: TokenSettings,
  signal: AbortSignal | undefined,
): Promise<PromptsRead> {
  const { logprobs, echo, vocabSize, prefillTokens } = settings;
  const last: Float32Array[] = [];
  const listed = echo && logprobs !== null ? prompts.map((): (TokenLogprob | null)[] => [null]) : null;
  for (const pass of passesOf(prompts, prefillTokens)) {
    await turn();
    if (signal?.aborted) return { logits: null, promptLogprobs: listed };
    const { rows, ids, at, ending } = pass;
    const { hidden } = held.advance(rows, (state) =>
      noGrad(() => model.encode(ids, { state, lastOnly: !listed })),
    );
    try {
      if (listed) {
        for await (const { i, t, logits } of eachPosition(model, hidden, ids)) {
          const row = rows[i]!;
          const next = prompts[row]![at + t + 1];
          if (next === undefined) last[row] = logits.slice();
          else listed[row]!.push(tokenLogprob(logits, vocabSize, next, logprobs!));
        }
      } else if (ending.length > 0) {
        const host = await headOf(model, hidden, 0, rows.length);
        for (const i of ending) last[rows[i]!] = host[i]!;
      }
    } finally {
      hidden.dispose();
    }
  }
  return { logits: last, promptLogprobs: listed };
}

/** Logits on the host at a time, in floats: 16 MiB. */
const HEAD_FLOATS = 2 ** 22;

/** The logits at each token of each row, a bounded number of them at a time. */
async function* eachPosition(
  model: LanguageModel,
  hidden: Tensor,
  ids: readonly (readonly number[])[],
): AsyncGenerator<{ i: number; t: number; logits: Float32Array }> {
  const [b, l] = hidden.dims(3);
  const count = Math.max(1, Math.floor(HEAD_FLOATS / model.config.vocab_size));
  for (let from = 0; from < b * l; from += count) {
    await turn();
    const to = Math.min(from + count, b * l);
    const host = await headOf(model, hidden, from, to);
    for (let at = from; at < to; at++) {
      const i = Math.floor(at / l);
      const t = at % l;
      if (t < ids[i]!.length) yield { i, t, logits: host[at - from]! };
    }
  }
}

/** Logits of the positions [from, to) of hidden (b, l, d), counted row by row. */
async function headOf(
  model: LanguageModel,
  hidden: Tensor,
  from: number,
  to: number,
): Promise<Float32Array[]> {
  const [b, l, d] = hidden.dims(3);
  const logits = scope(() => noGrad(() => model.head(slice(reshape(hidden, [b * l, d]), 0, from, to))));
  const rows = splitRows(await logits.floats(), to - from);
  logits.dispose();
  return rows;
}

export function splitRows(data: Float32Array, count: number): Float32Array[] {
  const size = data.length / count;
  return Array.from({ length: count }, (_, i) => data.subarray(i * size, (i + 1) * size));
}

export function indicesOf<T>(items: readonly T[], test: (item: T, index: number) => boolean): number[] {
  return items.flatMap((item, i) => (test(item, i) ? [i] : []));
}
