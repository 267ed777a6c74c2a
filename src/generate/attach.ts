/**
 * Attaches generate(), chat() and startChat() to LanguageModel as methods. The one place that extends its prototype; models/ knows
 * nothing of generation.
 */
import { LanguageModel } from '../models/language-model.ts';
import type { ChatMessage } from '../text/chat-template.ts';
import { type ChatOptions, type ChatPart, type ChatSessionOptions, chat } from './chat.ts';
import { ChatSession } from './chat-session.ts';
import { type GeneratedPart, type GenerateOptions, generate } from './stream.ts';

declare module '../models/language-model.ts' {
  interface LanguageModel {
    /** Streams a completion; see generate() in generate/stream.ts. */
    generate(
      prompt: string | readonly number[],
      options?: GenerateOptions,
    ): AsyncGenerator<GeneratedPart, void, undefined>;
    /** Streams the answer to a conversation and keeps nothing; see chat() in generate/chat.ts. */
    chat(messages: readonly ChatMessage[], options?: ChatOptions): AsyncGenerator<ChatPart, void, undefined>;
    /** A conversation that goes on from what it has read; see ChatSession in generate/chat-session.ts. */
    startChat(options?: ChatSessionOptions): ChatSession;
  }
}

const methods: Pick<LanguageModel, 'generate' | 'chat' | 'startChat'> & ThisType<LanguageModel> = {
  generate(prompt, options) {
    return generate(this, prompt, options);
  },
  chat(messages, options) {
    return chat(this, messages, options);
  },
  startChat(options) {
    return new ChatSession(this, options);
  },
};

for (const [name, value] of Object.entries(methods)) {
  Object.defineProperty(LanguageModel.prototype, name, { value, writable: true, configurable: true });
}
