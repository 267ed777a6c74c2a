import { describe, expect, test } from 'vitest';
import { FormatError, MambaError, UnsupportedError } from '../../src/base/errors.ts';
import { orderedDict, readPickle } from '../../src/io/pickle.ts';

const GLOBALS = new Map<string, unknown>([
  ['collections.OrderedDict', orderedDict],
  ['torch.FloatStorage', { type: 'F32' }],
]);

/** Bytes from numbers and ASCII texts. */
function bytesOf(...parts: (number | string | Uint8Array)[]): Uint8Array {
  return Buffer.concat(
    parts.map((part) =>
      typeof part === 'number'
        ? Buffer.of(part)
        : typeof part === 'string'
          ? Buffer.from(part, 'latin1')
          : part,
    ),
  );
}
const read = (...parts: (number | string | Uint8Array)[]) =>
  readPickle(bytesOf(0x80, 2, ...parts), { name: 'dir/model.bin', offset: 1000, globals: GLOBALS }).value;
const times = (count: number, text: string) => text.repeat(count);

test('every kind of value', () => {
  expect(read('N.')).toBe(null);
  expect(read(0x88, '.')).toBe(true);
  expect(read('J', 0xfe, 0xff, 0xff, 0xff, '.')).toBe(-2);
  expect(read('M', 0xe9, 0x03, '.')).toBe(1001);
  expect(read(0x8a, 0, '.')).toBe(0);
  expect(read(0x8a, 2, 0x00, 0x80, '.')).toBe(-32768);
  expect(read(0x8a, 9, 0, 0, 0, 0, 0, 0, 0, 0x80, 0, '.')).toBe(2n ** 63n);
  expect(read('G', 0x3f, 0xf8, 0, 0, 0, 0, 0, 0, '.')).toBe(1.5);
  expect(read('X', 2, 0, 0, 0, 0xc3, 0xa9, '.')).toBe('é');
  expect(read('U', 2, 'ab', '.')).toBe('ab');
  expect(read('C', 2, 1, 2, '.')).toEqual(Buffer.of(1, 2));
  expect(read('(K', 1, 'K', 2, 't.')).toEqual([1, 2]);
  expect(read('](K', 1, 'K', 2, 'eK', 3, 'a.')).toEqual([1, 2, 3]);
  expect(read('}(U', 1, 'a', 'K', 1, 'U', 1, 'b', 'K', 2, 'u.')).toEqual(
    new Map([
      ['a', 1],
      ['b', 2],
    ]),
  );
  expect(read('ccollections\nOrderedDict\n)R.')).toEqual(new Map());
  expect(read('ccollections\nOrderedDict\n](](U', 1, 'k', 'K', 5, 'ee\x85R.')).toEqual(new Map([['k', 5]]));
  expect(read(0x8c, 5, 'torch', 0x8c, 12, 'FloatStorage', 0x93, '.')).toEqual({ type: 'F32' });
  expect(read('K', 1, '0K', 2, '.')).toBe(2);
});

test('memory: shared values, and a list that holds itself', () => {
  const [a, b] = read(']q', 5, 'h', 5, 0x86, '.') as unknown[];
  expect(a).toBe(b);
  const list = read(0x5d, 0x94, 'h', 0, 'a.') as unknown[];
  expect(list[0]).toBe(list);
});

test('the end of the first of several pickles', () => {
  const bytes = bytesOf(0x80, 2, 'K', 7, '.', 0x80, 2, 'N.');
  expect(readPickle(bytes, { name: 'f', offset: 0, globals: GLOBALS })).toEqual({ value: 7, end: 5 });
});

test('nesting costs no stack frames', () => {
  expect(read(times(9000, '('), times(9000, 't'), '.')).toEqual(expect.any(Array));
  let depth = 0;
  let value = read(')', times(50_000, '\x85'), '.');
  while (Array.isArray(value) && value.length > 0) [value, depth] = [value[0], depth + 1];
  expect(depth).toBe(50_000);
});

describe('what wants to be executed or imported is refused by name and place', () => {
  const cases: [name: string, parts: (number | string)[], message: string][] = [
    [
      'os.system',
      ['cposix\nsystem\n(U', 4, 'exit', 'tR.'],
      'global "posix.system" (dir/model.bin, byte 1002)',
    ],
    ['eval', ['K', 1, '0cbuiltins\neval\n.'], 'global "builtins.eval" (dir/model.bin, byte 1005)'],
    ['by STACK_GLOBAL', [0x8c, 2, 'os', 0x8c, 6, 'system', 0x93, '.'], 'global "os.system"'],
    ['another name of an allowed module', ['ctorch\nload\n.'], 'global "torch.load"'],
    ['a dotted name', [0x8c, 5, 'torch', 0x8c, 7, '_C.load', 0x93, '.'], 'global "torch._C.load"'],
    ['a name of JavaScript', ['cconstructor\nconstructor\n.'], 'global "constructor.constructor"'],
    ['instances (INST)', ['(ios\nsystem\n.'], 'operation 0x69'],
    ['objects (OBJ)', ['(ccollections\nOrderedDict\no.'], 'operation 0x6f'],
    ['objects (NEWOBJ)', ['ccollections\nOrderedDict\n)\x81.'], 'operation 0x81'],
    ['the extension registry', [0x82, 1, '.'], 'operation 0x82'],
    ['a call of what is no function', ['ctorch\nFloatStorage\n)R.'], 'a call of an object'],
    ['a call of a text', ['U', 4, 'eval', ')R.'], 'a call of "eval"'],
    ['attributes of an object', ['ctorch\nFloatStorage\n}b.'], 'attributes of an object'],
    ['persistent ids, where none belong', ['K', 1, 'Q.'], 'a persistent id'],
    ['protocol 0 text', ['I1\n.'], 'operation 0x49'],
    ['protocol 9', [0x80, 9, 'N.'], 'protocol 9'],
  ];
  test.each(cases)('%s', (_, parts, message) => {
    expect(() => read(...parts)).toThrow(UnsupportedError);
    expect(() => read(...parts)).toThrow(message);
    expect(() => read(...parts)).toThrow('Nothing of it was executed');
  });
});

describe('damage ends in a FormatError with file and byte', () => {
  const huge = [0xff, 0xff, 0xff, 0xff];
  const cases: [name: string, parts: (number | string)[], message: string][] = [
    ['nothing', [], '1 more bytes, got the end of the pickle after 0 (dir/model.bin, byte 1002)'],
    ['no end', ['K', 1], '1 more bytes'],
    ['cut in a number', ['J', 1, 2], '4 more bytes, got the end of the pickle after 2'],
    ['a text of 4 GB', ['X', ...huge, 'abc'], '4294967295 more bytes'],
    ['a text of 2^64 bytes', [0x8d, ...huge, ...huge], 'more bytes, got the end'],
    ['bytes of 4 GB', ['B', ...huge], '4294967295 more bytes'],
    ['an integer of 4 GB', [0x8b, ...huge], 'at most 32 bytes, got one of 4294967295'],
    ['a text that is not UTF-8', ['U', 1, 0xff, '.'], 'UTF-8'],
    ['a name without an end', [`c${'a'.repeat(300)}\nb\n.`], 'a line feed'],
    ['an empty stack', ['.'], '1 values on the stack, got fewer'],
    ['too few for a tuple', ['K', 1, 0x87, '.'], '3 values on the stack'],
    ['reaching below a mark', ['K', 1, '(K', 2, 0x86, '.'], '2 values on the stack'],
    ['no mark', ['t.'], 'a mark, got none'],
    ['values left over', ['K', 1, 'K', 2, '.'], '1 more and 0 marks'],
    ['marks left over', ['K', 1, '(.'], 'values on the stack'],
    ['nothing remembered', ['h', 9, '.'], 'none at 9'],
    ['appending to a number', ['K', 1, 'K', 2, 'a.'], 'a list to append to, got number 1'],
    ['appending to a tuple', [')K', 2, 'a.'], 'got a tuple of 0'],
    ['an item of a list', ['](K', 1, 'K', 2, 'u.'], 'a dict to fill, got a list of 0'],
    ['a key without value', ['}(K', 1, 'u.'], 'keys with values, got 1 items'],
    ['arguments that are no tuple', ['ccollections\nOrderedDict\nK', 1, 'R.'], 'a tuple of arguments'],
    ['wrong arguments', ['ccollections\nOrderedDict\nK', 1, '\x85R.'], 'OrderedDict of nothing or of pairs'],
    ['a name that is no text', ['K', 1, 'K', 2, 0x93, '.'], 'the name of a global'],
    ['a stack without end', [times(20_000, 'N'), '.'], 'a shallower stack'],
    ['marks without end', [times(20_000, '('), '.'], 'fewer marks'],
    ['dicts without end', [times(300_000, '}0'), 'N.'], 'at most 100000 objects'],
    ['a list without end', [']', times(300_000, 'Na'), '.'], 'at most 100000 objects'],
    ['remembering without end', ['N', times(300_000, '\x94'), '.'], 'at most 100000 objects'],
  ];
  test.each(cases)('%s', (_, parts, message) => {
    const attempt = () => read(...parts);
    expect(attempt).toThrow(FormatError);
    expect(attempt).toThrow(message);
    expect(attempt).toThrow(/\(dir\/model\.bin, byte \d+\)/);
    expect(attempt).toThrow(MambaError);
  });
});
