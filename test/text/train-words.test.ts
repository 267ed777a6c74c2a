/** Vocabularies of whole words: what they hold, what is unknown, and what they refuse. */
import { describe, expect, it } from 'vitest';
import { ConfigError } from '../../src/base/errors.ts';
import { tokenizerFromFiles, tokenizerFromJson, trainWords } from '../../src/text/index.ts';
import { encodeText } from '../../src/text/piece-encoder.ts';

const TEXTS = ["Don't panic: the whale, the SHIP!", 'the ship - 42 ships; panic', '鲸鱼在海里, the 鲸'];
const open = (options: Partial<Parameters<typeof trainWords>[1]> = {}) => {
  const { tokenizerJson, tokenizerConfig } = trainWords(TEXTS, { vocabSize: 100, ...options });
  return tokenizerFromJson(tokenizerJson, tokenizerConfig);
};
const vocabOf = (options = {}): string[] => {
  const { tokenizerJson } = trainWords(TEXTS, { vocabSize: 100, ...options });
  const { vocab } = tokenizerJson.model as { vocab: Record<string, number> };
  return Object.entries(vocab)
    .sort(([, a], [, b]) => a - b)
    .map(([word]) => word);
};

describe('trainWords', () => {
  it('takes the most frequent words that occur twice, in lower case, marks and Chinese characters apart', () => {
    expect(vocabOf()).toEqual(['[UNK]', 'the', ',', 'panic', 'ship', '鲸']);
    expect(vocabOf({ vocabSize: 3 })).toEqual(['[UNK]', 'the', ',']);
    expect(vocabOf({ lowercase: false })).toEqual(['[UNK]', 'the', ',', 'panic', '鲸']);
    expect(vocabOf({ leastCount: 1 })).toContain('42');
  });

  it('gives every word an id, those it does not know the unknown one', () => {
    const tokenizer = open();
    expect(tokenizer.vocabSize).toBe(6);
    expect(tokenizer.encode('THE  ship, a shipshape 鲸鱼\tpanic')).toEqual([1, 4, 2, 0, 0, 5, 0, 3]);
    expect(encodeText(tokenizer, 'the ship', 1)).toEqual([1]);
  });

  it('comes back from its files the same', () => {
    const tokenizer = open({ leastCount: 1 });
    const again = tokenizerFromFiles(tokenizer.toFiles());
    for (const text of TEXTS) expect(again.encode(text)).toEqual(tokenizer.encode(text));
  });

  it('does not depend on how the texts are ordered', () => {
    const { tokenizerJson } = trainWords([...TEXTS].reverse(), { vocabSize: 100 });
    expect(tokenizerJson).toEqual(trainWords(TEXTS, { vocabSize: 100 }).tokenizerJson);
  });

  it('refuses a vocabulary without room, and texts without a word', () => {
    for (const vocabSize of [1, 2.5, Number.NaN])
      expect(() => trainWords(TEXTS, { vocabSize })).toThrow(ConfigError);
    expect(() => trainWords(['one two', ''], { vocabSize: 9 })).toThrow('a word that occurs 2 times');
  });
});
