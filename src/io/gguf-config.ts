/**
 * The metadata of llama.cpp's architectures `mamba` (also Falcon-Mamba) and `mamba2` <-> ModelConfig. Keys of
 * our own, under `mamba_ts.`, hold what llama.cpp has no key for; without them the values follow from the
 * tensors.
 */
import { ConfigError, FormatError, UnsupportedError } from '../base/errors.ts';
import type { Shape } from '../base/shape.ts';
import {
  type Mamba1Config,
  type Mamba2Config,
  type ModelConfig,
  paddedVocabSize,
  resolveConfig,
} from '../models/config.ts';
import { EMBEDDINGS, LM_HEAD } from './expected-tensors.ts';
import type { GgufFile } from './gguf.ts';
import type { GgufArchitecture } from './gguf-names.ts';
import type { GgufField } from './gguf-write.ts';
import { listProblems } from './problems.ts';

/** llama.cpp wants a context length; a recurrent model has none. */
const CONTEXT_LENGTH = 1 << 20;

/** A configuration that a GGUF file can hold. */
export type GgufConfig = Mamba1Config | Mamba2Config;

export function architectureOf(config: GgufConfig): GgufArchitecture {
  return config.model_type === 'mamba1' ? 'mamba' : 'mamba2';
}

/**
 * Throws one UnsupportedError that names everything in a model that llama.cpp's architectures have no place
 * for.
 */
export function expectGgufConfig(op: string, config: ModelConfig): GgufConfig {
  const problems: string[] = [];
  const refuse = (isThere: boolean, what: string): void => {
    if (isThere) problems.push(what);
  };
  refuse(!config.rms_norm, 'LayerNorm (rms_norm false)');
  refuse(config.d_intermediate > 0, `MLP sublayers (d_intermediate ${config.d_intermediate})`);
  refuse(config.attn_cfg !== null, `attention in layers ${config.attn_layer_idx.join(', ')}`);
  if (config.model_type === 'mamba2') {
    const { d_ssm, d_inner, ngroups, norm_groups, dt_limit } = config;
    refuse(d_ssm < d_inner, `channels beside the recurrence (d_ssm ${d_ssm} of d_inner ${d_inner})`);
    refuse(config.D_has_hdim, 'D per channel (D_has_hdim)');
    refuse(!config.rmsnorm, 'no gated norm (rmsnorm false)');
    refuse(config.rmsnorm && config.norm_before_gate, 'a norm before the gate (norm_before_gate)');
    refuse(
      config.rmsnorm && norm_groups !== ngroups,
      `a norm over ${norm_groups} groups of channels with ${ngroups} of B and C (norm_groups, ngroups)`,
    );
    refuse(
      dt_limit[0] > 0 || dt_limit[1] < Number.POSITIVE_INFINITY,
      `limited step sizes (dt_limit ${dt_limit})`,
    );
  }
  if (config.model_type === 'mamba3') problems.push('the recurrence of Mamba-3');
  else if (problems.length === 0) return config;
  throw new UnsupportedError(
    `${op}: expected a model that llama.cpp's mamba or mamba2 computes, got one with ${listProblems(problems)}. GGUF has no place for it; write the Hugging Face layout.`,
  );
}

/** The metadata but for tokenizer and file. */
export function configFields(config: GgufConfig): [string, GgufField][] {
  const u32 = (value: number): GgufField => ({ type: 'u32', value });
  const f32 = (value: number): GgufField => ({ type: 'f32', value });
  const architecture = architectureOf(config);
  const fields: [string, GgufField][] = [
    ['context_length', u32(CONTEXT_LENGTH)],
    ['embedding_length', u32(config.d_model)],
    ['feed_forward_length', u32(0)],
    ['attention.head_count', u32(0)],
    ['block_count', u32(config.n_layer)],
    ['ssm.conv_kernel', u32(config.d_conv)],
    ['ssm.inner_size', u32(config.d_inner)],
    ['ssm.state_size', u32(config.d_state)],
    ...mixerFields(config, u32),
    ['attention.layer_norm_rms_epsilon', f32(config.norm_eps)],
    ['vocab_size', u32(paddedVocabSize(config))],
  ];
  const own: [string, GgufField][] = [
    ['mamba_ts.vocab_size', u32(config.vocab_size)],
    ['mamba_ts.pad_vocab_size_multiple', u32(config.pad_vocab_size_multiple)],
  ];
  const eps = config.model_type === 'mamba1' ? config.mixer_rms_eps : null;
  if (eps !== null) own.push(['mamba_ts.mixer_rms_eps', f32(eps)]);
  return [...fields.map(([key, field]): [string, GgufField] => [`${architecture}.${key}`, field]), ...own];
}

function mixerFields(config: GgufConfig, u32: (value: number) => GgufField): [string, GgufField][] {
  if (config.model_type === 'mamba2') {
    return [
      ['ssm.time_step_rank', u32(config.d_ssm / config.headdim)], // the heads
      ['ssm.group_count', u32(config.ngroups)],
    ];
  }
  return [
    ['ssm.time_step_rank', u32(config.dt_rank)],
    ['ssm.dt_b_c_rms', { type: 'bool', value: config.mixer_rms_eps !== null }],
  ];
}

/** What llama.cpp computes otherwise, or why it refuses the file. */
export function configNotes(config: GgufConfig): string[] {
  const notes: string[] = [];
  if (config.model_type === 'mamba1' && config.d_inner !== 2 * config.d_model) {
    notes.push(
      `llama.cpp loads expand 2 only, this model has d_inner ${config.d_inner} and d_model ${config.d_model}.`,
    );
  }
  if (config.bias) notes.push('llama.cpp knows no bias of in_proj and out_proj and refuses this file.');
  if (!config.conv_bias)
    notes.push('The model has no convolution bias; zeros are written, as llama.cpp needs one.');
  if (
    config.model_type === 'mamba1' &&
    config.mixer_rms_eps !== null &&
    config.mixer_rms_eps !== config.norm_eps
  ) {
    notes.push(
      `llama.cpp uses the layers' epsilon ${config.norm_eps} for the norms of dt, B and C, this model has ${config.mixer_rms_eps}: its results differ slightly.`,
    );
  }
  return notes;
}

/**
 * The configuration of a file; `found` has its tensors' shapes under our names, `tokens` is the size of its
 * vocabulary.
 */
export function readGgufConfig(
  file: GgufFile,
  architecture: GgufArchitecture,
  found: ReadonlyMap<string, Shape>,
  tokens: number | null,
): ModelConfig {
  const { name: path, metadata } = file;
  const fields = new Numbers(metadata, architecture);
  const rows = found.get(EMBEDDINGS)?.[0];
  if (rows === undefined) fields.problems.push('the tensor token_embd.weight is missing');
  const stack = {
    d_model: fields.required('embedding_length'),
    n_layer: fields.required('block_count'),
    ...readVocabulary(rows ?? 0, fields, tokens),
    d_state: fields.required('ssm.state_size'),
    d_conv: fields.required('ssm.conv_kernel'),
    d_inner: fields.required('ssm.inner_size'),
    // Epsilons are float32 there: the shortest decimal of the same float32 is what was meant.
    norm_eps: shortest(fields.required('attention.layer_norm_rms_epsilon')),
    bias: found.has('backbone.layers.0.mixer.in_proj.bias'),
    conv_bias: found.has('backbone.layers.0.mixer.conv1d.bias'),
    tie_embeddings: !found.has(LM_HEAD),
  };
  const rank = fields.required('ssm.time_step_rank');
  const input =
    architecture === 'mamba'
      ? { ...stack, dt_rank: rank, mixer_rms_eps: readMixerEpsilon(metadata, fields, stack.norm_eps) }
      : { ...stack, ...readHeads(fields, rank, stack.d_inner) };
  if (stack.n_layer > found.size)
    fields.problems.push(`${architecture}.block_count is ${stack.n_layer} with ${found.size} tensors`);
  const fail = (got: string, cause?: unknown): FormatError =>
    new FormatError(
      `openGguf: expected the complete metadata of a Mamba model in ${path}, got ${got} Convert the file again.`,
      { cause },
    );
  if (fields.problems.length > 0) throw fail(`${listProblems(fields.problems)}.`);
  try {
    return resolveConfig(input);
  } catch (error) {
    throw error instanceof ConfigError ? fail(error.message, error) : error;
  }
}

/** The numbers in a file's metadata; what is wrong is collected. */
class Numbers {
  readonly problems: string[] = [];
  readonly #metadata: GgufFile['metadata'];
  readonly #architecture: GgufArchitecture;

  constructor(metadata: GgufFile['metadata'], architecture: GgufArchitecture) {
    this.#metadata = metadata;
    this.#architecture = architecture;
  }

  /** By its whole key. */
  optional(key: string): number | undefined {
    const value = this.#metadata.get(key);
    if (value === undefined || typeof value === 'number') return value;
    this.problems.push(`${key} must be a number, got a ${typeof value}`);
    return undefined;
  }

  /** By its key below the architecture. */
  required(key: string): number {
    const whole = `${this.#architecture}.${key}`;
    if (!this.#metadata.has(whole)) this.problems.push(`${whole} is missing`);
    return this.optional(whole) ?? Number.NaN;
  }
}

function readHeads(fields: Numbers, heads: number, inner: number) {
  if (inner % heads > 0 || heads === 0)
    fields.problems.push(
      `mamba2.ssm.inner_size ${inner} is not divided by ${heads} heads (ssm.time_step_rank)`,
    );
  return {
    model_type: 'mamba2',
    headdim: inner / heads,
    ngroups: fields.required('ssm.group_count'),
  } as const;
}

/** llama.cpp has one epsilon for all norms of a Falcon-Mamba. */
function readMixerEpsilon(metadata: GgufFile['metadata'], fields: Numbers, epsilon: number): number | null {
  if (metadata.get('mamba.ssm.dt_b_c_rms') !== true) return null;
  const own = fields.optional('mamba_ts.mixer_rms_eps');
  return own === undefined ? epsilon : shortest(own);
}

function shortest(value: number): number {
  for (let digits = 1; digits < 9; digits++) {
    const rounded = Number(value.toPrecision(digits));
    if (Math.fround(rounded) === Math.fround(value)) return rounded;
  }
  return value;
}

/**
 * Our own keys, else the tokens in use: padding up to the rows is the smallest multiple that explains them.
 */
function readVocabulary(
  rows: number,
  fields: Numbers,
  tokens: number | null,
): { vocab_size: number; pad_vocab_size_multiple: number } {
  const vocab_size =
    fields.optional('mamba_ts.vocab_size') ?? (tokens !== null && tokens < rows ? tokens : rows);
  const own = fields.optional('mamba_ts.pad_vocab_size_multiple');
  if (own !== undefined) return { vocab_size, pad_vocab_size_multiple: own };
  let multiple = Math.max(1, rows - vocab_size + 1);
  while (multiple < rows && rows % multiple !== 0) multiple++;
  return { vocab_size, pad_vocab_size_multiple: multiple };
}
