/** Stop strings: the result does not depend on how the text arrives in pieces. */
import fc from 'fast-check';
import { expect, it } from 'vitest';
import { StopFilter } from '../../src/generate/stop-filter.ts';

function filter(pieces: readonly string[], stops: readonly string[]) {
  const stop = new StopFilter(stops);
  let text = '';
  for (const piece of pieces) {
    const out = stop.push(piece);
    text += out.text;
    if (out.stopped) return { text, stopped: true };
  }
  return { text: text + stop.flush(), stopped: false };
}

it.each([
  ['in one piece', ['hello STOP more'], ['STOP'], 'hello ', true],
  ['across pieces', ['hello S', 'T', 'OP more'], ['STOP'], 'hello ', true],
  ['a false start', ['a S', 'TAR'], ['STOP'], 'a STAR', false],
  ['a start within a false start', ['aab', ' aaab'], ['aaab'], 'aab ', true],
  ['at the end, incomplete', ['one ST'], ['STOP'], 'one ST', false],
  ['the one that is complete first', ['abcd'], ['abcd', 'bc'], 'a', true],
  ['of two complete together the earlier start', ['xabc'], ['bc', 'abc'], 'x', true],
])('%s', (_, pieces, stops, text, stopped) => {
  expect(filter(pieces, stops)).toEqual({ text, stopped });
});

it('gives the same text for any pieces', () => {
  const letters = fc.string({ unit: fc.constantFrom('a', 'b'), maxLength: 30 });
  const stops = fc.array(fc.string({ unit: fc.constantFrom('a', 'b'), minLength: 1, maxLength: 5 }), {
    maxLength: 3,
  });
  fc.assert(
    fc.property(letters, stops, fc.array(fc.integer({ min: 1, max: 6 })), (text, stops, cuts) => {
      const pieces: string[] = [];
      let at = 0;
      for (const cut of cuts) {
        pieces.push(text.slice(at, at + cut));
        at += cut;
      }
      pieces.push(text.slice(at));
      expect(filter(pieces, stops)).toEqual(filter([...text], stops));
    }),
    { numRuns: 300 },
  );
});

it('refuses the empty stop string', () => {
  expect(() => new StopFilter([''])).toThrow('at least one character');
});
