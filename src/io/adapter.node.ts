/** Adapters as folders: adapter_config.json and adapter_model.safetensors, replaced as one. Node only. */
import { rm } from 'node:fs/promises';
import { join, relative, resolve, sep } from 'node:path';
import { ConfigError } from '../base/errors.ts';
import type { ClassifierHead, LoraConfig } from '../models/classifier-config.ts';
import { loraLinears } from '../nn/lora.ts';
import type { Module } from '../nn/module.ts';
import {
  ADAPTER_CONFIG_FILE,
  ADAPTER_WEIGHTS_FILE,
  type Adapter,
  adapterConfigFromJson,
  adapterConfigToJson,
  adapterParameters,
  readAdapter,
  toPeftName,
} from './adapter.ts';
import { expectPath, fileError, fileSource, isPresent, readJson } from './file.ts';
import { openFolderSet, writeFolderAtomic } from './folder.node.ts';
import { formatJson } from './json.ts';
import { openSafetensors } from './safetensors.ts';
import { safetensorsChunks } from './safetensors-write.ts';

const FILES = [ADAPTER_CONFIG_FILE, ADAPTER_WEIGHTS_FILE];

export interface AdapterContent {
  /** The classifier: its adapters and its head are saved, in float32. */
  root: Module;
  /** Its `lora` says what the adapters are. */
  head: ClassifierHead;
  /**
   * Where the weights are that the adapters stand beside: a path, which is written as seen from the folder,
   * or a hub id.
   */
  base: string;
  /** Of those weights (Classifier.baseFingerprint): the loader refuses others. */
  fingerprint?: string;
  /** The files of its tokenizer by name, from TOKENIZER_FILES: it need not be the base's. */
  tokenizer?: Readonly<Record<string, string>>;
}

/**
 * Writes or replaces the adapter in `folder`; other files there stay. On failure the previous one is intact.
 * PEFT can load it.
 */
export async function saveAdapter(
  folder: string,
  { root, head, base, fingerprint, tokenizer = {} }: AdapterContent,
): Promise<void> {
  if (!head.lora || !hasAdapters(root, head.lora)) {
    throw new ConfigError(
      'saveAdapter: expected a classifier with the adapters that its configuration says, got others or none. Save it whole.',
    );
  }
  // Adapter and base may move together.
  const isPath = await isPresent(base);
  const place = isPath ? relative(resolve(folder), resolve(base)).replaceAll(sep, '/') || '.' : base;
  const entries = adapterParameters(root).map(([path, tensor]) => ({
    name: toPeftName(path),
    dtype: 'F32' as const,
    shape: tensor.shape,
    data: () => tensor.floats(),
  }));
  await writeFolderAtomic(folder, [
    {
      name: ADAPTER_CONFIG_FILE,
      content: formatJson(adapterConfigToJson(head.lora, head, place, fingerprint)),
    },
    { name: ADAPTER_WEIGHTS_FILE, content: safetensorsChunks(entries, { format: 'pt' }) },
    ...Object.entries(tokenizer).map(([name, content]) => ({ name, content })),
  ]);
}

/** Removes the adapter in `folder`, if there is one; other files there stay. */
export async function removeAdapter(folder: string): Promise<void> {
  for (const name of FILES) {
    await rm(join(folder, name), { force: true }).catch((error) => {
      throw fileError('removeAdapter', `to remove ${join(folder, name)}`, error);
    });
  }
}

function hasAdapters(root: Module, { rank, alpha, targets }: LoraConfig): boolean {
  return loraLinears(root, targets).every(
    ([, { lora }]) => lora?.A.shape[0] === rank && lora.scale === alpha / rank,
  );
}

/** Reads and checks the adapter in `folder`, completing an interrupted save first. Nothing stays open. */
export async function openAdapter(folder: string): Promise<Adapter> {
  await expectPath('openAdapter', 'the folder of an adapter', folder);
  const read = async (): Promise<Adapter> => {
    const path = join(folder, ADAPTER_CONFIG_FILE);
    const config = adapterConfigFromJson(await readJson(path), path);
    const source = await fileSource(join(folder, ADAPTER_WEIGHTS_FILE));
    try {
      return await readAdapter(config, await openSafetensors(source));
    } finally {
      await source.close();
    }
  };
  return openFolderSet(folder, FILES, read, async () => {});
}
