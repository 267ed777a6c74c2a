/** A chat with another program: every line is a message, every answer goes out as it comes. The first error ends it. */
import { Readable } from 'node:stream';
import type { ChatDesk } from './chat-desk.ts';
import type { CliIo } from './output.ts';

/** Answers each message that is not blank; the signal ends the answer that is being given, and the chat. */
export async function chatInLines(
  desk: ChatDesk,
  messages: AsyncIterable<string> | Iterable<string>,
  write: (text: string) => void,
  signal: AbortSignal,
): Promise<void> {
  for await (const message of messages) {
    if (message.trim() === '') continue;
    let last = '';
    await desk.answer(
      (session, options) => session.send(message, options),
      signal,
      (text) => {
        write(text);
        last = text || last;
      },
    );
    if (!last.endsWith('\n')) write('\n');
    await desk.keep();
    if (signal.aborted) return;
  }
}

/** The lines of the input as they arrive, until its end or the signal. */
export async function* inputLines(stdin: CliIo['stdin'], signal: AbortSignal): AsyncGenerator<string> {
  const close = (): void => void (stdin instanceof Readable && stdin.destroy());
  signal.addEventListener('abort', close);
  const decoder = new TextDecoder();
  let rest = '';
  try {
    for await (const chunk of stdin) {
      const text = typeof chunk === 'string' ? chunk : decoder.decode(chunk, { stream: true });
      const lines = (rest + text).split(/\r?\n/);
      rest = lines.pop()!;
      yield* lines;
    }
  } catch (error) {
    if (!signal.aborted) throw error; // else it was closed by us
    return;
  } finally {
    signal.removeEventListener('abort', close);
  }
  rest += decoder.decode();
  if (rest !== '') yield rest;
}
