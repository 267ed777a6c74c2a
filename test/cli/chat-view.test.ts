/** What a chat puts on the screen. */
import { describe, expect, it } from 'vitest';
import { ChatView, harmless } from '../../src/cli/chat-view.ts';
import { FakeTerminal } from './chat-screen.ts';

describe('harmless', () => {
  it.each([
    ['plain text, tabs, line breaks', 'Grüße\t日本\n👍', 'Grüße\t日本\n👍'],
    ['an escape sequence', '\u001b]0;title\u0007\u001b[2J', '␛]0;title␇␛[2J'],
    ['a cursor moved by backspaces', 'abc\b\b\bxyz', 'abc␈␈␈xyz'],
    ['sequences of one byte', '\u009b2J\u0090q', '\ufffd2J\ufffdq'],
    ['line breaks of Windows, and overwriting', 'a\r\nb\rc', 'a\nbc'],
    ['NUL and DEL', '\u0000\u007f', '␀␡'],
  ])('%s', (_, text, expected) => {
    expect(harmless(text)).toBe(expected);
  });

  it('holds for every part of a sequence on its own', () => {
    const sequence = 'a\u001b[31mb\u001b]52;c;aGk=\u0007';
    expect([...sequence].map(harmless).join('')).toBe(harmless(sequence));
  });
});

describe('ChatView', () => {
  const turn = { tokens: 24, seconds: 1.25, tokensPerSecond: 19.2, readTokens: 310, finishReason: 'eos' };
  const open = (columns = 80, isStyled = false) => {
    const terminal = new FakeTerminal(columns);
    return { terminal, view: new ChatView(terminal.output, isStyled) };
  };

  it('says what it is', () => {
    const { terminal, view } = open();
    view.banner({ model: 'org/name\u001b[2J', template: 'zephyr', stateBytes: 26_214_400 });
    expect(terminal.screen).toBe('org/name␛[2J\ntemplate: zephyr · state 26.2 MB · /help');
  });

  it('colours only where it may', () => {
    const { terminal, view } = open(80, true);
    view.error('bad\u001b[0m');
    expect(terminal.written).toBe('\u001b[31mbad␛[0m\u001b[0m\n');
    const plain = open();
    plain.view.error('bad');
    expect(plain.terminal.written).toBe('bad\n');
  });

  it('ends an answer on a line of its own', () => {
    const { terminal, view } = open();
    view.wait();
    expect(terminal.screen).toBe('…');
    for (const text of ['', 'He', 'llo', '']) view.say(text);
    view.endAnswer();
    view.turn(turn, 73_728);
    expect(terminal.screen).toBe(
      'Hello\n19.2 tokens/s · 310 tokens read · state 73.7 kB · 24 tokens in 1.3 s',
    );
    const other = open();
    other.view.wait();
    other.view.endAnswer();
    other.view.wait();
    other.view.say('line\n');
    other.view.endAnswer();
    expect(other.terminal.screen).toBe('line');
  });

  it('tells why an answer was not finished', () => {
    const { terminal, view } = open();
    view.turn({ ...turn, finishReason: 'abort' }, 1);
    view.turn({ ...turn, finishReason: 'length' }, 1);
    expect(terminal.screen).toMatch(/^stopped · .*\n\ncut off · /);
  });

  it.each([8, 20, 30, 40, 60])('fits %i columns', (columns) => {
    const { terminal, view } = open(columns);
    view.turn(turn, 73_728);
    expect(terminal.screen.split('\n')).toHaveLength(columns < 13 ? 2 : 1);
    const rows = open(columns);
    rows.view.table([
      ['/a', 'does this'],
      ['/long NAME', 'does something else'],
    ]);
    const isWide = columns >= 40;
    expect(rows.terminal.screen.split('\n')[0]).toBe(isWide ? '  /a          does this' : '/a');
  });
});
