import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { ConfigError, FormatError, StateError } from '../../src/base/errors.ts';
import { Rng } from '../../src/base/rng.ts';
import { memorySource } from '../../src/base/source.ts';
import {
  type Batch,
  type BatchStream,
  contiguousStreams,
  IGNORE_INDEX,
  randomWindows,
} from '../../src/train/data-batches.ts';
import { packedWindows, permutation } from '../../src/train/data-packed.ts';
import { bytesPerTokenOf, packIds, pagedTokens } from '../../src/train/data-paged.ts';
import {
  checkVocabulary,
  memoryTokens,
  sliceTokens,
  splitTokens,
  type TokenData,
} from '../../src/train/data-tokens.ts';

const counting = (count: number): number[] => Array.from({ length: count }, (_, i) => i);
/** Token i is i, so an input tells where it came from. */
const plain = (count: number): TokenData => memoryTokens(counting(count), { vocabSize: count });
const withDocuments = (count: number, documentStarts: number[]): TokenData =>
  memoryTokens(counting(count), { vocabSize: count, documentStarts });

async function take(stream: BatchStream, count: number): Promise<Batch[]> {
  const batches: Batch[] = [];
  for (let i = 0; i < count; i++) batches.push(await stream.next());
  return batches;
}

/** What every row must satisfy, whoever made it; `starts` are the documents of a counting corpus. */
function checkRows({ batch, length, inputs, targets, sequenceIds }: Batch, starts: readonly number[]): void {
  for (let row = 0; row < batch; row++) {
    let document = 0;
    for (let i = 0; i < length; i++) {
      const at = row * length + i;
      const input = inputs[at]!;
      if (i > 0) expect(input).toBe(inputs[at - 1]! + 1);
      if (i > 0 && starts.includes(input)) document++;
      expect(sequenceIds?.[at] ?? 0).toBe(document);
      expect(targets[at]).toBe(starts.includes(input + 1) ? IGNORE_INDEX : input + 1);
    }
  }
}

const makers: [string, (tokens: TokenData, seed: number) => BatchStream][] = [
  ['randomWindows', (tokens, seed) => randomWindows({ tokens, batch: 3, length: 7, rng: new Rng(seed) })],
  ['packedWindows', (tokens, seed) => packedWindows({ tokens, batch: 3, length: 7, rng: new Rng(seed) })],
  ['contiguousStreams', (tokens) => contiguousStreams({ tokens, batch: 3, length: 7 })],
];

describe.each(makers)('%s', (_, make) => {
  it('gives inputs and the tokens after them', async () => {
    for (const batch of await take(make(plain(50), 1), 20)) {
      expect(batch.inputs.length).toBe(21);
      expect(batch.sequenceIds).toBeUndefined();
      checkRows(batch, [0]);
    }
  });

  it('numbers documents and ignores targets across their borders', async () => {
    const starts = [0, 1, 9, 10, 20, 33, 49];
    for (const batch of await take(make(withDocuments(50, starts), 2), 20)) checkRows(batch, starts);
  });

  it('continues from a saved position bit for bit, through JSON', async () => {
    const tokens = withDocuments(60, [0, 13, 31]);
    for (const before of [0, 1, 5, 11]) {
      const first = make(tokens, 3);
      await take(first, before);
      const saved = JSON.parse(JSON.stringify(first.state()));
      const second = make(tokens, 4);
      await take(second, 2);
      second.restore(saved);
      expect(await take(second, 12)).toEqual(await take(first, 12));
      expect(second.state()).toEqual(first.state());
    }
  });

  it('is decided by the seed', async () => {
    expect(await take(make(plain(90), 5), 4)).toEqual(await take(make(plain(90), 5), 4));
  });

  it('refuses a position in other data', () => {
    expect(() => make(plain(50), 1).restore(make(plain(51), 1).state())).toThrow(StateError);
    expect(() => make(plain(50), 1).restore({ ...make(plain(50), 1).state(), length: 8 })).toThrow(
      StateError,
    );
    expect(() => make(plain(50), 1).restore({ ...make(plain(50), 1).state(), kind: 'x' })).toThrow(
      StateError,
    );
  });

  it('refuses data that are not longer than a window', () => {
    expect(() => make(plain(7), 1)).toThrow(/more than 7 tokens.*got 7.*memory/);
    expect(() => make(plain(0), 1)).toThrow(ConfigError);
  });
});

describe('randomWindows', () => {
  it('reaches the first and the last token, and works at the smallest size', async () => {
    const batches = await take(randomWindows({ tokens: plain(9), batch: 4, length: 7, rng: new Rng(1) }), 20);
    const firsts = new Set(batches.flatMap(({ inputs }) => [0, 7, 14, 21].map((i) => inputs[i])));
    expect([...firsts].sort()).toEqual([0, 1]);
    const [only] = await take(randomWindows({ tokens: plain(8), batch: 1, length: 7, rng: new Rng(1) }), 1);
    expect([...only!.targets]).toEqual([1, 2, 3, 4, 5, 6, 7]);
  });

  it('does not advance the stream it was given', async () => {
    const rng = new Rng(7);
    await take(randomWindows({ tokens: plain(99), batch: 2, length: 5, rng }), 3);
    expect(rng.state).toEqual(new Rng(7).state);
  });

  it.each([0, -1, 1.5, Number.NaN])('refuses a batch or length of %s', (bad) => {
    expect(() => randomWindows({ tokens: plain(9), batch: bad, length: 2, rng: new Rng(1) })).toThrow(
      ConfigError,
    );
    expect(() => randomWindows({ tokens: plain(9), batch: 2, length: bad, rng: new Rng(1) })).toThrow(
      ConfigError,
    );
  });
});

describe('contiguousStreams', () => {
  it('continues each row where it stopped and says when it does not', async () => {
    const stream = contiguousStreams({ tokens: plain(50), batch: 2, length: 8 });
    const batches = await take(stream, 12);
    let restarts = 0;
    batches.forEach(({ inputs, resets }, step) => {
      for (const row of [0, 1]) {
        const first = inputs[row * 8]!;
        if (step === 0) expect(first).toBe(row * 25);
        const continues = step > 0 && first === batches[step - 1]!.inputs[row * 8]! + 8;
        expect(resets![row]).toBe(!continues);
        if (step > 0 && !continues) {
          expect(first).toBe(0);
          restarts++;
        }
      }
    });
    expect(restarts).toBeGreaterThan(1);
  });

  it('resets a row that starts with a document', async () => {
    const [first, second] = await take(
      contiguousStreams({ tokens: withDocuments(40, [0, 8, 12]), batch: 1, length: 8 }),
      2,
    );
    expect([first!.resets, second!.resets]).toEqual([[true], [true]]);
    expect([...second!.sequenceIds!]).toEqual([0, 0, 0, 0, 1, 1, 1, 1]);
    expect(first!.targets[7]).toBe(IGNORE_INDEX);
  });

  it('refuses data that do not give every row a window', () => {
    expect(() => contiguousStreams({ tokens: plain(16), batch: 2, length: 8 })).toThrow(ConfigError);
  });
});

describe('packedWindows', () => {
  it('reads each window once per epoch, in another order each epoch', async () => {
    const tokens = plain(101);
    const batches = await take(packedWindows({ tokens, batch: 1, length: 10, rng: new Rng(3) }), 40);
    const firsts = batches.map(({ inputs }) => inputs[0]!);
    const epochs: number[][] = [];
    for (const first of firsts) {
      const epoch = epochs.at(-1);
      if (epoch && epoch[0]! % 10 === first % 10 && !epoch.includes(first)) epoch.push(first);
      else epochs.push([first]);
    }
    expect(epochs.length).toBeGreaterThanOrEqual(4);
    for (const epoch of epochs.slice(0, 3)) {
      const offset = epoch[0]! % 10;
      const expected = counting(Math.floor((100 - offset) / 10)).map((i) => offset + 10 * i);
      expect([...epoch].sort((a, b) => a - b)).toEqual(expected);
      expect(epoch).not.toEqual(expected);
    }
  });

  it('permutes any number of windows', () => {
    for (const count of [1, 2, 3, 16, 17, 100, 1025]) {
      const order = permutation(count, new Rng(count));
      expect(
        counting(count)
          .map(order)
          .sort((a, b) => a - b),
      ).toEqual(counting(count));
    }
  });
});

describe('token data', () => {
  it('splits off the last fraction, with positions and documents of its own', async () => {
    const { train, valid } = splitTokens(withDocuments(100, [0, 40, 95]), 0.1);
    expect([train.length, valid.length]).toEqual([90, 10]);
    expect([...(await valid.read(0, 3))]).toEqual([90, 91, 92]);
    expect(await valid.documentStarts(0, 10)).toEqual([5]);
    expect(await train.documentStarts(0, 90)).toEqual([0, 40]);
    expect(valid.fingerprint).not.toBe(train.fingerprint);
  });

  it.each([0, 1, -0.1, Number.NaN])('refuses to hold out a fraction of %s', (fraction) => {
    expect(() => splitTokens(plain(10), fraction)).toThrow(ConfigError);
  });

  it('refuses ranges outside', () => {
    expect(() => sliceTokens(plain(10), 3, 11)).toThrow(ConfigError);
    expect(() => sliceTokens(plain(10), 5, 4)).toThrow(ConfigError);
  });

  it('refuses ids outside the vocabulary, with the place', async () => {
    expect(() => memoryTokens([0, 1, 5], { vocabSize: 5 })).toThrow(/ids in 0\.\.4, got 5 at token 2/);
    expect(() => memoryTokens([0, -1], { vocabSize: 5 })).toThrow(FormatError);
    const bytes = packIds([1, 2, 900, 3], 2);
    const options = { name: 'f', fingerprint: 'f', vocabSize: 500, bytesPerToken: 2, count: 4 } as const;
    const tokens = pagedTokens(memorySource(bytes), options);
    expect([...(await tokens.read(0, 2))]).toEqual([1, 2]);
    await expect(tokens.read(1, 4)).rejects.toThrow(/got 900 at token 2/);
    await expect(tokens.read(3, 5)).rejects.toThrow(ConfigError);
  });

  it('refuses a model with fewer ids than the data may hold', () => {
    expect(() => checkVocabulary(plain(300), 256)).toThrow(/vocab_size 256.*300/);
    checkVocabulary(plain(256), 256);
  });

  it('reads ids of every width, across pages, as if they lay in memory', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.constantFrom(256, 65536, 2 ** 24),
        fc.integer({ min: 0, max: 90_000 }),
        fc.integer({ min: 0, max: 70_000 }),
        async (vocabSize, start, length) => {
          const rng = new Rng(vocabSize);
          const ids = Int32Array.from({ length: 160_000 }, () => rng.below(vocabSize));
          const bytesPerToken = bytesPerTokenOf(vocabSize);
          const source = memorySource(packIds(ids, bytesPerToken));
          const options = { name: 'f', fingerprint: 'f', vocabSize, bytesPerToken, count: ids.length };
          const read = await pagedTokens(source, options).read(start, start + length);
          expect(
            Buffer.compare(Buffer.from(read.buffer), Buffer.from(ids.slice(start, start + length).buffer)),
          ).toBe(0);
        },
      ),
      { numRuns: 20 },
    );
  });

  it('reads a source larger than its page cache in constant memory', async () => {
    const sizeBytes = 2 ** 34; // byte i is i mod 251; nothing this large exists
    let largest = 0;
    const source = {
      name: 'huge',
      sizeBytes,
      read: async (start: number, end: number) => {
        largest = Math.max(largest, end - start);
        return Uint8Array.from({ length: end - start }, (_, i) => (start + i) % 251);
      },
      close: async () => {},
    };
    const tokens = pagedTokens(source, {
      name: 'huge',
      fingerprint: 'h',
      vocabSize: 256,
      bytesPerToken: 1,
      count: sizeBytes,
    });
    const stream = randomWindows({ tokens, batch: 4, length: 50, rng: new Rng(1) });
    for (const { inputs, targets } of await take(stream, 5)) {
      for (let i = 1; i < 50; i++) expect(inputs[i]).toBe((inputs[i - 1]! + 1) % 251);
      expect(targets[49]).toBe((inputs[49]! + 1) % 251);
    }
    expect(largest).toBe(2 ** 16);
  });
});
