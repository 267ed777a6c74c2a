/** Tensor names of llama.cpp's architecture `mamba` <-> ours. Layouts agree but for A and the convolution's axis of 1. */
const TOP: readonly (readonly [theirs: string, ours: string])[] = [
  ['token_embd', 'backbone.embeddings'],
  ['output_norm', 'backbone.norm_f'],
  ['output', 'lm_head'],
];
const BLOCK: readonly (readonly [theirs: string, ours: string])[] = [
  ['attn_norm', 'norm'],
  ['ssm_in', 'mixer.in_proj'],
  ['ssm_conv1d', 'mixer.conv1d'],
  ['ssm_x', 'mixer.x_proj'],
  ['ssm_dt', 'mixer.dt_proj'],
  ['ssm_out', 'mixer.out_proj'],
];
/** These stand there without `.weight`. ssm_a holds A = -exp(A_log). */
const BARE: readonly (readonly [theirs: string, ours: string])[] = [
  ['ssm_a', 'mixer.A_log'],
  ['ssm_d', 'mixer.D'],
];

/** llama.cpp's name of one of our tensors; null if it has none. */
export function toGgufName(ours: string): string | null {
  const [, stem = ours, kind] = /^(.*)\.(weight|bias)$/.exec(ours) ?? [];
  const layer = /^backbone\.layers\.(\d+)\.(.*)$/.exec(stem);
  const table = layer ? (kind ? BLOCK : BARE) : TOP;
  const found = table.find(([, name]) => name === (layer ? layer[2] : stem));
  if (!found || (!layer && !kind)) return null;
  const bare = layer ? `blk.${layer[1]}.${found[0]}` : found[0];
  return kind ? `${bare}.${kind}` : bare;
}

/** Our name of a tensor in a GGUF file; null if there is none. */
export function fromGgufName(theirs: string): string | null {
  const [, stem = theirs, kind] = /^(.*)\.(weight|bias)$/.exec(theirs) ?? [];
  const layer = /^blk\.(\d+)\.(.*)$/.exec(stem);
  const table = layer ? (kind ? BLOCK : BARE) : TOP;
  const found = table.find(([name]) => name === (layer ? layer[2] : stem));
  if (!found || (!layer && !kind)) return null;
  const bare = layer ? `backbone.layers.${layer[1]}.${found[1]}` : found[1];
  return kind ? `${bare}.${kind}` : bare;
}
