/** The GGUF files that both sides read: random weights of a shape, written once into a folder. */
import { existsSync, mkdirSync, renameSync } from 'node:fs';
import { join } from 'node:path';
import { byteTokenizer, randomModel, writeGguf } from '../../dist/index.node.js';
import { PRESETS } from '../../dist/train/index.js';

/** That of the official models' tokenizer and its padding. */
const VOCABULARY = 50280;
/** llama.cpp's types, and ours. */
const WEIGHTS = { f32: 'f32', f16: 'f16', q8_0: 'q8', q4_0: 'q4' };

/** The path of `<shape>-<type>.gguf` in `folder`. */
export async function ggufFile(folder, shape, type) {
  const path = join(folder, `${shape}-${type}.gguf`);
  if (existsSync(path)) return path;
  mkdirSync(folder, { recursive: true });
  const model = await randomModel({ ...PRESETS[shape], vocab_size: VOCABULARY }, { weights: WEIGHTS[type] });
  model.tokenizer = byteTokenizer();
  const unfinished = join(folder, `unfinished-${process.pid}.gguf`);
  await writeGguf(model, unfinished, { weights: type, name: `${shape}-${type}` });
  renameSync(unfinished, path);
  model.dispose();
  return path;
}
