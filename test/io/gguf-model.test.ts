/** The oracle models as GGUF files and back: the same weights, logits and tokenizers. */
import { copyFileSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { memorySource } from '../../src/base/source.ts';
import {
  convertModel,
  createReference,
  FormatError,
  LanguageModel,
  loadModel,
  MambaError,
  noGrad,
  openPretrained,
  UnsupportedError,
  useDevice,
  writeGguf,
} from '../../src/index.node.ts';
import { expectedTensors } from '../../src/io/expected-tensors.ts';
import { openGguf } from '../../src/io/gguf.ts';
import { fromGgufName, toGgufName } from '../../src/io/gguf-names.ts';
import { byteTokenizer, tokenizerFromJson, trainBpe } from '../../src/text/index.ts';
import { fixturePath, readFixture, rowsOf } from '../support/oracle.ts';

const root = mkdtempSync(join(tmpdir(), 'mamba-ts-gguf-'));
const at = (name: string): string => join(root, name);
afterAll(() => rmSync(root, { recursive: true, force: true }));
beforeAll(() => useDevice(createReference()));

const open = (path: string) => openGguf(memorySource(new Uint8Array(readFileSync(path)), path));

async function logitsOf(model: LanguageModel, ids: number[][]): Promise<Float32Array> {
  return noGrad(() => model.forward(ids)).logits.floats();
}

/** Models, each in a layout whose config.json says all of it: Hugging Face's Mamba-2 norms groups of channels together. */
const ORACLES = [
  ['mamba1-tied', 'hf'],
  ['mamba1-odd', 'hf'],
  ['mamba1-bf16', 'hf'],
  ['falcon-mamba', 'hf'],
  ['mamba2-tied', 'hf'],
  ['mamba2-g2', 'orig'],
] as const;

describe.each(ORACLES)('%s/%s', (name, layout) => {
  const source = fixturePath(`${name}/${layout}`);
  const architecture = name.startsWith('mamba2') ? 'mamba2' : 'mamba';

  it('exported as F32 and loaded again gives the same logits, bit for bit', async () => {
    const path = at(`${name}.gguf`);
    const model = await loadModel(source);
    await writeGguf(model, path);
    const back = await loadModel(path);
    // What GGUF has no place for: no convolution bias (zeros are written), a chunk length on which nothing depends.
    const lost = architecture === 'mamba2' ? { conv_bias: true, chunk_size: 256 } : { conv_bias: true };
    expect(back.config).toEqual({ ...model.config, ...lost });
    const ids = rowsOf((await readFixture(`${name}/expected.safetensors`))('input_ids.S64'));
    expect(await logitsOf(back, ids)).toEqual(await logitsOf(model, ids));
  });

  it('every tensor but A_log has the bits of the source', async () => {
    const [a, b] = [await openPretrained(source), await openPretrained(at(`${name}.gguf`))];
    for (const tensor of a.tensors.keys()) {
      const [x, y] = [await a.tensor(tensor), await b.tensor(tensor)];
      // A = -exp(A_log) in float32: one rounding of A, one of its logarithm.
      const unit = tensor.endsWith('.A_log') ? 2 ** -24 : 0;
      const isClose = (value: number, i: number) => Math.abs(y[i]! - value) <= unit * (1 + Math.abs(value));
      expect(x.every(isClose), tensor).toBe(true);
    }
    await a.close();
    await b.close();
  });

  it('names go both ways', async () => {
    const model = await openPretrained(source);
    for (const ours of expectedTensors(model.config).keys())
      expect(fromGgufName(toGgufName(ours, architecture)!, architecture)).toBe(ours);
    await model.close();
  });

  it.each(['bf16', 'f16', 'q8_0', 'q4_0'] as const)(
    '%s: matrices within half a step, the rest untouched',
    async (weights) => {
      const path = at(`${name}-${weights}.gguf`);
      await convertModel(source, path, { format: 'gguf', weights });
      const [a, b] = [await openPretrained(source), await openPretrained(path)];
      const file = await open(path);
      for (const [ours, shape] of a.tensors) {
        const type = file.tensors.get(toGgufName(ours, architecture)!)!.type;
        const isMatrix = shape.length === 2 && ours.endsWith('.weight');
        expect(type.name === 'F32', ours).toBe(!isMatrix);
        if (ours.endsWith('A_log')) continue;
        const [x, y] = [await a.tensor(ours), await b.tensor(ours)];
        // Half a step; the last level of Q4_0 is missing at the far end; the scale itself is a float16.
        const step = {
          F32: 0,
          F16: 2 ** -11,
          BF16: 2 ** -8,
          Q8_0: 0.5 / 127 + 2 ** -10,
          Q4_0: 1 / 8 + 2 ** -10,
        }[type.name]!;
        const least = type.name === 'F32' ? 0 : 2 ** -25;
        for (let i = 0; i < x.length; i += type.block) {
          let [top, worst] = [0, 0];
          for (let j = i; j < i + type.block; j++) {
            top = Math.max(top, Math.abs(x[j]!));
            worst = Math.max(worst, Math.abs(x[j]! - y[j]!));
          }
          if (!(worst <= top * step + least)) expect.fail(`${ours} block at ${i}: ${worst} of ${top}`);
        }
      }
      await a.close();
      await b.close();
    },
  );
});

describe('metadata', () => {
  it('falcon: without our key the epsilon of the layers is used, as llama.cpp does', async () => {
    const bytes = new Uint8Array(readFileSync(at('falcon-mamba.gguf')));
    const text = Buffer.from(bytes.buffer).indexOf('mamba_ts.mixer_rms_eps');
    bytes[text] = 'x'.charCodeAt(0);
    writeFileSync(at('falcon-plain.gguf'), bytes);
    const own = await openPretrained(at('falcon-mamba.gguf'));
    const plain = await openPretrained(at('falcon-plain.gguf'));
    expect(own.config).toMatchObject({ mixer_rms_eps: 1e-6 });
    expect(plain.config).toMatchObject({ mixer_rms_eps: 1e-5 });
    await own.close();
    await plain.close();
  });

  it('refuses what GGUF has no place for, and notes what llama.cpp lacks', async () => {
    const small = { vocab_size: 20, d_model: 8, n_layer: 1, d_state: 2 };
    const layerNorm = new LanguageModel({ ...small, rms_norm: false });
    await expect(writeGguf(layerNorm, at('x.gguf'))).rejects.toThrow(UnsupportedError);
    const wide = new LanguageModel({ ...small, expand: 3, bias: true, conv_bias: false });
    const { notes } = await writeGguf(wide, at('wide.gguf'));
    expect(notes.join()).toMatch(/expand 2.*no bias of in_proj.*zeros.*no tokenizer/);
    expect((await loadModel(at('wide.gguf'))).config.d_inner).toBe(24);
  });

  it('refuses other architectures, missing metadata and missing tensors', async () => {
    const bytes = new Uint8Array(readFileSync(at('mamba1-tied.gguf')));
    const changed = async (from: string, to: string): Promise<unknown> => {
      const copy = Buffer.from(bytes);
      copy.write(to, copy.indexOf(from));
      writeFileSync(at('changed.gguf'), copy);
      return openPretrained(at('changed.gguf'));
    };
    const architecture = Buffer.from(bytes).indexOf('mamba', 32 + 'general.architecture'.length);
    expect(architecture).toBeGreaterThan(0);
    await expect(changed('mamba.ssm.conv_kernel', 'mamba.ssm.conv_kernex')).rejects.toThrow(
      /mamba.ssm.conv_kernel is missing/,
    );
    await expect(changed('blk.1.ssm_out', 'blk.1.ssm_oux')).rejects.toThrow(FormatError);
    await expect(changed('blk.1.ssm_out', 'blk.1.ssm_oux')).rejects.toThrow(
      /layers\.1\.mixer\.out_proj\.weight.* is missing; blk\.1\.ssm_oux/,
    );
    await expect(changed('\u0005\0\0\0\0\0\0\0mamba', '\u0005\0\0\0\0\0\0\0llama')).rejects.toThrow(
      /general.architecture mamba or mamba2 in .* got llama/,
    );
  });
});

describe('tokenizers', () => {
  const small = { vocab_size: 300, d_model: 8, n_layer: 1, d_state: 2 };
  const sentence = 'Ein größerer Text, 1234 und  zwei 你好 🙂\n';

  it('the byte tokenizer survives, also in a larger embedding', async () => {
    const model = new LanguageModel({ ...small, vocab_size: 256, pad_vocab_size_multiple: 100 });
    model.tokenizer = byteTokenizer();
    await writeGguf(model, at('bytes.gguf'));
    const back = await loadModel(at('bytes.gguf'));
    expect(back.tokenizer?.kind).toBe('bytes');
    expect(back.config).toEqual(model.config);
    const { metadata } = await open(at('bytes.gguf'));
    expect((metadata.get('tokenizer.ggml.tokens') as string[]).length).toBe(300);
  });

  it('rows that pad the embedding are no vocabulary, marked or only named', async () => {
    const model = new LanguageModel({ ...small, vocab_size: 290, pad_vocab_size_multiple: 16 });
    model.tokenizer = tokenizerFromJson(trainBpe([sentence.repeat(30)], { vocabSize: 290 }).tokenizerJson);
    const used = model.tokenizer.vocabSize;
    await writeGguf(model, at('padded.gguf'));
    const bytes = readFileSync(at('padded.gguf'));
    for (const key of [
      'tokenizer.ggml.token_type',
      'mamba_ts.vocab_size',
      'mamba_ts.pad_vocab_size_multiple',
    ]) {
      const plain = bytes.indexOf(key);
      expect(plain).toBeGreaterThan(0);
      bytes[plain] = 'x'.charCodeAt(0);
      writeFileSync(at('padded.gguf'), bytes);
      const files = await openPretrained(at('padded.gguf'));
      const { vocab_size, pad_vocab_size_multiple: multiple } = files.config;
      expect(vocab_size).toBe(key.startsWith('tokenizer') ? 290 : used);
      expect(Math.ceil(vocab_size / multiple) * multiple).toBe(304);
      await files.close();
    }
  });

  it('a BPE survives with its tokenizer.json, and without it from tokens and merges', async () => {
    const { tokenizerJson, tokenizerConfig } = trainBpe([sentence.repeat(30)], { vocabSize: 300 });
    const tokenizer = tokenizerFromJson(tokenizerJson, tokenizerConfig);
    const model = new LanguageModel({ ...small, vocab_size: tokenizer.vocabSize });
    model.tokenizer = tokenizer;
    await writeGguf(model, at('bpe.gguf'));
    const bytes = readFileSync(at('bpe.gguf'));
    for (const key of ['tokenizer.huggingface.json', 'mamba_ts.tokenizer_config'])
      bytes[bytes.indexOf(key)] = 'x'.charCodeAt(0);
    writeFileSync(at('bpe-plain.gguf'), bytes);
    for (const file of ['bpe.gguf', 'bpe-plain.gguf']) {
      const back = (await loadModel(at(file))).tokenizer!;
      for (const text of [sentence, 'nie gesehen: <|endoftext|> zwei', '']) {
        expect(back.encode(text), file).toEqual(tokenizer.encode(text));
        expect(back.decode(tokenizer.encode(text))).toBe(text);
      }
      expect(back.eosId).toBe(tokenizer.eosId);
    }
  });

  it('another kind leaves the model without a tokenizer, and says so', async () => {
    const bytes = readFileSync(at('bpe-plain.gguf'));
    bytes.write('rwkv', bytes.indexOf('gpt2'));
    writeFileSync(at('rwkv.gguf'), bytes);
    const files = await openPretrained(at('rwkv.gguf'));
    expect(files.notes?.join()).toContain('of kind rwkv; known are gpt2, llama, bert');
    await files.close();
    expect((await loadModel(at('rwkv.gguf'))).tokenizer).toBe(null);
    // A tokenizer beside the file steps in, and a folder with one GGUF file is a model.
    mkdirSync(at('beside'));
    copyFileSync(at('rwkv.gguf'), at('beside/model.gguf'));
    expect((await loadModel(at('beside'))).tokenizer).toBe(null);
    writeFileSync(at('beside/mamba_tokenizer.json'), '{"type":"bytes"}');
    expect((await loadModel(at('beside'))).tokenizer?.kind).toBe('bytes');
    copyFileSync(at('rwkv.gguf'), at('beside/other.gguf'));
    await expect(loadModel(at('beside'))).rejects.toThrow(MambaError);
  });
});

it('convertModel: GGUF to a folder keeps the logits', async () => {
  await convertModel(at('mamba1-tied.gguf'), at('folder'), { format: 'hf' });
  const [a, b] = [await loadModel(at('mamba1-tied.gguf')), await loadModel(at('folder'))];
  expect(b.fingerprint).toBe(a.fingerprint);
});
