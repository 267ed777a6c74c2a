import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { ConfigError, FormatError } from '../../src/base/errors.ts';
import { formatJson, parseJson, parseJsonObject } from '../../src/io/json.ts';

test('reads what JSON.parse reads, to the same value', () => {
  fc.assert(
    fc.property(fc.json(), (text) => {
      expect(parseJson(text, 'x')).toEqual(JSON.parse(text));
    }),
  );
});

test('refuses what JSON.parse refuses, apart from the three literals', () => {
  const pieces = fc.constantFrom(
    '{',
    '}',
    '[',
    ']',
    ',',
    ':',
    '"a"',
    '"',
    '1',
    '-',
    '.5',
    '1e',
    'tru',
    'null',
    ' ',
    '\\',
    '\n',
    '01',
  );
  fc.assert(
    fc.property(fc.array(pieces, { maxLength: 8 }), (parts) => {
      const text = parts.join('');
      let expected: unknown;
      try {
        expected = JSON.parse(text);
      } catch {
        expect(() => parseJson(text, 'x')).toThrow(FormatError);
        return;
      }
      try {
        expect(parseJson(text, 'x')).toEqual(expected);
      } catch (error) {
        expect((error as Error).message).toContain('the key "a" once');
      }
    }),
    { numRuns: 2000 },
  );
});

test('Python literals', () => {
  expect(parseJson('{"time_step_limit": [0.0, Infinity], "a": -Infinity, "b": NaN}', 'config.json')).toEqual({
    time_step_limit: [0, Number.POSITIVE_INFINITY],
    a: Number.NEGATIVE_INFINITY,
    b: Number.NaN,
  });
});

describe('errors name the place', () => {
  const cases: [text: string, message: string][] = [
    ['{"a": 1,\n "b": }', 'line 2, column 7'],
    ['{"a": 1,\n "a": 2}', 'the key "a" once'],
    ['{"a" 1}', 'expected ":"'],
    ['{a: 1}', 'a key in quotes'],
    ['[1 2]', 'expected "," or "]"'],
    ['"abc', 'closing quote'],
    ['"a\nb"', 'control characters'],
    ['"\\x"', 'valid escapes'],
    ['1 1', 'nothing after'],
    ['', 'the end of the text'],
    ['Infinit', 'a JSON value'],
    ['nul', 'a JSON value'],
    ['['.repeat(1000), 'nested'],
  ];
  test.each(cases)('%j', (text, message) => {
    expect(() => parseJson(text, 'some/config.json')).toThrow(FormatError);
    expect(() => parseJson(text, 'some/config.json')).toThrow(message);
    expect(() => parseJson(text, 'some/config.json')).toThrow('some/config.json');
  });
  test('an object is required', () => {
    expect(() => parseJsonObject('[]', 'config.json')).toThrow('an array');
  });
});

test('__proto__ is a key like any other', () => {
  const value = parseJsonObject('{"__proto__": {"polluted": 1}}', 'x');
  expect(Object.keys(value)).toEqual(['__proto__']);
  expect(({} as Record<string, unknown>).polluted).toBeUndefined();
});

test('formatJson comes back exactly, -0, NaN and infinities included', () => {
  const value = fc.letrec((tie) => ({
    any: fc.oneof(
      { depthSize: 'small' },
      fc.double(),
      fc.string(),
      fc.boolean(),
      fc.constant(null),
      fc.array(tie('any'), { maxLength: 5 }),
      fc.dictionary(fc.string(), tie('any'), { maxKeys: 5 }),
    ),
  })).any;
  fc.assert(
    fc.property(value, (x) => {
      expect(parseJson(formatJson(x), 'x')).toEqual(x);
    }),
  );
});

test('formatJson refuses what would come back as something else', () => {
  expect(() => formatJson({ rng: { state: new Uint32Array(4) } })).toThrow(ConfigError);
  expect(() => formatJson({ rng: { state: new Uint32Array(4) } })).toThrow('$.rng.state');
  expect(() => formatJson([() => 1])).toThrow('$[0]');
  expect(formatJson({ a: undefined, b: [1, 2] })).toBe('{\n  "b": [1, 2]\n}\n');
});
