/**
 * A model on disk or in memory as the contents of a GGUF file: llama.cpp's metadata and tensors for the architecture
 * `mamba`. The convolution, A, D, norms and biases are always F32, as llama.cpp expects; a row that is not made of
 * whole blocks falls back to F16. Our own keys start with `mamba_ts.` and are ignored elsewhere.
 */
import { UnsupportedError } from '../base/errors.ts';
import type { Shape } from '../base/shape.ts';
import { toFloats, type WeightDType } from '../base/weight-types.ts';
import { type Mamba1Config, type ModelConfig, paddedVocabSize } from '../models/config.ts';
import { expectedTensors } from './expected-tensors.ts';
import { toGgufName } from './gguf-names.ts';
import { vocabularyFields } from './gguf-vocabulary.ts';
import type { GgufEntry, GgufField } from './gguf-write.ts';
import { onlyMamba1 } from './hf-config.ts';
import { keptType } from './kept-types.ts';
import { outputName } from './pretrained.ts';
import { type StoredWeight, type WeightPiece, weightBytes } from './weight-pieces.ts';

export type GgufWeights = 'f32' | 'bf16' | 'f16' | 'q8_0' | 'q4_0';

/** What an export needs of a model; a Pretrained is one. */
export interface GgufSource {
  readonly config: ModelConfig;
  /** The tokenizer's files by name. */
  readonly tokenizer: Readonly<Record<string, string>>;
  weight(name: string): StoredWeight;
}

export interface GgufContent {
  metadata: Map<string, GgufField>;
  entries: GgufEntry[];
  /** Why llama.cpp would compute something else or refuse the file; empty if it runs it. */
  notes: string[];
}

/** general.file_type */
const FILE_TYPES: Record<GgufWeights, number> = { f32: 0, f16: 1, q4_0: 2, q8_0: 7, bf16: 32 };
const DTYPES: Record<GgufWeights, WeightDType> = {
  f32: 'f32',
  bf16: 'bf16',
  f16: 'f16',
  q8_0: 'q8',
  q4_0: 'q4',
};
/** llama.cpp wants a context length; a recurrent model has none. */
const CONTEXT_LENGTH = 1 << 20;

/** Throws UnsupportedError for models that GGUF's `mamba` has no place for: LayerNorm, MLP sublayers. */
export function ggufContent(source: GgufSource, weights: GgufWeights, name: string): GgufContent {
  const config = onlyMamba1('writeGguf', source.config);
  if (!config.rms_norm || config.d_intermediate > 0) {
    throw new UnsupportedError(
      'writeGguf: expected a model with RMSNorm and without MLP sublayers, got another. GGUF has no place for it; write the Hugging Face layout.',
    );
  }
  const vocabulary = vocabularyFields(source.tokenizer, config);
  const metadata = new Map([...modelFields(config, weights, name), ...vocabulary.fields]);
  return {
    metadata,
    entries: entriesOf(config, source, weights),
    notes: [...notesOf(config), ...vocabulary.notes],
  };
}

function modelFields(config: Mamba1Config, weights: GgufWeights, name: string): [string, GgufField][] {
  const u32 = (value: number): GgufField => ({ type: 'u32', value });
  const fields: [string, GgufField][] = [
    ['general.architecture', { type: 'string', value: 'mamba' }],
    ['general.name', { type: 'string', value: name }],
    ['general.file_type', u32(FILE_TYPES[weights])],
    ['general.quantization_version', u32(2)],
    ['mamba.context_length', u32(CONTEXT_LENGTH)],
    ['mamba.embedding_length', u32(config.d_model)],
    ['mamba.feed_forward_length', u32(0)],
    ['mamba.attention.head_count', u32(0)],
    ['mamba.block_count', u32(config.n_layer)],
    ['mamba.ssm.conv_kernel', u32(config.d_conv)],
    ['mamba.ssm.inner_size', u32(config.d_inner)],
    ['mamba.ssm.state_size', u32(config.d_state)],
    ['mamba.ssm.time_step_rank', u32(config.dt_rank)],
    ['mamba.ssm.dt_b_c_rms', { type: 'bool', value: config.mixer_rms_eps !== null }],
    ['mamba.attention.layer_norm_rms_epsilon', { type: 'f32', value: config.norm_eps }],
    ['mamba.vocab_size', u32(paddedVocabSize(config))],
    ['mamba_ts.vocab_size', u32(config.vocab_size)],
    ['mamba_ts.pad_vocab_size_multiple', u32(config.pad_vocab_size_multiple)],
  ];
  const eps = config.mixer_rms_eps;
  if (eps !== null) fields.push(['mamba_ts.mixer_rms_eps', { type: 'f32', value: eps }]);
  return fields;
}

function entriesOf(config: Mamba1Config, source: GgufSource, weights: GgufWeights): GgufEntry[] {
  const entries: GgufEntry[] = [];
  for (const [ours, full] of expectedTensors(config)) {
    const isConv = ours.endsWith('.conv1d.weight');
    const shape: Shape = isConv ? [full[0]!, full[2]!] : full;
    const weight = source.weight(ours);
    const dtype = keptType(ours, full, weight.dtype, DTYPES[weights], outputName(config));
    const bytes = () => weightBytes(ours.endsWith('.A_log') ? negativeExp(weight) : weight, dtype, ours);
    entries.push({ name: toGgufName(ours)!, dtype, shape, bytes });
    if (isConv && !config.conv_bias) {
      // llama.cpp always reads this bias.
      const name = toGgufName(ours.replace(/weight$/, 'bias'))!;
      const zeros = async function* () {
        yield new Uint8Array(4 * shape[0]!);
      };
      entries.push({ name, dtype: 'f32', shape: [shape[0]!], bytes: zeros });
    }
  }
  return entries;
}

/** A = -exp(A_log). */
function negativeExp(weight: StoredWeight): StoredWeight {
  return {
    ...weight,
    dtype: 'f32',
    async *pieces(): AsyncGenerator<WeightPiece> {
      for await (const { at, count, data } of weight.pieces()) {
        yield { at, count, data: toFloats(data, weight.dtype).map((x) => -Math.exp(x)) };
      }
    },
  };
}

function notesOf(config: Mamba1Config): string[] {
  const notes: string[] = [];
  if (config.d_inner !== 2 * config.d_model) {
    notes.push(
      `llama.cpp loads expand 2 only, this model has d_inner ${config.d_inner} and d_model ${config.d_model}.`,
    );
  }
  if (config.bias) notes.push('llama.cpp knows no bias of in_proj and out_proj and refuses this file.');
  if (!config.conv_bias)
    notes.push('The model has no convolution bias; zeros are written, as llama.cpp needs one.');
  if (config.mixer_rms_eps !== null && config.mixer_rms_eps !== config.norm_eps) {
    notes.push(
      `llama.cpp uses the layers' epsilon ${config.norm_eps} for the norms of dt, B and C, this model has ${config.mixer_rms_eps}: its results differ slightly.`,
    );
  }
  return notes;
}
