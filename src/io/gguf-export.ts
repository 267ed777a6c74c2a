/**
 * A model on disk or in memory as the contents of a GGUF file: llama.cpp's metadata and tensors for the
 * architectures `mamba` and `mamba2`. The convolution, A, D, norms and biases are always F32, as llama.cpp
 * expects; a row that is not made of whole blocks falls back to F16. Our own keys start with `mamba_ts.` and
 * are ignored elsewhere.
 */
import type { Shape } from '../base/shape.ts';
import { toFloats, type WeightDType } from '../base/weight-types.ts';
import type { ModelConfig } from '../models/config.ts';
import { expectedTensors } from './expected-tensors.ts';
import {
  architectureOf,
  configFields,
  configNotes,
  expectGgufConfig,
  type GgufConfig,
} from './gguf-config.ts';
import { type GgufArchitecture, ggufShape, toGgufName } from './gguf-names.ts';
import { vocabularyFields } from './gguf-vocabulary.ts';
import type { GgufEntry, GgufField } from './gguf-write.ts';
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

/** Throws UnsupportedError for models that GGUF has no place for: expectGgufConfig. */
export function ggufContent(source: GgufSource, weights: GgufWeights, name: string): GgufContent {
  const config = expectGgufConfig('writeGguf', source.config);
  const vocabulary = vocabularyFields(source.tokenizer, config);
  const architecture = architectureOf(config);
  const metadata = new Map<string, GgufField>([
    ['general.architecture', { type: 'string', value: architecture }],
    ['general.name', { type: 'string', value: name }],
    ['general.file_type', { type: 'u32', value: FILE_TYPES[weights] }],
    ['general.quantization_version', { type: 'u32', value: 2 }],
    ...configFields(config),
    ...vocabulary.fields,
  ]);
  return {
    metadata,
    entries: entriesOf(config, architecture, source, weights),
    notes: [...configNotes(config), ...vocabulary.notes],
  };
}

function entriesOf(
  config: GgufConfig,
  architecture: GgufArchitecture,
  source: GgufSource,
  weights: GgufWeights,
): GgufEntry[] {
  const entries: GgufEntry[] = [];
  for (const [ours, full] of expectedTensors(config)) {
    const shape: Shape = ggufShape(ours, full, config);
    const weight = source.weight(ours);
    const dtype = keptType(ours, full, weight.dtype, DTYPES[weights], outputName(config));
    const bytes = () => weightBytes(ours.endsWith('.A_log') ? negativeExp(weight) : weight, dtype, ours);
    entries.push({ name: toGgufName(ours, architecture)!, dtype, shape, bytes });
    if (ours.endsWith('.conv1d.weight') && !config.conv_bias) {
      // llama.cpp always reads this bias.
      const name = toGgufName(ours.replace(/weight$/, 'bias'), architecture)!;
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
