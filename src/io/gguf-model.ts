/**
 * A model in a GGUF file of llama.cpp's architectures `mamba` (also Falcon-Mamba) and `mamba2`, presented as
 * a model on disk: our configuration, our tensor names and shapes, the tokenizer's files.
 */
import { FormatError, UnsupportedError } from '../base/errors.ts';
import type { Shape } from '../base/shape.ts';
import type { ByteSource } from '../base/source.ts';
import { toFloats } from '../base/weight-types.ts';
import type { ModelConfig } from '../models/config.ts';
import { toHuggingFaceConfig } from './config-json.ts';
import { expectedTensors } from './expected-tensors.ts';
import { type GgufFile, openGguf } from './gguf.ts';
import { readGgufConfig } from './gguf-config.ts';
import { fromGgufName, GGUF_ARCHITECTURES, ggufShape, isSameGgufShape } from './gguf-names.ts';
import { tokenizerFromGguf } from './gguf-tokenizer.ts';
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
  const named = metadata.get('general.architecture');
  const architecture = GGUF_ARCHITECTURES.find((known) => known === named);
  if (architecture === undefined) {
    throw new UnsupportedError(
      `openGguf: expected general.architecture ${GGUF_ARCHITECTURES.join(' or ')} in ${path}, got ${String(named)}. Other models cannot be loaded.`,
    );
  }
  const names = new Map<string, string>();
  const found = new Map<string, Shape>();
  for (const [theirs, { shape }] of file.tensors) {
    const ours = fromGgufName(theirs, architecture) ?? `${theirs} (no tensor of llama.cpp's ${architecture})`;
    names.set(ours, theirs);
    found.set(ours, shape);
  }
  const tokenizer = tokenizerFromGguf(metadata, path);
  const config = readGgufConfig(file, architecture, found, tokenizer.vocabSize);
  const expected = expectedTensors(config);
  for (const [ours, shape] of expected) {
    const there = found.get(ours);
    if (there && isSameGgufShape(there, ggufShape(ours, shape, config))) found.set(ours, shape);
  }
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
