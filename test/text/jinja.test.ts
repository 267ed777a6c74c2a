/** A template is input: whatever it does, it ends, and with a FormatError if it does too much. */
import fc from 'fast-check';
import { describe, expect, it, vi } from 'vitest';
import { FormatError, MambaError } from '../../src/base/errors.ts';
import { compile } from '../../src/text/jinja.ts';

const NOW = new Date(0);
const run = (source: string, variables = {}) =>
  compile(source, 'test.jinja')({ messages: [], ...variables }, NOW);
const repeat = (count: number, line: (i: number) => string) =>
  Array.from({ length: count }, (_, i) => line(i)).join('');

describe('bounds', () => {
  it.each<[string, string, string]>([
    [
      'endless loops',
      '{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}',
      'too many steps',
    ],
    [
      'loops over one list',
      '{% set r = range(9999) %}{% for a in r %}{% for b in r %}{% endfor %}{% endfor %}',
      'too many steps',
    ],
    [
      'loops with a condition',
      '{% set r = range(9999) %}{% for a in r if a %}{% for b in r if b %}{% endfor %}{% endfor %}',
      'too many steps',
    ],
    ['a huge range', '{{ range(10**12) }}', 'a range of 1000000000000 numbers'],
    ['a range that does not move', '{{ range(0, 5, 0) }}', 'a range of Infinity numbers'],
    ['endless recursion', '{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}', 'in test.jinja, got: '],
    [
      'doubling recursion',
      '{% macro f(n) %}{% if n %}{{ f(n-1) }}{{ f(n-1) }}{% endif %}{% endmacro %}{{ f(64) }}',
      'too many steps',
    ],
    [
      'text that doubles',
      `{% set ns = namespace(s='ab') %}{% for i in range(64) %}{% set ns.s = ns.s ~ ns.s %}{% endfor %}`,
      'characters',
    ],
    [
      'lists that double',
      `{% set ns = namespace(s=[1]) %}{% for i in range(64) %}{% set ns.s = ns.s + ns.s %}{% endfor %}`,
      'too many steps',
    ],
    [
      'lists of lists',
      `{% set a0 = 'ab' %}${repeat(64, (i) => `{% set a${i + 1} = [a${i}, a${i}] %}`)}{{ a64 | tojson }}`,
      'characters',
    ],
    [
      'namespaces of namespaces',
      `{% set a0 = namespace() %}${repeat(64, (i) => `{% set a${i + 1} = namespace(x=a${i}, y=a${i}) %}`)}{{ a64 | tojson }}`,
      'too many steps',
    ],
    ['a namespace in itself', '{% set ns = namespace() %}{% set ns.a = ns %}{{ ns | tojson }}', 'call stack'],
    ['deep nesting of the source', `{{ ${'('.repeat(20_000)}1${')'.repeat(20_000)} }}`, 'call stack'],
    ['a long source', ' '.repeat(100_000), 'at most 65536 characters'],
  ])('%s', (_, source, problem) => {
    let error: unknown;
    try {
      run(source);
    } catch (thrown) {
      error = thrown;
    }
    expect(error).toBeInstanceOf(FormatError);
    expect((error as FormatError).message).toContain(problem);
  });

  it('slow steps', () => {
    let now = 0;
    const clock = vi.spyOn(Date, 'now').mockImplementation(() => (now += 2000));
    expect(() => run('{{ 1 }}{{ 2 }}{{ 3 }}{{ 4 }}{{ 5 }}')).toThrow('more than 10 seconds of work');
    clock.mockRestore();
  });

  it('leave room for long conversations', () => {
    const messages = Array.from({ length: 4000 }, (_, i) => ({ role: 'user', content: `${i} `.repeat(200) }));
    const all = messages.map(({ content }) => content).join('');
    const source =
      "{% for m in messages %}{% if m.role == 'user' and not loop.last or messages[-1].role == 'user' %}{{ m.content }}{% endif %}{% endfor %}";
    expect(run(source, { messages })).toBe(all);
  });

  it('hold for one rendering, not for all of them', () => {
    const program = compile('{% for i in range(1000) %}{{ i }}{% endfor %}', 'test.jinja');
    for (let i = 0; i < 20; i++) expect(program({ messages: [] }, NOW)).toHaveLength(2890);
  });
});

it('anything at all renders or ends in one of our errors', () => {
  const word = fc.constantFrom(
    ...[
      '{{',
      '}}',
      '{%',
      '%}',
      '{#',
      '#}',
      '-',
      'for',
      'in',
      'if',
      'endif',
      'endfor',
      'set',
      'macro',
      'endmacro',
      'm',
      'range(9)',
      '[',
      ']',
      '(',
      ')',
      '|',
      'tojson',
      'x',
      '=',
      '+',
      '~',
      '"',
      "'",
      '1',
      '.',
      '\\',
      '\n',
      ' ',
      'ns',
      'namespace()',
      'is',
      'defined',
      '**',
      '*',
      ',',
    ],
  );
  const source = fc.array(word, { maxLength: 30 }).map((words) => words.join(' '));
  const check = (text: string) => {
    try {
      expect(typeof run(text, { m: [{ x: 'y' }] })).toBe('string');
    } catch (error) {
      expect(error).toBeInstanceOf(MambaError);
    }
  };
  fc.assert(fc.property(source, check), { numRuns: 600, seed: 1 });
  fc.assert(fc.property(fc.string({ unit: 'binary', maxLength: 40 }), check), { numRuns: 200, seed: 1 });
});
