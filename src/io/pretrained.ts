/**
 * The tensors a checkpoint must hold, and the one place where names and layouts of other programs are brought to ours
 * (the Hugging Face names). Configurations: hf-config.ts.
 */
import { FormatError } from '../base/errors.ts';
import { type Shape, sameShape, showShape, sizeOf } from '../base/shape.ts';
import { type ClassifierHead, featureWidth } from '../models/classifier-config.ts';
import { type ModelConfig, paddedVocabSize } from '../models/config.ts';
import { gatedMlpWidth } from '../nn/layers.ts';
import { listProblems } from './problems.ts';

export const EMBEDDINGS = 'backbone.embeddings.weight';
export const LM_HEAD = 'lm_head.weight';
const SCORE = 'score.weight';

/**
 * Our name of a tensor: `model.` in front goes (Codestral), `backbone.` comes where a bare backbone was saved, and the
 * original `embedding` becomes `embeddings`. Unknown names pass, checkTensors reports them.
 */
export function normaliseName(name: string): string {
  const bare = name.replace(/^model\./, '');
  const full = /^(embeddings?|layers|norm_f)\./.test(bare) ? `backbone.${bare}` : bare;
  return full === 'backbone.embedding.weight' ? EMBEDDINGS : full;
}

/** Ours -> the file's name. FormatError if two tensors of the file get the same name. */
export function normaliseNames(names: Iterable<string>, file: string): Map<string, string> {
  const result = new Map<string, string>();
  const problems: string[] = [];
  for (const name of names) {
    const ours = normaliseName(name);
    const other = result.get(ours);
    if (other !== undefined) problems.push(`${other} and ${name} both mean ${ours}`);
    result.set(ours, name);
  }
  if (problems.length === 0) return result;
  throw new FormatError(
    `normaliseNames: expected every tensor of ${file} once, got: ${listProblems(problems)}. Remove one of each.`,
  );
}

/** The matrix that predicts tokens; a classifier has none. */
export function outputName(config: ModelConfig, head: ClassifierHead | null = null): string | null {
  if (head) return null;
  return config.tie_embeddings ? EMBEDDINGS : LM_HEAD;
}

/** Every tensor with its shape, in the order of the forward pass: of a language model, or with `head` a classifier. */
export function expectedTensors(config: ModelConfig, head: ClassifierHead | null = null): Map<string, Shape> {
  const { d_model: d } = config;
  const tensors = new Map<string, Shape>();
  addBackbone(tensors, 'backbone', config, head);
  if (!head) {
    if (!config.tie_embeddings) tensors.set(LM_HEAD, [paddedVocabSize(config), d]);
    return tensors;
  }
  if (head.bidirectional) addBackbone(tensors, 'backbone_reverse', config, head);
  tensors.set(SCORE, [head.labels.length, featureWidth(head, d)]);
  tensors.set('score.bias', [head.labels.length]);
  return tensors;
}

function addBackbone(
  tensors: Map<string, Shape>,
  path: string,
  config: ModelConfig,
  head: ClassifierHead | null,
): void {
  const { d_model: d, d_inner: e, d_state: n, dt_rank: r, d_conv: k, bias } = config;
  const norm = (name: string): void => {
    tensors.set(`${name}.weight`, [d]);
    if (!config.rms_norm) tensors.set(`${name}.bias`, [d]);
  };
  const linear = (owner: string, name: string, [outputs, inputs]: [number, number], bias = false): void => {
    const lora = head?.lora;
    tensors.set(`${owner}.${name}.weight`, [outputs, inputs]);
    if (bias) tensors.set(`${owner}.${name}.bias`, [outputs]);
    if (!lora?.targets.includes(name)) return;
    tensors.set(`${owner}.${name}.lora.A`, [lora.rank, inputs]);
    tensors.set(`${owner}.${name}.lora.B`, [outputs, lora.rank]);
  };
  tensors.set(`${path}.embeddings.weight`, [paddedVocabSize(config), d]);
  for (let layer = 0; layer < config.n_layer; layer++) {
    const block = `${path}.layers.${layer}`;
    norm(`${block}.norm`);
    const mixer = `${block}.mixer`;
    linear(mixer, 'in_proj', [2 * e, d], bias);
    tensors.set(`${mixer}.conv1d.weight`, [e, 1, k]);
    if (config.conv_bias) tensors.set(`${mixer}.conv1d.bias`, [e]);
    linear(mixer, 'x_proj', [r + 2 * n, e]);
    tensors.set(`${mixer}.dt_proj.weight`, [e, r]);
    tensors.set(`${mixer}.dt_proj.bias`, [e]);
    tensors.set(`${mixer}.A_log`, [e, n]);
    tensors.set(`${mixer}.D`, [e]);
    linear(mixer, 'out_proj', [d, e], bias);
    if (config.d_intermediate > 0) {
      const f = gatedMlpWidth(config.d_intermediate);
      norm(`${block}.norm2`);
      linear(`${block}.mlp`, 'fc1', [2 * f, d]);
      linear(`${block}.mlp`, 'fc2', [d, f]);
    }
  }
  norm(`${path}.norm_f`);
}

/**
 * Throws one FormatError that lists every missing, unknown and wrongly shaped tensor. A convolution weight without its
 * axis of 1 is accepted, and so is lm_head.weight in a model with tied embeddings (whose values the loader compares).
 */
export function checkTensors(
  expected: ReadonlyMap<string, Shape>,
  found: ReadonlyMap<string, Shape>,
  file: string,
): void {
  const problems: string[] = [];
  for (const [name, shape] of expected) {
    const got = found.get(name);
    if (got === undefined) problems.push(`${name} ${showShape(shape)} is missing`);
    else if (!fits(name, shape, got)) problems.push(`${name} is ${showShape(got)}, not ${showShape(shape)}`);
  }
  const tiedHead = expected.has(SCORE) ? undefined : expected.get(EMBEDDINGS);
  for (const [name, shape] of found) {
    if (expected.has(name)) continue;
    if (name !== LM_HEAD || !tiedHead) problems.push(`${name} ${showShape(shape)} is unknown`);
    else if (!sameShape(shape, tiedHead))
      problems.push(`${name} is ${showShape(shape)}, not ${showShape(tiedHead)}`);
  }
  if (problems.length === 0) return;
  throw new FormatError(
    `checkTensors: expected the ${expected.size} tensors of the configuration in ${file}, got ${problems.length} differences: ${listProblems(problems)}. Do config.json and the weights belong together?`,
  );
}

function fits(name: string, expected: Shape, got: Shape): boolean {
  if (sameShape(expected, got)) return true;
  return (
    name.endsWith('.conv1d.weight') &&
    got.length === 2 &&
    got[0] === expected[0] &&
    sizeOf(got) === sizeOf(expected)
  );
}
