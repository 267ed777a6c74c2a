/** Saved sessions: going on is never having stopped, and a damaged file is an error and nothing else. */
import { readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { currentDevice } from '../../src/backend/backend.ts';
import { FormatError, StateError } from '../../src/base/errors.ts';
import { ChatSession, type ChatSessionOptions, type LanguageModel } from '../../src/index.node.ts';
import { decodeStateBytes, encodeStateBytes } from '../../src/models/state-bytes.ts';
import { settle } from '../support/settle.ts';
import { answerOf, charModel } from './chat-model.ts';

const OPTIONS: ChatSessionOptions = {
  temperature: 1,
  topP: 0.9,
  maxTokens: 9,
  repetitionPenalty: 1.2,
  system: 'Be brief.',
  seed: 3,
  snapshots: 5,
};

let model: LanguageModel;
let bytes: Uint8Array;
beforeAll(async () => {
  model = await charModel();
  const session = model.startChat(OPTIONS);
  for (const text of ['one', 'two', 'three', 'four']) await answerOf(session.send(text));
  bytes = await session.toBytes();
  session.dispose();
});
beforeEach(settle);

/** What a session says from here on, in all the ways there are. */
async function goOn(session: ChatSession): Promise<unknown[]> {
  const said: unknown[] = [];
  const note = async (answer: Parameters<typeof answerOf>[0]) =>
    said.push(await answerOf(answer), session.stats);
  await note(session.retry());
  await note(session.send('five'));
  await note(session.edit(3, 'deux'));
  session.setSystem('Be kind.');
  await note(session.send('six'));
  return [...said, session.messages];
}

describe('going on', () => {
  it('is the same as never having stopped', async () => {
    const session = model.startChat(OPTIONS);
    for (const text of ['one', 'two', 'three', 'four']) await answerOf(session.send(text));
    const { tokens, snapshots, snapshotBytes } = session.stats;
    const copy = ChatSession.fromBytes(bytes, model);
    expect(copy.stats).toMatchObject({ tokens, snapshots, snapshotBytes });
    expect(copy.messages).toEqual(session.messages);
    expect(await goOn(copy)).toEqual(await goOn(session));
    session.dispose();
    copy.dispose();
  });

  it('in another model of the same weights, from a file', async () => {
    const path = join(tmpdir(), `mamba-ts-chat-${process.pid}.session`);
    await writeFile(path, bytes);
    const other = await charModel();
    other.chatTemplate = null; // the session brings its own
    const [here, there] = [
      ChatSession.fromBytes(bytes, model),
      ChatSession.fromBytes(await readFile(path), other),
    ];
    expect(await goOn(there)).toEqual(await goOn(here));
    expect(there.template.name).toBe('zephyr');
    await rm(path);
    here.dispose();
    there.dispose();
    other.dispose();
  });

  it('before the first turn and after an abort', async () => {
    const session = model.startChat({ seed: 1 });
    const empty = ChatSession.fromBytes(await session.toBytes(), model);
    expect(empty.messages).toEqual([]);
    expect(empty.stats).toEqual(session.stats);
    await answerOf(empty.send('one', { signal: AbortSignal.abort() }));
    const aborted = ChatSession.fromBytes(await empty.toBytes(), model);
    expect(aborted.messages).toEqual(empty.messages);
    const answers = [await answerOf(aborted.send('two')), await answerOf(empty.send('two'))];
    expect(answers[0]).toEqual(answers[1]);
    for (const each of [session, empty, aborted]) each.dispose();
  });

  it('keeps the options that are data', async () => {
    const all: ChatSessionOptions = {
      ...OPTIONS,
      topK: 40,
      minP: 0.01,
      stop: ['@@'],
      stopIds: [3],
      eosId: null,
      maxLength: 90,
      prefillTokens: 7,
      logprobs: 1,
      logitBias: new Map([
        [4, Number.NEGATIVE_INFINITY],
        [5, 2],
      ]),
      signal: new AbortController().signal,
    };
    const session = model.startChat(all);
    const copy = ChatSession.fromBytes(await session.toBytes(), model);
    expect(await answerOf(copy.send('one'))).toEqual(await answerOf(session.send('one')));
    const { metadata } = decodeStateBytes(await copy.toBytes());
    const { signal: _, system: __, ...saved } = all;
    expect(JSON.parse(metadata.session!).options).toEqual({ ...saved, logitBias: { 4: null, 5: 2 } });
    session.dispose();
    copy.dispose();
    const unbound = model.startChat({ seed: 1, maxLength: Number.POSITIVE_INFINITY });
    ChatSession.fromBytes(await unbound.toBytes(), model).dispose();
    unbound.dispose();
  });
});

/** The file with its conversation changed, under a checksum that is right again. */
function edited(change: (session: Record<string, unknown>) => unknown): Uint8Array {
  const { tensors, metadata } = decodeStateBytes(bytes);
  const session = JSON.parse(metadata.session!) as Record<string, unknown>;
  const json = JSON.stringify(change(session) ?? session);
  const entries = [...tensors].map(([name, tensor]) => ({ name, ...tensor }));
  let low = 0x811c9dc5;
  const mix = (word: number) => {
    low = Math.imul(low ^ word, 0x01000193);
  };
  const mixText = (text: string) =>
    [text.length, ...[...text].map((char) => char.charCodeAt(0))].forEach(mix);
  for (const text of [metadata.format!, metadata.fingerprint!, json]) mixText(text);
  for (const { name, shape, data } of entries) {
    mixText(`${name} ${shape.join(' ')}`);
    new Uint32Array(data.buffer).forEach(mix);
  }
  const checksum = (low >>> 0).toString(16).padStart(8, '0');
  return encodeStateBytes(entries, { ...metadata, session: json, checksum } as Record<string, string>);
}

describe('refusals', () => {
  it('another model', async () => {
    const other = await charModel(2);
    expect(() => ChatSession.fromBytes(bytes, other)).toThrow(StateError);
    expect(() => ChatSession.fromBytes(bytes, other)).toThrow('expected a session with this model');
    other.dispose();
  });

  it('the state of a model, which is no session', async () => {
    const state = model.initialState();
    const saved = await state.toBytes();
    expect(() => ChatSession.fromBytes(saved, model)).toThrow(FormatError);
    expect(() => ChatSession.fromBytes(saved, model)).toThrow('got the format null');
    state.dispose();
  });

  it.each<[string, (session: Record<string, unknown>) => unknown]>([
    ['no object', () => [null]],
    ['no messages', (s) => void delete s.messages],
    ['a message that is none', (s) => void (s.messages = [{ role: 'user' }])],
    ['an unknown option', (s) => void (s.options = { ...(s.options as object), other: 1 })],
    ['no seed', (s) => void (s.options = { snapshots: 5 })],
    ['an option of another type', (s) => void (s.options = { ...(s.options as object), stop: 5 })],
    ['a bad bias', (s) => void (s.options = { ...(s.options as object), logitBias: { 4: 'x' } })],
    ['no template', (s) => void (s.template = 7)],
    ['a negative turn', (s) => void (s.turn = -1)],
    ['ids of another vocabulary', (s) => void (s.ids as number[]).fill(97)],
    ['too few ids', (s) => void (s.ids as number[]).pop()],
    ['too much text', (s) => void (s.text += 'x')],
    ['snapshots in disorder', (s) => void (s.snapshots as unknown[]).reverse()],
    ['more snapshots than allowed', (s) => void (s.options = { seed: 1, snapshots: 2 })],
    ['a snapshot that is none', (s) => void (s.snapshots as unknown[]).fill(null)],
  ])('%s', (_, change) => {
    expect(() => ChatSession.fromBytes(edited(change), model)).toThrow(FormatError);
  });

  it('and accepts the file that was only written again', () => {
    ChatSession.fromBytes(
      edited(() => undefined),
      model,
    ).dispose();
  });

  it('any damage, and gives the memory back', () => {
    const { liveBytes } = currentDevice().memory;
    const damage = fc.oneof(
      fc.record({ kind: fc.constant('cut' as const), at: fc.nat({ max: bytes.length - 1 }) }),
      fc.record({
        kind: fc.constant('flip' as const),
        // Half of them in the header.
        at: fc.oneof(fc.nat({ max: bytes.length - 1 }), fc.nat({ max: 4000 })),
        bits: fc.integer({ min: 1, max: 255 }),
      }),
      fc.record({
        kind: fc.constant('insert' as const),
        at: fc.nat({ max: bytes.length }),
        value: fc.nat({ max: 255 }),
      }),
    );
    const property = fc.property(damage, (change) => {
      let copy = bytes.slice();
      if (change.kind === 'cut') copy = copy.slice(0, change.at);
      else if (change.kind === 'flip') copy[change.at]! ^= change.bits;
      else
        copy = Uint8Array.from([...copy.subarray(0, change.at), change.value, ...copy.subarray(change.at)]);
      let session: ChatSession;
      try {
        session = ChatSession.fromBytes(copy, model);
      } catch (error) {
        expect(error).toBeInstanceOf(FormatError);
        return;
      }
      // What is not looked at may differ: spaces behind the header's JSON, bytes behind the last tensor.
      const original = ChatSession.fromBytes(bytes, model);
      expect(session.messages).toEqual(original.messages);
      expect(session.stats).toEqual(original.stats);
      session.dispose();
      original.dispose();
    });
    fc.assert(property, { numRuns: 400, seed: 1 });
    expect(currentDevice().memory.liveBytes).toBe(liveBytes);
  });

  it('bytes at random', () => {
    const property = fc.property(fc.uint8Array({ maxLength: 300 }), (random) => {
      expect(() => ChatSession.fromBytes(random, model)).toThrow(FormatError);
    });
    fc.assert(property, { numRuns: 200, seed: 1 });
  });
});
