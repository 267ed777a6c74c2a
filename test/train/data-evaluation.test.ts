import { describe, expect, it } from 'vitest';
import { ConfigError } from '../../src/base/errors.ts';
import { byteTokenizer, tokenizerFromJson, trainBpe } from '../../src/text/index.ts';
import { type Batch, IGNORE_INDEX } from '../../src/train/data-batches.ts';
import { evaluationStream, evaluationWindows, targetTextBytes } from '../../src/train/data-evaluation.ts';
import { memoryTokens, type TokenData } from '../../src/train/data-tokens.ts';

const counting = (count: number, documentStarts = [0]): TokenData =>
  memoryTokens(
    Array.from({ length: count }, (_, i) => i),
    { vocabSize: Math.max(1, count), documentStarts },
  );

async function collect(batches: AsyncIterable<Batch>): Promise<Batch[]> {
  const out: Batch[] = [];
  for await (const batch of batches) out.push(batch);
  return out;
}

const targetsOf = (batches: Batch[]): number[] =>
  batches.flatMap(({ targets }) => [...targets]).filter((target) => target !== IGNORE_INDEX);

describe('evaluation', () => {
  it.each([2, 3, 10, 11, 12, 40, 41, 45])(
    'has each of %i tokens but the first as target once, in order',
    async (count) => {
      const expected = Array.from({ length: count - 1 }, (_, i) => i + 1);
      const windows = await collect(evaluationWindows(counting(count), { batch: 3, length: 10 }));
      expect(targetsOf(windows)).toEqual(expected);
      for (const { batch, length, inputs } of windows) {
        expect(inputs.length).toBe(batch * length);
        expect(batch).toBeLessThanOrEqual(3);
        expect(length).toBeLessThanOrEqual(10);
      }
      const pieces = await collect(evaluationStream(counting(count), { length: 10 }));
      expect(targetsOf(pieces)).toEqual(expected);
      expect(pieces.map(({ resets }) => resets)).toEqual(pieces.map((_, i) => [i === 0]));
    },
  );

  it('pads the last row of the windows with ignored targets', async () => {
    const batches = await collect(evaluationWindows(counting(14), { batch: 2, length: 10 }));
    expect(batches.length).toBe(1);
    expect([...batches[0]!.targets.subarray(10)]).toEqual([11, 12, 13, ...new Array(7).fill(IGNORE_INDEX)]);
  });

  it('keeps documents apart', async () => {
    const tokens = counting(30, [0, 4, 10, 25]);
    const expected = Array.from({ length: 29 }, (_, i) => i + 1).filter((i) => ![4, 10, 25].includes(i));
    expect(targetsOf(await collect(evaluationWindows(tokens, { batch: 2, length: 5 })))).toEqual(expected);
    const pieces = await collect(evaluationStream(tokens, { length: 5 }));
    expect(targetsOf(pieces)).toEqual(expected);
    expect(pieces.map(({ resets }) => resets![0])).toEqual([true, false, true, false, false, true]);
    expect([...pieces[0]!.sequenceIds!]).toEqual([0, 0, 0, 0, 1]);
  });

  it('starts a stream anew before the carried state holds too much', async () => {
    const resets = async (carried: number, documentStarts?: number[]) =>
      (await collect(evaluationStream(counting(26, documentStarts), { length: 5, carried }))).map(
        (piece) => piece.resets![0],
      );
    expect(await resets(10)).toEqual([true, false, true, false, true]);
    expect(await resets(14)).toEqual([true, false, true, false, true]);
    expect(await resets(15)).toEqual([true, false, false, true, false]);
    expect(await resets(10, [0, 15])).toEqual([true, false, true, true, false]);
    expect(await resets(1)).toEqual([true, true, true, true, true]); // a piece of its own is always read
  });

  it('refuses fewer than two tokens', async () => {
    await expect(collect(evaluationWindows(counting(1)))).rejects.toThrow(ConfigError);
    await expect(collect(evaluationStream(counting(0)))).rejects.toThrow(ConfigError);
    await expect(collect(evaluationWindows(counting(9), { length: 0 }))).rejects.toThrow(ConfigError);
  });
});

describe('targetTextBytes', () => {
  it('is the number of targets for bytes', async () => {
    const ids = byteTokenizer().encode('héllo wörld');
    const tokens = memoryTokens(ids, { vocabSize: 256, documentStarts: [0, 5] });
    expect(await targetTextBytes(tokens, byteTokenizer())).toBe(ids.length - 2);
  });

  it('counts the text behind the first token of each document, without end-of-text', async () => {
    const text = 'the 中文 quick 😀 brown fox ';
    const { tokenizerJson, tokenizerConfig } = trainBpe([text.repeat(8)], { vocabSize: 300 });
    const tokenizer = tokenizerFromJson(tokenizerJson, tokenizerConfig);
    const document = tokenizer.encode(text);
    const firstBytes = Buffer.byteLength(tokenizer.decode(document.slice(0, 1)));
    const ids = [...document, tokenizer.eosId!, ...document, tokenizer.eosId!];
    const tokens = memoryTokens(ids, { vocabSize: 300, documentStarts: [0, document.length + 1] });
    expect(await targetTextBytes(tokens, tokenizer)).toBe(2 * (Buffer.byteLength(text) - firstBytes));
  });
});
