/**
 * Messages from a terminal: node:readline for editing and history, fed by hand. While nobody reads, keys wait
 * (an answer is on the screen) and only Ctrl-C is heard. A line break inside of a line is shown as a sign, so
 * pasted and recalled texts can be edited.
 */
import { EventEmitter } from 'node:events';
import { createInterface, type Interface } from 'node:readline';
import { Readable, Writable } from 'node:stream';
import { type ChatHistory, MAX_ENTRIES } from './chat-history.ts';
import { CTRL_C, type InputPiece, InputSplitter, PASTE_OFF, PASTE_ON } from './chat-input.ts';
import { MessageLines } from './chat-lines.ts';
import type { CliIo } from './output.ts';

/** A line break while it is part of a line: a code point that no text may hold, one column wide. */
const BREAK = '\ufdd0';
const SHOWN_BREAK = '\u2424';

export interface ReaderOptions {
  history: ChatHistory;
  /** What the Tab key may make of the text of the line. */
  complete(line: string): string[];
  /** Shown, once, when Ctrl-C has cleared the line. */
  leaveHint: string;
}

export interface ReadOptions {
  prompt: string;
  /** In front of the further lines of one message. */
  morePrompt: string;
  /** Text to begin with. */
  initial?: string;
}

/** Process.stdin, or any stream that takes its place. */
export type TerminalInput = Readable & { setRawMode?(isRaw: boolean): unknown };

export class ChatReader {
  /** Called by a Ctrl-C that comes while nobody reads. */
  onInterrupt: () => void = () => {};
  readonly #input: TerminalInput;
  readonly #stdout: CliIo['stdout'];
  readonly #options: ReaderOptions;
  readonly #keys: KeySource;
  readonly #screen: Screen;
  readonly #readline: Interface;
  readonly #splitter = new InputSplitter();
  readonly #lines = new MessageLines();
  #pieces: InputPiece[] = [];
  #reading: { options: ReadOptions; resolve(message: string | null): void } | null = null;
  /** Readline's own list of what the arrow keys bring back. */
  #recalled: string[] = [];
  #isDelivering = false;
  #isClosed = false;
  /** Whether the last thing that happened was a Ctrl-C. */
  #isLeaving = false;

  constructor(input: TerminalInput, stdout: CliIo['stdout'], options: ReaderOptions) {
    this.#input = input;
    this.#stdout = stdout;
    this.#options = options;
    this.#keys = new KeySource(input);
    this.#screen = new Screen(stdout);
    this.#readline = createInterface({
      input: this.#keys,
      output: this.#screen,
      terminal: true,
      historySize: MAX_ENTRIES,
      history: this.#recallable(),
      completer: (line: string) => [options.complete(line), line],
    });
    // Readline remembers single lines: what it took in gives way to whole messages.
    this.#readline.on('history', (lines) => {
      this.#recalled = lines;
      this.#recall();
    });
    this.#readline.on('line', (line) => this.#take(line.replaceAll(BREAK, '\n')));
    this.#readline.on('SIGINT', () => this.#clearLine());
    this.#readline.on('SIGCONT', () => {
      stdout.write(PASTE_ON); // the shell that had the terminal has switched it off
      this.#readline.prompt(true);
    });
    this.#readline.on('close', () => this.#end());
    input.on('data', this.#receive);
    input.on('end', this.#end);
    input.on('error', this.#end);
    stdout.write(PASTE_ON);
  }

  /** The next message, or null when the user leaves. One at a time. */
  async read(options: ReadOptions): Promise<string | null> {
    if (this.#isClosed) return null;
    const message = new Promise<string | null>((resolve) => {
      this.#reading = { options, resolve };
    });
    this.#screen.isLive = true;
    this.#recall();
    this.#showPrompt();
    if (options.initial) this.#readline.write(oneLine(options.initial));
    void this.#deliver();
    return message;
  }

  /** Gives the terminal back. */
  close(): void {
    this.#end();
  }

  readonly #receive = (chunk: Uint8Array | string): void => {
    const pieces = this.#splitter.push(chunk);
    if (!this.#reading && pieces.some(({ kind, text }) => kind === 'keys' && text.includes(CTRL_C))) {
      this.#pieces = []; // as in a shell, an interrupt takes back what was typed ahead
      this.onInterrupt();
      return;
    }
    this.#pieces.push(...pieces);
    void this.#deliver();
  };

  /** Hands pieces to readline for as long as a message is wanted. */
  async #deliver(): Promise<void> {
    if (this.#isDelivering) return;
    this.#isDelivering = true;
    while (this.#reading && this.#pieces.length > 0) {
      const { kind, text } = this.#pieces.shift()!;
      if (text !== CTRL_C) this.#isLeaving = false;
      if (kind === 'keys') this.#keys.push(text);
      else this.#readline.write(oneLine(text));
      await new Promise((resolve) => setImmediate(resolve)); // readline may hear of keys a little later
    }
    this.#isDelivering = false;
  }

  #take(line: string): void {
    if (!this.#reading) return;
    const message = this.#lines.push(line);
    if (message === null) {
      this.#showPrompt();
      return;
    }
    this.#options.history.add(message);
    this.#finish(message);
  }

  #showPrompt(): void {
    if (!this.#reading) return;
    const { prompt, morePrompt } = this.#reading.options;
    this.#readline.setPrompt(this.#lines.isOpen ? morePrompt : prompt);
    this.#readline.prompt();
  }

  #clearLine(): void {
    if (this.#isLeaving) {
      this.#end();
      return;
    }
    this.#isLeaving = true;
    this.#lines.clear();
    for (const name of ['e', 'u']) this.#readline.write(null, { ctrl: true, name }); // to the end, delete to the start
    this.#stdout.write(`\r\u001b[K${this.#options.leaveHint}\n`);
    this.#showPrompt();
  }

  #finish(message: string | null): void {
    this.#screen.isLive = false;
    this.#reading?.resolve(message);
    this.#reading = null;
  }

  readonly #end = (): void => {
    if (this.#isClosed) return;
    this.#isClosed = true;
    this.#input.off('data', this.#receive);
    this.#input.pause(); // a process does not end while it reads
    this.#readline.close();
    this.#stdout.write(this.#reading ? `\n${PASTE_OFF}` : PASTE_OFF);
    this.#screen.dispose();
    this.#finish(null);
  };

  #recall(): void {
    this.#recalled.splice(0, this.#recalled.length, ...this.#recallable());
  }

  #recallable(): string[] {
    return this.#options.history.entries.map(oneLine);
  }
}

/** With no line break that readline would take for Enter. */
function oneLine(text: string): string {
  return text.replace(/\r\n?|[\n\u2028\u2029]/g, BREAK);
}

/** The keys of the input that readline is to see, and the way to its terminal's mode. */
class KeySource extends Readable {
  readonly #input: TerminalInput;

  constructor(input: TerminalInput) {
    super({ encoding: 'utf8', read() {} });
    this.#input = input;
  }

  setRawMode(isRaw: boolean): void {
    this.#input.setRawMode?.(isRaw);
  }
}

/** Readline's view of the screen: it draws only while a message is being read. */
class Screen extends Writable {
  isLive = false;
  readonly #stdout: CliIo['stdout'];
  readonly #resize = (): void => void (this.isLive && this.emit('resize'));

  constructor(stdout: CliIo['stdout']) {
    super({
      decodeStrings: false,
      write(text: string, _encoding, done) {
        stdout.write(text.replaceAll(BREAK, SHOWN_BREAK));
        done();
      },
    });
    this.#stdout = stdout;
    if (stdout instanceof EventEmitter) stdout.on('resize', this.#resize);
  }

  get columns(): number {
    return this.#stdout.columns || 80;
  }

  dispose(): void {
    if (this.#stdout instanceof EventEmitter) this.#stdout.off('resize', this.#resize);
  }
}
