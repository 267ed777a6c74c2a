/** How answers end, where their random numbers come from, and what a conversation refuses. */
import { beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { currentDevice } from '../../src/backend/backend.ts';
import { ConfigError, FormatError, StateError } from '../../src/base/errors.ts';
import {
  type ChatMessage,
  type ChatSessionOptions,
  type ChatTurnOptions,
  LanguageModel,
} from '../../src/index.node.ts';
import { settle } from '../support/settle.ts';
import { answerOf, charModel, charTokenizer, EOS, GREEDY } from './chat-model.ts';

let model: LanguageModel;
beforeAll(async () => {
  model = await charModel();
});
beforeEach(settle);

const count = (text: string) => charTokenizer.encode(text).length;
const start = (options: ChatSessionOptions = {}) => model.startChat({ ...GREEDY, seed: 5, ...options });

describe('stopping', () => {
  it('an aborted answer stays as far as it was said, and the next turn goes on from it', async () => {
    const session = start({ logitBias: { 96: -100 } });
    const controller = new AbortController();
    let parts = 0;
    let last = null;
    for await (const part of session.send('one', { signal: controller.signal })) {
      if (++parts === 5) controller.abort();
      last = part;
    }
    expect(last).toMatchObject({ finishReason: 'abort', message: { role: 'assistant' } });
    expect(session.messages[1]!.content).toHaveLength(5);
    const { tokens } = session.stats;
    await answerOf(session.send('two'));
    expect(session.stats.reusedTokens).toBe(tokens);
    session.dispose();
  });

  it('the same when the loop is left', async () => {
    const session = start({ logitBias: { 96: -100 } });
    let said = '';
    for await (const { text } of session.send('one')) {
      said += text;
      if (said.length === 3) break;
    }
    expect(session.messages[1]).toEqual({ role: 'assistant', content: said });
    const { tokens } = session.stats;
    expect(tokens).toBe(count(`<|user|>\none${EOS}\n<|assistant|>\n`) + 3);
    await answerOf(session.send('two'));
    expect(session.stats.reusedTokens).toBe(tokens);
    session.dispose();
  });

  it('before a word was said, or while reading', async () => {
    const session = start();
    const signal = AbortSignal.abort();
    expect(await answerOf(session.send('one', { signal }))).toMatchObject({
      text: '',
      finishReason: 'abort',
    });
    expect(session.messages.at(-1)).toEqual({ role: 'assistant', content: '' });
    const controller = new AbortController();
    setTimeout(() => controller.abort(), 0);
    const long = await answerOf(
      session.send('x'.repeat(20_000), { signal: controller.signal, prefillTokens: 4 }),
    );
    expect(long).toMatchObject({ text: '', finishReason: 'abort' });
    expect(session.stats.snapshots).toBe(0);
    session.undo();
    await answerOf(session.send('two'));
    expect(session.messages).toHaveLength(4);
    session.dispose();
  });

  it('maxTokens 0 and answers that end at once are empty messages', async () => {
    const session = start();
    expect(await answerOf(session.send('one', { maxTokens: 0 }))).toMatchObject({
      text: '',
      finishReason: 'length',
    });
    expect(await answerOf(session.send('two', { logitBias: { 96: 1000 } }))).toMatchObject({
      text: '',
      finishReason: 'eos',
    });
    expect(session.messages.map(({ content }) => content)).toEqual(['one', '', 'two', '']);
    const { tokens } = session.stats;
    await answerOf(session.send('three'));
    expect(session.stats.reusedTokens).toBe(tokens);
    session.dispose();
  });

  it("at the template's mark and at the caller's", async () => {
    const session = start({
      template: '{% for m in messages %}{{ m.role }}:{{ m.content }}\n\n{% endfor %}assistant:',
      logitBias: { 95: 1000 },
      maxTokens: 9,
    }); // line breaks only
    expect(await answerOf(session.send('one'))).toMatchObject({ text: '', finishReason: 'stop' });
    const bias = { 7: 1000 }; // '
    expect(await answerOf(session.send('two', { stop: "'''", logitBias: bias }))).toMatchObject({
      text: '',
      finishReason: 'stop',
    });
    session.dispose();
  });

  it('at maxLength, which leaves no room for a longer conversation', async () => {
    const prompt = count(`<|user|>\none${EOS}\n<|assistant|>\n`);
    const session = start({ maxLength: prompt + 3, logitBias: { 96: -100 } });
    expect(await answerOf(session.send('one'))).toMatchObject({
      finishReason: 'length',
      tokens: { length: 3 },
    });
    const { messages, stats } = session;
    await expect(answerOf(session.send('two'))).rejects.toThrow(ConfigError);
    await expect(answerOf(session.send('two'))).rejects.toThrow(`below maxLength ${prompt + 3}`);
    expect(session.messages).toEqual(messages);
    expect(session.stats).toEqual(stats);
    await expect(answerOf(model.chat(messages, { maxLength: 5 }))).rejects.toThrow(ConfigError);
    session.dispose();
  });
});

describe('random numbers', () => {
  const RANDOM: ChatTurnOptions = { temperature: 1, topP: 1, maxTokens: 12 };

  it('differ between turns and retries, and follow from the seed', async () => {
    const talk = async (seed?: number) => {
      const session = model.startChat({ ...RANDOM, seed });
      const said = [
        await answerOf(session.send('one')),
        await answerOf(session.retry()),
        await answerOf(session.retry()),
      ];
      session.dispose();
      return said.map(({ text }) => text);
    };
    const first = await talk(1);
    expect(new Set(first).size).toBe(3);
    expect(await talk(1)).toEqual(first);
    expect(await talk(2)).not.toEqual(first);
    expect(await talk()).not.toEqual(await talk());
  });

  it('of one turn can be chosen', async () => {
    const session = model.startChat(RANDOM);
    const { text } = await answerOf(session.send('one', { seed: 4 }));
    expect((await answerOf(session.retry({ seed: 4 }))).text).toBe(text);
    expect((await answerOf(model.chat(session.messages.slice(0, 1), { ...RANDOM, seed: 4 }))).text).toBe(
      text,
    );
    session.dispose();
  });
});

describe('refusals', () => {
  it('models without tokenizer or template, options out of range', async () => {
    const bare = new LanguageModel({ vocab_size: 97, d_model: 8, n_layer: 1 });
    expect(() => bare.startChat()).toThrow('a model with a tokenizer');
    bare.tokenizer = charTokenizer;
    expect(() => bare.startChat()).toThrow(/chat template, got a model without one.*zephyr.*--chat-template/);
    await expect(answerOf(bare.chat([]))).rejects.toThrow(ConfigError);
    await expect(answerOf(bare.chat([], { template: 'zephyr' }))).rejects.toThrow(ConfigError); // renders nothing
    expect(() => bare.startChat({ template: 'nobody' })).toThrow(ConfigError);
    expect(() => bare.startChat({ template: '{{' })).toThrow(FormatError);
    for (const bad of [
      { snapshots: 0 },
      { snapshots: 1.5 },
      { seed: -1 },
      { topP: 7 },
      { temperature: -1 },
    ]) {
      expect(() => start(bad)).toThrow(ConfigError);
    }
    bare.dispose();
  });

  it('a turn that fails leaves everything as it was', async () => {
    const template =
      "{% for m in messages %}{% if m.content == 'no' %}{{ raise_exception('not that') }}{% endif %}{{ m.content + eos_token }}{% endfor %}>";
    const session = start({ template });
    await answerOf(session.send('one'));
    const { messages, stats } = session;
    await expect(answerOf(session.send('no'))).rejects.toThrow('not that');
    await expect(answerOf(session.edit(0, 'no'))).rejects.toThrow(ConfigError);
    await expect(answerOf(session.edit(1, 'x'))).rejects.toThrow(
      'index of a user message, got 1 (assistant)',
    );
    await expect(answerOf(session.edit(9, 'x'))).rejects.toThrow('got 9 (no message)');
    expect(session.messages).toEqual(messages);
    expect(session.stats).toEqual(stats);
    await expect(answerOf(session.send('two', { minP: 7 }))).rejects.toThrow(ConfigError);
    expect(session.messages).toEqual(messages);
    expect((await answerOf(session.send('two'))).message).not.toBe(null);
    session.dispose();
  });

  it('a broken model leaves the messages', async () => {
    const broken = await charModel(2);
    const session = broken.startChat(GREEDY);
    await answerOf(session.send('one'));
    const { messages } = session;
    const { weight } = broken.backbone.norm_f;
    const good = await weight.floats();
    weight.write(good.map(() => Number.NaN));
    await expect(answerOf(session.send('two'))).rejects.toThrow(StateError);
    weight.write(good);
    expect(session.messages).toEqual(messages);
    await answerOf(session.send('two'));
    session.dispose();
    broken.dispose();
  });

  it('two answers at once, and anything after dispose', async () => {
    const { liveBytes } = currentDevice().memory;
    const session = start({ logitBias: { 96: -100 } });
    const answer = session.send('one');
    await answer.next();
    await expect(session.send('two').next()).rejects.toThrow('got one that is answering');
    expect(() => session.undo()).toThrow(StateError);
    expect(() => session.setSystem('')).toThrow(StateError);
    expect(() => session.reset()).toThrow(StateError);
    expect(() => session.dispose()).toThrow(StateError);
    await expect(session.toBytes()).rejects.toThrow(StateError);
    await answer.return();
    await expect(session.retry().next()).resolves.toMatchObject({ done: false });
    session.messages;
    const saving = start();
    await answerOf(saving.send('one'));
    const bytes = saving.toBytes();
    await expect(saving.send('two').next()).rejects.toThrow(StateError);
    await bytes;
    saving.dispose();
    saving.dispose();
    await expect(saving.send('two').next()).rejects.toThrow('got one that was disposed');
    expect(liveBytes).toBeLessThan(currentDevice().memory.liveBytes);
  });

  it('nothing to answer', async () => {
    const session = start({ system: 'x' });
    await expect(session.retry().next()).rejects.toThrow('a user message to answer, got none yet');
    expect(session.undo()).toEqual([]);
    session.dispose();
  });

  it('messages cannot be changed from outside', async () => {
    const session = start();
    const { message } = await answerOf(session.send('one'));
    const said = message!.content;
    message!.content = 'forged';
    (session.messages as ChatMessage[])[0]!.content = 'forged';
    expect(session.messages.map(({ content }) => content)).toEqual(['one', said]);
    session.dispose();
  });

  it('all memory is given back', async () => {
    const { liveBytes } = currentDevice().memory;
    const session = start({ snapshots: 3 });
    for (const text of ['one', 'two', 'three']) await answerOf(session.send(text));
    await answerOf(session.retry());
    for await (const _ of session.edit(0, 'four')) break;
    await answerOf(session.send('five', { signal: AbortSignal.abort() }));
    session.dispose();
    expect(currentDevice().memory.liveBytes).toBe(liveBytes);
  });
});
