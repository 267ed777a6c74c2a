/** Small vocabularies of every kind as the metadata of a GGUF file, read as a tokenizer, and written back. */
import { describe, expect, it } from 'vitest';
import { FormatError } from '../../src/base/errors.ts';
import type { GgufValue } from '../../src/io/gguf-cursor.ts';
import { tokenizerFromGguf } from '../../src/io/gguf-tokenizer.ts';
import { vocabularyFields } from '../../src/io/gguf-vocabulary.ts';
import { resolveConfig } from '../../src/models/config.ts';
import { tokenizerFromFiles } from '../../src/text/index.ts';

type Metadata = Map<string, GgufValue>;

const open = (metadata: Metadata) => tokenizerFromFiles(tokenizerFromGguf(metadata, 'x.gguf').files);

/** As a file with these tokenizer files has it; without the tokenizer.json and its settings that travel along whole. */
function rewritten(files: Readonly<Record<string, string>>, rows: number): Metadata {
  const config = resolveConfig({ d_model: 8, n_layer: 1, vocab_size: rows, pad_vocab_size_multiple: 1 });
  const fields = vocabularyFields(files, config).fields.map(([key, field]): [string, GgufValue] => {
    if (typeof field.value !== 'object') return [key, field.value];
    if (field.type === 'strings') return [key, [...field.value]];
    const numbers = field.value as readonly number[];
    return [key, field.type === 'i32s' ? Int32Array.from(numbers) : Float32Array.from(numbers)];
  });
  return new Map(fields.filter(([key]) => !/huggingface|mamba_ts.tokenizer_config/.test(key)));
}

/** `<unk> <s> </s>`, the bytes, then pieces whose scores fall with their place. */
const PIECES = ['▁a', '▁b', 'bc', 'bb', '▁bb', 'a', 'b', 'c', '▁', 'é', '▁▁'];
const llama = (changes: [string, GgufValue][] = []): Metadata => {
  const bytes = Array.from(
    { length: 256 },
    (_, byte) => `<0x${byte.toString(16).toUpperCase().padStart(2, '0')}>`,
  );
  return new Map<string, GgufValue>([
    ['tokenizer.ggml.model', 'llama'],
    ['tokenizer.ggml.tokens', ['<unk>', '<s>', '</s>', ...bytes, ...PIECES, '<|user|>', '[PAD271]']],
    ['tokenizer.ggml.scores', Float32Array.from({ length: 272 }, (_, id) => (id < 259 ? 0 : 258 - id))],
    ['tokenizer.ggml.token_type', Int32Array.from({ length: 272 }, (_, id) => llamaType(id))],
    ['tokenizer.ggml.bos_token_id', 1],
    ['tokenizer.ggml.eos_token_id', 2],
    ['tokenizer.ggml.unknown_token_id', 0],
    ...changes,
  ]);
};
function llamaType(id: number): number {
  if (id < 3) return id === 0 ? 2 : 3;
  if (id < 259) return 6;
  return id === 270 ? 4 : id === 271 ? 5 : 1;
}
const piece = (text: string): number => 259 + PIECES.indexOf(text);

describe('pieces with scores', () => {
  it('merges the pieces of the highest score first', () => {
    const tokenizer = open(llama());
    expect(tokenizer.vocabSize).toBe(271);
    expect(tokenizer.specialTokens).toEqual({ bos_token: '<s>', eos_token: '</s>', unk_token: '<unk>' });
    // '▁b' before 'bc' before 'bb'; what has no piece is bytes; spaces stay.
    expect(tokenizer.encode('bbc')).toEqual([piece('▁b'), piece('bc')]);
    expect(tokenizer.encode('abb')).toEqual([piece('▁a'), piece('bb')]);
    expect(tokenizer.encode('bb')).toEqual([piece('▁bb')]);
    expect(tokenizer.encode('a\n')).toEqual([piece('▁a'), 3 + 10]);
    expect(tokenizer.encode('a<|user|>', { addSpecialTokens: true })).toEqual([1, piece('▁a'), 270]);
    for (const text of ['a b', ' a', '  é中😀', '']) {
      expect(tokenizer.decode(tokenizer.encode(text))).toBe(text);
    }
  });

  it('puts no space in front where the file says so, and its own tokens around', () => {
    const tokenizer = open(
      llama([
        ['tokenizer.ggml.add_space_prefix', false],
        ['tokenizer.ggml.add_bos_token', false],
        ['tokenizer.ggml.add_eos_token', true],
      ]),
    );
    expect(tokenizer.encode('a', { addSpecialTokens: true })).toEqual([piece('a'), 2]);
    expect(tokenizer.decode(tokenizer.encode(' a'))).toBe(' a');
  });

  it('comes back from what we write', () => {
    for (const prefix of [true, false]) {
      const first = llama([['tokenizer.ggml.add_space_prefix', prefix]]);
      const second = rewritten(tokenizerFromGguf(first, 'x').files, 280);
      expect(second.get('tokenizer.ggml.model')).toBe('llama');
      const [a, b] = [open(first), open(second)];
      expect(b.specialTokens).toEqual(a.specialTokens);
      for (const text of ['bbc abb bb', ' a  b\n', 'é中😀<|user|> a', '']) {
        expect(b.encode(text, { addSpecialTokens: true })).toEqual(
          a.encode(text, { addSpecialTokens: true }),
        );
      }
    }
  });

  it.each([
    ['no scores', 'tokenizer.ggml.scores', new Float32Array(0)],
    ['scores that are no numbers', 'tokenizer.ggml.scores', new Float32Array(272).fill(Number.NaN)],
    ['a token twice', 'tokenizer.ggml.tokens', ['<unk>', 'a', 'a']],
    ['a piece without end', 'tokenizer.ggml.tokens', ['<unk>', 'a', 'b', 'c'.repeat(100_000)]],
  ] as [string, string, GgufValue][])('refuses %s', (_, key, value) => {
    expect(() =>
      open(
        llama([
          [key, value],
          ['tokenizer.ggml.token_type', new Int32Array(0)],
        ]),
      ),
    ).toThrow(FormatError);
  });
});

describe('words and their pieces', () => {
  const bert: Metadata = new Map<string, GgufValue>([
    ['tokenizer.ggml.model', 'bert'],
    ['tokenizer.ggml.tokens', ['[PAD]', '[UNK]', '[CLS]', '[SEP]', '▁un', 'able', '▁a', '▁.', 'a']],
    ['tokenizer.ggml.token_type', Int32Array.from([3, 3, 3, 3, 1, 1, 1, 1, 1])],
    ['tokenizer.ggml.unknown_token_id', 1],
    ['tokenizer.ggml.cls_token_id', 2],
    ['tokenizer.ggml.seperator_token_id', 3],
    ['tokenizer.ggml.padding_token_id', 0],
  ]);

  it('are WordPiece in lower case', () => {
    const tokenizer = open(bert);
    expect(tokenizer.encode('Unable a. x')).toEqual([4, 5, 6, 7, 1]);
    expect(tokenizer.encode('a', { addSpecialTokens: true })).toEqual([2, 6, 3]);
    expect(tokenizer.decode([4, 5, 6])).toBe('unable a');
    expect(tokenizer.specialTokens.pad_token).toBe('[PAD]');
  });

  it('are nothing for llama.cpp under the architecture mamba: they travel whole', () => {
    const files = tokenizerFromGguf(bert, 'x').files;
    const config = resolveConfig({ d_model: 8, n_layer: 1, vocab_size: 9, pad_vocab_size_multiple: 1 });
    const { fields, notes } = vocabularyFields(files, config);
    expect(notes.join()).toContain('travels along whole');
    const back = open(new Map(fields.map(([key, { value }]) => [key, value as GgufValue])));
    expect(back.encode('Unable a. x')).toEqual([4, 5, 6, 7, 1]);
    expect(back.specialTokens).toEqual(open(bert).specialTokens);
  });
});

describe('byte-level BPE', () => {
  const bpe = (pre: string | null): Metadata =>
    new Map<string, GgufValue>([
      ['tokenizer.ggml.model', 'gpt2'],
      [
        'tokenizer.ggml.tokens',
        ['<|end|>', '1', '2', '3', '4', 'a', 'Ġ', '12', '1234', '123', '34', '!', '!!'],
      ],
      ['tokenizer.ggml.token_type', Int32Array.from([3, ...new Array(12).fill(1)])],
      ['tokenizer.ggml.merges', ['1 2', '3 4', '12 34', '12 3', '! !']],
      ['tokenizer.ggml.eos_token_id', 0],
      ...(pre === null ? [] : [['tokenizer.ggml.pre', pre] as [string, string]]),
    ]);

  it.each([
    [null, [8]],
    ['gpt-2', [8]],
    ['olmo', [8]],
    ['falcon', [9, 4]],
    ['llama-bpe', [9, 4]],
    ['dbrx', [9, 4]],
    ['starcoder', [1, 2, 3, 4]],
    ['refact', [1, 2, 3, 4]],
  ] as [string | null, number[]][])('splits words as %s does', (pre, ids) => {
    const metadata = bpe(pre);
    expect(open(metadata).encode('1234')).toEqual(ids);
    expect(open(metadata).encode('a!!<|end|>')).toEqual([5, 12, 0]);
    const back = rewritten(tokenizerFromGguf(metadata, 'x').files, 16);
    expect(open(back).encode('1234 a!!<|end|>')).toEqual(open(metadata).encode('1234 a!!<|end|>'));
  });

  it('without its merges is a FormatError', () => {
    const metadata = bpe(null);
    metadata.delete('tokenizer.ggml.merges');
    expect(() => open(metadata)).toThrow(FormatError);
  });

  it('of an unknown family is left out with a note', () => {
    const { files, notes } = tokenizerFromGguf(bpe('viking'), 'x');
    expect(files).toEqual({});
    expect(notes.join()).toMatch(/splits words by viking; known are gpt-2/);
  });
});

describe('without a vocabulary', () => {
  it.each(['no_vocab', 'none', undefined])('kind %s is no tokenizer', (kind) => {
    const metadata: Metadata = new Map(kind === undefined ? [] : [['tokenizer.ggml.model', kind]]);
    const { files, vocabSize, notes } = tokenizerFromGguf(metadata, 'x');
    expect([files, vocabSize, notes]).toEqual([{}, null, ['The file holds no tokenizer.']]);
  });

  it('what we write lists unused tokens, and is no tokenizer either', () => {
    const written = rewritten({}, 5);
    expect(written.get('tokenizer.ggml.tokens')).toEqual(['[PAD0]', '[PAD1]', '[PAD2]', '[PAD3]', '[PAD4]']);
    expect(tokenizerFromGguf(written, 'x')).toMatchObject({ files: {}, vocabSize: null });
  });
});

it('the chat template is a file of its own, with any tokenizer or none', () => {
  const template = '{{ messages[0].content }}';
  for (const files of [
    {},
    { 'mamba_tokenizer.json': '{"type":"bytes"}' },
    tokenizerFromGguf(llama(), 'x').files,
  ]) {
    const written = rewritten({ ...files, 'chat_template.jinja': template }, 280);
    expect(written.get('tokenizer.chat_template')).toBe(template);
    expect(tokenizerFromGguf(written, 'x').files['chat_template.jinja']).toBe(template);
  }
  const config = JSON.stringify({ chat_template: template });
  expect(rewritten({ 'tokenizer_config.json': config }, 280).get('tokenizer.chat_template')).toBe(template);
});
