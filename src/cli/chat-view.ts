/**
 * What a chat shows on a terminal. Text that comes from a model, a file or the user goes through
 * `harmless`, so that none of it can drive the terminal. Styles only where they are wanted;
 * lines of our own fit the window.
 */
import { type ChatSession, formatBytes } from '../index.node.ts';
import type { CliIo } from './output.ts';

/** Of one answer. */
export interface Turn {
  tokens: number;
  /** From the question to the end, reading included. */
  seconds: number;
  tokensPerSecond: number;
  /** Tokens the model had to read before it answered. */
  readTokens: number;
  finishReason: string;
}

export interface Banner {
  model: string;
  template: string;
  stateBytes: number;
}

const STYLES = { dim: '2', bold: '1', red: '31', cyan: '36' } as const;

export class ChatView {
  readonly #stdout: CliIo['stdout'];
  readonly #isStyled: boolean;
  /** Whether the cursor stands behind text of an answer, and whether behind the sign that one is awaited. */
  #isInLine = false;
  #isWaiting = false;

  constructor(stdout: CliIo['stdout'], isStyled: boolean) {
    this.#stdout = stdout;
    this.#isStyled = isStyled;
  }

  get #columns(): number {
    return this.#stdout.columns || 80;
  }

  style(name: keyof typeof STYLES, text: string): string {
    return this.#isStyled ? `\u001b[${STYLES[name]}m${text}\u001b[0m` : text;
  }

  banner({ model, template, stateBytes }: Banner): void {
    const facts = [`template: ${harmless(template)}`, `state ${formatBytes(stateBytes)}`, '/help'];
    this.#line(`${this.style('bold', harmless(model))}\n${this.style('dim', facts.join(' · '))}`);
  }

  /** Lines of information. */
  note(text: string): void {
    this.#line(this.style('dim', harmless(text)));
  }

  error(text: string): void {
    this.#line(this.style('red', harmless(text)));
  }

  /** Where a conversation from a file stands: its size and its last two messages. */
  resume(path: string, { messages, stats }: Pick<ChatSession, 'messages' | 'stats'>): void {
    this.note(`${path}: ${count(messages.length, 'message')}, ${count(stats.tokens, 'token')}`);
    const questions = messages.filter(({ role }) => role === 'user').length;
    for (const { role, content } of messages.slice(-2)) {
      if (role === 'user') this.note(`${questions}> ${content}`);
      else if (role === 'assistant') this.note(`${content}\n`);
    }
  }

  /** Rows of two columns; below each other where the window is too narrow for that. */
  table(rows: readonly (readonly [string, string])[]): void {
    const first = Math.max(...rows.map(([left]) => left.length)) + 4;
    const second = Math.max(...rows.map(([, right]) => right.length));
    const isWide = first + second < this.#columns;
    const show = ([left, right]: readonly [string, string]): string =>
      isWide ? `  ${left.padEnd(first - 2)}${right}` : `${left}\n  ${right}`;
    this.#line(harmless(rows.map(show).join('\n')));
  }

  /** A sign that the model is at work, until it says something. */
  wait(): void {
    this.#stdout.write(this.style('dim', '…'));
    this.#isWaiting = true;
  }

  /** A piece of an answer. */
  say(text: string): void {
    if (text === '') return;
    this.#stopWaiting();
    const shown = harmless(text);
    this.#stdout.write(shown);
    if (shown !== '') this.#isInLine = !shown.endsWith('\n');
  }

  /** The end of an answer, whatever ended it. */
  endAnswer(): void {
    this.#stopWaiting();
    if (this.#isInLine) this.#stdout.write('\n');
    this.#isInLine = false;
  }

  /** The line below an answer; as much of it as the window is wide. */
  turn({ tokens, seconds, tokensPerSecond, readTokens, finishReason }: Turn, stateBytes: number): void {
    const facts = [
      `${tokensPerSecond.toFixed(1)} tokens/s`,
      `${count(readTokens, 'token')} read`,
      `state ${formatBytes(stateBytes)}`,
      `${count(tokens, 'token')} in ${seconds.toFixed(1)} s`,
    ];
    const reason = REASONS[finishReason];
    if (reason) facts.unshift(reason);
    let line = '';
    for (const fact of facts) {
      const longer = line === '' ? fact : `${line} · ${fact}`;
      if (line === '' || longer.length < this.#columns) line = longer;
    }
    this.note(`${line}\n`);
  }

  #stopWaiting(): void {
    if (this.#isWaiting) this.#stdout.write('\r\u001b[K');
    this.#isWaiting = false;
  }

  #line(text: string): void {
    this.#stdout.write(`${text}\n`);
  }
}

/** What deserves a word: an answer that ended by itself does not. */
const REASONS: Record<string, string> = {
  abort: 'stopped',
  length: 'cut off',
};

/**
 * Text that can only be read: line breaks and tabs stay, the other control characters (with ESC, the
 * beginning of every command to a terminal) become the signs that Unicode has for them, or U+FFFD. A carriage
 * return is dropped: most stand before a line break.
 */
export function harmless(text: string): string {
  return text.replace(/\r/g, '').replace(/[^\P{Cc}\n\t]/gu, (character) => {
    const code = character.charCodeAt(0);
    if (code < 0x20) return String.fromCharCode(0x2400 + code);
    return code === 0x7f ? '\u2421' : '\ufffd';
  });
}

export function count(amount: number, what: string): string {
  return `${amount} ${what}${amount === 1 ? '' : 's'}`;
}
