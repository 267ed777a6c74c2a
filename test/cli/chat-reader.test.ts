/** The line editor of a chat: messages of one and several lines, pastes, history, and keys that come too early. */
import { describe, expect, it } from 'vitest';
import { ChatHistory } from '../../src/cli/chat-history.ts';
import { ChatReader } from '../../src/cli/chat-reader.ts';
import { FakeTerminal } from './chat-screen.ts';

const PROMPT = { prompt: '1> ', morePrompt: '.. ' };
const UP = '\u001b[A';
const CTRL_C = '\u0003';
const CTRL_D = '\u0004';
const pasted = (text: string) => `\u001b[200~${text}\u001b[201~`;

function open(columns = 80, history = new ChatHistory(null)) {
  const terminal = new FakeTerminal(columns);
  const complete = (line: string) => ['/retry', '/reset'].filter((name) => name.startsWith(line));
  const reader = new ChatReader(terminal.input, terminal.output, {
    history,
    complete,
    leaveHint: '(leave?)',
  });
  return { terminal, reader, history, read: () => reader.read(PROMPT) };
}

describe('ChatReader', () => {
  it('reads lines in raw mode and gives the terminal back', async () => {
    const { terminal, reader, read } = open();
    const first = read();
    expect(terminal.isRaw).toBe(true);
    expect(terminal.written).toContain('\u001b[?2004h');
    await terminal.type('héllo\r');
    expect(await first).toBe('héllo');
    reader.close();
    expect(terminal.isRaw).toBe(false);
    expect(terminal.written.endsWith('\u001b[?2004l')).toBe(true);
    expect(terminal.input.isPaused()).toBe(true);
    expect(await read()).toBeNull();
  });

  it('reads messages of several lines', async () => {
    const { terminal, read } = open();
    const first = read();
    await terminal.type('a\\\rb\r');
    expect(await first).toBe('a\nb');
    const second = read();
    await terminal.type('"""\rc\r\rd\r"""\r');
    expect(await second).toBe('c\n\nd');
    expect(terminal.screen.split('\n')).toEqual(['1> a\\', '.. b', '1> """', '.. c', '..', '.. d', '.. """']);
  });

  it('shows a paste as one line that can be edited, and keeps its line breaks', async () => {
    const { terminal, read } = open();
    const message = read();
    await terminal.type(`x${pasted('one\r\n\ttwo\nthree')}!`, 'three!');
    expect(terminal.screen.startsWith('1> xone\u2424')).toBe(true);
    await terminal.type('\u007f\u007f\r');
    expect(await message).toBe('xone\n\ttwo\nthre');
  });

  it('takes a large paste at once', async () => {
    const { terminal, read } = open();
    const text = 'all work and no play\n'.repeat(20_000);
    const message = read();
    await terminal.type(`${pasted(text)}\r`);
    expect(await message).toBe(text.trimEnd());
  });

  it('recalls whole messages, of earlier runs too', async () => {
    const history = new ChatHistory(null);
    history.add('old\nmessage');
    const { terminal, read } = open(80, history);
    const first = read();
    await terminal.type(`${UP}\r`);
    expect(await first).toBe('old\nmessage');
    const second = read();
    await terminal.type('"""\ra\rb"""\r');
    await second;
    const third = read();
    await terminal.type(`${UP}\r`);
    expect(await third).toBe('a\nb');
    const fourth = read();
    await terminal.type(`${UP}${UP}\r`);
    expect(await fourth).toBe('old\nmessage');
    expect(history.entries).toEqual(['old\nmessage', 'a\nb', 'old\nmessage']);
  });

  it('begins with a text that is to be changed', async () => {
    const { terminal, reader } = open();
    const message = reader.read({ ...PROMPT, initial: 'one\ntwo' });
    await terminal.shows('1> one\u2424two');
    await terminal.type(' more\r');
    expect(await message).toBe('one\ntwo more');
  });

  it('completes commands', async () => {
    const { terminal, read } = open();
    const message = read();
    await terminal.type('/ret');
    await terminal.type('\t', '/retry');
    await terminal.type('\r');
    expect(await message).toBe('/retry');
  });

  it('Ctrl-C clears what was typed, twice leaves', async () => {
    const { terminal, read } = open();
    const message = read();
    await terminal.type('"""\rlost\r');
    await terminal.type('half', '.. half');
    await terminal.type(CTRL_C, '(leave?)');
    await terminal.type('new\r');
    expect(await message).toBe('new');
    expect(terminal.screen).toBe('1> """\n.. lost\n(leave?)\n1> new');

    const second = read();
    await terminal.type(CTRL_C, () => terminal.screen.split('(leave?)').length === 3);
    await terminal.type('x');
    await terminal.type(CTRL_C, () => terminal.screen.split('(leave?)').length === 4);
    await terminal.type(CTRL_C);
    expect(await second).toBeNull();
    expect(terminal.isRaw).toBe(false);
  });

  it.each([
    ['Ctrl-D', (terminal: FakeTerminal) => terminal.type(CTRL_D)],
    ['the end of the input', async (terminal: FakeTerminal) => void terminal.input.end()],
  ])('%s leaves', async (_, leave) => {
    const { terminal, read } = open();
    const message = read();
    await leave(terminal);
    expect(await message).toBeNull();
    expect(terminal.isRaw).toBe(false);
  });

  it('keeps what is typed while nobody reads, line by line, and shows it when it is read', async () => {
    const { terminal, reader, read } = open();
    let interrupts = 0;
    reader.onInterrupt = () => interrupts++;
    await terminal.type('one\rtwo\r"""');
    await new Promise((resolve) => setImmediate(resolve));
    expect(terminal.screen).toBe('');
    expect(await read()).toBe('one');
    expect(terminal.screen).toBe('1> one');
    expect(await read()).toBe('two');
    await terminal.type('gone', () => terminal.input.readableLength === 0);
    await terminal.type(CTRL_C, () => interrupts === 1);
    const last = read();
    await terminal.type('new\r');
    expect(await last).toBe('new');
    expect(terminal.screen).toBe('1> one\n1> two\n1> new');
  });

  it('draws right in a narrow window', async () => {
    const { terminal, read } = open(10);
    const message = read();
    await terminal.type(`${pasted('abcdefghij klmnop')}`, 'p');
    await terminal.type('\u0001X', 'Xabc'); // Ctrl-A: to the front
    expect(terminal.screen).toBe('1> Xabcdef\nghij klmno\np');
    await terminal.type('\u0005Y\r'); // Ctrl-E: to the end
    expect(await message).toBe('Xabcdefghij klmnopY');
    const second = read();
    await terminal.type('z\r');
    await second;
    expect(terminal.screen).toBe('1> Xabcdef\nghij klmno\npY\n1> z');
  });
});
