/**
 * Attaches generate(), chat(), embed() and their like to LanguageModel as methods. The one place that extends
 * its prototype; models/ knows nothing of generation.
 */
import { LanguageModel } from '../models/language-model.ts';
import type { ChatMessage } from '../text/chat-template.ts';
import { type BatchOptions, type BatchPart, generateBatch, type Prompt } from './batch.ts';
import { type ChatOptions, type ChatPart, type ChatSessionOptions, chat } from './chat.ts';
import { ChatSession } from './chat-session.ts';
import { type Completion, complete } from './complete.ts';
import { type EmbedOptions, embed } from './embed.ts';
import { type GeneratedPart, type GenerateOptions, generate } from './stream.ts';

declare module '../models/language-model.ts' {
  interface LanguageModel {
    /** Streams a completion; see generate() in generate/stream.ts. */
    generate(prompt: Prompt, options?: GenerateOptions): AsyncGenerator<GeneratedPart, void, undefined>;
    /** Streams completions of many prompts; see generateBatch() in generate/batch.ts. */
    generateBatch(
      prompts: readonly Prompt[],
      options?: BatchOptions,
    ): AsyncGenerator<BatchPart, void, undefined>;
    /** Completions of many prompts, when all have ended; see complete() in generate/complete.ts. */
    complete(prompts: readonly Prompt[], options?: BatchOptions): Promise<Completion[]>;
    /** A vector per text; see embed() in generate/embed.ts. */
    embed(texts: readonly Prompt[], options?: EmbedOptions): Promise<Float32Array[]>;
    /** Streams the answer to a conversation and keeps nothing; see chat() in generate/chat.ts. */
    chat(messages: readonly ChatMessage[], options?: ChatOptions): AsyncGenerator<ChatPart, void, undefined>;
    /** A conversation that goes on from what it has read; see ChatSession in generate/chat-session.ts. */
    startChat(options?: ChatSessionOptions): ChatSession;
  }
}

type Attached = 'generate' | 'generateBatch' | 'complete' | 'embed' | 'chat' | 'startChat';

const methods: Pick<LanguageModel, Attached> & ThisType<LanguageModel> = {
  generate(prompt, options) {
    return generate(this, prompt, options);
  },
  generateBatch(prompts, options) {
    return generateBatch(this, prompts, options);
  },
  complete(prompts, options) {
    return complete(this, prompts, options);
  },
  embed(texts, options) {
    return embed(this, texts, options);
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
