/** Text in, text out: whole characters, stop strings, and states that fit the text. The model is scripted by its tokenizer. */
import fc from 'fast-check';
import { beforeEach, describe, expect, it } from 'vitest';
import { ConfigError } from '../../src/base/errors.ts';
import type { Tokenizer } from '../../src/base/tokenizer.ts';
import { type GeneratedPart, type GenerateOptions, LanguageModel } from '../../src/index.node.ts';
import { byteTokenizer } from '../../src/text/index.ts';
import { settle } from '../support/settle.ts';

beforeEach(settle);

const bytes = byteTokenizer();
const model = new LanguageModel({ vocab_size: 256, d_model: 8, n_layer: 1, d_state: 2 }, { seed: 3 });

/** A model that says `script` whatever it reads: token t of the completion decodes as script[t]. */
function scripted(script: Uint8Array): LanguageModel {
  const tokenizer: Tokenizer = {
    ...bytes,
    streamDecoder(options) {
      // What is generated goes on behind the prompt: its first space is text.
      expect(options).toEqual({ isContinuation: true });
      const inner = bytes.streamDecoder();
      let at = 0;
      return { push: () => inner.push(script[at++]!), flush: () => inner.flush() };
    },
  };
  model.tokenizer = tokenizer;
  return model;
}

interface Collected {
  parts: Omit<GeneratedPart, 'state'>[];
  text: string;
  tokens: number;
  /** Tokens of the state at each part. */
  read: number[];
  reason: string | null;
}

async function collect(from: LanguageModel, prompt: string | number[], options: GenerateOptions) {
  const result: Collected = { parts: [], text: '', tokens: 0, read: [], reason: null };
  for await (const { state, ...part } of from.generate(prompt, { seed: 1, ...options })) {
    expect(result.reason).toBe(null);
    result.parts.push(part);
    result.text += part.text;
    result.tokens += part.tokens.length;
    result.read.push(state.tokens[0]!);
    expect(state.layers[0]!.ssm!.disposed).toBe(false);
    result.reason = part.finishReason;
    if (part.finishReason) state.dispose();
  }
  return result;
}

const utf8 = new TextEncoder();

describe('generate', () => {
  it('never breaks a character, and the state fits the text', async () => {
    const script = utf8.encode('aé€😀b');
    const { parts, read } = await collect(scripted(script), 'xy', { maxTokens: script.length });
    expect(parts.map(({ text }) => text)).toEqual(['a', 'é', '€', '😀', 'b']);
    expect(parts.map(({ tokens }) => tokens.length)).toEqual([1, 2, 3, 4, 1]);
    expect(read).toEqual([3, 5, 8, 12, 13]); // two of the prompt
  });

  it('gives exactly what the bytes decode to, cut and broken characters included', async () => {
    await fc.assert(
      fc.asyncProperty(fc.uint8Array({ minLength: 1, maxLength: 12 }), async (script) => {
        const { text, tokens, read, reason } = await collect(scripted(script), 'x', {
          maxTokens: script.length,
        });
        expect(text).toBe(bytes.decode(Array.from(script)));
        expect(tokens).toBe(script.length);
        expect(read.at(-1)).toBe(1 + script.length);
        expect(reason).toBe('length');
      }),
      { numRuns: 60 },
    );
  });

  it('holds back the start of a stop string, and the tokens and the state with it', async () => {
    const script = utf8.encode('one\n-\n--and');
    const { parts, text, tokens, read, reason } = await collect(scripted(script), 'x', {
      maxTokens: script.length,
      stop: ['\n--', 'never'], // the n of `one` could begin `never`
    });
    expect(text).toBe('one\n-');
    expect(parts.map((part) => part.text)).toEqual(['o', 'ne', '\n-', '']);
    expect(reason).toBe('stop');
    expect(tokens).toBe(5);
    expect(read.at(-1)).toBe(1 + 5);
  });

  it('a stop string of bytes that are no characters yet leaves none of them in the state', async () => {
    const { text, read } = await collect(scripted(utf8.encode('a。b')), 'x', { maxTokens: 9, stop: '。' });
    expect(text).toBe('a');
    expect(read.at(-1)).toBe(2);
  });

  it('gives out what was held back when the text ends without the stop string', async () => {
    const script = utf8.encode('so ST');
    const { text, reason } = await collect(scripted(script), 'x', { maxTokens: 5, stop: 'STOP' });
    expect({ text, reason }).toEqual({ text: 'so ST', reason: 'length' });
  });

  it('leaves no memory behind: stopped, left early, finished', async () => {
    model.tokenizer = bytes;
    const memory = () => model.backbone.embeddings.weight.device.memory;
    const { liveBytes } = memory();
    await collect(scripted(utf8.encode('abcd')), 'x', { maxTokens: 4, stop: 'bc' });
    await collect(scripted(utf8.encode('abcd')), 'x', { maxTokens: 4 });
    for await (const part of scripted(utf8.encode('a€b')).generate('x', { stop: '€c' })) {
      expect(part.text).toBe('a');
      break;
    }
    expect(memory().liveBytes).toBe(liveBytes);
  });

  it('is kept by clone(): the state of a part ends with the next', async () => {
    model.tokenizer = bytes;
    const seen: { own: GeneratedPart['state']; copy: GeneratedPart['state'] }[] = [];
    for await (const { state } of model.generate([65], { maxTokens: 5, seed: 1 })) {
      seen.push({ own: state, copy: state.clone() });
    }
    expect(seen.slice(0, -1).every(({ own }) => own.layers[0]!.ssm!.disposed)).toBe(true);
    expect(seen.at(-1)!.own.layers[0]!.ssm!.disposed).toBe(false);
    seen.at(-1)!.own.dispose();
    for (const { copy } of seen) copy.dispose();
  });

  it('reads ids without a tokenizer, one part per token', async () => {
    model.tokenizer = null;
    const { parts, read, text } = await collect(model, [1, 2], { maxTokens: 3 });
    expect(text).toBe('');
    expect(parts.map(({ tokens }) => tokens.length)).toEqual([1, 1, 1]);
    expect(read).toEqual([3, 4, 5]);
    await expect(collect(model, 'text', {})).rejects.toThrow(ConfigError);
    await expect(collect(model, [1], { stop: 'x' })).rejects.toThrow('a tokenizer for stop strings');
  });

  it('an empty prompt starts from the end-of-text id, or a newline for bytes', async () => {
    model.tokenizer = { ...bytes, eosId: 7 };
    const eos = await collect(model, '', { maxTokens: 4 });
    expect(eos.parts).toEqual((await collect(model, [7], { maxTokens: 4 })).parts);
    model.tokenizer = bytes;
    const newline = await collect(model, '', { maxTokens: 4 });
    expect(newline.parts).toEqual((await collect(model, '\n', { maxTokens: 4 })).parts);
    model.tokenizer = { ...bytes, kind: 'json' };
    await expect(collect(model, '', {})).rejects.toThrow('Give a prompt');
    model.tokenizer = bytes;
    const state = model.initialState();
    await expect(collect(model, '', { state })).rejects.toThrow('a prompt to continue a state with');
    state.dispose();
  });

  it('maxTokens 0 only reads; the end-of-text id ends and is not given out', async () => {
    model.tokenizer = bytes;
    const read = await collect(model, 'abc', { maxTokens: 0 });
    expect(read).toMatchObject({ text: '', tokens: 0, read: [3], reason: 'length' });
    const free = await collect(model, 'abc', { maxTokens: 5 });
    const third = free.parts.flatMap(({ tokens }) => tokens)[2]!;
    const cut = await collect(model, 'abc', { maxTokens: 5, eosId: third });
    expect(cut.reason).toBe('eos');
    expect(cut.read.at(-1)).toBe(3 + cut.tokens);
    expect(cut.tokens).toBeLessThan(3);
  });
});

describe('special tokens', () => {
  /** 9 before a text, 8 behind it, when they are asked for. */
  const marking: Tokenizer = {
    ...bytes,
    encode: (text, { addSpecialTokens = false } = {}) =>
      addSpecialTokens ? [9, ...bytes.encode(text), 8] : bytes.encode(text),
  };
  const listed = async (prompt: string, options: GenerateOptions = {}) => {
    model.tokenizer = marking;
    const [all] = await model.complete([prompt], { maxTokens: 0, echo: true, ...options });
    return all!.tokens;
  };

  it('a text that begins has them, one that goes on has not, ids are taken as they are', async () => {
    expect(await listed('ab')).toEqual([9, 97, 98, 8]);
    const state = model.initialState();
    expect(await listed('ab', { state })).toEqual([97, 98]);
    state.dispose();
  });

  it('embeddings are those of the marked text', async () => {
    model.tokenizer = marking;
    expect(await model.embed(['ab'])).toEqual(await model.embed([[9, 97, 98, 8]]));
  });
});
