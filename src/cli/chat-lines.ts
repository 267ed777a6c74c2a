/**
 * Lines to messages: a line that ends in a backslash goes on in the next one, `"""` opens and
 * closes a block of lines as they are.
 */

const FENCE = '"""';

export class MessageLines {
  #lines: string[] = [];
  #isBlock = false;

  /** Whether a message has begun and needs more lines. */
  get isOpen(): boolean {
    return this.#isBlock || this.#lines.length > 0;
  }

  /**
   * The message that this line completes, or null. The line may hold line breaks: then it
   * was pasted, and opens no block.
   */
  push(line: string): string | null {
    if (!this.isOpen && line.startsWith(FENCE) && !line.includes('\n')) {
      this.#isBlock = true;
      line = line.slice(FENCE.length);
      if (line === '') return null;
    }
    if (this.#isBlock) {
      const end = line.trimEnd();
      if (!end.endsWith(FENCE)) return this.#more(line);
      const last = end.slice(0, -FENCE.length);
      return this.#complete(last === '' ? this.#lines : [...this.#lines, last]);
    }
    if (line.endsWith('\\')) return this.#more(line.slice(0, -1));
    return this.#complete([...this.#lines, line]);
  }

  /** Forgets what was begun. */
  clear(): void {
    this.#lines = [];
    this.#isBlock = false;
  }

  #more(line: string): null {
    this.#lines.push(line);
    return null;
  }

  #complete(lines: readonly string[]): string {
    this.clear();
    return lines.join('\n').replace(/\n+$/, '');
  }
}
