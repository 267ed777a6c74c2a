/**
 * A model split over several files: model.safetensors.index.json or pytorch_model.bin.index.json maps every
 * tensor to its file. The set presents itself as one TensorFile; whatever does not agree between index and
 * files is reported in one error.
 */
import { FormatError, MambaError } from '../base/errors.ts';
import type { ByteSource } from '../base/source.ts';
import { isObject, kindOf, parseJsonObject } from './json.ts';
import { listProblems } from './problems.ts';
import type { TensorFile, TensorInfo } from './tensor-file.ts';
import { openWeights } from './weights.ts';

const MAX_INDEX_BYTES = 100_000_000;

/**
 * Opens the set. `openShard` gets the plain file names of the index. Throws one FormatError that lists every
 * missing or damaged shard and every tensor that is absent, listed twice, stored twice or not listed.
 */
export async function openSharded(
  index: ByteSource,
  openShard: (fileName: string) => Promise<ByteSource>,
): Promise<TensorFile> {
  const problems: string[] = [];
  const { weightMap, metadata } = await readIndex(index, problems);
  const shards = new Map<string, TensorFile>();
  const close = async () => {
    for (const shard of shards.values()) await shard.close();
  };
  try {
    for (const fileName of new Set(weightMap.values())) {
      const shard = await tryOpen(fileName, openShard, problems);
      if (shard) shards.set(fileName, shard);
    }
    const tensors = joinTensors(weightMap, shards, problems);
    if (problems.length > 0) {
      throw new FormatError(
        `openSharded: expected files that match ${index.name}, got: ${listProblems(problems)}. Download or save the model again.`,
      );
    }
    const find = (tensor: string): TensorFile => {
      const shard = shards.get(weightMap.get(tensor) ?? '');
      if (shard) return shard;
      throw new FormatError(
        `readTensor: expected a tensor of ${index.name}, got the name ${tensor}. It lists ${tensors.size} tensors.`,
      );
    };
    return {
      name: index.name,
      tensors,
      metadata,
      read: async (tensor) => find(tensor).read(tensor),
      readAsF32: async (tensor) => find(tensor).readAsF32(tensor),
      weight: (tensor) => find(tensor).weight(tensor),
      close,
    };
  } catch (error) {
    await close();
    throw error;
  }
}

async function readIndex(
  index: ByteSource,
  problems: string[],
): Promise<{ weightMap: Map<string, string>; metadata: Record<string, string> }> {
  if (index.sizeBytes > MAX_INDEX_BYTES) {
    throw new FormatError(
      `openSharded: expected an index of at most ${MAX_INDEX_BYTES} bytes, got ${index.name} of ${index.sizeBytes}. Check the path.`,
    );
  }
  const text = new TextDecoder().decode(await index.read(0, index.sizeBytes));
  return parseIndex(text, index.name, problems);
}

/** The files that the text of an index names, each once; names that are no plain file names are left out. */
export function shardNames(text: string, name: string): string[] {
  return [...new Set(parseIndex(text, name, []).weightMap.values())];
}

function parseIndex(
  text: string,
  name: string,
  problems: string[],
): { weightMap: Map<string, string>; metadata: Record<string, string> } {
  const json = parseJsonObject(text, name, {
    onDuplicate: (key) => problems.push(`${key} is listed twice`),
  });
  if (!isObject(json.weight_map)) {
    throw new FormatError(
      `openSharded: expected an object weight_map in ${name}, got ${kindOf(json.weight_map)}. Download or save it again, or name the folder of the model.`,
    );
  }
  const weightMap = new Map<string, string>();
  for (const [tensor, fileName] of Object.entries(json.weight_map)) {
    if (typeof fileName === 'string' && fileName !== '' && !/[/\\]|^\.\.?$/.test(fileName))
      weightMap.set(tensor, fileName);
    else problems.push(`${tensor} names ${JSON.stringify(fileName)}, not a file beside the index`);
  }
  const metadata = isObject(json.metadata) ? Object.entries(json.metadata) : [];
  return {
    weightMap,
    metadata: Object.fromEntries(
      metadata.map(([key, value]) => [key, typeof value === 'string' ? value : JSON.stringify(value)]),
    ),
  };
}

async function tryOpen(
  fileName: string,
  openShard: (fileName: string) => Promise<ByteSource>,
  problems: string[],
): Promise<TensorFile | null> {
  let source: ByteSource | null = null;
  try {
    source = await openShard(fileName);
    return await openWeights(source);
  } catch (error) {
    await source?.close();
    if (!(error instanceof MambaError)) throw error;
    problems.push(`shard ${fileName}: ${error.message}`);
    return null;
  }
}

function joinTensors(
  weightMap: ReadonlyMap<string, string>,
  shards: ReadonlyMap<string, TensorFile>,
  problems: string[],
): Map<string, TensorInfo> {
  const tensors = new Map<string, TensorInfo>();
  for (const [tensor, fileName] of weightMap) {
    const shard = shards.get(fileName);
    const info = shard?.tensors.get(tensor);
    if (info) tensors.set(tensor, info);
    else if (shard) problems.push(`${tensor} is absent from ${fileName}`);
  }
  for (const [fileName, shard] of shards) {
    for (const tensor of shard.tensors.keys()) {
      const listed = weightMap.get(tensor);
      if (listed === undefined) problems.push(`${tensor} of ${fileName} is not listed`);
      else if (listed !== fileName) problems.push(`${tensor} is in ${fileName}, but listed for ${listed}`);
    }
  }
  return tensors;
}
