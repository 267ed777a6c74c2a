/**
 * A chat on a terminal: reads a message, shows the answer, until the user leaves. What fails in a turn
 * is said, and the chat goes on.
 */
import { type CommandContext, completeCommand, EXIT, isCommand, runCommand } from './chat-commands.ts';
import type { Ask, ChatDesk } from './chat-desk.ts';
import type { ChatHistory } from './chat-history.ts';
import { ChatReader, type TerminalInput } from './chat-reader.ts';
import type { ChatView } from './chat-view.ts';
import type { CliIo } from './output.ts';

export interface TerminalOptions {
  desk: ChatDesk;
  view: ChatView;
  history: ChatHistory;
  /** Ends the chat from outside. */
  signal: AbortSignal;
}

export async function chatOnTerminal(
  input: TerminalInput,
  stdout: CliIo['stdout'],
  { desk, view, history, signal }: TerminalOptions,
): Promise<void> {
  const leaveHint = view.style('dim', 'Ctrl-C again or Ctrl-D leaves.');
  const reader = new ChatReader(input, stdout, { history, complete: completeCommand, leaveHint });
  let stop = new AbortController();
  reader.onInterrupt = () => stop.abort();
  const leave = (): void => {
    stop.abort();
    reader.close();
  };
  signal.addEventListener('abort', leave);

  const read = (prompt: string, initial?: string): Promise<string | null> => {
    const morePrompt = '.'.repeat(prompt.length - 1).concat(' ');
    return reader.read({
      prompt: view.style('cyan', prompt),
      morePrompt: view.style('cyan', morePrompt),
      initial,
    });
  };
  const answer = async (ask: Ask): Promise<void> => {
    stop = new AbortController();
    view.wait();
    const turn = await desk
      .answer(ask, stop.signal, (text) => view.say(text))
      .finally(() => view.endAnswer());
    view.turn(turn, desk.session.stats.stateBytes);
    await desk.keep();
  };
  const context: CommandContext = { desk, view, answer, compose: read };

  try {
    while (!signal.aborted) {
      const message = await read(`${desk.questions.length + 1}> `);
      if (message === null || message.trim() === EXIT) return;
      if (message.trim() === '') continue;
      try {
        if (isCommand(message)) await runCommand(context, message);
        else await answer((session, options) => session.send(message.replace(/^ (?=\/)/, ''), options));
      } catch (error) {
        view.error(error instanceof Error ? error.message : String(error));
      }
    }
  } finally {
    signal.removeEventListener('abort', leave);
    reader.close();
  }
}
