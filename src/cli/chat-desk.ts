/** A conversation, its file, and what each of its turns cost. Knows nothing of terminals. */
import {
  type ChatMessage,
  type ChatPart,
  type ChatSession,
  type ChatTurnOptions,
  fileSource,
  writeFileAtomic,
} from '../index.node.ts';
import type { Turn } from './chat-view.ts';

/** What a chat needs of a session. */
export type Conversation = Pick<
  ChatSession,
  | 'messages'
  | 'stats'
  | 'template'
  | 'send'
  | 'retry'
  | 'edit'
  | 'undo'
  | 'reset'
  | 'setSystem'
  | 'toBytes'
  | 'dispose'
>;

export interface DeskOptions {
  session: Conversation;
  /** A session from the bytes of a file. */
  open(bytes: Uint8Array): Promise<Conversation>;
  /** Where the conversation is kept after every change; null: nowhere. */
  path: string | null;
  /** Given with every turn: they also hold for conversations that come from a file. */
  options: ChatTurnOptions;
}

/** The conversation of a file. */
export async function readConversation(path: string, open: DeskOptions['open']): Promise<Conversation> {
  const source = await fileSource(path);
  try {
    return await open(await source.read(0, source.sizeBytes));
  } finally {
    await source.close();
  }
}

/** Begins an answer. */
export type Ask = (session: Conversation, options: ChatTurnOptions) => AsyncGenerator<ChatPart>;

export class ChatDesk {
  readonly path: string | null;
  readonly turns: Turn[] = [];
  #session: Conversation;
  readonly #open: DeskOptions['open'];
  readonly #options: ChatTurnOptions;

  constructor({ session, open, path, options }: DeskOptions) {
    this.path = path;
    this.#session = session;
    this.#open = open;
    this.#options = options;
  }

  get session(): Conversation {
    return this.#session;
  }

  /** Where in `messages` those of the user stand: what people count by. */
  get questions(): number[] {
    return this.#session.messages.flatMap(({ role }, i) => (role === 'user' ? [i] : []));
  }

  /** One answer, told in pieces. An error leaves what the session makes of it. */
  async answer(ask: Ask, signal: AbortSignal, say: (text: string) => void): Promise<Turn> {
    const started = performance.now();
    let tokens = 0;
    let finishReason: ChatPart['finishReason'] = null;
    for await (const part of ask(this.#session, { ...this.#options, signal })) {
      say(part.text);
      tokens += part.tokens.length;
      finishReason = part.finishReason;
    }
    const seconds = (performance.now() - started) / 1000;
    const { readTokens } = this.#session.stats;
    const turn = {
      tokens,
      seconds,
      tokensPerSecond: tokens / seconds,
      readTokens,
      finishReason: finishReason!,
    };
    this.turns.push(turn);
    return turn;
  }

  /** To the conversation's own file, if it has one. Replaced at once or not at all. */
  async keep(): Promise<void> {
    if (this.path !== null) await this.save(this.path);
  }

  async save(path: string): Promise<void> {
    await writeFileAtomic(path, await this.#session.toBytes());
  }

  /** The conversation of a file in place of this one, which stays if the file is not good. */
  async load(path: string): Promise<void> {
    const session = await readConversation(path, this.#open);
    this.#session.dispose();
    this.#session = session;
  }

  /** For programs. */
  report(): { messages: ChatMessage[]; turns: Turn[]; stateBytes: number; session?: string } {
    const { messages, stats } = this.#session;
    const session = this.path ?? undefined;
    return { messages: [...messages], turns: this.turns, stateBytes: stats.stateBytes, session };
  }
}
