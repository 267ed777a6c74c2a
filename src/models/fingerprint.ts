/**
 * A short identity of a model's architecture and weights: 64-bit FNV-1a over the
 * configuration and samples of the weights.
 */
import type { Module } from '../nn/module.ts';
import type { ModelConfig } from './config.ts';

const FNV_OFFSET = 0xcbf29ce484222325n;
const FNV_PRIME = 0x100000001b3n;
const MASK = (1n << 64n) - 1n;

/** Hashes up to this many elements per sample, evenly spread. */
const SAMPLE = 64;

export function fingerprintOf(config: ModelConfig, samples: readonly Float32Array[]): string {
  let hash = FNV_OFFSET;
  const mix = (value: number) => {
    hash = ((hash ^ BigInt(value >>> 0)) * FNV_PRIME) & MASK;
  };
  const shape = shapeOf(config);
  for (const char of shape) mix(char.codePointAt(0)!);
  for (const sample of samples) {
    const bits = new Uint32Array(sample.buffer, sample.byteOffset, sample.length);
    const stride = Math.max(1, Math.floor(bits.length / SAMPLE));
    for (let i = 0; i < bits.length; i += stride) mix(bits[i]!);
  }
  return `${config.model_type}-${hash.toString(16).padStart(16, '0')}`;
}

/** Fields that do not change what a trained model computes; layouts differ in which of them they keep. */
const WITHOUT_EFFECT: ReadonlySet<string> = new Set([
  'pad_vocab_size_multiple',
  'chunk_size',
  'dt_min',
  'dt_max',
  'dt_init',
  'dt_scale',
  'dt_init_floor',
  'A_init_range',
  'conv_init',
]);

/** Plain Mamba-1 is told by its sizes, as the first releases did, so that their states still fit. */
function shapeOf(config: ModelConfig): string {
  if (config.model_type !== 'mamba1' || config.attn_cfg)
    return JSON.stringify(config, (key, value) => (WITHOUT_EFFECT.has(key) ? undefined : value));
  const { d_model, n_layer, d_state, d_conv, d_inner, dt_rank, vocab_size, mixer_rms_eps } = config;
  const norms = mixer_rms_eps === null ? '' : `:${mixer_rms_eps}`;
  return `${config.model_type}:${[d_model, n_layer, d_state, d_conv, d_inner, dt_rank, vocab_size].join(',')}${norms}`;
}

/** The vectors among the parameters: they are few, and training changes all of them. */
export async function vectorsOf(module: Module): Promise<Float32Array[]> {
  const samples: Float32Array[] = [];
  for (const tensor of module.parameters())
    if (tensor.shape.length === 1) samples.push(await tensor.floats());
  return samples;
}
