/** Tokenizer files that are damaged or made to harm: an error of ours when they are opened, never a crash or a hang. */
import { readFileSync } from 'node:fs';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { FormatError, MambaError, UnsupportedError } from '../../src/base/errors.ts';
import { type JsonObject, tokenizerFromFiles, tokenizerFromJson, trainBpe } from '../../src/text/index.ts';

const { tokenizerJson: good } = trainBpe(['the quick brown fox the quick '.repeat(9)], { vocabSize: 270 });
const model = good.model as JsonObject;
const withModel = (changes: JsonObject): JsonObject => ({ ...good, model: { ...model, ...changes } });
const split = (behavior: unknown, pattern: unknown = { String: 'a' }): JsonObject => ({
  ...good,
  pre_tokenizer: { type: 'Split', pattern, behavior, invert: false },
});
const nested = (depth: number): JsonObject =>
  depth === 0 ? { type: 'NFC' } : { type: 'Sequence', normalizers: [nested(depth - 1)] };

describe('a damaged tokenizer.json', () => {
  it.each([
    ['no model', { ...good, model: undefined }],
    ['a model that is a list', { ...good, model: [] }],
    ['an unknown type', withModel({ type: 'Mamba' })],
    ['a type that is a number', withModel({ type: 7 })],
    ['no vocab', withModel({ vocab: null })],
    ['ids as text', withModel({ vocab: { a: '1' } })],
    ['a huge id', withModel({ vocab: { ...(model.vocab as object), x: 4e9 } })],
    ['a negative id', withModel({ vocab: { ...(model.vocab as object), x: -1 } })],
    ['half an id', withModel({ vocab: { ...(model.vocab as object), x: 0.5 } })],
    ['no merges', withModel({ merges: undefined })],
    ['merges as numbers', withModel({ merges: [1, 2] })],
    ['merges of one token', withModel({ merges: ['t'] })],
    ['merges of three tokens', withModel({ merges: [['t', 'h', 'e']] })],
    ['merges of unknown tokens', withModel({ merges: ['t 日'] })],
    ['merges to an unknown token', withModel({ merges: ['z z'] })],
    ['a WordPiece without its unknown token', withModel({ type: 'WordPiece', unk_token: '[UNK]' })],
    ['a Unigram without pieces', withModel({ type: 'Unigram', vocab: [], unk_id: 0 })],
    ['a Unigram without its unknown piece', withModel({ type: 'Unigram', vocab: [['a', -1]], unk_id: 5 })],
    ['a Unigram without scores', withModel({ type: 'Unigram', vocab: [['a']], unk_id: 0 })],
    ['added tokens that are no list', { ...good, added_tokens: { id: 1 } }],
    ['an added token without a name', { ...good, added_tokens: [{ id: 1 }] }],
    ['an added token with a huge id', { ...good, added_tokens: [{ id: 2 ** 40, content: 'x' }] }],
    ['an unknown normalizer', { ...good, normalizer: { type: 'Shout' } }],
    ['a normalizer that is text', { ...good, normalizer: 'NFC' }],
    ['a Sequence of nothing', { ...good, normalizer: { type: 'Sequence' } }],
    ['a Sequence of text', { ...good, normalizer: { type: 'Sequence', normalizers: ['NFC'] } }],
    ['sequences without end', { ...good, normalizer: nested(5000) }],
    ['a Replace without a pattern', { ...good, normalizer: { type: 'Replace', content: 'x' } }],
    ['a broken expression', split('Isolated', { Regex: '(' })],
    ['an empty expression', split('Isolated', { Regex: '' })],
    ['an unknown pre-tokenizer', { ...good, pre_tokenizer: { type: 'Cut' } }],
    ['an unknown decoder', { ...good, decoder: { type: 'Guess' } }],
    ['a decoder that is a list', { ...good, decoder: [] }],
    ['an unknown post-processor', { ...good, post_processor: { type: 'Wrap' } }],
    ['a post-processor without a template', { ...good, post_processor: { type: 'TemplateProcessing' } }],
    [
      'a template with an unknown token',
      {
        ...good,
        post_processor: {
          type: 'TemplateProcessing',
          single: [{ SpecialToken: { id: '<bos>', type_id: 0 } }, { Sequence: { id: 'A', type_id: 0 } }],
          pair: [],
          special_tokens: {},
        },
      },
    ],
  ] as [string, JsonObject][])('with %s is a FormatError', (_, json) => {
    expect(() => tokenizerFromJson(json)).toThrow(FormatError);
    expect(() => tokenizerFromJson(json)).toThrow(/^tokenizer: expected .*, got .*\. .*\.$/s);
  });

  it('or damaged settings are a FormatError', () => {
    expect(() => tokenizerFromJson(good, { additional_special_tokens: 7 })).toThrow(FormatError);
    expect(tokenizerFromJson(good, { eos_token: 7, bos_token: { content: 1 } }).specialTokens).toEqual({
      eos_token: '<|endoftext|>',
    });
  });
});

describe('what the library cannot do', () => {
  it.each([
    ['merged splits', split('MergedWithPrevious')],
    ['an unknown split', split('Halves')],
    ['BPE with prefixes', withModel({ continuing_subword_prefix: '##' })],
    [
      'bytes in another decoder',
      { ...good, decoder: { type: 'Sequence', decoders: [{ type: 'ByteFallback' }, { type: 'CTC' }] } },
    ],
  ] as [string, JsonObject][])('is named: %s', (_, json) => {
    expect(() => tokenizerFromJson(json)).toThrow(UnsupportedError);
  });
});

describe('what older files leave out', () => {
  it('is filled in', () => {
    const { type: _, ...untyped } = model;
    const { normalizer: _n, post_processor: _p, ...rest } = good;
    const old = tokenizerFromJson({ ...rest, model: untyped });
    expect(old.encode('the fox')).toEqual(tokenizerFromJson(good).encode('the fox'));
    const empty = { ...good, added_tokens: [...(good.added_tokens as object[]), { id: 280, content: '' }] };
    expect(tokenizerFromJson(empty).encode('the fox')).toEqual(tokenizerFromJson(good).encode('the fox'));
  });

  it('Unigram models work', () => {
    const pieces = [
      ['<unk>', 0],
      ['▁', -2],
      ['a', -3],
      ['b', -3],
      ['▁ab', -1],
      ['ab', -4],
    ];
    const metaspace = { type: 'Metaspace', replacement: '▁', prepend_scheme: 'always' };
    const tokenizer = tokenizerFromJson({
      model: { type: 'Unigram', unk_id: 0, vocab: pieces },
      pre_tokenizer: metaspace,
      decoder: metaspace,
    });
    expect(tokenizer.encode('ab b')).toEqual([4, 1, 3]);
    expect(tokenizer.decode([4, 1, 3])).toBe('ab b');
    expect(tokenizer.encode('ab', { isContinuation: true })).toEqual([5]);
    expect(() => tokenizer.encode('a'.repeat(300_000))).toThrow(UnsupportedError);
  });
});

const bySort: [string, JsonObject][] = [
  ['byte-level', good],
  ...['zephyr', 'bert'].map((name): [string, JsonObject] => [name, fixture(name)]),
];
function fixture(name: string): JsonObject {
  const url = new URL(`../fixtures/tokenizers/${name}.json`, import.meta.url);
  return JSON.parse(readFileSync(url, 'utf8'))['tokenizer.json'];
}

it.each(bySort)('any part replaced by anything is an error of ours or works: %s', (_, whole) => {
  const value = fc.oneof(
    fc.constantFrom(
      null,
      0,
      -1,
      1e300,
      '',
      'x',
      true,
      [],
      {},
      [[]],
      [null],
      { type: 'BPE' },
      { type: 'ByteLevel' },
    ),
    fc.jsonValue({ maxDepth: 2 }) as fc.Arbitrary<unknown>,
  );
  const paths = (json: unknown, at: string[]): string[][] =>
    typeof json === 'object' && json !== null && at.length < 4
      ? Object.entries(json)
          .slice(0, 12)
          .flatMap(([key, part]) => [[...at, key], ...paths(part, [...at, key])])
      : [];
  const all = paths(whole, []);
  fc.assert(
    fc.property(fc.constantFrom(...all), value, (path, changed) => {
      const json = structuredClone(whole);
      let at = json;
      for (const key of path.slice(0, -1)) at = at[key] as JsonObject;
      at[path.at(-1)!] = changed;
      try {
        const tokenizer = tokenizerFromFiles({ 'tokenizer.json': JSON.stringify(json) });
        const ids = tokenizer.encode('the fox 日 <|endoftext|>', { addSpecialTokens: true });
        expect(ids.every((id) => Number.isInteger(id) && id < tokenizer.vocabSize)).toBe(true);
        tokenizer.decode(tokenizer.encode('the fox', { isContinuation: true }));
      } catch (error) {
        if (!(error instanceof MambaError)) throw error;
      }
    }),
    { numRuns: 200 },
  );
});
