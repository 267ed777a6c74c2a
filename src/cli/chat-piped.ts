/**
 * A chat with another program: every line is a message, every answer goes out as it
 * comes. The first error ends it.
 */
import type { ChatDesk } from './chat-desk.ts';

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
