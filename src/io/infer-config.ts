/**
 * The configuration of a model whose config.json is missing, from the shapes of its tensors. What shapes cannot tell takes the value
 * that all published Mamba-1 models have, and is said in `note`.
 */
import { FormatError } from '../base/errors.ts';
import type { Shape } from '../base/shape.ts';
import { type ModelConfig, resolveConfig } from '../models/config.ts';
import { EMBEDDINGS, LM_HEAD } from './expected-tensors.ts';

/** Tensors that no language model has. */
const CLASSIFIER = /^(score|classifier|backbone_reverse)\.|\.lora\.[AB]$/;

/**
 * `found`: shapes under our names; `isShared`: the head is the embedding's tensor under a second name. Throws FormatError naming the
 * tensors that a configuration needs and that are not there.
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
  const problems: string[] = [];
  const layer = 'backbone.layers.0';
  const need = (name: string, rank: number): Shape => {
    const shape = found.get(name);
    if (shape?.length === rank) return shape;
    problems.push(shape ? `${name} of rank ${shape.length}, not ${rank}` : `no ${name}`);
    return new Array<number>(rank).fill(0);
  };
  const [vocab_size, d_model] = need(EMBEDDINGS, 2) as [number, number];
  const [d_inner, d_state] = need(`${layer}.mixer.A_log`, 2) as [number, number];
  const [, dt_rank] = need(`${layer}.mixer.dt_proj.weight`, 2) as [number, number];
  const filter = found.get(`${layer}.mixer.conv1d.weight`);
  if (!filter) problems.push(`no ${layer}.mixer.conv1d.weight`);
  if (problems.length > 0) {
    throw new FormatError(
      `openPretrained: expected config.json beside ${file}, or the tensors of a Mamba-1 to tell it from, got ${problems.join('; ')}. Put its config.json there.`,
    );
  }
  const layers = [...found.keys()].map((name) => /^backbone\.layers\.(\d+)\./.exec(name)?.[1]);
  const fc1 = found.get(`${layer}.mlp.fc1.weight`);
  const config = resolveConfig({
    vocab_size,
    pad_vocab_size_multiple: 1,
    d_model,
    n_layer: 1 + layers.reduce((most, index) => Math.max(most, Number(index ?? -1)), 0),
    d_inner,
    d_state,
    dt_rank,
    d_conv: filter!.at(-1)!,
    d_intermediate: fc1 ? fc1[0]! / 2 : 0,
    bias: found.has(`${layer}.mixer.in_proj.bias`),
    conv_bias: found.has(`${layer}.mixer.conv1d.bias`),
    rms_norm: !found.has(`${layer}.norm.bias`),
    tie_embeddings: isShared || !found.has(LM_HEAD),
  });
  const note =
    `There is no config.json beside ${file}: sizes were read off the tensors, the norms' epsilon is taken to be ${config.norm_eps}, ` +
    'and the model not to be a Falcon-Mamba, whose further norms leave no trace.';
  return { config, note };
}
