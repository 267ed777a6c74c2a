/** Finds stop strings in text that arrives in pieces, holding back what may be the beginning of one. */
import { ConfigError } from '../base/errors.ts';

export class StopFilter {
  readonly #stops: readonly string[];
  #held = '';

  constructor(stops: readonly string[]) {
    if (stops.some((stop) => typeof stop !== 'string' || stop === '')) {
      throw new ConfigError('generate: expected stop strings of at least one character, got an empty one.');
    }
    this.#stops = stops;
  }

  /**
   * The text that is certain, and whether a stop string was completed: then the text before it is all there
   * is. Of several the one that ends first counts, so the result does not depend on how the text was cut.
   */
  push(text: string): { text: string; stopped: boolean } {
    const held = this.#held + text;
    let end = Number.POSITIVE_INFINITY;
    let start = 0;
    for (const stop of this.#stops) {
      const at = held.indexOf(stop);
      if (at < 0 || at + stop.length > end) continue;
      if (at + stop.length < end || at < start) start = at;
      end = at + stop.length;
    }
    if (end < Number.POSITIVE_INFINITY) {
      this.#held = '';
      return { text: held.slice(0, start), stopped: true };
    }
    const keep = this.#stops.reduce((most, stop) => Math.max(most, overlap(held, stop)), 0);
    this.#held = held.slice(held.length - keep);
    return { text: held.slice(0, held.length - keep), stopped: false };
  }

  /** What was held back in vain. */
  flush(): string {
    const text = this.#held;
    this.#held = '';
    return text;
  }
}

/** The length of the longest end of `text` that begins `stop`. */
function overlap(text: string, stop: string): number {
  for (let length = Math.min(text.length, stop.length - 1); length > 0; length--) {
    if (text.endsWith(stop.slice(0, length))) return length;
  }
  return 0;
}
