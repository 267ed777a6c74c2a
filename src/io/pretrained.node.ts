/**
 * Opens a model on disk: a folder in the Hugging Face or original layout with safetensors or torch weights,
 * or in that of Codestral Mamba, a weights file beside its config.json, or a GGUF file. Opening reads headers
 * and texts only; weights are read one tensor at a time.
 */
import { readdir } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { FormatError, UnsupportedError } from '../base/errors.ts';
import type { Shape } from '../base/shape.ts';
import { toFloats } from '../base/weight-types.ts';
import type { ClassifierHead } from '../models/classifier-config.ts';
import type { ModelConfig } from '../models/config.ts';
import { ADAPTER_CONFIG_FILE } from './adapter.ts';
import { readCodestral } from './config-codestral.ts';
import { type ModelDescription, modelFromJson, toHuggingFaceConfig } from './config-json.ts';
import { type ConfigOverrides, overrideConfig } from './config-overrides.ts';
import { EMBEDDINGS, expectedTensors, LM_HEAD } from './expected-tensors.ts';
import { expectPath, FileError, fileSource, isPresent, readJson, readTextIfPresent } from './file.ts';
import { openFolderSet } from './folder.node.ts';
import { openGgufModel } from './gguf-model.ts';
import { inferConfig } from './infer-config.ts';
import type { JsonObject } from './json.ts';
import { knownTokenizer, type LocateOptions, locateModel, locateTokenizer } from './locate.node.ts';
import {
  CONFIG_FILE,
  GGUF,
  PARAMS_FILE,
  TOKENIZER_FILES,
  WEIGHTS_FILE,
  WEIGHTS_FILES,
} from './model-files.ts';
import { checkTensors, normaliseNames } from './pretrained.ts';
import { openSharded } from './shards.ts';
import type { TensorFile } from './tensor-file.ts';
import type { StoredWeight } from './weight-pieces.ts';
import { openWeights } from './weights.ts';

/** Formats one may find instead, named in the error. */
const OTHER_WEIGHTS = /\.(bin|pt|pth|gguf|onnx|h5|msgpack)$/;

/** A model on disk, checked against its configuration. */
export interface Pretrained {
  /** The weights file or index. */
  readonly path: string;
  readonly config: ModelConfig;
  /** Of a classifier, whose backbone `config` is; null for a language model. */
  readonly head: ClassifierHead | null;
  /** config.json as it stands, for fields outside the model (eos_token_id). */
  readonly configJson: JsonObject;
  /** Our names, in the order of the forward pass, with shapes as in `expectedTensors`. */
  readonly tensors: ReadonlyMap<string, Shape>;
  readonly metadata: Readonly<Record<string, string>>;
  /** The tokenizer's files by name; empty if there are none. */
  readonly tokenizer: Readonly<Record<string, string>>;
  /** What was left out or assumed; absent if nothing was. */
  readonly notes?: readonly string[];
  /** A fresh float32 array. */
  tensor(name: string): Promise<Float32Array>;
  /** The same piece by piece, as it is stored where that is one of our types. */
  weight(name: string): StoredWeight;
  close(): Promise<void>;
}

export interface OpenOptions extends LocateOptions {
  /** What no file of another program records. */
  config?: ConfigOverrides;
}

/**
 * Opens a model folder, a weights file (safetensors or torch.save's), the index of a sharded set, a .gguf
 * file, or a model of a hub: `org/name` or `org/name/path/file.gguf`, downloaded into the cache first.
 */
export async function openPretrained(idOrPath: string, options: OpenOptions = {}): Promise<Pretrained> {
  try {
    // First: a wrong name should not be noticed after gigabytes.
    const given = options.tokenizer === undefined ? null : await locateTokenizer(options.tokenizer, options);
    const tokenizer = given === null ? null : await readTokenizer(given);
    if (tokenizer && !hasTokenizer(tokenizer)) {
      throw new FileError(
        `openPretrained: expected tokenizer.json in ${given}, got no such file. Name another tokenizer.`,
      );
    }
    const { path, isFromHub } = await locateModel(idOrPath, options);
    const model = await withOverrides(await openPath(path), options.config);
    if (tokenizer) return { ...model, tokenizer };
    return isFromHub && !hasTokenizer(model.tokenizer)
      ? await withKnownTokenizer(model, idOrPath, options)
      : model;
  } finally {
    options.onProgress?.({ kind: 'end' });
  }
}

async function withOverrides(model: Pretrained, overrides: ConfigOverrides = {}): Promise<Pretrained> {
  try {
    return { ...model, config: overrideConfig(model.config, overrides, model.path) };
  } catch (error) {
    await model.close();
    throw error;
  }
}

async function withKnownTokenizer(
  model: Pretrained,
  name: string,
  options: LocateOptions,
): Promise<Pretrained> {
  try {
    const folder = await knownTokenizer(model.config, name, options);
    return folder === null
      ? model
      : { ...model, tokenizer: { ...model.tokenizer, ...(await readTokenizer(folder)) } };
  } catch (error) {
    await model.close();
    throw error;
  }
}

/** The others only add to it. */
export const hasTokenizer = (files: Readonly<Record<string, string>>): boolean =>
  'tokenizer.json' in files || 'mamba_tokenizer.json' in files;

async function openPath(path: string): Promise<Pretrained> {
  const found = await expectPath('openPretrained', 'a model folder or file', path);
  const gguf = found.isDirectory() ? await findGguf(path) : path;
  if (gguf !== null && GGUF.test(gguf)) return openGgufFile(gguf);
  const folder = found.isDirectory() ? path : dirname(path);
  const weights = found.isDirectory() ? null : basename(path);
  const names = [
    CONFIG_FILE,
    PARAMS_FILE,
    ...(weights === null ? WEIGHTS_FILES : [weights]),
    ...TOKENIZER_FILES,
  ];
  return openFolderSet(
    folder,
    names,
    () => openModel(folder, weights),
    (model) => model.close(),
  );
}

/** The only GGUF file of a folder without a configuration. */
async function findGguf(folder: string): Promise<string | null> {
  for (const name of [CONFIG_FILE, PARAMS_FILE]) if (await isPresent(join(folder, name))) return null;
  const files = (await readdir(folder)).filter((name) => GGUF.test(name));
  return files.length === 1 ? join(folder, files[0]!) : null;
}

/** A tokenizer beside the file steps in where the one inside cannot be used. */
async function openGgufFile(path: string): Promise<Pretrained> {
  const model = { ...(await openGgufModel(await fileSource(path))), head: null };
  if (hasTokenizer(model.tokenizer)) return model;
  try {
    const beside = await readTokenizer(dirname(path));
    return hasTokenizer(beside)
      ? { ...model, tokenizer: { ...model.tokenizer, ...beside }, notes: [] }
      : model;
  } catch (error) {
    await model.close();
    throw error;
  }
}

/** The tokenizer's files in a folder, by name. */
export async function readTokenizer(folder: string): Promise<Record<string, string>> {
  const tokenizer: Record<string, string> = {};
  for (const name of TOKENIZER_FILES) {
    const text = await readTextIfPresent(join(folder, name));
    if (text !== null) tokenizer[name] = text;
  }
  return tokenizer;
}

/** Opens the files of a folder that holds still; `weights` null finds them by the usual names. */
export async function openModel(folder: string, weights: string | null): Promise<Pretrained> {
  const configPath = join(folder, CONFIG_FILE);
  const configJson = await readJsonIfPresent(configPath);
  const given = configJson && modelFromJson(configJson, configPath);
  const paramsPath = join(folder, PARAMS_FILE);
  const params = given ? null : await readJsonIfPresent(paramsPath);
  const tokenizer = await readTokenizer(folder);
  const path = join(folder, weights ?? (await findWeights(folder)));
  const file = await openTensorFile(path);
  try {
    const names = normaliseNames(file.tensors.keys(), path);
    const found = new Map([...names].map(([ours, theirs]) => [ours, file.tensors.get(theirs)!.shape]));
    const stored = (name: string) => file.tensors.get(names.get(name) ?? name);
    const isShared = names.has(LM_HEAD) && stored(LM_HEAD) === stored(EMBEDDINGS);
    const { config, head, note }: ModelDescription & { note?: string } =
      given ??
      (params
        ? { config: readCodestral(params, found, isShared, paramsPath), head: null }
        : { ...inferConfig(found, path, isShared), head: null });
    if (config.n_layer > found.size) {
      throw new FormatError(
        `openPretrained: expected weights for ${config.n_layer} layers, got ${found.size} tensors in ${path}. Do the configuration and the weights belong together?`,
      );
    }
    const expected = expectedTensors(config, head);
    checkTensors(expected, found, path);
    const weight = (name: string): StoredWeight => file.weight(names.get(name) ?? name);
    if (config.tie_embeddings && names.has(LM_HEAD) && !isShared) await checkTied(weight, path);
    return {
      path,
      config,
      head,
      configJson: configJson ?? toHuggingFaceConfig(config),
      tensors: expected,
      metadata: file.metadata,
      ...(note !== undefined && { notes: [note] }),
      tokenizer,
      tensor: async (name) => file.readAsF32(names.get(name) ?? name),
      weight,
      close: () => file.close(),
    };
  } catch (error) {
    await file.close();
    throw error;
  }
}

async function readJsonIfPresent(path: string): Promise<JsonObject | null> {
  return (await isPresent(path)) ? readJson(path) : null;
}

async function findWeights(folder: string): Promise<string> {
  for (const name of WEIGHTS_FILES) {
    if (await isPresent(join(folder, name))) return name;
  }
  if (await isPresent(join(folder, ADAPTER_CONFIG_FILE))) {
    throw new UnsupportedError(
      `openPretrained: expected ${WEIGHTS_FILE} in ${folder}, got an adapter, which is no model of its own. Load that of a classifier with loadClassifier; merge others with the program that trained them.`,
    );
  }
  const others = (await readdir(folder)).filter((name) => OTHER_WEIGHTS.test(name));
  if (others.length > 0) {
    throw new UnsupportedError(
      `openPretrained: expected ${WEIGHTS_FILE} in ${folder}, got ${others.join(', ')}. Convert the weights to safetensors, or give the path of the file.`,
    );
  }
  throw new FileError(
    `openPretrained: expected ${WEIGHTS_FILES.join(', ')} in ${folder}, got none of them. Is the download complete?`,
  );
}

/** A file of weights, or the set behind an index. */
export async function openTensorFile(path: string): Promise<TensorFile> {
  const source = await fileSource(path);
  try {
    if (!path.endsWith('.json')) return await openWeights(source);
    const set = await openSharded(source, (name) => fileSource(join(dirname(path), name)));
    await source.close();
    return set;
  } catch (error) {
    await source.close();
    throw error;
  }
}

/** Some programs store the shared tensor under both names; two different tensors are not tied. */
async function checkTied(weight: (name: string) => StoredWeight, path: string): Promise<void> {
  const [embeddings, head] = [weight(EMBEDDINGS), weight(LM_HEAD)];
  const others = head.pieces()[Symbol.asyncIterator]();
  for await (const { at, data } of embeddings.pieces()) {
    const next = await others.next();
    if (next.done) return;
    const values = toFloats(data, embeddings.dtype);
    const other = toFloats(next.value.data, head.dtype);
    const differs = values.findIndex((value, i) => !Object.is(value, other[i]));
    if (differs < 0) continue;
    throw new FormatError(
      `openPretrained: expected ${LM_HEAD} to equal ${EMBEDDINGS} in ${path} because the configuration ties them, got a difference at element ${at + differs}. Set tie_word_embeddings to false if the head is its own.`,
    );
  }
}
