/**
 * What a conversation has read, and the states along the way. All snapshots lie on one text: each is the
 * state after the beginning of it. For another text that begins in the same way, reading goes on from the
 * last snapshot within the common part.
 */
import { commonLength } from '../base/text.ts';
import type { State } from '../models/state.ts';

export interface Snapshot {
  /** Characters of the text behind this snapshot. */
  readonly end: number;
  /** Of one row; owned by the memory. */
  readonly state: State;
  /** Ids that belong to the text but are not in the state: feeding them gives the logits to go on with. */
  readonly pending: readonly number[];
}

export class ChatMemory {
  readonly limit: number;
  #text = '';
  #ids: readonly number[] = [];
  #snapshots: Snapshot[] = [];

  constructor(limit: number) {
    this.limit = limit;
  }

  /** The text of the last snapshot. */
  get text(): string {
    return this.#text;
  }

  /** The tokens of the text. */
  get ids(): readonly number[] {
    return this.#ids;
  }

  /** In the order of the text. */
  get snapshots(): readonly Snapshot[] {
    return this.#snapshots;
  }

  /** The last snapshot from which reading `text` can go on; null: from the start. */
  nearest(text: string): Snapshot | null {
    const common = commonLength(this.#text, text);
    const fits = ({ end, pending }: Snapshot) => end <= common && (end < text.length || pending.length > 0);
    return this.#snapshots.findLast(fits) ?? null;
  }

  /** Forgets what was read after `snapshot`. */
  cut(snapshot: Snapshot | null): void {
    const dropped = this.#snapshots.splice(snapshot ? this.#snapshots.indexOf(snapshot) + 1 : 0);
    for (const { state } of dropped) state.dispose();
    this.#text = this.#text.slice(0, snapshot?.end ?? 0);
    this.#ids = this.#ids.slice(0, snapshot ? snapshot.state.tokens[0]! + snapshot.pending.length : 0);
  }

  /**
   * The state after `text` and `ids`, which begin with those so far, but for the last
   * `pending` ids. Takes the state over.
   */
  add(text: string, ids: readonly number[], state: State, pending: number): void {
    this.#text = text;
    this.#ids = ids;
    this.#snapshots.push({ end: text.length, state, pending: ids.slice(ids.length - pending) });
    while (this.#snapshots.length > this.limit) {
      const at = leastUseful(this.#snapshots.map(({ state }) => state.tokens[0]!));
      this.#snapshots.splice(at, 1)[0]!.state.dispose();
    }
  }
}

/**
 * Which of these positions to give up: the one that leaves the smallest gap, measured against the distance
 * from its start to the end. So they stay dense near the end, where people edit, and become sparse far back.
 * Never the last, and the one before it only if there is no other.
 */
export function leastUseful(positions: readonly number[]): number {
  const end = positions.at(-1)!;
  let least = Number.POSITIVE_INFINITY;
  let at = 0;
  for (let i = 0; i < positions.length - 1; i++) {
    const start = i === 0 ? 0 : positions[i - 1]!;
    const gap = (positions[i + 1]! - start) / (end - start || 1);
    if (gap < least) [least, at] = [gap, i];
  }
  return at;
}
