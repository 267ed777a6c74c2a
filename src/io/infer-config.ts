/**
 * The configuration of a model whose config.json is missing, from the shapes of its tensors. What shapes
 * cannot tell takes the value that all published models of the architecture have, and is said in `note`; what
 * differs among these is asked for.
 */
import { ConfigError, FormatError } from '../base/errors.ts';
import type { Shape } from '../base/shape.ts';
import { type ModelConfig, type ModelConfigInput, resolveConfig } from '../models/config.ts';
import { EMBEDDINGS, LM_HEAD } from './expected-tensors.ts';
import { inferMamba1, inferMamba2, inferMamba3, PUBLISHED_STATE, Shapes } from './infer-mixer.ts';

/** Tensors that no language model has. */
const CLASSIFIER = /^(score|classifier|backbone_reverse)\.|\.lora\.[AB]$/;
const LAYER = /^backbone\.layers\.(\d+)\./;

/** What shapes leave open, by architecture. */
const OPEN = {
  mamba1: (eps: number) =>
    `the norms' epsilon is taken to be ${eps}, and the model not to be a Falcon-Mamba, whose further norms leave no trace.`,
  mamba2: (eps: number) =>
    `the norms' epsilon is taken to be ${eps}, d_state ${PUBLISHED_STATE}, the gate to come before the norm, and step sizes to have no limit.`,
  mamba3: (eps: number) =>
    `the norms' epsilon is taken to be ${eps}, A_activation heavy-tail, and A_floor 1e-4.`,
} as const;

/**
 * `found`: shapes under our names; `isShared`: the head is the embedding's tensor under a second name. Throws
 * FormatError naming what a configuration needs and shapes do not tell.
 */
export function inferConfig(
  found: ReadonlyMap<string, Shape>,
  file: string,
  isShared: boolean,
): { config: ModelConfig; note: string } {
  const ofClassifier = [...found.keys()].find((name) => CLASSIFIER.test(name));
  if (ofClassifier !== undefined) {
    throw new FormatError(
      `openPretrained: expected config.json beside ${file}, which ${ofClassifier} makes a classifier: its labels and its pooling are told nowhere else. Put its config.json there.`,
    );
  }
  const shapes = new Shapes(found);
  const stack = inferStack(found, shapes, isShared);
  const mixer = inferMixer(found, stack.n_layer, shapes);
  const fail = (problems: string): never => {
    throw new FormatError(
      `openPretrained: expected config.json beside ${file}, or the tensors of a Mamba to tell it from, got ${problems}. Put its config.json there.`,
    );
  };
  if (shapes.problems.length > 0) fail(shapes.problems.join('; '));
  try {
    const config = resolveConfig({ ...stack, ...mixer } as ModelConfigInput);
    const note = `There is no config.json beside ${file}: sizes were read off the tensors, ${OPEN[config.model_type](config.norm_eps)}`;
    return { config, note };
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error;
    return fail(`tensors that do not fit together (${error.message})`);
  }
}

/** All but the mixers. */
export function inferStack(found: ReadonlyMap<string, Shape>, shapes: Shapes, isShared: boolean) {
  const [vocab_size, d_model] = shapes.need(EMBEDDINGS, 2) as [number, number];
  const layers = [...found.keys()].map((name) => Number(LAYER.exec(name)?.[1] ?? -1));
  const fc1 = found.get('backbone.layers.0.mlp.fc1.weight');
  return {
    vocab_size,
    pad_vocab_size_multiple: 1,
    d_model,
    n_layer: 1 + layers.reduce((most, index) => Math.max(most, index), 0),
    d_intermediate: fc1 ? fc1[0]! / 2 : 0,
    rms_norm: !found.has('backbone.layers.0.norm.bias'),
    tie_embeddings: isShared || !found.has(LM_HEAD),
  };
}

function inferMixer(found: ReadonlyMap<string, Shape>, n_layer: number, shapes: Shapes) {
  const mixer = 'backbone.layers.0.mixer';
  const count = Math.min(n_layer, found.size);
  const isAttention = (i: number): boolean => {
    const has = (name: string): boolean => shapes.has(`backbone.layers.${i}.mixer.${name}`);
    return has('in_proj.weight') && !['A_log', 'D', 'dt_bias', 'x_proj.weight'].some(has);
  };
  const attention = Array.from({ length: count }, (_, i) => i).filter(isAttention);
  if (attention.length > 0) {
    shapes.problems.push(
      `attention in layer ${attention.join(', ')}, whose num_heads, num_heads_kv and rotary_emb_dim no shape tells`,
    );
    return {};
  }
  if (shapes.has(`${mixer}.B_bias`)) return inferMamba3(shapes, mixer);
  if (found.get(`${mixer}.A_log`)?.length !== 1) return inferMamba1(shapes, mixer);
  return inferMamba2(shapes, mixer, null);
}
