/** Models from one file format to another, at most one tensor in memory at a time. */
import { realpath } from 'node:fs/promises';
import { basename, dirname } from 'node:path';
import { storageBytes } from './base/dtype.ts';
import { ConfigError, UnsupportedError } from './base/errors.ts';
import { sizeOf } from './base/shape.ts';
import type { WeightDType } from './base/weight-types.ts';
import { saveCheckpoint } from './io/checkpoint.node.ts';
import { codestralNotes } from './io/config-codestral.ts';
import { mamba2Notes } from './io/config-huggingface-mamba2.ts';
import { writeCodestralFolder, writeOriginalFolder } from './io/export-folder.node.ts';
import { writeFileAtomic } from './io/file.ts';
import { type GgufSource, type GgufWeights, ggufContent } from './io/gguf-export.ts';
import { ggufChunks } from './io/gguf-write.ts';
import { GGUF } from './io/model-files.ts';
import { type OpenOptions, openPretrained, type Pretrained } from './io/pretrained.node.ts';
import type { TorchDType } from './io/torch-write.ts';
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
 * Writes or replaces one GGUF file that llama.cpp runs and `loadModel` opens. Q8_0 and Q4_0 round as ggml
 * does; with q4_0 the head (the tied embedding, or lm_head) is Q8_0, and rows that 32 does not divide are
 * F16. Weights that are stored in the wanted type already keep their bytes.
 *
 * Throws ConfigError for another ending than .gguf, by which these files are known, UnsupportedError for
 * models GGUF has no place for (classifiers, LayerNorm, MLP sublayers, attention, Mamba-3, options of Mamba-2
 * that llama.cpp lacks), FormatError for weights that are not finite or too large for the type. The file that
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
  if (!(model instanceof LanguageModel)) expectLanguageModel('writeGguf', model, 'GGUF');
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

/** Of other programs' formats only ours for Hugging Face has a place for classifiers. */
export function expectLanguageModel(op: string, { head, path }: Pretrained, format: string): void {
  if (!head) return;
  throw new UnsupportedError(
    `${op}: expected a language model, got a classifier (${path}). ${format} has no place for it: convert it to hf with weights bf16, or load it with weights q8 or q4.`,
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

/**
 * `hf`: a folder in the Hugging Face layout; `original`: one in that of state-spaces/mamba, with
 * pytorch_model.bin; `codestral`: one in that of Codestral Mamba (params.json); `gguf`: a file of llama.cpp.
 */
export const MODEL_FORMATS = ['hf', 'gguf', 'original', 'codestral'] as const;
export type ModelFormat = (typeof MODEL_FORMATS)[number];

export interface ConvertOptions extends OpenOptions {
  format: ModelFormat;
  /** Folders: f32, bf16, f16; gguf: these and q8_0, q4_0, also called q8 and q4. Default f32. */
  weights?: string;
}

const FOLDER_WEIGHTS = new Map<string, TorchDType>([
  ['f32', 'F32'],
  ['f16', 'F16'],
  ['bf16', 'BF16'],
]);
const GGUF_WEIGHTS: readonly GgufWeights[] = ['f32', 'bf16', 'f16', 'q8_0', 'q4_0'];
const isGgufWeights = (text: string): text is GgufWeights =>
  (GGUF_WEIGHTS as readonly string[]).includes(text);

/**
 * Any model that `openPretrained` opens, of a hub too, in another layout or format. What `options.config`
 * says is kept where the format has a place for it. Throws ConfigError where the result would take the place
 * of its source or stand beside another model, and for unknown options; FormatError or UnsupportedError for a
 * model that the format cannot hold.
 */
export async function convertModel(from: string, to: string, options: ConvertOptions): Promise<WrittenModel> {
  const { format } = options;
  const given = options.weights ?? 'f32';
  const weights = given === 'q8' || given === 'q4' ? `${given}_0` : given;
  const dtype = FOLDER_WEIGHTS.get(weights);
  if (!MODEL_FORMATS.includes(format)) {
    throw new ConfigError(
      `convertModel: expected format ${MODEL_FORMATS.join(', ')}, got ${String(format)}.`,
    );
  }
  if (format === 'gguf' ? !isGgufWeights(weights) : !dtype) {
    const known = format === 'gguf' ? [...GGUF_WEIGHTS, 'q8', 'q4'] : [...FOLDER_WEIGHTS.keys()];
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
    notes.push(...(await writeFolder(source, to, format, dtype!)));
    const elements = [...source.tensors.values()].reduce((sum, shape) => sum + sizeOf(shape), 0);
    return { path: to, weightBytes: elements * (dtype === 'F32' ? 4 : 2), notes };
  } finally {
    await source.close();
  }
}

/** What should be known of the result. */
async function writeFolder(
  source: Pretrained,
  to: string,
  format: ModelFormat,
  dtype: TorchDType,
): Promise<string[]> {
  const { config } = source;
  if (format !== 'hf') expectLanguageModel('convertModel', source, `The layout ${format}`);
  if (format === 'original') {
    await writeOriginalFolder(to, source, dtype);
    return [];
  }
  if (format === 'codestral') {
    await writeCodestralFolder(to, source, dtype);
    return codestralNotes(config);
  }
  const eos = source.configJson.eos_token_id;
  await saveCheckpoint(to, {
    config,
    head: source.head,
    tensors: [...source.tensors].map(([name, shape]) => ({ name, shape, data: () => source.tensor(name) })),
    tokenizer: source.tokenizer,
    weights: dtype,
    eosId: typeof eos === 'number' ? eos : null,
  });
  return source.head ? [] : mamba2Notes(config);
}

/**
 * A folder is written as a whole: the weights of the source, and the optimizer of an
 * unfinished training, would be gone.
 */
async function isPlaceOf({ path }: Pretrained, to: string, format: ModelFormat): Promise<boolean> {
  const there = await realpath(to).catch(() => null);
  return there !== null && there === (await realpath(format === 'gguf' ? path : dirname(path)));
}
