/** From what a terminal sends to messages, and what is remembered of them. */
import {
  appendFileSync,
  chmodSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { afterAll, describe, expect, it } from 'vitest';
import { ChatHistory, MAX_ENTRIES, MAX_ENTRY_LENGTH } from '../../src/cli/chat-history.ts';
import { type InputPiece, InputSplitter } from '../../src/cli/chat-input.ts';
import { MessageLines } from '../../src/cli/chat-lines.ts';

const keys = (text: string): InputPiece => ({ kind: 'keys', text });
const paste = (text: string): InputPiece => ({ kind: 'paste', text });

describe('InputSplitter', () => {
  it.each([
    ['keys, cut behind Enter', 'a\rbc\r\nd', [keys('a\r'), keys('bc\r\n'), keys('d')]],
    ['a paste between keys', 'a\u001b[200~x\r\ny\rz\u001b[201~b', [keys('a'), paste('x\ny\nz'), keys('b')]],
    ['an empty paste', '\u001b[200~\u001b[201~', [paste('')]],
    ['no keys in a paste', '\u001b[200~a\u0003\u0004\u001b[A\tb\u009b\u001b[201~', [paste('a[A\tb')]],
    ['arrow keys', '\u001b[A\u001b[1;5D', [keys('\u001b[A\u001b[1;5D')]],
    ['a lone ESC at once', '\u001b', [keys('\u001b')]],
  ])('%s', (_, input, expected) => {
    expect(new InputSplitter().push(input)).toEqual(expected);
  });

  it('gives the same texts wherever bytes are cut', () => {
    const parts = fc.array(fc.constantFrom('é', '\u001b[200~', '\u001b[201~', 'a\n', '[2', '\u001b', '日本'));
    fc.assert(
      fc.property(parts, fc.array(fc.nat(200)), (texts, cuts) => {
        const bytes = new TextEncoder().encode(texts.join(''));
        const splitter = new InputSplitter();
        const whole = joined(new InputSplitter().push(bytes));
        let at = 0;
        const pieces = [...cuts, bytes.length]
          .sort((a, b) => a - b)
          .flatMap((cut) => {
            // Not behind ESC or ESC [, which are keys when they come alone.
            while (cut < bytes.length && (bytes[cut - 1] === 0x1b || bytes[cut - 2] === 0x1b)) cut++;
            const chunk = bytes.subarray(at, Math.max(at, cut));
            at = Math.max(at, cut);
            return splitter.push(chunk);
          });
        expect(joined(pieces)).toEqual(whole);
      }),
    );
  });

  /** Neighbouring keys as one piece. */
  function joined(pieces: readonly InputPiece[]): InputPiece[] {
    const result: InputPiece[] = [];
    for (const { kind, text } of pieces) {
      const last = result.at(-1);
      if (kind === 'keys' && last?.kind === 'keys') last.text += text;
      else result.push({ kind, text });
    }
    return result;
  }

  it('Ctrl-C ends a paste that never ended', () => {
    const splitter = new InputSplitter();
    expect(splitter.push('\u001b[200~lost')).toEqual([]);
    expect(splitter.push('\u0003')).toEqual([keys('\u0003')]);
    expect(splitter.push('a')).toEqual([keys('a')]);
  });
});

describe('MessageLines', () => {
  it.each<[string, string[], (string | null)[]]>([
    ['a line', ['a'], ['a']],
    ['a backslash goes on', ['a\\', 'b\\', 'c', 'd'], [null, null, 'a\nb\nc', 'd']],
    ['a backslash elsewhere is text', ['a\\ ', 'C:\\b'], ['a\\ ', 'C:\\b']],
    ['a block', ['"""', 'a\\', '', '  b', '"""', 'c'], [null, null, null, null, 'a\\\n\n  b', 'c']],
    ['a block with text beside its fences', ['"""a', 'b"""'], [null, 'a\nb']],
    ['a block on one line', ['"""a"""'], ['a']],
    ['an empty block', ['""""""'], ['']],
    ['quotes elsewhere are text', ['say """', 'x'], ['say """', 'x']],
    ['pasted lines are one message', ['a\nb\n'], ['a\nb']],
    ['pasted lines open no block', ['"""doc\nmore', 'x'], ['"""doc\nmore', 'x']],
    ['pasted lines in a block', ['"""', 'a\nb', 'c"""'], [null, null, 'a\nb\nc']],
    ['pasted lines that go on', ['a\nb\\', 'c'], [null, 'a\nb\nc']],
  ])('%s', (_, lines, expected) => {
    const message = new MessageLines();
    expect(lines.map((line) => message.push(line))).toEqual(expected);
    expect(message.isOpen).toBe(false);
  });

  it('forgets what was begun', () => {
    const message = new MessageLines();
    message.push('"""a');
    expect(message.isOpen).toBe(true);
    message.clear();
    expect(message.push('b')).toBe('b');
  });
});

describe('ChatHistory', () => {
  const folder = mkdtempSync(join(tmpdir(), 'mamba-ts-history-'));
  afterAll(() => rmSync(folder, { recursive: true, force: true }));

  it('is there in the next run, newest first, for its owner alone', () => {
    const path = join(folder, 'new/folder/history');
    const history = new ChatHistory(path);
    for (const entry of ['one', 'two\nlines', 'two\nlines', '', 'three']) history.add(entry);
    expect(history.entries).toEqual(['three', 'two\nlines', 'one']);
    expect(new ChatHistory(path).entries).toEqual(history.entries);
    if (process.platform === 'win32') return;
    expect(statSync(path).mode & 0o777).toBe(0o600);
    chmodSync(path, 0o644);
    new ChatHistory(path);
    expect(statSync(path).mode & 0o777).toBe(0o600);
  });

  it('is bounded in entries, in their length, and on the disk', () => {
    const path = join(folder, 'bounded');
    const lines = Array.from({ length: 2 * MAX_ENTRIES + 1 }, (_, i) => JSON.stringify(`entry ${i}`));
    writeFileSync(path, `${lines.join('\n')}\n`);
    const history = new ChatHistory(path);
    expect(history.entries).toHaveLength(MAX_ENTRIES);
    expect(history.entries[0]).toBe(`entry ${2 * MAX_ENTRIES}`);
    expect(readFileSync(path, 'utf8').trim().split('\n')).toEqual(lines.slice(-MAX_ENTRIES));
    history.add('x'.repeat(MAX_ENTRY_LENGTH + 1));
    expect(history.entries).toHaveLength(MAX_ENTRIES);
    expect(new ChatHistory(path).entries[0]).toBe(`entry ${2 * MAX_ENTRIES}`);
  });

  it('takes what it can read of a damaged file, and does without one', () => {
    const path = join(folder, 'damaged');
    new ChatHistory(path).add('good');
    appendFileSync(path, '{"a":1}\n"cut sho\n\u0000\n');
    expect(new ChatHistory(path).entries).toEqual(['good']);
    const nowhere = new ChatHistory(join(path, 'below a file'));
    nowhere.add('kept in memory');
    expect(nowhere.entries).toEqual(['kept in memory']);
    const off = new ChatHistory(null);
    off.add('a');
    expect(off.entries).toEqual(['a']);
  });
});
