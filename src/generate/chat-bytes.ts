/**
 * A saved chat session: a safetensors file with the tensors of every snapshot (`snapshots.S.layers.N.ssm`,
 * ...) and, as metadata, the conversation in JSON, the model's fingerprint and a checksum over all of it.
 */
import { FormatError, StateError } from '../base/errors.ts';
import type { LanguageModel } from '../models/language-model.ts';
import { State } from '../models/state.ts';
import { decodeStateBytes, encodeStateBytes, type StateTensor } from '../models/state-bytes.ts';
import type { ChatMessage } from '../text/chat-template.ts';
import type { ChatSessionOptions } from './chat.ts';
import { ChatMemory } from './chat-memory.ts';

const FORMAT = 'mamba-ts chat session 1';

/** A session but for its states. */
export interface ChatRecord {
  messages: readonly ChatMessage[];
  /** Those of SAVED, with the seed in any case. */
  options: ChatSessionOptions;
  /** The source. */
  template: string;
  /** Answers so far: seed and turn make the random numbers of the next one. */
  turn: number;
  /** Milliseconds since 1970. */
  begun: number;
}

type NamedTensor = StateTensor & { name: string };
type Check = (value: unknown) => boolean;

const isNumber: Check = (value) => typeof value === 'number';
const isText: Check = (value) => typeof value === 'string';
const isCount: Check = (value) => Number.isSafeInteger(value) && (value as number) >= 0;
const isListOf =
  (check: Check): Check =>
  (value) =>
    Array.isArray(value) && value.every(check);

/** JSON writes -Infinity, which bans an id, as null. */
const isBias: Check = (value) => value === null || isNumber(value);

/** Options that are plain data. A signal belongs to one process. */
const SAVED: { [K in keyof ChatSessionOptions]?: Check } = {
  maxTokens: isNumber,
  maxLength: isNumber,
  temperature: isNumber,
  topK: isNumber,
  topP: isNumber,
  minP: isNumber,
  repetitionPenalty: isNumber,
  seed: isCount,
  stop: (value) => isText(value) || isListOf(isText)(value),
  eosId: (value) => value === null || isNumber(value),
  stopIds: isListOf(isNumber),
  logitBias: (value) => typeof value === 'object' && value !== null && Object.values(value).every(isBias),
  logprobs: isNumber,
  prefillTokens: isNumber,
  snapshots: isCount,
};

export async function encodeSession(
  record: ChatRecord,
  memory: ChatMemory,
  model: LanguageModel,
): Promise<Uint8Array> {
  const tensors: NamedTensor[] = [];
  for (const [i, { state }] of memory.snapshots.entries()) {
    const saved = decodeStateBytes(await state.toBytes());
    for (const [name, tensor] of saved.tensors) tensors.push({ name: `snapshots.${i}.${name}`, ...tensor });
  }
  const snapshots = memory.snapshots.map(({ end, state, pending }) => ({
    end,
    tokens: state.tokens[0]!,
    pending: pending.length,
  }));
  const { text, ids } = memory;
  const session = JSON.stringify({ ...record, options: plainOptions(record.options), text, ids, snapshots });
  const fingerprint = await model.refreshFingerprint();
  const checksum = checksumOf([FORMAT, fingerprint, session], tensors);
  return encodeStateBytes(tensors, { format: FORMAT, fingerprint, session, checksum });
}

function plainOptions(options: ChatSessionOptions): ChatSessionOptions {
  const { logitBias } = options;
  const all = { ...options, logitBias: logitBias instanceof Map ? Object.fromEntries(logitBias) : logitBias };
  const isPlain = ([key, value]: [string, unknown]) =>
    key in SAVED && value !== undefined && value !== Number.POSITIVE_INFINITY; // no maxLength
  return Object.fromEntries(Object.entries(all).filter(isPlain));
}

/** Throws FormatError for bytes that are not a session or damaged, StateError for another model's. */
export function decodeSession(
  bytes: Uint8Array,
  model: LanguageModel,
): { record: ChatRecord; memory: ChatMemory } {
  const { tensors, metadata } = decodeFile(bytes);
  const { fingerprint, session } = metadata as { fingerprint: string; session: string };
  if (fingerprint !== model.fingerprint) {
    throw new StateError(
      `ChatSession.fromBytes: expected a session with this model (${model.fingerprint}), got one with ${fingerprint}. ` +
        'Load the model it was held with, or start a new session.',
    );
  }
  const { text, ids, snapshots, ...record } = parseSession(session, model);
  const memory = new ChatMemory(record.options.snapshots!);
  try {
    snapshots.forEach(({ end, tokens, pending }, i) => {
      const prefix = `snapshots.${i}.`;
      const own = tensors.filter(({ name }) => name.startsWith(prefix));
      const renamed = own.map((tensor) => ({ ...tensor, name: tensor.name.slice(prefix.length) }));
      const state = encodeStateBytes(renamed, { fingerprint, tokens: JSON.stringify([tokens]) });
      memory.add(text.slice(0, end), ids.slice(0, tokens + pending), State.fromBytes(state, model), pending);
    });
  } catch (error) {
    memory.cut(null);
    throw error;
  }
  return { record, memory };
}

function fail(problem: string, cause?: unknown): never {
  throw new FormatError(
    `ChatSession.fromBytes: expected the bytes of a saved chat session, got ${problem}. The file is damaged or is not a session.`,
    { cause },
  );
}

function decodeFile(bytes: Uint8Array): { tensors: NamedTensor[]; metadata: Record<string, unknown> } {
  let file: ReturnType<typeof decodeStateBytes>;
  try {
    file = decodeStateBytes(bytes);
  } catch (error) {
    if (error instanceof FormatError) fail('others', error);
    throw error;
  }
  const metadata: Record<string, unknown> = file.metadata;
  const { format, fingerprint, session, checksum } = metadata;
  if (format !== FORMAT) fail(`the format ${JSON.stringify(format ?? null)}`);
  if (typeof fingerprint !== 'string' || typeof session !== 'string') fail('no conversation');
  const tensors = [...file.tensors].map(([name, tensor]) => ({ name, ...tensor }));
  if (checksumOf([FORMAT, fingerprint, session], tensors) !== checksum) fail('another checksum');
  return { tensors, metadata };
}

type Session = ChatRecord & {
  text: string;
  ids: number[];
  /** `pending` is their number. */
  snapshots: { end: number; tokens: number; pending: number }[];
};

function parseSession(json: string, model: LanguageModel): Session {
  let value: unknown;
  try {
    value = JSON.parse(json);
  } catch (error) {
    fail('a conversation that is not JSON', error);
  }
  const session = (value ?? {}) as { [K in keyof Session]?: unknown };
  const isMessage: Check = (item) => {
    const { role, content } = (item ?? {}) as Partial<ChatMessage>;
    return isText(role) && isText(content);
  };
  const isId: Check = (id) => isCount(id) && (id as number) < model.config.vocab_size;
  const isSnapshot: Check = (item) => {
    const { end, tokens, pending } = (item ?? {}) as Partial<Session['snapshots'][number]>;
    return isCount(end) && isCount(tokens) && isCount(pending);
  };
  const checks: { [K in keyof Session]: Check } = {
    messages: isListOf(isMessage),
    options: areOptions,
    template: isText,
    turn: isCount,
    begun: isCount,
    text: isText,
    ids: isListOf(isId),
    snapshots: isListOf(isSnapshot),
  };
  const bad = Object.entries(checks).find(([key, check]) => !check(session[key as keyof Session]));
  if (bad) fail(`no usable ${bad[0]} in it`);
  const checked = session as Session;
  const { snapshots, text, ids, options } = checked;
  const isChain = (ends: number[], length: number) =>
    ends.every((end, i) => end >= (ends[i - 1] ?? 0)) && (ends.at(-1) ?? 0) === length;
  const ends = snapshots.map(({ end }) => end);
  const counts = snapshots.map(({ tokens, pending }) => tokens + pending);
  if (!isChain(ends, text.length) || !isChain(counts, ids.length) || ends.length > options.snapshots!) {
    fail('snapshots that do not fit its text');
  }
  const { logitBias } = options;
  if (!logitBias) return checked;
  const restored = Object.entries(logitBias).map(([id, bias]) => [id, bias ?? Number.NEGATIVE_INFINITY]);
  return { ...checked, options: { ...options, logitBias: Object.fromEntries(restored) } };
}

const areOptions: Check = (value) => {
  if (typeof value !== 'object' || value === null) return false;
  const { seed, snapshots } = value as ChatSessionOptions;
  const checks: { [key: string]: Check | undefined } = SAVED;
  const entries = Object.entries(value);
  return isCount(seed) && isCount(snapshots) && entries.every(([key, item]) => checks[key]?.(item) === true);
};

/** 32-bit FNV-1a over texts, names, shapes and the bits of the numbers, four bytes at a time. */
function checksumOf(texts: readonly string[], tensors: readonly NamedTensor[]): string {
  let hash = 0x811c9dc5;
  const mix = (word: number) => {
    hash = Math.imul(hash ^ word, 0x01000193);
  };
  const mixText = (text: string) => {
    mix(text.length);
    for (let i = 0; i < text.length; i++) mix(text.charCodeAt(i));
  };
  texts.forEach(mixText);
  for (const { name, shape, data } of tensors) {
    mixText(`${name} ${shape.join(' ')}`);
    const words = new Uint32Array(data.buffer, data.byteOffset, data.length);
    for (let i = 0; i < words.length; i++) mix(words[i]!);
  }
  return (hash >>> 0).toString(16).padStart(8, '0');
}
