/** From the options of a chat to its conversation: a new one, or that of a file. */
import { existsSync } from 'node:fs';
import {
  CHAT_TEMPLATES,
  ChatSession,
  type ChatTurnOptions,
  ConfigError,
  type LanguageModel,
  readText,
} from '../index.node.ts';
import { ChatDesk, readConversation } from './chat-desk.ts';

export interface OpenOptions {
  /** The name of a built-in template, or the path of a file. Default: the model's own. */
  chatTemplate?: string;
  system?: string;
  /** The conversation's file; begun if it is not there. */
  session?: string;
  /** Of a new conversation. */
  seed?: number;
  turn: ChatTurnOptions;
}

/**
 * Throws ConfigError for a template that is nowhere, and for another one than a
 * conversation from a file was held with.
 */
export async function openDesk(model: LanguageModel, options: OpenOptions): Promise<ChatDesk> {
  const { chatTemplate, system, session: path = null, seed, turn } = options;
  const template = await templateSource(chatTemplate);
  const open = async (bytes: Uint8Array) => ChatSession.fromBytes(bytes, model);
  if (path === null || !existsSync(path)) {
    const snapshots = path === null ? undefined : savedSnapshots(model);
    const session = model.startChat({ ...turn, template, system, seed, snapshots });
    return new ChatDesk({ session, open, path, options: turn });
  }
  // Its template is in the file: the model need not have one.
  const session = await readConversation(path, open);
  if (template !== undefined && session.template.source !== template) {
    throw new ConfigError(
      `chat: expected the template that ${path} was begun with, got ${chatTemplate}. Leave --chat-template out, or begin another file.`,
    );
  }
  if (system !== undefined) session.setSystem(system);
  return new ChatDesk({ session, open, path, options: turn });
}

/**
 * A session file is written after every turn and holds all snapshots: of a model
 * with large states it keeps fewer.
 */
function savedSnapshots(model: LanguageModel): number {
  const state = model.initialState();
  const count = Math.floor(SESSION_BYTES / state.sizeBytes);
  state.dispose();
  return Math.min(Math.max(count, 2), 16);
}

const SESSION_BYTES = 64e6;

async function templateSource(nameOrPath: string | undefined): Promise<string | undefined> {
  if (nameOrPath === undefined) return undefined;
  const builtIn: Partial<Record<string, string>> = CHAT_TEMPLATES;
  if (Object.hasOwn(builtIn, nameOrPath)) return builtIn[nameOrPath];
  if (existsSync(nameOrPath)) return readText(nameOrPath);
  const names = Object.keys(CHAT_TEMPLATES).join(', ');
  throw new ConfigError(
    `chat: expected --chat-template ${names} or a file, got ${nameOrPath}, where nothing is. Check the name or path.`,
  );
}
