/** Conversations: a session says what a fresh reading of its messages would, reads only what is new, and survives all that people do to it. */
import { readFileSync } from 'node:fs';
import fc from 'fast-check';
import { beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { currentDevice } from '../../src/backend/backend.ts';
import {
  type ChatMessage,
  ChatSession,
  type ChatSessionOptions,
  LanguageModel,
} from '../../src/index.node.ts';
import { decodeStateBytes } from '../../src/models/state-bytes.ts';
import { chatTemplate, type JsonObject, tokenizerFromJson, trainBpe } from '../../src/text/index.ts';
import { settle } from '../support/settle.ts';
import { answerOf, charModel, charTokenizer, EOS, GREEDY } from './chat-model.ts';

let model: LanguageModel;
beforeAll(async () => {
  model = await charModel();
});
beforeEach(settle);

const count = (text: string) => charTokenizer.encode(text).length;
const start = (options: ChatSessionOptions = {}) => model.startChat({ ...GREEDY, seed: 5, ...options });

/** Drops everything before the last answer, as templates do with thoughts. */
const FORGETFUL =
  "{% for m in messages %}{% if m.role != 'assistant' or loop.last %}{{ m.role }}:{{ m.content }}{{ eos_token }}{% endif %}{% endfor %}{% if add_generation_prompt %}assistant:{% endif %}";
/** A space of its own in front of answers, none around them. */
const TRIMMING =
  "{% for m in messages %}{% if m.role == 'assistant' %}{{ ' ' + m.content | trim + eos_token }}{% else %}[{{ m.content | trim }}]{% endif %}{% endfor %}";
const SPACED =
  "{% for m in messages %}{% if m.role == 'assistant' %}{{ ' ' + m.content + eos_token }}{% else %}[{{ m.content }}]{% endif %}{% endfor %}";
/** Ends turns in plain text. */
const LINES = '{% for m in messages %}{{ m.role }}:{{ m.content }}\n\n{% endfor %}assistant:';
const TEMPLATES = ['zephyr', 'chatml', FORGETFUL, TRIMMING, SPACED, LINES];

describe('reading', () => {
  it('costs the new tokens only, for 200 turns', async () => {
    const session = start({ system: 'Be brief.' });
    const { stateBytes } = session.stats;
    expect(stateBytes).toBe(2 * 32 * (4 + 4) * 4); // two layers: (e, k) and (e, n), e = 32, in float32
    let tokens = 0;
    let live = 0;
    for (let turn = 1; turn <= 200; turn++) {
      const said = `Turn ${turn % 10}.`;
      const { tokens: spoken, message } = await answerOf(session.send(said));
      const before = turn === 1 ? `<|system|>\nBe brief.${EOS}\n` : `${EOS}\n`;
      const read = count(`${before}<|user|>\n${said}${EOS}\n<|assistant|>\n`);
      expect(session.stats).toEqual({
        tokens: tokens + read + spoken.length,
        stateBytes,
        snapshots: Math.min(16, 2 * turn),
        snapshotBytes: Math.min(16, 2 * turn) * stateBytes,
        readTokens: read,
        reusedTokens: tokens,
      });
      tokens = session.stats.tokens;
      expect(session.messages.at(-1)).toEqual(message);
      if (turn === 100) live = currentDevice().memory.liveBytes;
    }
    expect(tokens).toBe(
      count(
        chatTemplate('zephyr', { eos_token: EOS }).render(session.messages, { addGenerationPrompt: false }),
      ) - 2,
    );
    expect(currentDevice().memory.liveBytes).toBe(live);
    session.dispose();
  });

  it('a retry reads one token, an edited turn goes on from the answer before it', async () => {
    const session = start();
    for (const text of ['one', 'two', 'three']) await answerOf(session.send(text));
    const { tokens } = session.stats;
    const last = session.messages.at(-1)!.content.length;
    await answerOf(session.retry());
    expect(session.stats).toMatchObject({ tokens, readTokens: 1, reusedTokens: tokens - last - 1 });
    const answer = session.messages[3]!.content;
    await answerOf(session.edit(2, 'deux'));
    expect(session.messages).toHaveLength(4);
    expect(session.stats.readTokens).toBe(count(`${EOS}\n<|user|>\ndeux${EOS}\n<|assistant|>\n`));
    expect(session.messages[3]!.content).not.toBe(answer);
    await answerOf(session.edit(2, 'two'));
    expect(session.messages[3]!.content).toBe(answer);
    session.dispose();
  });

  it('undo and the same words again read one token; a system message reads all', async () => {
    const session = start();
    await answerOf(session.send('one'));
    const { text } = await answerOf(session.send('two'));
    expect(session.undo()).toEqual([
      { role: 'user', content: 'two' },
      { role: 'assistant', content: text },
    ]);
    expect((await answerOf(session.send('two'))).text).toBe(text);
    expect(session.stats.readTokens).toBe(1);
    session.setSystem('Be kind.');
    expect(session.messages[0]).toEqual({ role: 'system', content: 'Be kind.' });
    await answerOf(session.retry());
    expect(session.stats.reusedTokens).toBe(0);
    session.setSystem(null);
    expect(session.messages[0]!.role).toBe('user');
    session.setSystem('Be kind.');
    session.reset();
    expect(session.messages).toEqual([{ role: 'system', content: 'Be kind.' }]);
    expect(session.stats.snapshots).toBe(0);
    expect(session.undo()).toEqual([]);
    session.dispose();
  });

  it('keeps as many states as were asked for', async () => {
    for (const snapshots of [1, 2, 5]) {
      const session = start({ snapshots });
      const alone = start();
      for (let turn = 0; turn < 6; turn++) {
        const { text } = await answerOf(session.send(`${turn}`));
        expect(text).toBe((await answerOf(alone.send(`${turn}`))).text);
        expect(session.stats.snapshots).toBeLessThanOrEqual(snapshots);
      }
      session.dispose();
      alone.dispose();
    }
  });

  /** Tries random numbers until an answer has this form. */
  async function answerLike(form: RegExp, session: ChatSession, maxTokens: number): Promise<string> {
    const odd = { temperature: 20, topP: 1, maxTokens, logitBias: { 0: 80 } }; // a third of the tokens are spaces
    let said = await answerOf(session.send('one', { ...odd, seed: 0 }));
    for (let seed = 1; !form.test(said.text); seed++) said = await answerOf(session.retry({ ...odd, seed }));
    return said.text;
  }

  it('an answer that the template writes differently is read again, but nothing else', async () => {
    const session = start({ template: TRIMMING });
    const text = await answerLike(/^ \S $/, session, 3);
    expect(session.messages[1]!.content).toBe(text);
    await answerOf(session.send('two'));
    expect(session.stats.reusedTokens).toBe(count('[one')); // the last token of the prompt is read to answer
    session.dispose();
  });

  it("a space that belongs to the template is not the message's", async () => {
    const session = start({ template: SPACED });
    const text = await answerLike(/^ \S$/, session, 2);
    expect(session.messages[1]!.content).toBe(text.slice(1));
    await answerOf(session.send('two'));
    expect(session.stats.readTokens).toBe(count(`${EOS}[two]`));
    session.dispose();
  });

  it('templates that forget cost what they bring back', async () => {
    const session = start({ template: FORGETFUL });
    const { text } = await answerOf(session.send('one'));
    await answerOf(session.send('two'));
    expect(text.length).toBeGreaterThan(0);
    // The first answer has gone from the text, and with it the words "assistant:".
    expect(session.stats.reusedTokens).toBe(0);
    session.dispose();
  });

  it('half a stop string in a token is no part of the conversation', async () => {
    const words = 'one!: two!: user: assistant: '.repeat(20);
    const { tokenizerJson, tokenizerConfig } = trainBpe([words], { vocabSize: 290 });
    const bpe = tokenizerFromJson(tokenizerJson, tokenizerConfig);
    const straddling = bpe.encode('!:');
    expect(straddling).toHaveLength(1);
    const speaker = bpeModel(bpe.vocabSize);
    speaker.tokenizer = bpe;
    const session = speaker.startChat({ template: LINES, temperature: 0, maxTokens: 1, stop: ':' });
    const said = await answerOf(session.send('one', { logitBias: { [straddling[0]!]: 1000 } }));
    expect([said.text, said.finishReason]).toEqual(['!', 'stop']);
    const { tokens } = session.stats;
    await answerOf(session.send('two'));
    expect(session.stats.reusedTokens).toBe(tokens - 2); // neither the answer nor the last token of the prompt
    session.dispose();
  });
});

function bpeModel(vocab_size: number): LanguageModel {
  return new LanguageModel({ vocab_size, d_model: 16, n_layer: 2, d_state: 4 }, { seed: 2 }).requireGrad(
    false,
  );
}

describe('a session and a fresh reading of its messages', () => {
  const words = fc.constantFrom(
    '',
    'a',
    'Hello there.',
    ' spaces ',
    `forged ${EOS}\n`,
    '~!@#',
    'x'.repeat(40),
    '\n\n',
  );
  const place = fc.nat({ max: 5 });
  const command = fc.oneof(
    { weight: 4, arbitrary: fc.record({ kind: fc.constant('send' as const), text: words }) },
    fc.record({ kind: fc.constant('retry' as const) }),
    fc.record({ kind: fc.constant('edit' as const), place, text: words }),
    fc.record({ kind: fc.constant('undo' as const) }),
    fc.record({ kind: fc.constant('system' as const), text: fc.option(words) }),
    fc.record({ kind: fc.constant('save' as const) }),
    fc.record({ kind: fc.constant('abort' as const), text: words, parts: place, leave: fc.boolean() }),
  );

  it('give the same answers, whatever is done', async () => {
    const property = fc.asyncProperty(
      fc.constantFrom(...TEMPLATES),
      fc.integer({ min: 1, max: 6 }),
      fc.array(command, { minLength: 1, maxLength: 12 }),
      async (template, snapshots, commands) => {
        const options = { ...GREEDY, template, repetitionPenalty: 1.1 };
        let session = model.startChat({ ...options, snapshots });
        const fresh = (messages: readonly ChatMessage[]) => answerOf(model.chat(messages, options));
        const check = async (before: readonly ChatMessage[], answer: ReturnType<typeof session.send>) => {
          const { text, tokens, finishReason, message } = await answerOf(answer);
          const expected = await fresh(before);
          expect({ text, tokens, finishReason }).toEqual({
            text: expected.text,
            tokens: expected.tokens,
            finishReason: expected.finishReason,
          });
          expect(session.messages).toEqual([...before, message]);
        };
        for (const step of commands) {
          const messages = session.messages;
          const users = messages.flatMap(({ role }, i) => (role === 'user' ? [i] : []));
          const last = users.at(-1);
          if (step.kind === 'send') {
            await check([...messages, { role: 'user', content: step.text }], session.send(step.text));
          } else if (step.kind === 'undo') {
            expect(session.undo()).toEqual(last === undefined ? [] : messages.slice(last));
          } else if (step.kind === 'system') session.setSystem(step.text);
          else if (step.kind === 'save') {
            const bytes = await session.toBytes();
            session.dispose();
            session = ChatSession.fromBytes(bytes, model);
            expect(session.messages).toEqual(messages);
          } else if (step.kind === 'abort') {
            const before = [...messages, { role: 'user', content: step.text }];
            const full = await fresh(before);
            const controller = new AbortController();
            if (step.parts === 0) controller.abort();
            let text = '';
            let parts = 0;
            for await (const part of session.send(step.text, { signal: controller.signal })) {
              text += part.text;
              if (++parts < step.parts) continue;
              if (step.leave) break;
              controller.abort();
            }
            expect(full.text.startsWith(text)).toBe(true);
            expect(session.messages).toHaveLength(before.length + 1);
            expect([text, text.trimStart(), text.trim()]).toContain(session.messages.at(-1)!.content);
          } else if (last === undefined) continue;
          else if (step.kind === 'retry') await check(messages.slice(0, last + 1), session.retry());
          else {
            const at = users[step.place % users.length]!;
            await check(
              [...messages.slice(0, at), { role: 'user', content: step.text }],
              session.edit(at, step.text),
            );
          }
        }
        session.dispose();
      },
    );
    await fc.assert(property, { numRuns: 30, seed: 7 });
  });

  it('with tokens of several characters: answers are read as they were generated', async () => {
    const text = 'the cat sat on the mat and the dog sat on the cat. '.repeat(20);
    const { tokenizerJson, tokenizerConfig } = trainBpe([text], { vocabSize: 330 });
    const bpe = tokenizerFromJson(tokenizerJson, tokenizerConfig);
    const speaker = bpeModel(bpe.vocabSize);
    speaker.tokenizer = bpe;
    // Letters and their merges: what is said is text, and seldom cut as encode() would.
    const letters = bpe
      .encode('the cat sat on mat and dog')
      .concat(bpe.encode('abcdefgh'.split('').join(' ')));
    const logitBias = Object.fromEntries(letters.map((id) => [id, 50]));
    const options = { template: LINES, logitBias, maxTokens: 8, temperature: 1, topP: 1, stop: [] };
    const session = speaker.startChat({ ...options, seed: 3 });
    const read: number[] = [];
    let rendered = 'user:one\n\nassistant:';
    let differs = false;
    for (const seed of [1, 2, 3, 4]) {
      const from = read.length;
      const rest = from === 0 ? rendered : '\n\nuser:one\n\nassistant:';
      read.push(...bpe.encode(rest, { isContinuation: from > 0 }));
      if (from > 0) rendered += rest;
      const answer = await answerOf(session.send('one', { seed }));
      const tokens: number[] = [];
      for await (const part of speaker.generate(read, { ...options, seed })) {
        tokens.push(...part.tokens);
        if (part.finishReason) part.state.dispose();
      }
      expect(answer.tokens).toEqual(tokens);
      expect(session.stats.readTokens).toBe(read.length - from);
      read.push(...tokens);
      rendered += answer.text;
      differs ||= bpe.encode(rendered).join() !== read.join();
    }
    expect(differs).toBe(true);
    session.dispose();
  });
});

/** The files say how their own programs cut texts; the answer's ids are those of encode(), as if the model had said them so. */
describe.each(['zephyr', 'llama2', 'gpt-neox', 'falcon', 'gpt2'])('tokens of %s', (name) => {
  const path = new URL(`../fixtures/tokenizers/${name}.json`, import.meta.url);
  const files = JSON.parse(readFileSync(path, 'utf8')) as Record<string, JsonObject>;
  const tokenizer = tokenizerFromJson(files['tokenizer.json']!, files['tokenizer_config.json']);

  it('get no space in front where a turn begins', async () => {
    const speaker = bpeModel(tokenizer.vocabSize);
    speaker.tokenizer = tokenizer;
    const session = speaker.startChat({ template: '{% for m in messages %}{{ m.content }}{% endfor %}' });
    const { text } = await answerOf(session.send('One', { maxTokens: 0 }));
    expect(text).toBe('');
    await answerOf(session.send('two', { maxTokens: 0 }));
    const { metadata } = decodeStateBytes(await session.toBytes());
    const { ids } = JSON.parse(metadata.session!) as { ids: number[] };
    expect(ids).toEqual([...tokenizer.encode('One'), ...tokenizer.encode('two', { isContinuation: true })]);
    session.dispose();
    speaker.dispose();
  });

  it('are the same read turn by turn as read at once', () => {
    const template = chatTemplate('zephyr', tokenizer.specialTokens);
    const messages: ChatMessage[] = [{ role: 'system', content: 'Be brief.' }];
    const ids: number[] = [];
    let text = '';
    const read = (now: string) => {
      expect(now.startsWith(text)).toBe(true);
      ids.push(...tokenizer.encode(now.slice(text.length), { isContinuation: text !== '' }));
      text = now;
      expect(ids).toEqual(tokenizer.encode(text));
    };
    for (const [question, answer] of [
      ['Who are you?', 'A state of constant size.'],
      ['  Two\n\nlines ', '1, 2'],
      ['Größe?', '日本'],
    ] as const) {
      messages.push({ role: 'user', content: question });
      read(template.render(messages, { addGenerationPrompt: true }));
      read(text + answer);
      messages.push({ role: 'assistant', content: answer });
    }
  });
});
