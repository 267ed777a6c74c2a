/** Texts in pieces: the ids are those of the whole, whatever the pieces; long texts keep the ids of the uncut text. */
import { readFileSync } from 'node:fs';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { ConfigError, UnsupportedError } from '../../src/base/errors.ts';
import type { Tokenizer } from '../../src/base/tokenizer.ts';
import { byteTokenizer, tokenizerFromJson } from '../../src/text/index.ts';
import { encodeText, PieceEncoder, type PieceEncoderOptions } from '../../src/text/piece-encoder.ts';
import { ODD_TEXTS } from './odd-texts.ts';

function load(name: string): Tokenizer {
  const file = JSON.parse(
    readFileSync(new URL(`../fixtures/tokenizers/${name}.json`, import.meta.url), 'utf8'),
  );
  return tokenizerFromJson(file['tokenizer.json'], file['tokenizer_config.json']);
}

const tokenizers: Record<string, Tokenizer> = {
  bytes: byteTokenizer(),
  ...Object.fromEntries(
    ['bert', 'falcon', 'gpt-neox', 'gpt2', 'llama2', 'zephyr'].map((name) => [name, load(name)]),
  ),
};

function inPieces(
  tokenizer: Tokenizer,
  pieces: readonly string[],
  options: PieceEncoderOptions = {},
): number[] {
  const encoder = new PieceEncoder(tokenizer, options);
  const ids: number[] = [];
  for (const piece of pieces) {
    const before = encoder.end();
    ids.push(...encoder.push(piece));
    if (piece === '') expect(encoder.end()).toEqual(before);
  }
  expect(encoder.end()).toEqual(encoder.end());
  return [...ids, ...encoder.end()];
}

const word = fc.oneof(
  fc.constantFrom(
    'the',
    'quick,',
    '(brown)',
    'fox.',
    '\n',
    '  ',
    '\r\n',
    '\u0085',
    '\ufeff',
    '3,141',
    "isn't",
  ),
  fc.constantFrom(
    '<|endoftext|>',
    '</s>',
    '[MASK]',
    '[SEP]',
    '>>TITLE<<',
    '中文字符',
    'é',
    'e\u0301',
    '👩‍👩‍👧',
    '\ud800',
  ),
  fc.string({ unit: 'binary', maxLength: 6 }),
);
const anyText = fc
  .tuple(fc.array(word, { maxLength: 60 }), fc.constantFrom(' ', ' ', ''))
  .map(([words, between]) => words.join(between));
/** A text and places to cut it, which may fall inside characters. */
const anyCutting = fc.tuple(anyText, fc.array(fc.nat(), { maxLength: 12 })).map(([text, places]) => {
  const cuts = [0, ...places.map((at) => at % (text.length + 1)).sort((a, b) => a - b), text.length];
  return { text, pieces: cuts.slice(1).map((cut, i) => text.slice(cuts[i], cut)) };
});
const small = { least: 12, most: 40 };

describe.each(Object.entries(tokenizers))('%s', (_, tokenizer) => {
  it('gives the ids of the whole text however it is cut', () => {
    const limit = fc.option(fc.integer({ min: 3, max: 40 }));
    fc.assert(
      fc.property(anyCutting, limit, ({ text, pieces }, maxTokens) => {
        const options = { maxTokens, segments: small };
        const whole = inPieces(tokenizer, [text], options);
        expect(inPieces(tokenizer, pieces, options)).toEqual(whole);
        expect(inPieces(tokenizer, [...text.split('')], options)).toEqual(whole);
      }),
    );
  });

  it('cuts long texts where no token crosses', () => {
    const sentence = fc.array(
      fc.oneof(
        fc.constantFrom(
          ...'It was a night, the 3rd of May; (dark) "and" <stormy>: [MASK] rain! \n x²'.split(' '),
        ),
        fc.constantFrom(
          'naïve',
          'Ωμέγα',
          '中文 字',
          '👩‍👩‍👧',
          '  ',
          '\t',
          "they'll",
          'e\u0301t',
          '-',
          '</s>',
          '[SEP]',
        ),
      ),
      { maxLength: 40 },
    );
    fc.assert(
      fc.property(sentence, (words) => {
        const text = words.join(' ');
        const segments = { least: 8, most: 100_000 };
        expect(inPieces(tokenizer, [text], { segments })).toEqual(
          tokenizer.encode(text, { addSpecialTokens: true }),
        );
      }),
    );
    const long = ODD_TEXTS.join(' and so on ').repeat(60);
    expect(encodeText(tokenizer, long)).toEqual(tokenizer.encode(long, { addSpecialTokens: true }));
  });

  it('keeps the special tokens at both ends of what it cuts', () => {
    const text = 'one two three four five six seven eight nine ten';
    const whole = tokenizer.encode(text, { addSpecialTokens: true });
    const plain = tokenizer.encode(text);
    const special = whole.length - plain.length;
    const start = whole.indexOf(plain[0]!);
    for (let maxTokens = special + 1; maxTokens <= whole.length + 1; maxTokens++) {
      const content = plain.slice(0, maxTokens - special);
      const expected = [...whole.slice(0, start), ...content, ...whole.slice(start + plain.length)];
      expect(encodeText(tokenizer, text, maxTokens)).toEqual(expected);
    }
    expect(() => encodeText(tokenizer, text, special)).toThrow(ConfigError);
    expect(encodeText(tokenizer, text, null)).toEqual(whole);
    expect(encodeText(tokenizer, '')).toEqual(tokenizer.encode('', { addSpecialTokens: true }));
  });
});

describe('PieceEncoder', () => {
  const bytes = byteTokenizer();
  /** Counts the characters that are encoded. */
  function counted(): { tokenizer: Tokenizer; chars: () => number } {
    let chars = 0;
    const encode: Tokenizer['encode'] = (text, options) => {
      chars += text.length;
      return bytes.encode(text, options);
    };
    return { tokenizer: { ...bytes, encode }, chars: () => chars };
  }

  it('does not encode what it has no room for', () => {
    const { tokenizer, chars } = counted();
    const text = 'some words and more '.repeat(200_000);
    expect(encodeText(tokenizer, text, 128)).toEqual(bytes.encode(text.slice(0, 128)));
    expect(chars()).toBeLessThan(5000);
    const encoder = new PieceEncoder(tokenizer, { maxTokens: 128 });
    expect(encoder.isFull).toBe(false);
    expect(encoder.push(text)).toHaveLength(128);
    expect(encoder.isFull).toBe(true);
    expect(encoder.push(text)).toEqual([]);
    expect(encoder.end()).toEqual([]);
    expect(chars()).toBeLessThan(10_000);
  });

  it('encodes every character once and keeps little of a long text', () => {
    const { tokenizer, chars } = counted();
    const encoder = new PieceEncoder(tokenizer);
    const before = chars();
    let given = 0;
    for (let i = 0; i < 20_000; i++) given += encoder.push('word by ').length;
    expect(given).toBeGreaterThan(160_000 - 6000);
    expect(chars() - before).toBe(given);
    expect(given + encoder.end().length).toBe(160_000);
  });

  it('cuts a text without spaces by force, never inside a character', () => {
    const segmentsOf = (text: string): string[] => {
      const found: string[] = [];
      const encode: Tokenizer['encode'] = (part) => {
        found.push(part);
        return bytes.encode(part);
      };
      new PieceEncoder({ ...bytes, encode }, { segments: { least: 20, most: 40 } }).push(text + text);
      return found.filter((part) => part.length > 10);
    };
    for (const character of ['😀', 'e\u0301\u0323', '\r\n', '👩‍👩‍👧', 'x', 'क्षि']) {
      for (let shift = 0; shift < 4; shift++) {
        const parts = segmentsOf('-'.repeat(shift) + character.repeat(2000));
        expect(parts.length).toBeGreaterThan(50);
        for (const part of parts.slice(1, -1)) {
          if (part.includes('-')) continue;
          expect(part.length % character.length, JSON.stringify(part)).toBe(0);
        }
      }
    }
    // Marks without end are parted all the same.
    expect(segmentsOf(`e${'\u0301'.repeat(2000)}`).every((part) => part.length <= 41)).toBe(true);
    expect(encodeText(bytes, '😀'.repeat(40_000))).toEqual(bytes.encode('😀'.repeat(40_000)));
  });

  it('refuses limits that are none', () => {
    for (const maxTokens of [0, -1, 1.5, Number.NaN, Number.POSITIVE_INFINITY]) {
      expect(() => new PieceEncoder(bytes, { maxTokens })).toThrow(/maxTokens: expected an integer >= 1/);
    }
    expect(() => new PieceEncoder(tokenizers.bert!, { maxTokens: 2 })).toThrow(
      'maxTokens: expected an integer >= 3 (2 are special tokens) or null, got 2. Allow more tokens.',
    );
  });

  it('says when the special tokens do not stand around the text', () => {
    const odd: Tokenizer = {
      ...bytes,
      encode: (text, options = {}) =>
        options.addSpecialTokens ? [...bytes.encode(text)].reverse() : bytes.encode(text),
    };
    expect(() => new PieceEncoder(odd)).toThrow(UnsupportedError);
  });
});
