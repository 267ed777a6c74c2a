/** Models from one file format to another, at most one tensor in memory at a time. */
import { realpath } from 'node:fs/promises';
import { basename, dirname } from 'node:path';
import { storageBytes } from './base/dtype.ts';
import { ConfigError, UnsupportedError } from './base/errors.ts';
import { sizeOf } from './base/shape.ts';
import type { WeightDType } from './base/weight-types.ts';
import { saveCheckpoint } from './io/checkpoint.node.ts';
import { writeFileAtomic } from './io/file.ts';
import { type GgufSource, type GgufWeights, ggufContent } from './io/gguf-export.ts';
import { ggufChunks } from './io/gguf-write.ts';
import type { LocateOptions } from './io/locate.node.ts';
import { GGUF } from './io/model-files.ts';
import { openPretrained, type Pretrained } from './io/pretrained.node.ts';
import { pieceRanges, type StoredWeight } from './io/weight-pieces.ts';
import { textFilesOf } from './load-model.node.ts';
import { LanguageModel } from './models/language-model.ts';
import type { Tensor } from './tensor/tensor.ts';

export interface WriteGgufOptions {
  /** Element type of the matrices, default f32; what must stay precise is float32 in any case. */
  weights?: GgufWeights;
  /** general.name; default the file's name. */
  name?: string;
}

export interface WrittenModel {
  path: string;
  /** Bytes of all weights. */
  weightBytes: number;
  /** What the format cannot say, or what llama.cpp would do with the file. */
  notes: string[];
}

/**
 * Writes or replaces one GGUF file that llama.cpp runs and `loadModel` opens. Q8_0 and Q4_0 round as ggml does; with q4_0
 * the head (the tied embedding, or lm_head) is Q8_0, and rows that 32 does not divide are F16. Weights that are stored in the
 * wanted type already keep their bytes.
 *
 * Throws ConfigError for another ending than .gguf, by which these files are known, UnsupportedError for models GGUF has no
 * place for (classifiers, LayerNorm, MLP sublayers), FormatError for weights that are not finite or too large for the type. The file that
 * was there before stays on any failure.
 */
export async function writeGguf(
  model: LanguageModel | Pretrained,
  path: string,
  options: WriteGgufOptions = {},
): Promise<WrittenModel> {
  const { weights = 'f32', name = basename(path).replace(/\.gguf$/i, '') } = options;
  if (!isGgufWeights(weights)) {
    throw new ConfigError(`writeGguf: expected weights ${GGUF_WEIGHTS.join(', ')}, got ${String(weights)}.`);
  }
  expectGguf('writeGguf', path);
  if (!(model instanceof LanguageModel)) expectGgufModel('writeGguf', model);
  const source = model instanceof LanguageModel ? sourceOf(model) : model;
  const { metadata, entries, notes } = ggufContent(source, weights, name);
  await writeFileAtomic(path, ggufChunks(metadata, entries));
  const weightBytes = entries.reduce((sum, { dtype, shape }) => sum + storageBytes(dtype, sizeOf(shape)), 0);
  return { path, weightBytes, notes };
}

function expectGguf(op: string, path: string): void {
  if (GGUF.test(path)) return;
  throw new ConfigError(
    `${op}: expected a path that ends in .gguf, got ${path}. Only by this ending is the file known as GGUF.`,
  );
}

export function expectGgufModel(op: string, { head, path }: Pretrained): void {
  if (!head) return;
  throw new UnsupportedError(
    `${op}: expected a language model, got a classifier (${path}). GGUF has no place for it: convert it to hf with weights bf16, or load it with weights q8 or q4.`,
  );
}

function sourceOf(model: LanguageModel): GgufSource {
  const parameters = new Map(model.namedParameters());
  return {
    config: model.config,
    tokenizer: textFilesOf(model),
    weight: (name) => weightOf(parameters.get(name)!),
  };
}

function weightOf(tensor: Tensor): StoredWeight {
  return {
    dtype: tensor.dtype as WeightDType,
    size: tensor.size,
    storedBytes: tensor.sizeBytes,
    async *pieces() {
      for (const [at, count] of pieceRanges(tensor.size)) {
        yield { at, count, data: await tensor.dataAt(at, count) };
      }
    },
  };
}

export interface ConvertOptions extends LocateOptions {
  format: 'hf' | 'gguf';
  /** hf: f32, bf16, f16; gguf: these and q8_0, q4_0, also called q8 and q4. Default f32. */
  weights?: string;
}

const HF_WEIGHTS = new Map([
  ['f32', 'F32'],
  ['f16', 'F16'],
  ['bf16', 'BF16'],
] as const);
const GGUF_WEIGHTS: readonly GgufWeights[] = ['f32', 'bf16', 'f16', 'q8_0', 'q4_0'];
const isGgufWeights = (text: string): text is GgufWeights =>
  (GGUF_WEIGHTS as readonly string[]).includes(text);

/**
 * Any model that `openPretrained` opens, of a hub too, to a folder in the Hugging Face layout or to a GGUF file. Throws ConfigError where
 * the result would take the place of its source, and for unknown options.
 */
export async function convertModel(from: string, to: string, options: ConvertOptions): Promise<WrittenModel> {
  const { format } = options;
  const given = options.weights ?? 'f32';
  const weights = given === 'q8' || given === 'q4' ? `${given}_0` : given;
  const dtype = [...HF_WEIGHTS].find(([name]) => name === weights)?.[1];
  if (format === 'hf' ? !dtype : !isGgufWeights(weights)) {
    const known = format === 'hf' ? [...HF_WEIGHTS.keys()] : [...GGUF_WEIGHTS, 'q8', 'q4'];
    throw new ConfigError(`convertModel: expected weights ${known.join(', ')} for ${format}, got ${given}.`);
  }
  if (format === 'gguf') expectGguf('convertModel', to);
  const source = await openPretrained(from, options);
  try {
    if (await isPlaceOf(source, to, format)) {
      throw new ConfigError(
        `convertModel: expected another place than that of the source, got ${to}. What rounding takes away cannot be brought back.`,
      );
    }
    const notes = [...(source.notes ?? [])];
    if (format === 'gguf' && isGgufWeights(weights)) {
      const written = await writeGguf(source, to, { weights });
      return { ...written, notes: [...notes, ...written.notes] };
    }
    const eos = source.configJson.eos_token_id;
    const tensors = [...source.tensors].map(([name, shape]) => ({
      name,
      shape,
      data: () => source.tensor(name),
    }));
    await saveCheckpoint(to, {
      config: source.config,
      head: source.head,
      tensors,
      tokenizer: source.tokenizer,
      weights: dtype,
      eosId: typeof eos === 'number' ? eos : null,
    });
    const elements = tensors.reduce((sum, { shape }) => sum + shape.reduce((a, b) => a * b, 1), 0);
    return { path: to, weightBytes: elements * (dtype === 'F32' ? 4 : 2), notes };
  } finally {
    await source.close();
  }
}

/** A folder is written as a whole: the weights of the source, and the optimizer of an unfinished training, would be gone. */
async function isPlaceOf({ path }: Pretrained, to: string, format: 'hf' | 'gguf'): Promise<boolean> {
  const there = await realpath(to).catch(() => null);
  return there !== null && there === (await realpath(format === 'hf' ? dirname(path) : path));
}
