/**
 * A process of its own that saves, for the tests that end it from outside. Bundled on the fly by `bundleChild`.
 *   file PATH            replaces PATH by 16 MB
 *   checkpoint DIR G     saves generation G once
 *   loop DIR             saves generations 1, 2, 3, ... until it is killed
 * Prints `saved ...`, or the error's code and message.
 */
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { type CheckpointContent, saveCheckpoint } from '../../src/io/checkpoint.node.ts';
import { expectedTensors } from '../../src/io/expected-tensors.ts';
import { writeFileAtomic } from '../../src/io/file.ts';
import { resolveConfig } from '../../src/models/config.ts';

/** A checkpoint in which every number of every file is the generation: mixed files show. About 300 kB. */
export function generation(g: number): CheckpointContent {
  const config = resolveConfig({ d_model: 64, n_layer: 1, vocab_size: 256 });
  const tensors = [...expectedTensors(config)].map(([name, shape]) => ({
    name,
    shape,
    data: async () => new Float32Array(shape.reduce((a, b) => a * b, 1)).fill(g),
  }));
  return {
    config,
    tensors,
    optimizer: tensors.slice(0, 3).map((tensor) => ({ ...tensor, name: `m.${tensor.name}` })),
    tokenizer: { 'tokenizer.json': `{"generation": ${g}}` },
    trainer: { step: g },
  };
}

/** Writes this file as one plain JavaScript module into `folder` and gives its path. */
export async function bundleChild(folder: string): Promise<string> {
  const { build } = await import('esbuild'); // only here: the child itself runs where nothing is installed
  const outfile = join(folder, 'save-child.mjs');
  const entry = fileURLToPath(import.meta.url);
  await build({
    entryPoints: [entry],
    bundle: true,
    platform: 'node',
    format: 'esm',
    outfile,
    external: ['esbuild'],
  });
  return outfile;
}

async function main([mode, path = '', g = '0']: string[]): Promise<void> {
  if (mode === 'file')
    await writeFileAtomic(
      path,
      Array.from({ length: 16 }, () => new Uint8Array(1 << 20)),
    );
  if (mode === 'checkpoint') await saveCheckpoint(path, generation(Number(g)));
  for (let step = 1; mode === 'loop'; step++) {
    await saveCheckpoint(path, generation(step));
    console.log(`saved ${step}`);
  }
  console.log('saved');
}

if (process.argv[1]?.endsWith('save-child.mjs')) {
  await main(process.argv.slice(2)).catch((error) => console.log(error.code, error.message));
}
