import { Tokenizer as HuggingFaceTokenizer } from '@huggingface/tokenizers';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { ConfigError, FormatError } from '../../src/base/errors.ts';
import type { Tokenizer } from '../../src/base/tokenizer.ts';
import { type JsonObject, tokenizerFromFiles, tokenizerFromJson, trainBpe } from '../../src/text/index.ts';
import { jsonForLibrary } from '../../src/text/library-json.ts';
import { ODD_TEXTS } from './odd-texts.ts';

function streamed(tokenizer: Tokenizer, ids: readonly number[]): string {
  const decoder = tokenizer.streamDecoder();
  return ids.map((id) => decoder.push(id)).join('') + decoder.flush();
}

const trained = trainBpe(['the quick brown fox 😀 中文 the quick 中文 😀 '.repeat(9)], { vocabSize: 290 });
const bpe = tokenizerFromJson(trained.tokenizerJson, trained.tokenizerConfig);

/** A vocabulary in the manner of Llama: a prefix for spaces, single characters, bytes for the rest. */
function sentencePiece(): Tokenizer {
  const tokens = ['<unk>', '<s>', '</s>'];
  for (let byte = 0; byte < 256; byte++)
    tokens.push(`<0x${byte.toString(16).toUpperCase().padStart(2, '0')}>`);
  for (const token of ['▁', 'a', 'b', 'c', '.', 'é', 'ab', '▁a', '▁ab', '▁b']) tokens.push(token);
  const special = (id: number) => ({ id, content: tokens[id], special: true, normalized: false });
  return tokenizerFromJson({
    version: '1.0',
    added_tokens: [special(0), special(1), special(2)],
    normalizer: {
      type: 'Sequence',
      normalizers: [
        { type: 'Prepend', prepend: '▁' },
        { type: 'Replace', pattern: { String: ' ' }, content: '▁' },
      ],
    },
    pre_tokenizer: null,
    post_processor: {
      type: 'TemplateProcessing',
      single: [{ SpecialToken: { id: '<s>', type_id: 0 } }, { Sequence: { id: 'A', type_id: 0 } }],
      pair: [],
      special_tokens: {},
    },
    decoder: {
      type: 'Sequence',
      decoders: [
        { type: 'Replace', pattern: { String: '▁' }, content: ' ' },
        { type: 'ByteFallback' },
        { type: 'Fuse' },
        { type: 'Strip', content: ' ', start: 1, stop: 0 },
      ],
    },
    model: {
      type: 'BPE',
      unk_token: '<unk>',
      byte_fallback: true,
      vocab: Object.fromEntries(tokens.map((token, id) => [token, id])),
      merges: ['a b', '▁ a', '▁a b', '▁ b'],
    },
  });
}

describe('tokenizerFromJson', () => {
  it('gives the text back, at once and streamed', () => {
    for (const text of ODD_TEXTS) {
      const ids = bpe.encode(text);
      expect(bpe.decode(ids)).toBe(text);
      expect(streamed(bpe, ids)).toBe(text);
    }
  });

  it('streams any ids to the text of decoding them at once, never half a character', () => {
    const anyIds = fc.array(fc.integer({ min: 0, max: bpe.vocabSize - 1 }), { maxLength: 30 });
    fc.assert(
      fc.property(anyIds, (ids) => {
        expect(streamed(bpe, ids)).toBe(bpe.decode(ids));
      }),
    );
    const decoder = bpe.streamDecoder();
    for (const id of bpe.encode('😀 中 🙂 é')) expect(decoder.push(id)).not.toContain('\ufffd');
  });

  it('knows the end-of-text id, from the configuration or by its usual name', () => {
    expect(bpe.eosId).toBe(0);
    expect(tokenizerFromJson(trained.tokenizerJson).eosId).toBe(0);
    expect(tokenizerFromJson(trained.tokenizerJson, { eos_token: { content: '<|endoftext|>' } }).eosId).toBe(
      0,
    );
    expect(() => tokenizerFromJson(trained.tokenizerJson, { eos_token: '</s>' })).toThrow(ConfigError);
    const plain = trainBpe(['a b'], { vocabSize: 256, specialTokens: [] });
    expect(tokenizerFromJson(plain.tokenizerJson, plain.tokenizerConfig).eosId).toBeNull();
  });

  it('names its special tokens as text, whatever file and form they come in', () => {
    expect(bpe.specialTokens).toEqual({ eos_token: '<|endoftext|>' });
    const files = {
      ...bpe.toFiles(),
      'tokenizer_config.json': JSON.stringify({ bos_token: '<s>', eos_token: null, add_bos_token: true }),
      'special_tokens_map.json': JSON.stringify({
        bos_token: 'another',
        eos_token: { content: '<|endoftext|>', lstrip: false },
        pad_token: 'the',
        additional_special_tokens: ['<|x|>'],
      }),
    };
    const tokenizer = tokenizerFromFiles(files);
    const expected = { bos_token: '<s>', eos_token: '<|endoftext|>', pad_token: 'the' };
    expect(tokenizer.specialTokens).toEqual(expected);
    expect(tokenizerFromFiles(tokenizer.toFiles()).specialTokens).toEqual(expected);
  });

  it('takes the end of text of the model where the files name none', () => {
    const eosId = bpe.encode('t')[0]!;
    expect(tokenizerFromJson(trained.tokenizerJson, {}, { eosId })).toMatchObject({
      eosId,
      specialTokens: { eos_token: 't' },
    });
    expect(tokenizerFromJson(trained.tokenizerJson, { eos_token: '</s>' }, { eosId }).eosId).toBe(eosId);
    expect(tokenizerFromJson(trained.tokenizerJson, { eos_token: 'h' }, { eosId }).eosId).not.toBe(eosId);
    for (const none of [null, 100_000, -1])
      expect(tokenizerFromJson(trained.tokenizerJson, {}, { eosId: none }).eosId).toBe(0);
  });

  it('never tidies spaces, whatever the configuration says', () => {
    const tidy = tokenizerFromJson(trained.tokenizerJson, { clean_up_tokenization_spaces: true });
    expect(tidy.decode(tidy.encode("Who ? I 'm ."))).toBe("Who ? I 'm .");
  });

  it('decodes padded ids to nothing and refuses what is no id', () => {
    expect(bpe.decode([])).toBe('');
    expect(bpe.decode([100_000])).toBe('');
    expect(bpe.decode([...bpe.encode('ab'), 100_000])).toBe('ab');
    expect(streamed(bpe, [100_000, ...bpe.encode('é')])).toBe('é');
    for (const id of [-1, 0.5, Number.NaN]) {
      expect(() => bpe.decode([id])).toThrow(ConfigError);
      expect(() => bpe.streamDecoder().push(id)).toThrow(ConfigError);
    }
  });

  it('comes back from its files', () => {
    const again = tokenizerFromFiles(bpe.toFiles());
    expect(again.kind).toBe('json');
    expect(again.eosId).toBe(bpe.eosId);
    for (const text of ODD_TEXTS) expect(again.encode(text)).toEqual(bpe.encode(text));
  });
});

describe('encoding word by word', () => {
  const json = trained.tokenizerJson;
  const spaces = ['  ', '    ', '<|x|>'].map((content, i) => ({
    id: 300 + i,
    content,
    special: false,
    normalized: false,
  }));
  const kinds: [string, JsonObject][] = [
    ['plain', json],
    ['with NFC', { ...json, normalizer: { type: 'NFC' } }],
    ['with added runs of spaces', { ...json, added_tokens: [...(json.added_tokens as object[]), ...spaces] }],
    [
      'with added tokens matched before and after NFC',
      {
        ...json,
        normalizer: { type: 'NFC' },
        added_tokens: [
          ...(json.added_tokens as object[]),
          { id: 300, content: 'q', special: false, normalized: true },
        ],
      },
    ],
    [
      'with a prefix space',
      { ...json, pre_tokenizer: { type: 'ByteLevel', add_prefix_space: true, use_regex: true } },
    ],
    ['without splitting', { ...json, pre_tokenizer: { type: 'ByteLevel', use_regex: false } }],
  ];

  it.each(kinds)('gives the ids of the library: %s', (_, tokenizerJson) => {
    const tokenizer = tokenizerFromJson(tokenizerJson);
    const library = new HuggingFaceTokenizer(jsonForLibrary(tokenizerJson), {});
    const check = (text: string): void => {
      const { ids } = library.encode(text, { add_special_tokens: false });
      expect(tokenizer.encode(text)).toEqual(ids);
      expect(tokenizer.encode(text, { addSpecialTokens: true })).toEqual(ids); // there is no post-processor
    };
    for (const text of ODD_TEXTS) check(text);
    const part = fc.constantFrom(
      ' ',
      '  ',
      '\n',
      "'s",
      'the',
      'q',
      'e\u0301',
      '中文',
      '😀',
      '12',
      '.',
      '<|x|>',
      '<|endoftext|>',
    );
    fc.assert(fc.property(fc.array(part, { maxLength: 20 }), (parts) => check(parts.join(''))));
    fc.assert(fc.property(fc.string({ unit: 'grapheme', maxLength: 30 }), check));
  });
});

describe('a vocabulary with space prefixes and byte fallback', () => {
  const tokenizer = sentencePiece();

  it.each(['ab a b', ' ab', 'a  b', 'é😀 ab', '😀😀.', '中a中', 'ab\ufffd c'])(
    'streams %j as it decodes it',
    (text) => {
      const ids = tokenizer.encode(text);
      expect(tokenizer.decode(ids)).toBe(text);
      expect(streamed(tokenizer, ids)).toBe(text);
    },
  );

  it('holds back bytes until the character is whole', () => {
    const decoder = tokenizer.streamDecoder();
    expect(tokenizer.encode('a😀').map((id) => decoder.push(id))).toEqual(['a', '', '', '', '😀']);
  });

  it('streams any ids to the text of decoding them at once', () => {
    const anyIds = fc.array(fc.integer({ min: 0, max: tokenizer.vocabSize - 1 }), { maxLength: 20 });
    fc.assert(
      fc.property(anyIds, (ids) => {
        expect(streamed(tokenizer, ids)).toBe(tokenizer.decode(ids));
      }),
    );
  });

  it('adds special tokens only when asked', () => {
    expect(tokenizer.encode('ab')).not.toContain(1);
    expect(tokenizer.encode('ab', { addSpecialTokens: true })).toEqual([1, ...tokenizer.encode('ab')]);
  });

  it('puts no space in front of a continuation, and behind special tokens what it always puts', () => {
    const part = fc.constantFrom('ab', ' ', 'a', 'é', '.', '😀', 'b c');
    const anyText = fc.array(part, { minLength: 1, maxLength: 6 }).map((parts) => parts.join(''));
    fc.assert(
      fc.property(anyText, anyText, (a, b) => {
        const ids = [...tokenizer.encode(a), ...tokenizer.encode(b, { isContinuation: true })];
        expect(tokenizer.decode(ids)).toBe(a + b);
        const ended = [...ids, ...tokenizer.encode(`</s>${a}`, { isContinuation: true })];
        expect(ended.slice(ids.length)).toEqual(tokenizer.encode(`</s>${a}`));
        const inside = tokenizer.encode(`${b}</s>${a}`, { isContinuation: true });
        expect(inside).toEqual([
          ...tokenizer.encode(b, { isContinuation: true }),
          ...tokenizer.encode(`</s>${a}`),
        ]);
      }),
    );
    expect(tokenizer.encode('', { isContinuation: true })).toEqual([]);
  });
});

describe('tokenizerFromFiles', () => {
  it.each([
    ['no files', {}, ConfigError],
    ['unrelated files', { 'config.json': '{}' }, ConfigError],
    ['a cut file', { 'tokenizer.json': '{"model": {' }, FormatError],
    ['another JSON value', { 'tokenizer.json': '[]' }, FormatError],
    ['missing parts', { 'tokenizer.json': '{}' }, FormatError],
    [
      'an unknown model',
      {
        'tokenizer.json':
          '{"model":{"type":"X"},"decoder":null,"post_processor":null,"pre_tokenizer":null,"normalizer":null,"added_tokens":[]}',
      },
      FormatError,
    ],
    ['a cut configuration', { ...bpe.toFiles(), 'tokenizer_config.json': '{' }, FormatError],
    ['an unknown type of ours', { 'mamba_tokenizer.json': '{"type":"words"}' }, FormatError],
  ] as [string, Record<string, string>, typeof ConfigError | typeof FormatError][])(
    'refuses %s',
    (_, files, error) => {
      expect(() => tokenizerFromFiles(files)).toThrow(error);
    },
  );
});
