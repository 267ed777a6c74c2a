/** A terminal for tests: keys go in, and what a person would see can be read. Knows the few sequences that readline and the chat use. */
import { PassThrough } from 'node:stream';

const ESC = '\u001b';
const SEQUENCES = new RegExp(`${ESC}\\[(\\?2004[hl]|(\\d*)([A-DGJKm]))|[\\s\\S]`, 'gu');

export class FakeTerminal {
  /** In place of process.stdin. */
  readonly input = Object.assign(new PassThrough(), {
    isTTY: true,
    setRawMode: (isRaw: boolean) => void (this.isRaw = isRaw),
  });
  /** In place of process.stdout. */
  readonly output: { isTTY: boolean; columns: number; write(text: string): void };
  isRaw = false;
  /** Everything that was written, sequences included. */
  written = '';
  readonly #columns: number;
  #rows: string[][] = [[]];
  #row = 0;
  #column = 0;

  constructor(columns = 80) {
    this.#columns = columns;
    this.output = { isTTY: true, columns, write: (text) => this.#write(text) };
  }

  /** The rows of the screen from its first one, without space at their ends and without empty rows at the bottom. */
  get screen(): string {
    return this.#rows
      .map((row) =>
        Array.from(row, (cell) => cell ?? ' ')
          .join('')
          .trimEnd(),
      )
      .join('\n')
      .trimEnd();
  }

  /** Presses keys and waits until `expected` is on the screen, or the condition holds. */
  async type(keys: string, expected?: string | (() => boolean)): Promise<void> {
    this.input.write(keys);
    if (expected !== undefined) await this.shows(expected);
  }

  /** Resolves when it is so; the test's own time limit is the only one. */
  async shows(expected: string | (() => boolean)): Promise<void> {
    const holds = typeof expected === 'string' ? () => this.screen.includes(expected) : expected;
    while (!holds()) await new Promise((resolve) => setTimeout(resolve, 1));
  }

  #write(text: string): void {
    this.written += text;
    for (const [all, sequence, amount, command] of text.matchAll(SEQUENCES)) {
      if (command) this.#control(command, amount === '' ? null : Number(amount));
      else if (!sequence) this.#put(all);
    }
  }

  #control(command: string, amount: number | null): void {
    const count = amount ?? 1;
    if (command === 'A') this.#row = Math.max(0, this.#row - count);
    if (command === 'B') this.#row += count;
    if (command === 'C') this.#column = Math.min(this.#columns - 1, this.#column + count);
    if (command === 'D') this.#column = Math.max(0, this.#column - count);
    if (command === 'G') this.#column = count - 1;
    if (command === 'K' || command === 'J')
      this.#current.length = Math.min(this.#current.length, this.#column);
    if (command === 'J') this.#rows.length = Math.min(this.#rows.length, this.#row + 1);
  }

  #put(character: string): void {
    if (character === '\r') this.#column = 0;
    else if (character === '\t') this.#column += 8 - (this.#column % 8);
    else if (character === '\n') {
      this.#row++; // a terminal's driver makes the carriage return of it
      this.#column = 0;
    } else {
      if (/\p{Cc}/u.test(character)) throw new Error(`control character ${JSON.stringify(character)}`);
      if (this.#column >= this.#columns) {
        this.#row++;
        this.#column = 0;
      }
      this.#current[this.#column++] = character;
    }
  }

  get #current(): string[] {
    while (this.#rows.length <= this.#row) this.#rows.push([]);
    return this.#rows[this.#row]!;
  }
}
