/**
 * What a terminal sends, taken apart: keys, and texts pasted in one piece ("bracketed paste" of
 * xterm: ESC [200~ text ESC [201~).
 */

export const PASTE_ON = '\u001b[?2004h';
export const PASTE_OFF = '\u001b[?2004l';
export const CTRL_C = '\u0003';

const START = '\u001b[200~';
const END = '\u001b[201~';

/** Keys end behind Enter at the latest, so that what was typed ahead can be handed out line by line. */
export interface InputPiece {
  kind: 'keys' | 'paste';
  text: string;
}

export class InputSplitter {
  readonly #decoder = new TextDecoder();
  /** The beginning of a marker that the next chunk may complete. */
  #held = '';
  /** What was pasted so far; null outside of a paste. */
  #pasted: string | null = null;

  push(chunk: Uint8Array | string): InputPiece[] {
    const text = typeof chunk === 'string' ? chunk : this.#decoder.decode(chunk, { stream: true });
    const pieces: InputPiece[] = [];
    // A Ctrl-C by itself was pressed: a paste whose end never came must not swallow it.
    if (text === CTRL_C && this.#pasted !== null) {
      this.#held = '';
      this.#pasted = null;
    }
    let rest = this.#held + text;
    this.#held = '';
    while (rest !== '') {
      const marker = this.#pasted === null ? START : END;
      const at = rest.indexOf(marker);
      // A lone ESC or ESC [ is a key in its own right, so outside of a paste these are not held back.
      const held = at >= 0 ? 0 : overlap(rest, marker, this.#pasted === null ? 3 : 1);
      const before = rest.slice(0, at >= 0 ? at : rest.length - held);
      this.#held = at >= 0 ? '' : rest.slice(rest.length - held);
      rest = at >= 0 ? rest.slice(at + marker.length) : '';
      if (this.#pasted === null) {
        for (const [keys] of before.matchAll(/[^\r\n]*(?:\r\n|[\r\n])|[^\r\n]+/g)) {
          pieces.push({ kind: 'keys', text: keys });
        }
        if (at >= 0) this.#pasted = '';
      } else {
        this.#pasted += before;
        if (at < 0) continue;
        pieces.push({ kind: 'paste', text: plainText(this.#pasted) });
        this.#pasted = null;
      }
    }
    return pieces;
  }
}

/** The length, at least `least`, of the longest end of `text` that begins `marker`; else 0. */
function overlap(text: string, marker: string, least: number): number {
  for (let length = Math.min(text.length, marker.length - 1); length >= least; length--) {
    if (text.endsWith(marker.slice(0, length))) return length;
  }
  return 0;
}

/** Line breaks as \n, and no control characters but these and tabs: pasted text presses no keys. */
function plainText(pasted: string): string {
  return pasted.replace(/\r\n?/g, '\n').replace(/[^\P{Cc}\n\t]/gu, '');
}
