/** Texts that arrive piece by piece: the bits of the whole text, asked at any moment; memory that does not grow. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { StateError } from '../../src/index.ts';
import { devices } from '../kernels/devices.ts';
import { settle } from '../support/settle.ts';
import { bert, KINDS, makeClassifier, SHAPES, textOf } from './support.ts';

const { backend } = devices.at(-1)!;

/** A text with characters of several units and bytes, and places to cut it, also inside them. */
const anyCutting = fc
  .tuple(
    fc.array(fc.constantFrom('word ', 'naïve ', '中文', '👩‍👩‍👧 ', '\r\n', ' .', 'so on, '), {
      minLength: 1,
      maxLength: 250,
    }),
    fc.array(fc.nat(), { maxLength: 6 }),
  )
  .map(([words, places]) => {
    const text = `x${words.join('')}`;
    const cuts = [0, ...places.map((at) => at % text.length).sort((a, b) => a - b), text.length];
    return { text, pieces: cuts.slice(1).map((cut, i) => text.slice(cuts[i], cut)) };
  });

describe.each(KINDS)('open: $pooling, two directions $bidirectional', (head) => {
  it('answers as for the whole text, however it is cut and asked in between', async () => {
    const model = makeClassifier(backend, head, { tokenizer: bert() });
    await fc.assert(
      fc.asyncProperty(anyCutting, async ({ text, pieces }) => {
        const reader = model.open();
        let soFar = '';
        for (const piece of pieces) {
          await reader.push(piece);
          soFar += piece;
          if (soFar.length === 0) continue;
          const [expected] = await model.predict([soFar]);
          expect(await reader.answer()).toEqual(expected);
        }
        expect(soFar).toBe(text);
        expect(reader.tokens).toBe(model.tokenizer!.encode(text, { addSpecialTokens: true }).length);
        expect(await reader.answer()).toEqual((await model.predict([text]))[0]);
        reader.dispose();
      }),
      { numRuns: 8 },
    );
    model.dispose();
  });

  it('reads long texts as predict() does', async () => {
    const model = makeClassifier(backend, head);
    const text = textOf(12_000, 4);
    const reader = model.open();
    for (let at = 0; at < text.length; at += 700) {
      await reader.push(text.slice(at, at + 700));
      if (at % 4200 === 0) await reader.answer();
    }
    expect(await reader.answer()).toEqual((await model.predict([text]))[0]);
    expect(reader.tokens).toBe(12_000);
    reader.dispose();
    model.dispose();
  });
});

it.each(Object.entries(SHAPES))('open: %s answers as for the whole text', async (_, shape) => {
  const model = makeClassifier(backend, { pooling: 'mean', bidirectional: true }, { shape });
  const text = textOf(1000, 4);
  const reader = model.open();
  for (let at = 0; at < text.length; at += 333) {
    await reader.push(text.slice(at, at + 333));
    expect(await reader.answer()).toEqual((await model.predict([text.slice(0, at + 333)]))[0]);
  }
  reader.dispose();
  model.dispose();
});

describe('TextReader', () => {
  it('lets calls overlap: each waits for those before it', async () => {
    const model = makeClassifier(backend);
    const reader = model.open();
    const [a, b] = [textOf(9000, 1), textOf(7000, 2)];
    const [, first, , second] = await Promise.all([
      reader.push(a),
      reader.answer(),
      reader.push(b),
      reader.answer(),
    ]);
    expect([first, second]).toEqual(await model.predict([a, a + b]));
  });

  it('stops at maxTokens', async () => {
    const model = makeClassifier(backend, { maxTokens: 300 });
    const reader = model.open();
    const text = textOf(9000, 1);
    await reader.push(text);
    expect([reader.isFull, reader.tokens]).toEqual([true, 300]);
    const answer = await reader.answer();
    await reader.push(text);
    expect(await reader.answer()).toEqual(answer);
    expect([answer]).toEqual(await model.predict([text]));
    const all = model.open({ maxTokens: null });
    await all.push(text);
    expect([all.isFull, all.tokens]).toEqual([false, 9000]);
    expect(() => model.open({ maxTokens: 0 })).toThrow('maxTokens');
  });

  it('says when there is nothing to answer for', async () => {
    const model = makeClassifier(backend, {}, { tokenizer: bert() });
    const reader = model.open();
    await expect(reader.answer()).rejects.toThrow(StateError);
    await reader.push(' \n ');
    await expect(reader.answer()).rejects.toThrow('answer: expected some text, got none so far.');
    await reader.push('word');
    expect(await reader.answer()).toEqual((await model.predict([' \n word']))[0]);
    await expect(reader.push(7 as unknown as string)).rejects.toThrow('expected a piece of text, got number');
  });

  it('frees everything, also under calls that are under way', async () => {
    const model = makeClassifier(backend);
    await settle();
    const live = backend.memory.liveBytes;
    const idle = model.open();
    await idle.push(textOf(6000, 1));
    await idle.answer();
    idle.dispose();
    idle.dispose();
    expect(backend.memory.liveBytes).toBe(live);
    await expect(idle.push('more')).rejects.toThrow(
      'push: expected a reader in use, got one that was disposed',
    );
    const busy = model.open();
    const push = busy.push(textOf(6000, 1));
    const answer = busy.answer();
    busy.dispose();
    await push;
    expect((await answer).score).toBeGreaterThan(0);
    expect(backend.memory.liveBytes).toBe(live);
  });

  it('reads 100,000 tokens in the memory of one piece', async () => {
    const model = makeClassifier(backend, {}, { d: 8 });
    const reader = model.open();
    const peaks: number[] = [];
    const kept: number[] = [];
    await settle();
    for (let i = 0; i < 20; i++) {
      backend.resetPeak();
      const before = backend.memory.liveBytes;
      await reader.push(`${textOf(4999, i)} `);
      if (i % 5 === 4) await reader.answer();
      peaks.push(backend.memory.peakBytes - before);
      kept.push(backend.memory.liveBytes);
    }
    expect(reader.tokens).toBe(100_000);
    // From the second push on there is a state; an answer holds one more beside it.
    expect(new Set(kept.slice(1)).size).toBe(1);
    expect(Math.max(...peaks.slice(5))).toBeLessThanOrEqual(Math.max(...peaks.slice(1, 5)));
    reader.dispose();
    model.dispose();
  });
});
