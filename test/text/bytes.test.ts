import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { ConfigError } from '../../src/base/errors.ts';
import { byteTokenizer, tokenizerFromFiles } from '../../src/text/index.ts';
import { ODD_TEXTS } from './odd-texts.ts';

const tokenizer = byteTokenizer();

describe('byteTokenizer', () => {
  it('has the UTF-8 bytes as ids and gives the text back', () => {
    expect(tokenizer.vocabSize).toBe(256);
    expect(tokenizer.eosId).toBeNull();
    expect(tokenizer.encode('aé😀')).toEqual([0x61, 0xc3, 0xa9, 0xf0, 0x9f, 0x98, 0x80]);
    for (const text of ODD_TEXTS) expect(tokenizer.decode(tokenizer.encode(text))).toBe(text);
  });

  it('streams only whole characters', () => {
    const decoder = tokenizer.streamDecoder();
    const parts = tokenizer.encode('é😀x').map((id) => decoder.push(id));
    expect(parts).toEqual(['', 'é', '', '', '', '😀', 'x']);
    expect(decoder.flush()).toBe('');
  });

  it('ends an incomplete character as U+FFFD, and can be used again', () => {
    const decoder = tokenizer.streamDecoder();
    expect(decoder.push(0xf0) + decoder.push(0x9f)).toBe('');
    expect(decoder.flush()).toBe('\ufffd');
    expect(decoder.push(0x61)).toBe('a');
  });

  it('streams any bytes to the same text as decoding them at once', () => {
    fc.assert(
      fc.property(fc.array(fc.integer({ min: 0, max: 255 }), { maxLength: 40 }), (ids) => {
        const decoder = tokenizer.streamDecoder();
        const streamed = ids.map((id) => decoder.push(id)).join('') + decoder.flush();
        expect(streamed).toBe(tokenizer.decode(ids));
      }),
    );
  });

  it('refuses ids that are no bytes', () => {
    for (const id of [-1, 256, 1.5, Number.NaN]) {
      expect(() => tokenizer.decode([id])).toThrow(ConfigError);
      expect(() => tokenizer.streamDecoder().push(id)).toThrow(ConfigError);
    }
  });

  it('comes back from its file', () => {
    const again = tokenizerFromFiles(tokenizer.toFiles());
    expect(again.kind).toBe('bytes');
    expect(again.encode('xyz')).toEqual([120, 121, 122]);
  });
});
