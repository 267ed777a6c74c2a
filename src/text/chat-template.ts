/**
 * Chat templates: from messages to the text that a model was taught to read as a conversation. The template
 * comes with the model or is chosen by name; it is never guessed. Source of the convention: Hugging Face
 * transformers, "Chat templates".
 */
import { ConfigError, FormatError } from '../base/errors.ts';
import { commonLength } from '../base/text.ts';
import { compile } from './jinja.ts';

/** Fields beyond these two reach the template as they are. */
export interface ChatMessage {
  /** `system`, `user`, `assistant`, or what else the template knows. */
  role: string;
  /**
   * Plain text. Names of special tokens and the template's own marks are not escaped, as in transformers: a
   * user who types them can forge the end of a message. Remove them from the words of strangers.
   */
  content: string;
}

export interface RenderOptions {
  /** Ends with the beginning of the assistant's next message. */
  addGenerationPrompt: boolean;
  /** For templates that print the date. Default: now. */
  now?: Date;
}

export interface ChatTemplate {
  /** For messages to people: `zephyr`, `chatml`, or where the source is from. */
  readonly name: string;
  /** Jinja. */
  readonly source: string;
  /** Where an assistant's message ends in plain text; empty if it ends with the end-of-text token. */
  readonly stop: readonly string[];
  /**
   * Throws ConfigError, with the template's own words, for messages it does not accept, and FormatError when
   * it fails or does not come to an end.
   */
  render(messages: readonly ChatMessage[], options: RenderOptions): string;
}

/** Built in, for models that come without a template: mamba-chat was trained with zephyr's. */
export const CHAT_TEMPLATES = {
  zephyr:
    "{% for message in messages %}{% if message.role in ['system', 'user', 'assistant'] %}" +
    '<|{{ message.role }}|>\n{{ message.content }}{{ eos_token }}\n' +
    '{% endif %}{% endfor %}{% if messages and add_generation_prompt %}<|assistant|>\n{% endif %}',
  chatml:
    '{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}' +
    '{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}',
} as const;

/**
 * A template from a name of CHAT_TEMPLATES or from Jinja source. `specialTokens` (a tokenizer's) are its
 * variables; absent begin and end tokens are empty texts. Throws ConfigError for an unknown name, FormatError
 * for a source that is not Jinja.
 */
export function chatTemplate(
  source: string,
  specialTokens: Readonly<Record<string, string>>,
  name?: string,
): ChatTemplate {
  const builtIn = templateNames.find((known) => source === known || source === CHAT_TEMPLATES[known]);
  if (!builtIn && !/\{[{%]/.test(source)) {
    throw new ConfigError(
      `chatTemplate: expected ${templateNames.join(', ')} or a Jinja template, got ${JSON.stringify(source.slice(0, 40))}. Use one of these.`,
    );
  }
  const text = builtIn ? CHAT_TEMPLATES[builtIn] : source;
  const label = name ?? builtIn ?? 'the chat template';
  const program = compile(text, label);
  const render: ChatTemplate['render'] = (messages, { addGenerationPrompt, now = new Date() }) => {
    checkMessages(messages);
    // Absent tools and documents are none and not undefined, which some templates tell apart.
    const variables = {
      bos_token: '',
      eos_token: '',
      ...specialTokens,
      messages,
      tools: null,
      documents: null,
    };
    return program({ ...variables, add_generation_prompt: addGenerationPrompt }, now);
  };
  return { name: label, source: text, stop: findStop(render, specialTokens.eos_token ?? ''), render };
}

const templateNames = Object.keys(CHAT_TEMPLATES) as (keyof typeof CHAT_TEMPLATES)[];

function checkMessages(messages: readonly ChatMessage[]): void {
  const isText = (value: unknown) => typeof value === 'string';
  const bad = messages.findIndex((message) => !isText(message?.role) || !isText(message.content));
  if (bad < 0) return;
  throw new ConfigError(
    `chatTemplate: expected role and content to be texts, got ${JSON.stringify(messages[bad])} as message ${bad}.`,
  );
}

/**
 * What a template puts behind an assistant's message in any case, up to the end of its line, or else the
 * beginning of the user's next one: a model taught with it may end its turns so. Found by looking, with a
 * message that occurs nowhere else.
 */
function findStop(render: ChatTemplate['render'], eos: string): string[] {
  const [question, answer] = ['Qk7', 'Zx9'];
  const user = { role: 'user', content: question };
  const assistant = { role: 'assistant', content: answer };
  const behind = (messages: ChatMessage[]): string => {
    const text = render(messages, { addGenerationPrompt: false });
    const at = text.lastIndexOf(answer);
    return at < 0 ? '' : text.slice(at + answer.length);
  };
  try {
    const last = behind([user, assistant]);
    const next = behind([user, assistant, user]).split(question)[0]!;
    const tail = next === '' ? last : next.slice(0, commonLength(last, next));
    if (tail === '') return next.trim() === '' ? [] : [next.trimEnd()];
    if (tail.trim() === '') return [tail];
    const [mark] = (eos === '' ? tail : tail.split(eos)[0]!).trim().split('\n');
    return mark ? [mark] : [];
  } catch (error) {
    // A template of other roles, or a broken one: rendering the real messages will tell.
    if (error instanceof ConfigError || error instanceof FormatError) return [];
    throw error;
  }
}

/**
 * The template's source among the files beside a model, by name: `chat_template.jinja`, else
 * `chat_template` in `tokenizer_config.json`, of several the one called `default`. Null if there is none.
 * Throws FormatError for another type.
 */
export function templateFromFiles(files: Readonly<Record<string, string>>): string | null {
  const own = files['chat_template.jinja'];
  if (own !== undefined) return own;
  const template = configTemplate(files['tokenizer_config.json']);
  if (template === undefined || template === null) return null;
  if (typeof template === 'string') return template;
  const named = Array.isArray(template)
    ? (template as ({ name?: unknown; template?: unknown } | null)[])
    : [];
  const chosen = (named.find((entry) => entry?.name === 'default') ?? named[0])?.template;
  if (typeof chosen === 'string') return chosen;
  throw new FormatError(
    'chatTemplate: expected a text or a list of named texts as chat_template in tokenizer_config.json, got another value. ' +
      'Put the template into chat_template.jinja.',
  );
}

/** Undefined also for a file that is not a JSON object: the tokenizer reports that. */
function configTemplate(config: string | undefined): unknown {
  try {
    return (JSON.parse(config ?? 'null') as { chat_template?: unknown } | null)?.chat_template;
  } catch {
    return undefined;
  }
}
