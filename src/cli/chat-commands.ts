/** The commands of a chat: what begins with a slash. */
import { homedir } from 'node:os';
import { join } from 'node:path';
import { formatBytes } from '../index.node.ts';
import type { Ask, ChatDesk } from './chat-desk.ts';
import { type ChatView, count } from './chat-view.ts';

export interface CommandContext {
  readonly desk: ChatDesk;
  readonly view: ChatView;
  /** Shows an answer to its end. */
  answer(ask: Ask): Promise<void>;
  /** Lets the user change a text; null when there is no user any more. */
  compose(prompt: string, initial: string): Promise<string | null>;
}

interface ChatCommand {
  name: string;
  /** How it is called. */
  usage: string;
  summary: string;
  run(context: CommandContext, argument: string): Promise<void> | void;
}

/** Ends the chat. */
export const EXIT = '/exit';

const COMMANDS: readonly ChatCommand[] = [
  {
    name: '/retry',
    usage: '/retry',
    summary: 'another answer to the last message',
    async run({ desk, view, answer }) {
      if (desk.questions.length === 0) view.note('There is nothing to answer yet.');
      else await answer((session, options) => session.retry(options));
    },
  },
  {
    name: '/undo',
    usage: '/undo',
    summary: 'take back the last message and its answer',
    async run({ desk, view }) {
      const last = desk.questions.at(-1);
      if (last === undefined) return view.note('There is nothing to take back.');
      const { content } = desk.session.messages[last]!;
      desk.session.undo();
      await desk.keep();
      view.note(`Took back: ${excerpt(content)}`);
    },
  },
  {
    name: '/edit',
    usage: '/edit [N]',
    summary: 'change message N (the last) and go on from there',
    run: edit,
  },
  {
    name: '/reset',
    usage: '/reset',
    summary: 'a new conversation with the same system message',
    async run({ desk, view }) {
      desk.session.reset();
      await desk.keep();
      view.note('A new conversation.');
    },
  },
  {
    name: '/system',
    usage: '/system [TEXT]',
    summary: 'show or set the system message; "none" removes it',
    run: system,
  },
  {
    name: '/save',
    usage: '/save FILE',
    summary: 'keep the conversation in a file',
    async run({ desk, view }, argument) {
      if (argument === '') return view.note('Usage: /save FILE');
      const path = expandHome(argument);
      await desk.save(path);
      view.note(`Saved ${path}`);
    },
  },
  {
    name: '/load',
    usage: '/load FILE',
    summary: 'go on with the conversation of a file',
    async run({ desk, view }, argument) {
      if (argument === '') return view.note('Usage: /load FILE');
      const path = expandHome(argument);
      await desk.load(path);
      await desk.keep();
      view.resume(path, desk.session);
    },
  },
  { name: '/stats', usage: '/stats', summary: 'tokens, time and memory so far', run: stats },
  {
    name: '/help',
    usage: '/help',
    summary: 'this list',
    run: ({ view }) =>
      view.table([...COMMANDS.map(({ usage, summary }) => [usage, summary] as const), ...KEYS]),
  },
  { name: EXIT, usage: EXIT, summary: 'leave; so does Ctrl-D', run: () => {} },
];

const KEYS = [
  ['\\', 'at the end of a line: the message goes on in the next'],
  ['"""', 'before and behind a message of several lines'],
  ['Ctrl-C', 'stops an answer, clears a line; twice: leaves'],
  ['Tab', 'completes a command'],
] as const;

/** Whether a message is meant for the program. */
export function isCommand(message: string): boolean {
  return message.startsWith('/') && !message.includes('\n');
}

/** Errors are the caller's to show. */
export async function runCommand(context: CommandContext, message: string): Promise<void> {
  const [, name, argument] = /^(\S+)\s*(.*?)\s*$/.exec(message)!;
  const command = COMMANDS.find((known) => known.name === name);
  if (command) return command.run(context, argument!);
  const names = COMMANDS.map((known) => known.name).join(' ');
  context.view.error(`Unknown command ${name}. There are: ${names}`);
  context.view.note('To send a message that begins with a slash, put a space in front.');
}

/** For the Tab key. */
export function completeCommand(line: string): string[] {
  return line.startsWith('/') ? COMMANDS.map(({ name }) => name).filter((name) => name.startsWith(line)) : [];
}

async function edit({ desk, view, answer, compose }: CommandContext, argument: string): Promise<void> {
  const { questions } = desk;
  if (questions.length === 0) return view.note('There is no message to change yet.');
  const number = argument === '' ? questions.length : Number(argument);
  const index = questions[number - 1];
  if (index === undefined)
    return view.error(`Expected a message from 1 to ${questions.length}, got ${argument}.`);
  const text = await compose(`${number}> `, desk.session.messages[index]!.content);
  if (text === null || text.trim() === '') return view.note('Nothing was changed.');
  await answer((session, options) => session.edit(index, text, options));
}

async function system({ desk, view }: CommandContext, argument: string): Promise<void> {
  const { session } = desk;
  if (argument === '') {
    const message = session.messages.find(({ role }) => role === 'system');
    return view.note(message ? `System message: ${message.content}` : 'There is no system message.');
  }
  session.setSystem(argument === 'none' ? null : argument);
  await desk.keep();
  view.note(argument === 'none' ? 'The system message is removed.' : 'The system message is set.');
}

function stats({ desk, view }: CommandContext): void {
  const { tokens, stateBytes, snapshots, snapshotBytes, readTokens, reusedTokens } = desk.session.stats;
  const answered = desk.turns.reduce((sum, turn) => sum + turn.tokens, 0);
  const seconds = desk.turns.reduce((sum, turn) => sum + turn.seconds, 0);
  const rate = seconds > 0 ? `, ${(answered / seconds).toFixed(1)} tokens/s` : '';
  view.table([
    ['conversation', count(desk.session.messages.length, 'message')],
    ['answers', `${count(answered, 'token')} in ${seconds.toFixed(1)} s${rate}`],
    ['last turn', `${count(readTokens, 'token')} read, ${reusedTokens} not read again, ${tokens} at its end`],
    ['state', `${stateBytes} bytes`],
    ['snapshots', `${snapshots}, ${formatBytes(snapshotBytes)}`],
    ['file', desk.path ?? 'none (--session FILE keeps the conversation)'],
  ]);
}

function expandHome(path: string): string {
  return path.startsWith('~/') ? join(homedir(), path.slice(2)) : path;
}

function excerpt(text: string): string {
  const line = text.replace(/\s+/g, ' ').trim();
  return line.length > 60 ? `${line.slice(0, 59)}…` : line;
}
