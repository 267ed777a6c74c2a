/** Which states of a conversation are kept. */
import { describe, expect, it } from 'vitest';
import { commonLength } from '../../src/base/text.ts';
import { ChatMemory, leastUseful } from '../../src/generate/chat-memory.ts';
import { LanguageModel } from '../../src/index.node.ts';

/** The turns whose states are kept after so many, one token each. */
function keptOf(turns: number, limit: number): number[] {
  const kept: number[] = [];
  for (let turn = 1; turn <= turns; turn++) {
    kept.push(turn);
    if (kept.length > limit) kept.splice(leastUseful(kept), 1);
  }
  return kept;
}

describe('the least useful position', () => {
  it('leaves the smallest gap for its distance from the end', () => {
    expect(leastUseful([10, 20, 30, 40])).toBe(0); // 20 of 40, against 20 of 30 and 20 of 20
    expect(leastUseful([30, 32, 34, 40])).toBe(1); // 4 of 10, against 32 of 40 and 8 of 8
    expect(leastUseful([1, 2])).toBe(0);
  });

  it('is never the last, nor the one before while there are others', () => {
    for (const limit of [2, 3, 16]) expect(keptOf(500, limit).slice(-2)).toEqual([499, 500]);
    expect(keptOf(500, 1)).toEqual([500]);
  });

  it('leaves states dense near the end and sparse far back', () => {
    expect(keptOf(1000, 16).slice(-4)).toEqual([997, 998, 999, 1000]);
    // Whatever is edited, at most 1.5 times what was said after it is read.
    for (let turns = 1; turns <= 1000; turns++) {
      const kept = keptOf(turns, 16);
      const ratios = kept.slice(0, -1).map((turn, i) => (turn - (kept[i - 1] ?? 0)) / (turns - turn));
      expect(Math.max(0, ...ratios)).toBeLessThanOrEqual(1.5);
    }
  });
});

describe('the memory', () => {
  const model = new LanguageModel({ vocab_size: 8, d_model: 4, n_layer: 1 });
  const stateOf = (count: number) => model.forward([new Array<number>(count).fill(1)]).state;

  it('finds the last state within the common text, and forgets what was behind it', () => {
    const memory = new ChatMemory(4);
    expect(memory.nearest('abc')).toBe(null);
    memory.add('abc', [1, 1, 1], stateOf(2), 1);
    memory.add('abcde', [1, 1, 1, 1, 1], stateOf(5), 0);
    const [first, second] = memory.snapshots;
    expect(memory.nearest('abcdef')).toBe(second);
    expect(memory.nearest('abcde')).toBe(first); // behind the second there is nothing to read
    expect(memory.nearest('abcdx')).toBe(first);
    expect(memory.nearest('abc')).toBe(first); // it has a token to read
    expect(memory.nearest('ab')).toBe(null);
    memory.cut(first!);
    expect([memory.text, memory.ids, memory.snapshots]).toEqual(['abc', [1, 1, 1], [first]]);
    memory.cut(null);
    expect([memory.text, memory.ids, memory.snapshots]).toEqual(['', [], []]);
  });
});

it.each([
  ['', '', 0],
  ['abc', 'abd', 2],
  ['ab', 'abc', 2],
  ['x', 'y', 0],
])('common length of %j and %j', (a, b, length) => {
  expect(commonLength(a, b)).toBe(length);
  expect(commonLength(b, a)).toBe(length);
});
