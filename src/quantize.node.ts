/** A model in fewer bits: written as GGUF, measured against its source. */
import { resolve } from 'node:path';
import { type DeviceName, useDevice } from './backend/backend.ts';
import { ConfigError } from './base/errors.ts';
import { sizeOf } from './base/shape.ts';
import { expectLanguageModel, writeGguf } from './convert.node.ts';
import { type OpenOptions, openPretrained, type Pretrained } from './io/pretrained.node.ts';
import { loadModel, readTokenizerOf } from './load-model.node.ts';
import { openCorpus } from './train/corpus.node.ts';
import type { TokenData } from './train/data-tokens.ts';
import { predictTokens, type TokenPredictions } from './train/predict-tokens.ts';

const WEIGHTS = { q8: 'q8_0', q4: 'q4_0', f16: 'f16', bf16: 'bf16' } as const;

export interface QuantizeOptions extends OpenOptions {
  /** Of the matrices; default q8. With q4 the head has eight bits; rows that 32 does not divide are f16. */
  weights?: keyof typeof WEIGHTS;
  /** Texts (files, folders, globs) on which source and result are compared. */
  data?: readonly string[];
  /** The field of a JSONL line that holds the text, default `text`. */
  textField?: string;
  /** For the comparison; also becomes the current device. Default: the current one. */
  device?: DeviceName;
  onCompare?: (model: 'source' | 'result', doneTokens: number, totalTokens: number) => void;
  signal?: AbortSignal;
}

export interface WeightSize {
  /** Of all weights. */
  bytes: number;
  bitsPerWeight: number;
}

export interface TextScore {
  perplexity: number;
  bitsPerToken: number;
}

export interface QuantizedModel {
  path: string;
  weights: keyof typeof WEIGHTS;
  parameterCount: number;
  /** As stored. */
  source: WeightSize;
  result: WeightSize;
  /** What was left out, and what llama.cpp would do with the file. */
  notes: string[];
  /** Null without `data`. */
  comparison: Comparison | null;
}

export interface Comparison {
  /** Tokens predicted, each from everything before it in its document. */
  tokens: number;
  source: TextScore;
  result: TextScore;
  /** Share of positions where both find the same token likeliest. */
  agreement: number;
}

/**
 * Writes or replaces the GGUF file `to`. With `data`, source (in the types in which it is stored) and result
 * read the text one after the other, so that one model is in memory at a time, and 4 bytes per token. On any
 * failure before the comparison the file that was there stays.
 *
 * Throws ConfigError where the result would replace its source, for data without a tokenizer and for unknown
 * options; otherwise what openPretrained, writeGguf and openCorpus throw.
 */
export async function quantizeModel(
  from: string,
  to: string,
  options: QuantizeOptions = {},
): Promise<QuantizedModel> {
  const { weights = 'q8', data, device } = options;
  if (!Object.hasOwn(WEIGHTS, weights)) {
    throw new ConfigError(
      `quantizeModel: expected weights ${Object.keys(WEIGHTS).join(', ')}, got ${String(weights)}.`,
    );
  }
  if (device) await useDevice(device);
  const files = await openPretrained(from, options);
  try {
    expectLanguageModel('quantizeModel', files, 'GGUF');
    if (resolve(to) === resolve(files.path)) {
      throw new ConfigError(
        `quantizeModel: expected another file than the source, got ${to}. What rounding takes away cannot be brought back.`,
      );
    }
    const tokens = data && (await openTexts(files, from, data, options));
    try {
      const written = await writeGguf(files, to, { weights: WEIGHTS[weights] });
      const names = [...files.tensors.keys()];
      const parameterCount = [...files.tensors.values()].reduce((sum, shape) => sum + sizeOf(shape), 0);
      const size = (bytes: number): WeightSize => ({ bytes, bitsPerWeight: (8 * bytes) / parameterCount });
      return {
        path: to,
        weights,
        parameterCount,
        source: size(names.reduce((sum, name) => sum + files.weight(name).storedBytes, 0)),
        result: size(written.weightBytes),
        notes: [...(files.notes ?? []), ...written.notes],
        comparison: tokens ? await compare(from, to, tokens, options) : null,
      };
    } finally {
      await tokens?.close();
    }
  } finally {
    await files.close();
  }
}

async function openTexts(
  files: Pretrained,
  from: string,
  data: readonly string[],
  { textField }: QuantizeOptions,
): Promise<TokenData> {
  const tokenizer = readTokenizerOf(files);
  if (tokenizer) return openCorpus(data, { tokenizer, textField });
  throw new ConfigError(
    `quantizeModel: expected a tokenizer to read the data with, got none in ${from}. Name one, or leave the data out.`,
  );
}

async function compare(
  from: string,
  to: string,
  tokens: TokenData,
  options: QuantizeOptions,
): Promise<Comparison> {
  const { onCompare, signal, onProgress: _download, ...locate } = options;
  const predict = async (which: 'source' | 'result', path: string): Promise<TokenPredictions> => {
    const model = await loadModel(path, which === 'source' ? { ...locate, weights: undefined } : {});
    const onProgress = (done: number, total: number): void => onCompare?.(which, done, total);
    return predictTokens(model, tokens, { onProgress, signal }).finally(() => model.dispose());
  };
  const source = await predict('source', from);
  const result = await predict('result', to);
  const same = source.best.reduce((sum, id, i) => sum + (id === result.best[i] ? 1 : 0), 0);
  return {
    tokens: source.best.length,
    source: scoreOf(source),
    result: scoreOf(result),
    agreement: same / source.best.length,
  };
}

function scoreOf({ loss }: TokenPredictions): TextScore {
  return { perplexity: Math.exp(loss), bitsPerToken: loss / Math.LN2 };
}
