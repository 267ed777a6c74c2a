/** A conversation without a model: answers are given by a function, and a saved one is its messages as JSON. */
import type { Conversation } from '../../src/cli/chat-desk.ts';
import {
  type ChatMessage,
  type ChatPart,
  type ChatTurnOptions,
  chatTemplate,
  StateError,
} from '../../src/index.node.ts';

/** Pieces of the answer to the last message. May wait, and may throw. */
export type Answer = (messages: readonly ChatMessage[], signal: AbortSignal) => AsyncIterable<string>;

export class FakeConversation implements Conversation {
  readonly template = chatTemplate('chatml', {});
  messages: ChatMessage[];
  isDisposed = false;
  readonly #answer: Answer;

  constructor(answer: Answer, messages: ChatMessage[] = []) {
    this.#answer = answer;
    this.messages = messages;
  }

  get stats() {
    const tokens = this.messages.reduce((sum, { content }) => sum + content.length, 0);
    return { tokens, stateBytes: 4321, snapshots: 2, snapshotBytes: 8642, reusedTokens: 5, readTokens: 7 };
  }

  send(content: string, options: ChatTurnOptions = {}) {
    return this.#turn([...this.messages, { role: 'user', content }], options);
  }

  retry(options: ChatTurnOptions = {}) {
    return this.#turn(this.messages.slice(0, this.#lastQuestion + 1), options);
  }

  edit(index: number, content: string, options: ChatTurnOptions = {}) {
    return this.#turn([...this.messages.slice(0, index), { role: 'user', content }], options);
  }

  undo() {
    return this.messages.splice(this.#lastQuestion);
  }

  setSystem(content: string | null) {
    const rest = this.messages.filter(({ role }) => role !== 'system');
    this.messages = content === null ? rest : [{ role: 'system', content }, ...rest];
  }

  reset() {
    this.messages = this.messages.filter(({ role }) => role === 'system');
  }

  async toBytes() {
    return new TextEncoder().encode(JSON.stringify(this.messages));
  }

  dispose() {
    this.isDisposed = true;
  }

  get #lastQuestion(): number {
    return this.messages.findLastIndex(({ role }) => role === 'user');
  }

  async *#turn(
    messages: ChatMessage[],
    { signal }: ChatTurnOptions,
  ): AsyncGenerator<ChatPart, void, undefined> {
    let content = '';
    for await (const text of this.#answer(messages, signal ?? new AbortController().signal)) {
      content += text;
      yield { text, tokens: [1], logprobs: null, finishReason: null, message: null };
    }
    const message = { role: 'assistant', content };
    this.messages = [...messages, message];
    yield { text: '', tokens: [], logprobs: null, finishReason: signal?.aborted ? 'abort' : 'eos', message };
  }
}

/** As the library does with other bytes. */
export async function openFake(bytes: Uint8Array, answer: Answer): Promise<FakeConversation> {
  const text = new TextDecoder().decode(bytes);
  if (!text.startsWith('[')) throw new StateError('fromBytes: expected a chat session, got something else.');
  return new FakeConversation(answer, JSON.parse(text));
}
