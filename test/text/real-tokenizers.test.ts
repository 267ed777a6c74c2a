/**
 * Tokenizers of published models, made small (test/fixtures/tokenizers/make.mjs), against the ids of llama.cpp and of
 * Hugging Face's own implementation: 47 texts of llama.cpp's tests and 11 of ours.
 */
import { readFileSync } from 'node:fs';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import type { Tokenizer } from '../../src/base/tokenizer.ts';
import { type JsonObject, tokenizerFromJson } from '../../src/text/index.ts';

const read = (name: string) =>
  JSON.parse(readFileSync(new URL(`../fixtures/tokenizers/${name}.json`, import.meta.url), 'utf8'));
const { texts, ids, decoded } = read('vectors') as {
  texts: string[];
  ids: Record<string, number[][]>;
  /** By the number of the text, where it does not come back as it was. */
  decoded: Record<string, Record<string, string>>;
};

const files = (name: string) => read(name) as Record<'tokenizer.json' | 'tokenizer_config.json', JsonObject>;
function load(name: string): Tokenizer {
  const { 'tokenizer.json': json, 'tokenizer_config.json': config } = files(name);
  return tokenizerFromJson(json, config);
}

function streamed(tokenizer: Tokenizer, row: readonly number[], isContinuation = false): string[] {
  const decoder = tokenizer.streamDecoder({ isContinuation });
  return [...row.map((id) => decoder.push(id)), decoder.flush()];
}

/** A part of one of the texts. */
const anyPart = fc.tuple(fc.constantFrom(...texts), fc.nat(), fc.nat()).map(([text, a, b]) =>
  [...text]
    .slice(a % (text.length + 1))
    .slice(0, b % 20)
    .join(''),
);

describe.each(Object.keys(ids))('%s', (name) => {
  const tokenizer = load(name);
  const rows = ids[name]!;

  it('gives the ids of the 58 texts', () => {
    expect(texts.length).toBe(58);
    for (const [i, text] of texts.entries()) expect(tokenizer.encode(text), text).toEqual(rows[i]);
  });

  it('gives the texts back, at once and streamed', () => {
    for (const [i, row] of rows.entries()) {
      const expected = decoded[name]![i] ?? texts[i]!;
      expect(tokenizer.decode(row)).toBe(expected);
      expect(streamed(tokenizer, row).join('')).toBe(expected);
    }
  });

  it('streams any ids to the text of decoding them at once', () => {
    const known = [...new Set(rows.flat()), 1_000_000];
    fc.assert(
      fc.property(fc.array(fc.constantFrom(...known), { maxLength: 12 }), (row) => {
        expect(streamed(tokenizer, row).join('')).toBe(tokenizer.decode(row));
      }),
    );
  });

  it('never streams half a character', () => {
    for (const row of rows) {
      if (tokenizer.decode(row).includes('\ufffd')) continue;
      for (const part of streamed(tokenizer, row)) expect(part).not.toContain('\ufffd');
    }
  });
});

describe.each(['gpt-neox', 'gpt2', 'falcon', 'llama2', 'zephyr'])('%s, text that goes on', (name) => {
  const tokenizer = load(name);
  const rest = { isContinuation: true };
  const special = Object.values(tokenizer.specialTokens);
  // Llama's vocabularies put a space behind special tokens and take ▁ for one; Falcon's lacks some control bytes.
  const plain = anyPart.filter(
    (text) =>
      !special.some((token) => text.includes(token)) &&
      text.normalize('NFC') === text &&
      !/[\p{Cc}▁]/u.test(text),
  );

  it('two parts decode to the whole', () => {
    fc.assert(
      fc.property(plain, plain, (a, b) => {
        fc.pre((a + b).normalize('NFC') === a + b && !special.some((token) => (a + b).includes(token)));
        const [head, tail] = [tokenizer.encode(a), tokenizer.encode(b, rest)];
        if (a !== '') expect(tokenizer.decode([...head, ...tail])).toBe(a + b);
        expect(streamed(tokenizer, tail, true).join('')).toBe(b);
      }),
    );
  });

  it('cut in front of an added token, the ids are those of the whole', () => {
    const eos = tokenizer.specialTokens.eos_token!;
    fc.assert(
      fc.property(plain, plain, (a, b) => {
        const whole = tokenizer.encode(`${a}${eos}${b}`);
        expect([...tokenizer.encode(a), ...tokenizer.encode(`${eos}${b}`, rest)]).toEqual(whole);
      }),
    );
  });
});

describe('zephyr', () => {
  const tokenizer = load('zephyr');

  it('begins a text, but not a continuation, with a space that is no text', () => {
    const ids = tokenizer.encode(' user');
    expect(tokenizer.encode('user', { isContinuation: true })).not.toEqual(tokenizer.encode('user'));
    expect(tokenizer.decode(tokenizer.encode('user'))).toBe('user');
    expect(tokenizer.decode(ids)).toBe(' user');
    expect(streamed(tokenizer, tokenizer.encode('user'), true).join('')).toBe(' user');
  });

  it('puts its begin-of-text id in front when asked, and knows its special tokens', () => {
    expect(tokenizer.encode('user', { addSpecialTokens: true })).toEqual([1, ...tokenizer.encode('user')]);
    expect(tokenizer.specialTokens).toEqual({ bos_token: '<s>', eos_token: '</s>', unk_token: '<unk>' });
    expect(tokenizer.eosId).toBe(2);
  });

  it('encodes word by word what the library encodes whole', () => {
    const { 'tokenizer.json': json, 'tokenizer_config.json': config } = files('zephyr');
    // A token that could begin anywhere keeps the tokenizer from splitting words.
    const added = [...(json.added_tokens as object[]), { id: 40_000, content: '\ue123', normalized: true }];
    const whole = tokenizerFromJson({ ...json, added_tokens: added }, config);
    const words = fc.array(fc.oneof(anyPart, fc.constantFrom(' ', '  ', '▁', '</s>', '\n')), {
      maxLength: 6,
    });
    fc.assert(
      fc.property(words, fc.boolean(), (parts, isContinuation) => {
        const text = parts.join('');
        expect(tokenizer.encode(text, { isContinuation })).toEqual(whole.encode(text, { isContinuation }));
      }),
    );
  });
});

describe('long texts without a space', () => {
  it.each(Object.keys(ids))('%s comes to an end', (name) => {
    const tokenizer = load(name);
    for (const text of ['a'.repeat(20_000), '😀'.repeat(5_000), ' '.repeat(10_000), '=-'.repeat(5_000)]) {
      const row = tokenizer.encode(text);
      if (name !== 'bert') expect(tokenizer.decode(row)).toBe(text);
    }
  });
});
