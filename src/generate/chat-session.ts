/**
 * A conversation that remembers what it has read: a new turn costs its new tokens, an edited one
 * goes on from the nearest snapshot. Each turn renders all messages, takes the snapshot with the
 * longest text in common, and reads the rest. The ids of an answer reach the state as they were
 * generated and are never encoded again.
 */
import { ConfigError, MambaError, StateError } from '../base/errors.ts';
import { Rng } from '../base/rng.ts';
import { sizeOf } from '../base/shape.ts';
import type { Tokenizer } from '../base/tokenizer.ts';
import type { LanguageModel } from '../models/language-model.ts';
import { State } from '../models/state.ts';
import type { ChatMessage, ChatTemplate } from '../text/chat-template.ts';
import {
  answerOptions,
  type ChatPart,
  type ChatSessionOptions,
  type ChatTurnOptions,
  chatParts,
  noText,
  withSystem,
} from './chat.ts';
import { type ChatRecord, decodeSession, encodeSession } from './chat-bytes.ts';
import { ChatMemory, type Snapshot } from './chat-memory.ts';
import { generateTokens } from './engine.ts';
import { resolveSampler } from './sampler.ts';
import { type GenerateOptions, generate } from './stream.ts';

export interface ChatStats {
  /** Tokens that the last turn ended with, from the beginning of the conversation. */
  tokens: number;
  /** One state, whatever the length of the conversation. */
  stateBytes: number;
  snapshots: number;
  /** All of them. */
  snapshotBytes: number;
  /** Tokens of the last prompt that were remembered. */
  reusedTokens: number;
  /** Tokens of the last prompt that were read. */
  readTokens: number;
}

/** How a turn begins. */
interface Plan {
  messages: readonly ChatMessage[];
  /** All messages and the beginning of the answer. */
  text: string;
  /** What of it is to be read: at least one id. */
  ids: readonly number[];
  from: Snapshot | null;
  options: GenerateOptions;
}

/** What was generated, and the state after it. */
interface Answer {
  content: string;
  tokens: number[];
  state: State | null;
}

/**
 * Made by model.startChat(). Answers stream like those of generate(); an answer that is aborted, or whose
 * loop is left, stays in the conversation as far as it was given out. After an error the conversation is as
 * it was before. One turn at a time, else StateError.
 */
export class ChatSession {
  readonly model: LanguageModel;
  readonly template: ChatTemplate;
  readonly #tokenizer: Tokenizer;
  readonly #options: ChatSessionOptions;
  readonly #seed: number;
  #memory: ChatMemory;
  #begun = new Date();
  #messages: readonly ChatMessage[];
  #turn = 0;
  #tokens = 0;
  #reusedTokens = 0;
  #readTokens = 0;
  #status: 'idle' | 'busy' | 'disposed' = 'idle';

  /** Throws ConfigError for a model without a tokenizer or template and for options out of range. */
  constructor(model: LanguageModel, options: ChatSessionOptions = {}) {
    const { template, tokenizer } = chatParts(model, options.template);
    const { snapshots = 16, seed = Math.floor(Math.random() * 2 ** 32), system, ...rest } = options;
    if (!Number.isSafeInteger(snapshots) || snapshots < 1 || !Number.isSafeInteger(seed) || seed < 0) {
      throw new ConfigError(
        `startChat: expected snapshots an integer >= 1 and seed one >= 0, got ${snapshots} and ${seed}. Correct them.`,
      );
    }
    resolveSampler(options);
    this.model = model;
    this.template = template;
    this.#tokenizer = tokenizer;
    this.#options = rest;
    this.#memory = new ChatMemory(snapshots);
    this.#seed = seed;
    this.#messages = withSystem([], system);
  }

  /** A copy, the system message first if there is one. */
  get messages(): readonly ChatMessage[] {
    return this.#messages.map((message) => ({ ...message }));
  }

  get stats(): ChatStats {
    const states = this.#memory.snapshots.map(({ state }) => state.sizeBytes);
    const shapes = State.namedShapes(this.model, [this.#tokens]).values();
    return {
      tokens: this.#tokens,
      stateBytes: [...shapes].reduce((sum, shape) => sum + 4 * sizeOf(shape), 0),
      snapshots: states.length,
      snapshotBytes: states.reduce((a, b) => a + b, 0),
      reusedTokens: this.#reusedTokens,
      readTokens: this.#readTokens,
    };
  }

  /** Says `text` as the user and streams the answer. `options` hold for this answer only. */
  async *send(text: string, options?: ChatTurnOptions): AsyncGenerator<ChatPart, void, undefined> {
    yield* this.#answer([...this.#messages, { role: 'user', content: text }], options);
  }

  /** Answers the last user message once more, with other random numbers unless `options.seed` says which. */
  async *retry(options?: ChatTurnOptions): AsyncGenerator<ChatPart, void, undefined> {
    const last = this.#messages.findLastIndex(({ role }) => role === 'user');
    if (last < 0) throw new StateError('retry: expected a user message to answer, got none yet. Use send().');
    yield* this.#answer(this.#messages.slice(0, last + 1), options);
  }

  /**
   * Replaces the user message at `index` of `messages`, forgets what came after it, and streams the answer.
   */
  async *edit(
    index: number,
    text: string,
    options?: ChatTurnOptions,
  ): AsyncGenerator<ChatPart, void, undefined> {
    const message = this.#messages[index];
    if (message?.role !== 'user') {
      throw new ConfigError(
        `edit: expected the index of a user message, got ${index} (${message?.role ?? 'no message'}). ` +
          'Look it up in messages; setSystem() changes the system message.',
      );
    }
    yield* this.#answer([...this.#messages.slice(0, index), { ...message, content: text }], options);
  }

  /**
   * Takes back the last user message and what came after it. Gives what was taken
   * back; empty if there was nothing.
   */
  undo(): readonly ChatMessage[] {
    this.#expectIdle('undo');
    const last = this.#messages.findLastIndex(({ role }) => role === 'user');
    if (last < 0) return [];
    const undone = this.#messages.slice(last);
    this.#messages = this.#messages.slice(0, last);
    return undone;
  }

  /**
   * Sets the system message or, with null, takes it away. The next turn reads
   * the conversation again under it.
   */
  setSystem(text: string | null): void {
    this.#expectIdle('setSystem');
    this.#messages = withSystem(this.#messages, text);
  }

  /** Forgets everything but the system message. */
  reset(): void {
    this.#expectIdle('reset');
    this.#memory.cut(null);
    this.#messages = this.#messages.slice(0, this.#messages[0]?.role === 'system' ? 1 : 0);
  }

  /** One file for all of it: messages, options, states. The model is not in it. */
  async toBytes(): Promise<Uint8Array> {
    this.#expectIdle('toBytes');
    this.#status = 'busy';
    try {
      const record: ChatRecord = {
        messages: this.#messages,
        options: { ...this.#options, snapshots: this.#memory.limit, seed: this.#seed },
        template: this.template.source,
        turn: this.#turn,
        begun: this.#begun.getTime(),
      };
      return await encodeSession(record, this.#memory, this.model);
    } finally {
      this.#status = 'idle';
    }
  }

  /**
   * Goes on with what toBytes() wrote, with the same answers as if it had never stopped. Throws StateError
   * for a session with another model (other architecture or other weights), FormatError for damaged bytes.
   */
  static fromBytes(bytes: Uint8Array, model: LanguageModel): ChatSession {
    const { record, memory } = decodeSession(bytes, model);
    const session = new ChatSession(model, { ...record.options, template: record.template });
    session.#memory = memory;
    session.#messages = record.messages;
    session.#turn = record.turn;
    session.#begun = new Date(record.begun);
    session.#tokens = memory.ids.length;
    return session;
  }

  /** Frees the states. The session cannot be used any more. */
  dispose(): void {
    if (this.#status === 'disposed') return;
    this.#expectIdle('dispose');
    this.#memory.cut(null);
    this.#status = 'disposed';
  }

  async *#answer(
    messages: readonly ChatMessage[],
    options: ChatTurnOptions | undefined,
  ): AsyncGenerator<ChatPart, void, undefined> {
    this.#expectIdle('chat');
    const plan = this.#plan(messages, options);
    this.#status = 'busy';
    const answer: Answer = { content: '', tokens: [], state: null };
    let isOpen = true;
    const finish = (): ChatMessage => {
      isOpen = false;
      this.#status = 'idle'; // now, because a reader may stop at the last part without closing the stream
      const message = this.#keep(plan, answer);
      answer.state = null; // the memory's now
      return message;
    };
    try {
      const state = await this.#read(plan);
      if (state === null) {
        yield { text: '', tokens: [], logprobs: null, finishReason: 'abort', message: finish() };
        return;
      }
      const seenIds = [this.#memory.ids];
      for await (const part of generate(this.model, plan.ids.slice(-1), {
        ...plan.options,
        state,
        seenIds,
      })) {
        const { text, tokens, logprobs, finishReason } = part;
        answer.content += text;
        answer.tokens.push(...tokens);
        if (finishReason) answer.state = part.state;
        let isLeft = true;
        try {
          yield { text, tokens, logprobs, finishReason, message: finishReason ? finish() : null };
          isLeft = false;
        } finally {
          // Left here, the stream that the state belongs to ends next.
          if (isLeft && isOpen) answer.state = part.state.detach();
        }
      }
    } catch (error) {
      answer.state?.dispose();
      if (isOpen) this.#status = 'idle';
      isOpen = false;
      throw error;
    } finally {
      if (isOpen) finish(); // the reader has left the loop
    }
  }

  /** Throws without having changed anything. */
  #plan(messages: readonly ChatMessage[], turnOptions: ChatTurnOptions = {}): Plan {
    const text = this.template.render(messages, { addGenerationPrompt: true, now: this.#begun });
    const from = this.#memory.nearest(text);
    const rest = this.#tokenizer.encode(text.slice(from?.end ?? 0), { isContinuation: from !== null });
    const ids = [...(from?.pending ?? []), ...rest];
    if (ids.length === 0) throw noText();
    const seed = new Rng(this.#seed).fork(`turn ${this.#turn}`).uint32();
    const given = Object.entries(turnOptions).filter(([, value]) => value !== undefined);
    const merged = { ...this.#options, seed, ...Object.fromEntries(given) };
    const options = answerOptions(merged, this.template, tokensOf(from) + ids.length);
    return { messages, text, ids, from, options };
  }

  /**
   * Reads the prompt but for its last token, and keeps that as a snapshot to answer from; null when aborted.
   */
  async #read({ text, ids, from, options }: Plan): Promise<State | null> {
    this.#memory.cut(from);
    this.#reusedTokens = tokensOf(from);
    this.#readTokens = 0;
    this.#tokens = this.#reusedTokens;
    let state: State | undefined = from?.state;
    if (from === null || from.end < text.length) {
      state = ids.length > 1 ? undefined : (from?.state.detach() ?? this.model.initialState());
      if (ids.length > 1) {
        const readOnly = { ...options, maxTokens: 0, state: from?.state };
        for await (const step of generateTokens(this.model, [ids.slice(0, -1)], readOnly)) {
          if (step.rows[0]!.finishReason !== 'abort') state = step.state;
          else step.state.dispose();
        }
      }
      if (!state) return null;
      const known = this.#memory.ids.slice(0, this.#reusedTokens);
      this.#memory.add(text, [...known, ...ids], state, 1);
    }
    this.#readTokens = ids.length;
    return state!;
  }

  /** Ends a turn: the answer becomes a message, the state after it a snapshot. */
  #keep({ messages, text }: Plan, { content, tokens, state }: Answer): ChatMessage {
    if (state) this.#tokens = state.tokens[0]!;
    const message = { role: 'assistant', content };
    // Tokens that say more hold the beginning of a stop string: the state after them is of no use.
    if (state && this.#said(tokens) === content) {
      // Some templates put a space before the answer, which then is not part of the message.
      const isSame = (candidate: string) =>
        this.#rendered([...messages, { ...message, content: candidate }]).startsWith(text + content);
      message.content = [content.trimStart(), content.trim(), content].find(isSame) ?? content;
      this.#memory.add(text + content, [...this.#memory.ids, ...tokens], state, 0);
    } else state?.dispose();
    this.#messages = [...messages, message];
    this.#turn++;
    return { ...message };
  }

  #said(tokens: readonly number[]): string {
    const decoder = this.#tokenizer.streamDecoder({ isContinuation: true });
    return tokens.map((id) => decoder.push(id)).join('') + decoder.flush();
  }

  /** Empty where the template does not accept messages that end with an answer. */
  #rendered(messages: readonly ChatMessage[]): string {
    try {
      return this.template.render(messages, { addGenerationPrompt: false, now: this.#begun });
    } catch (error) {
      if (error instanceof MambaError) return '';
      throw error;
    }
  }

  #expectIdle(op: string): void {
    if (this.#status === 'idle') return;
    const isDisposed = this.#status === 'disposed';
    throw new StateError(
      `${op}: expected a chat session at rest, got one that ${isDisposed ? 'was disposed' : 'is answering'}. ` +
        (isDisposed ? 'Start another.' : 'Wait for the answer, abort it, or leave its loop.'),
    );
  }
}

function tokensOf(snapshot: Snapshot | null): number {
  return snapshot?.state.tokens[0] ?? 0;
}
