/** A chat on a terminal, seen as its user sees it, with answers that the test decides. */
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { ChatDesk } from '../../src/cli/chat-desk.ts';
import { ChatHistory } from '../../src/cli/chat-history.ts';
import { chatOnTerminal } from '../../src/cli/chat-terminal.ts';
import { ChatView } from '../../src/cli/chat-view.ts';
import { type Answer, FakeConversation, openFake } from './chat-fake.ts';
import { FakeTerminal } from './chat-screen.ts';

const folder = mkdtempSync(join(tmpdir(), 'mamba-ts-chat-'));
const at = (name: string) => join(folder, name);
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const CTRL_C = '\u0003';
const CTRL_D = '\u0004';
/** The line below an answer. */
const STATS = /^(stopped · )?[\d.]+ tokens\/s · 7 tokens read · state 4.3 kB · \d+ tokens? in [\d.]+ s$/gm;

/** Says the question back, with the number of the answer. */
function echo(): Answer {
  let count = 0;
  return async function* (messages) {
    yield `(${++count}) `;
    yield messages.at(-1)!.content;
  };
}

function open({ answer = echo(), path = null as string | null, columns = 200 } = {}) {
  const terminal = new FakeTerminal(columns);
  const desk = new ChatDesk({
    session: new FakeConversation(answer),
    open: (bytes) => openFake(bytes, answer),
    path,
    options: {},
  });
  const kill = new AbortController();
  const done = chatOnTerminal(terminal.input, terminal.output, {
    desk,
    view: new ChatView(terminal.output, false),
    history: new ChatHistory(null),
    signal: kill.signal,
  });
  /** Sends a line and waits for the next prompt, which may be the same as before. */
  const say = async (line: string, prompt: string): Promise<string> => {
    const from = terminal.screen.length;
    await terminal.type(`${line}\r`, () => terminal.screen.slice(from).endsWith(`\n${prompt}>`));
    return terminal.screen.slice(from, -`\n${prompt}>`.length).replace(STATS, '').replace(/\n+/g, '\n');
  };
  const leave = async (): Promise<void> => {
    await terminal.type(CTRL_D);
    await done;
  };
  return { terminal, desk, kill, done, say, leave };
}

describe('a chat on a terminal', () => {
  it('answers, counts, and leaves', async () => {
    const { terminal, desk, say, done } = open();
    expect(await say('hello', '2')).toBe(' hello\n(1) hello\n');
    expect(await say(' /not a command', '3')).toBe(
      ' /not a command\n(2) /not a command\n'.replace(' /', '  /'),
    );
    expect(terminal.screen.match(STATS)).toHaveLength(2);
    expect(await say('', '3')).toBe('');
    await terminal.type('/exit\r');
    await done;
    expect(desk.turns.map(({ finishReason, tokens }) => [finishReason, tokens])).toEqual([
      ['eos', 2],
      ['eos', 2],
    ]);
    expect(terminal.isRaw).toBe(false);
  });

  it('Ctrl-C stops the answer and keeps what was said', async () => {
    const answer: Answer = async function* (_, signal) {
      yield 'so far';
      if (!signal.aborted) await new Promise((resolve) => signal.addEventListener('abort', resolve));
    };
    const { terminal, desk, leave } = open({ answer });
    await terminal.type('go\r', 'so far');
    await terminal.type('typed too early');
    await terminal.type(CTRL_C, '2>');
    expect(terminal.screen).toMatch(/so far\nstopped · /);
    expect(terminal.screen).not.toContain('early');
    expect(desk.session.messages.at(-1)).toEqual({ role: 'assistant', content: 'so far' });
    await terminal.type(
      'again\r',
      () => desk.session.messages.length === 2 && terminal.screen.endsWith('so far'),
    );
    await terminal.type(CTRL_C, '3>');
    await leave();
  });

  it('shows the letters of an answer and obeys none', async () => {
    const answer: Answer = async function* () {
      yield 'a\u001b';
      yield '[2Jb\u001b]0;owned\u0007\r\nc';
    };
    const { terminal, say, leave } = open({ answer });
    expect(await say('x', '2')).toBe(' x\na␛[2Jb␛]0;owned␇\nc\n');
    expect(terminal.written).not.toContain('\u0007');
    await leave();
  });

  it('an error in a turn is said, and the conversation goes on as it was', async () => {
    const answer: Answer = async function* (messages) {
      yield 'Well';
      if (messages.at(-1)!.content === 'bad') throw new Error('the template refuses \u001b[1m');
    };
    const { desk, say, leave } = open({ answer });
    await say('good', '2');
    expect(await say('bad', '2')).toBe(' bad\nWell\nthe template refuses ␛[1m');
    expect(desk.session.messages).toHaveLength(2);
    await say('good', '3');
    await leave();
  });

  it('ends when it is told to from outside, also in an answer', async () => {
    const answer: Answer = async function* (_, signal) {
      yield 'on and on';
      await new Promise((resolve) => signal.addEventListener('abort', resolve));
    };
    const { terminal, desk, kill, done } = open({ answer, path: at('killed') });
    await terminal.type('go\r', 'on and on');
    kill.abort();
    await done;
    expect(terminal.isRaw).toBe(false);
    expect(JSON.parse(readFileSync(at('killed'), 'utf8'))).toEqual(desk.session.messages);
    const idle = open();
    await idle.terminal.shows('1>');
    idle.kill.abort();
    await idle.done;
  });

  it('keeps the screen in order in a narrow window', async () => {
    const { terminal, say, leave } = open({ columns: 12 });
    await say('abcdefghijkl', '2');
    expect(terminal.screen.split('\n').slice(0, 5).join('\n')).toMatch(
      /^1> abcdefghi\njkl\n\(1\) abcdefgh\nijkl\n[\d.]+/,
    );
    await leave();
  });
});

describe('commands', () => {
  it('/retry answers again', async () => {
    const { desk, say, leave } = open();
    expect(await say('/retry', '1')).toContain('There is nothing to answer yet.');
    await say('a', '2');
    expect(await say('/retry', '2')).toBe(' /retry\n(2) a\n');
    expect(desk.session.messages.map(({ content }) => content)).toEqual(['a', '(2) a']);
    await leave();
  });

  it('/undo takes back a turn', async () => {
    const { desk, say, leave } = open({ path: at('undone') });
    expect(await say('/undo', '1')).toContain('There is nothing to take back.');
    await say('a', '2');
    await say('b', '3');
    expect(await say('/undo', '2')).toBe(' /undo\nTook back: b');
    expect(desk.session.messages).toHaveLength(2);
    expect(JSON.parse(readFileSync(at('undone'), 'utf8'))).toHaveLength(2);
    await leave();
  });

  it('/edit changes the last message or another', async () => {
    const { terminal, desk, say, leave } = open();
    expect(await say('/edit', '1')).toContain('There is no message to change yet.');
    await say('/system Be brief.', '1');
    await say('a', '2');
    await say('b', '3');
    await terminal.type('/edit\r', '\n2> b');
    expect(await say('!', '3')).toBe('!\n(3) b!\n');
    await terminal.type('/edit 1\r', () => terminal.screen.endsWith('\n1> a'));
    expect(await say('?', '2')).toBe('?\n(4) a?\n');
    expect(desk.session.messages.map(({ content }) => content)).toEqual(['Be brief.', 'a?', '(4) a?']);
    for (const bad of ['2', '0', '1.5', 'x'])
      expect(await say(`/edit ${bad}`, '2')).toContain(`Expected a message from 1 to 1, got ${bad}.`);
    await terminal.type('/edit\r', () => terminal.screen.endsWith('\n1> a?'));
    await terminal.type(CTRL_C, 'Ctrl-C again');
    expect(await say('', '2')).toContain('Nothing was changed.');
    expect(desk.session.messages).toHaveLength(3);
    await leave();
  });

  it('/system shows, sets and removes; /reset keeps it', async () => {
    const { desk, say, leave } = open();
    expect(await say('/system', '1')).toContain('There is no system message.');
    await say('/system  Be   brief. ', '1');
    expect(await say('/system', '1')).toBe(' /system\nSystem message: Be   brief.');
    await say('a', '2');
    expect(await say('/reset', '1')).toContain('A new conversation.');
    expect(desk.session.messages).toEqual([{ role: 'system', content: 'Be   brief.' }]);
    await say('/system none', '1');
    expect(desk.session.messages).toEqual([]);
    await leave();
  });

  it('/save and /load', async () => {
    const { desk, say, leave } = open({ path: at('own') });
    await say('a', '2');
    expect(await say(`/save ${at('with space')}`, '2')).toContain(`Saved ${at('with space')}`);
    await say('b', '3');
    const before = desk.session;
    expect(await say(`/load ${at('with space')}`, '2')).toMatch(/2 messages, \d+ tokens\n1> a\n\(1\) a\n$/);
    expect(before).toMatchObject({ isDisposed: true });
    expect(JSON.parse(readFileSync(at('own'), 'utf8'))).toHaveLength(2);
    expect(await say('/save', '2')).toContain('Usage: /save FILE');
    expect(await say('/load', '2')).toContain('Usage: /load FILE');
    await leave();
  });

  it('a file that is no conversation changes nothing', async () => {
    const { desk, say, leave } = open();
    writeFileSync(at('other'), 'no session');
    await say('a', '2');
    expect(await say(`/load ${at('other')}`, '2')).toContain('expected a chat session');
    expect(await say(`/load ${at('nothing')}`, '2')).toContain('got nothing at this path');
    expect(await say(`/save ${at('other')}/below`, '2')).toContain('writeFileAtomic: expected');
    expect(existsSync(at('nothing'))).toBe(false);
    expect(desk.session.messages).toHaveLength(2);
    expect(await say('b', '3')).toContain('(2) b');
    await leave();
  });

  it('/stats, /help, and what is unknown', async () => {
    const { say, leave } = open();
    await say('a', '2');
    const stats = await say('/stats', '2');
    expect(stats).toMatch(/conversation {2}2 messages\n/);
    expect(stats).toMatch(/last turn {5}7 tokens read, 5 not read again, 6 at its end\n/);
    expect(stats).toMatch(/state {9}4321 bytes\n/);
    expect(stats).toMatch(/snapshots {5}2, 8.6 kB\n/);
    const help = await say('/help', '2');
    const names = ['/retry', '/undo', '/edit [N]', '/reset', '/system [TEXT]', '/save FILE', '/load FILE'];
    for (const name of [...names, '/stats', '/help', '/exit', '"""', 'Ctrl-C']) expect(help).toContain(name);
    const unknown = await say('/retyr now', '2');
    expect(unknown).toContain('Unknown command /retyr. There are: /retry /undo /edit');
    await leave();
  });
});
