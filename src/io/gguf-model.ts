/**
 * A model in a GGUF file of llama.cpp's architecture `mamba` (also Falcon-Mamba), presented as a model on disk: our
 * configuration, our tensor names and shapes, the tokenizer's files. Ours alone, under `mamba_ts.`, are what llama.cpp
 * has no key for; without them the values follow from the tensors.
 */
import { ConfigError, FormatError, UnsupportedError } from '../base/errors.ts';
import type { Shape } from '../base/shape.ts';
import type { ByteSource } from '../base/source.ts';
import { toFloats } from '../base/weight-types.ts';
import { type ModelConfig, resolveConfig } from '../models/config.ts';
import { EMBEDDINGS, expectedTensors, LM_HEAD } from './expected-tensors.ts';
import { type GgufFile, openGguf } from './gguf.ts';
import { fromGgufName } from './gguf-names.ts';
import { tokenizerFromGguf } from './gguf-tokenizer.ts';
import { toHuggingFaceConfig } from './hf-config.ts';
import type { JsonObject } from './json.ts';
import { checkTensors } from './pretrained.ts';
import { readFloats, type StoredWeight, type WeightPiece } from './weight-pieces.ts';

export interface GgufModel {
  readonly path: string;
  readonly config: ModelConfig;
  readonly configJson: JsonObject;
  readonly tensors: ReadonlyMap<string, Shape>;
  readonly metadata: Readonly<Record<string, string>>;
  readonly tokenizer: Readonly<Record<string, string>>;
  /** What was left out or assumed. */
  readonly notes: readonly string[];
  tensor(name: string): Promise<Float32Array>;
  weight(name: string): StoredWeight;
  close(): Promise<void>;
}

/** Opens and checks a model; weights are read one tensor at a time. Closes the source on failure. */
export async function openGgufModel(source: ByteSource): Promise<GgufModel> {
  try {
    return await open(await openGguf(source));
  } catch (error) {
    await source.close();
    throw error;
  }
}

async function open(file: GgufFile): Promise<GgufModel> {
  const { name: path, metadata } = file;
  const architecture = metadata.get('general.architecture');
  if (architecture !== 'mamba') {
    throw new UnsupportedError(
      `openGguf: expected general.architecture mamba in ${path}, got ${String(architecture)}. Only Mamba-1 models can be loaded.`,
    );
  }
  const names = new Map<string, string>();
  const found = new Map<string, Shape>();
  for (const [theirs, { shape }] of file.tensors) {
    const ours = fromGgufName(theirs) ?? `${theirs} (no tensor of llama.cpp's mamba)`;
    names.set(ours, theirs);
    found.set(ours, shape);
  }
  const tokenizer = tokenizerFromGguf(metadata, path);
  const config = readConfig(file, found, tokenizer.vocabSize);
  const expected = expectedTensors(config);
  checkTensors(expected, found, path);
  const weight = (ours: string): StoredWeight => {
    const theirs = names.get(ours) ?? ours;
    const stored = file.weight(theirs);
    return ours.endsWith('.A_log') ? logOf(stored, `${path}, tensor ${theirs}`) : stored;
  };
  const texts = [...metadata].filter(([key, value]) => /^general\./.test(key) && typeof value === 'string');
  return {
    path,
    config,
    configJson: toHuggingFaceConfig(config, { eosId: tokenizer.eosId }),
    tensors: expected,
    metadata: Object.fromEntries(texts) as Record<string, string>,
    tokenizer: tokenizer.files,
    notes: tokenizer.notes,
    tensor: async (ours) => readFloats(weight(ours)),
    weight,
    close: () => file.close(),
  };
}

/** A_log from A = -exp(A_log). */
function logOf(stored: StoredWeight, what: string): StoredWeight {
  const log = (a: number, element: number): number => {
    if (a < 0) return Math.log(-a);
    throw new FormatError(
      `openGguf: expected A below zero, got ${a} at element ${element} (${what}). The file is damaged.`,
    );
  };
  return {
    ...stored,
    dtype: 'f32',
    async *pieces(): AsyncGenerator<WeightPiece> {
      for await (const { at, count, data } of stored.pieces()) {
        yield { at, count, data: toFloats(data, stored.dtype).map((a, i) => log(a, at + i)) };
      }
    },
  };
}

function readConfig(file: GgufFile, found: ReadonlyMap<string, Shape>, tokens: number | null): ModelConfig {
  const { name: path, metadata } = file;
  const problems: string[] = [];
  const optional = (key: string): number | undefined => {
    const value = metadata.get(key);
    if (value === undefined || typeof value === 'number') return value;
    problems.push(`${key} must be a number, got a ${typeof value}`);
    return undefined;
  };
  const required = (key: string): number => {
    if (!metadata.has(key)) problems.push(`${key} is missing`);
    return optional(key) ?? Number.NaN;
  };
  const rows = found.get(EMBEDDINGS)?.[0];
  if (rows === undefined) problems.push('the tensor token_embd.weight is missing');
  // Epsilons are float32 there: the shortest decimal of the same float32 is what was meant.
  const epsilon = shortest(required('mamba.attention.layer_norm_rms_epsilon'));
  const ownEpsilon = optional('mamba_ts.mixer_rms_eps');
  const isFalcon = metadata.get('mamba.ssm.dt_b_c_rms') === true;
  const vocabulary = readVocabulary(rows ?? 0, optional, tokens);
  const input = {
    d_model: required('mamba.embedding_length'),
    n_layer: required('mamba.block_count'),
    ...vocabulary,
    d_state: required('mamba.ssm.state_size'),
    d_conv: required('mamba.ssm.conv_kernel'),
    d_inner: required('mamba.ssm.inner_size'),
    dt_rank: required('mamba.ssm.time_step_rank'),
    norm_eps: epsilon,
    // llama.cpp has one epsilon for all norms of a Falcon-Mamba.
    mixer_rms_eps: isFalcon ? (ownEpsilon === undefined ? epsilon : shortest(ownEpsilon)) : null,
    bias: found.has('backbone.layers.0.mixer.in_proj.bias'),
    conv_bias: found.has('backbone.layers.0.mixer.conv1d.bias'),
    tie_embeddings: !found.has(LM_HEAD),
  };
  if (input.n_layer > found.size) {
    problems.push(`mamba.block_count is ${input.n_layer} with ${found.size} tensors`);
  }
  const fail = (got: string, cause?: unknown): FormatError =>
    new FormatError(
      `openGguf: expected the complete metadata of a Mamba model in ${path}, got: ${got}. Convert the file again.`,
      { cause },
    );
  if (problems.length > 0) throw fail(problems.join('; '));
  try {
    return resolveConfig(input);
  } catch (error) {
    throw error instanceof ConfigError ? fail(error.message, error) : error;
  }
}

function shortest(value: number): number {
  for (let digits = 1; digits < 9; digits++) {
    const rounded = Number(value.toPrecision(digits));
    if (Math.fround(rounded) === Math.fround(value)) return rounded;
  }
  return value;
}

/** Our own keys, else the tokens in use: padding up to the rows is the smallest multiple that explains them. */
function readVocabulary(
  rows: number,
  optional: (key: string) => number | undefined,
  tokens: number | null,
): { vocab_size: number; pad_vocab_size_multiple: number } {
  const vocab_size = optional('mamba_ts.vocab_size') ?? (tokens !== null && tokens < rows ? tokens : rows);
  const own = optional('mamba_ts.pad_vocab_size_multiple');
  if (own !== undefined) return { vocab_size, pad_vocab_size_multiple: own };
  let multiple = Math.max(1, rows - vocab_size + 1);
  while (multiple < rows && rows % multiple !== 0) multiple++;
  return { vocab_size, pad_vocab_size_multiple: multiple };
}
