/**
 * Conversations: messages in, the model's answer out. chat() reads everything and keeps nothing; a
 * ChatSession (chat-session.ts) goes on from what it has read.
 */
import { ConfigError } from '../base/errors.ts';
import type { Tokenizer } from '../base/tokenizer.ts';
import type { LanguageModel } from '../models/language-model.ts';
import { type ChatMessage, type ChatTemplate, chatTemplate } from '../text/chat-template.ts';
import { type GeneratedPart, type GenerateOptions, generate } from './stream.ts';

/** How one answer is made. Defaults: maxTokens 2000, temperature 0.9, topP 0.7. */
export interface ChatTurnOptions extends Omit<GenerateOptions, 'state' | 'seenIds' | 'echo'> {
  /**
   * Tokens of the whole conversation, the answer included: it ends there with `length`. Default: no
   * bound, a state does not fill up.
   */
  maxLength?: number;
}

export interface ChatOptions extends ChatTurnOptions {
  /** A name of CHAT_TEMPLATES or Jinja source. Default: the model's own. */
  template?: string;
  /** The system message, ahead of the others. Default: none, or what the template puts there. */
  system?: string;
}

export interface ChatSessionOptions extends ChatOptions {
  /** States kept to go back to, at least 1. Each has stats.stateBytes. Default 16. */
  snapshots?: number;
}

export interface ChatPart extends Omit<GeneratedPart, 'state'> {
  /** The whole answer, in the last part only. */
  message: ChatMessage | null;
}

/** As in the script that came with mamba-chat. */
export const CHAT_DEFAULTS = { maxTokens: 2000, temperature: 0.9, topP: 0.7 } as const;

/**
 * Streams the assistant's answer to `messages`. Throws ConfigError for a model without a tokenizer or
 * template, messages the template does not accept, options out of range and a conversation longer than
 * maxLength; FormatError for a template that fails.
 */
export async function* chat(
  model: LanguageModel,
  messages: readonly ChatMessage[],
  options: ChatOptions = {},
): AsyncGenerator<ChatPart, void, undefined> {
  const { template, tokenizer } = chatParts(model, options.template);
  const text = template.render(withSystem(messages, options.system), { addGenerationPrompt: true });
  const ids = tokenizer.encode(text);
  if (ids.length === 0) throw noText();
  let content = '';
  for await (const part of generate(model, ids, answerOptions(options, template, ids.length))) {
    const { state, ...rest } = part;
    content += rest.text;
    if (rest.finishReason) state.dispose();
    yield { ...rest, message: rest.finishReason ? { role: 'assistant', content } : null };
  }
}

export function noText(): ConfigError {
  return new ConfigError(
    'chat: expected the chat template to give text, got none. Check template and messages.',
  );
}

/** What it takes to talk with a model. Throws ConfigError if something is missing. */
export function chatParts(
  model: LanguageModel,
  source: string | undefined,
): { template: ChatTemplate; tokenizer: Tokenizer } {
  const { tokenizer } = model;
  if (!tokenizer) {
    throw new ConfigError(
      "chat: expected a model with a tokenizer, got none. Put the tokenizer's files beside the model, or set model.tokenizer.",
    );
  }
  const own = model.chatTemplate;
  if (source === undefined && own === null) {
    throw new ConfigError(
      'chat: expected a chat template, got a model without one. If the model was taught to chat, choose the template it was taught ' +
        'with: zephyr (mamba-chat), chatml, or a file (`template`, on the command line --chat-template); or put chat_template.jinja ' +
        'beside the model.',
    );
  }
  const name = source === undefined || source === own ? "the model's chat template" : undefined;
  return { template: chatTemplate(source ?? own!, tokenizer.specialTokens, name), tokenizer };
}

/** These messages with this system message, in place of one that is there; null takes it away. */
export function withSystem(
  messages: readonly ChatMessage[],
  system: string | null | undefined,
): readonly ChatMessage[] {
  if (system === undefined) return messages;
  const rest = messages[0]?.role === 'system' ? messages.slice(1) : messages;
  return system === null ? rest : [{ role: 'system', content: system }, ...rest];
}

/** For generate(), after `length` tokens of conversation. Throws ConfigError if maxLength leaves no room. */
export function answerOptions(
  options: ChatTurnOptions,
  template: ChatTemplate,
  length: number,
): GenerateOptions {
  const { maxLength = Number.POSITIVE_INFINITY, stop = [], ...rest } = options;
  const given = Object.fromEntries(Object.entries(rest).filter(([, value]) => value !== undefined));
  const { maxTokens, ...others } = { ...CHAT_DEFAULTS, ...(given as Omit<GenerateOptions, 'stop'>) };
  const room = maxLength - length;
  if (!(room > 0)) {
    throw new ConfigError(
      `chat: expected a conversation below maxLength ${maxLength}, got ${length} tokens. Raise it, or begin a new conversation.`,
    );
  }
  const stops = [...template.stop, ...(typeof stop === 'string' ? [stop] : stop)];
  return { ...others, maxTokens: Math.min(maxTokens, room), stop: stops };
}
