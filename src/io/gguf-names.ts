/**
 * Tensor names and shapes of llama.cpp's architectures `mamba` and `mamba2` <-> ours. The elements agree but
 * for A; some shapes have axes of 1 more or less.
 */
import { type Shape, sameShape } from '../base/shape.ts';
import type { ModelConfig } from '../models/config.ts';

export const GGUF_ARCHITECTURES = ['mamba', 'mamba2'] as const;
export type GgufArchitecture = (typeof GGUF_ARCHITECTURES)[number];

type Names = readonly (readonly [theirs: string, ours: string])[];

const TOP: Names = [
  ['token_embd.', 'backbone.embeddings.'],
  ['output_norm.', 'backbone.norm_f.'],
  ['output.', 'lm_head.'],
];
/** Without the last word, weight or bias, behind a dot. ssm_a holds A = -exp(A_log). */
const BOTH: Names = [
  ['attn_norm.', 'norm.'],
  ['ssm_in.', 'mixer.in_proj.'],
  ['ssm_conv1d.', 'mixer.conv1d.'],
  ['ssm_a', 'mixer.A_log'],
  ['ssm_d', 'mixer.D'],
  ['ssm_out.', 'mixer.out_proj.'],
];
const BLOCK: Readonly<Record<GgufArchitecture, Names>> = {
  mamba: [...BOTH, ['ssm_x.', 'mixer.x_proj.'], ['ssm_dt.', 'mixer.dt_proj.']],
  mamba2: [...BOTH, ['ssm_dt.bias', 'mixer.dt_bias'], ['ssm_norm.', 'mixer.norm.']],
};

/** llama.cpp's name of one of our tensors; null if it has none. */
export function toGgufName(ours: string, architecture: GgufArchitecture): string | null {
  const [, layer, rest = ours] = /^backbone\.layers\.(\d+)\.(.*)$/.exec(ours) ?? [];
  if (layer === undefined) return replaced(ours, TOP, 1);
  const name = replaced(rest, BLOCK[architecture], 1);
  return name && `blk.${layer}.${name}`;
}

/** Our name of a tensor in a GGUF file; null if there is none. */
export function fromGgufName(theirs: string, architecture: GgufArchitecture): string | null {
  const [, layer, rest = theirs] = /^blk\.(\d+)\.(.*)$/.exec(theirs) ?? [];
  if (layer === undefined) return replaced(theirs, TOP, 0);
  const name = replaced(rest, BLOCK[architecture], 0);
  return name && `backbone.layers.${layer}.${name}`;
}

/** A name whose entry ends in a dot keeps what follows. */
function replaced(name: string, names: Names, from: 0 | 1): string | null {
  const [, stem = name, word = ''] = /^(.*\.)(weight|bias)$/.exec(name) ?? [];
  const whole = names.find((pair) => pair[from] === name);
  if (whole) return whole[1 - from]!;
  const pair = names.find((both) => both[from] === stem);
  return pair && word !== '' ? `${pair[1 - from]}${word}` : null;
}

/** The shape that llama.cpp wants, in our order of axes, of a tensor that is `shape` here. */
export function ggufShape(ours: string, shape: Shape, config: ModelConfig): Shape {
  if (ours.endsWith('.conv1d.weight')) return [shape[0]!, shape[2]!];
  if (config.model_type !== 'mamba2') return shape;
  if (ours.endsWith('.A_log') || ours.endsWith('.D')) return [shape[0]!, 1];
  const { ngroups, d_ssm } = config;
  return ours.endsWith('.mixer.norm.weight') ? [ngroups, d_ssm / ngroups] : shape;
}

/** Whether two shapes are the same to ggml, which leaves out slowest axes of 1 when it writes a file. */
export function isSameGgufShape(a: Shape, b: Shape): boolean {
  const bare = (shape: Shape): Shape => {
    const first = shape.findIndex((extent) => extent !== 1);
    return first < 0 ? [] : shape.slice(first);
  };
  return sameShape(bare(a), bare(b));
}
