/**
 * Low-rank adapters (LoRA, Hu et al. 2021): beside a frozen weight W (out, in) stands scale * B A with A
 * (rank, in) and B (out, rank), which alone are trained. Merged, they are gone and cost nothing.
 */
import { ConfigError, UnsupportedError } from '../base/errors.ts';
import { isNarrow } from '../base/weight-types.ts';
import * as raw from '../tensor/raw.ts';
import { scope } from '../tensor/scope.ts';
import type { Tensor } from '../tensor/tensor.ts';
import type { Init } from './init.ts';
import { Linear, Lora } from './layers.ts';
import type { Module } from './module.ts';

/** PEFT calls the fields r, lora_alpha and target_modules. */
export interface LoraConfig {
  rank: number;
  /** The adapter's output is scaled by alpha / rank. */
  alpha: number;
  /** Last names of the linear layers that have one: in_proj, x_proj, out_proj, fc1, fc2. */
  targets: string[];
}

/**
 * The linear layers below `root` that an adapter of these targets stands beside, by path. Throws ConfigError
 * for a target that names none.
 */
export function loraLinears(root: Module, targets: readonly string[]): [string, Linear][] {
  const all = [...root.namedModules()].filter(
    (entry): entry is [string, Linear] => entry[1] instanceof Linear,
  );
  const lastName = (path: string): string => path.slice(path.lastIndexOf('.') + 1);
  const names = [...new Set(all.map(([path]) => lastName(path)))];
  const unknown = targets.filter((target) => !names.includes(target));
  if (unknown.length > 0 || targets.length === 0) {
    throw new ConfigError(
      `addLora: expected targets among ${names.join(', ') || 'linear layers'}, got ${unknown.join(', ') || 'none'}. Correct the targets.`,
    );
  }
  return all.filter(([path]) => targets.includes(lastName(path)));
}

/**
 * Puts an adapter beside every linear layer below `root` whose last name is among the targets, on its device,
 * and freezes that layer's own weights; the adapters collect gradients. Until they are trained the outputs
 * are the same. Throws ConfigError for a target that names no layer, for a rank or alpha that is none, and
 * for a layer that has an adapter already.
 */
export function addLora(root: Module, config: LoraConfig, init: Init): void {
  const { rank, alpha, targets } = config;
  if (!Number.isSafeInteger(rank) || rank < 1 || !(alpha > 0) || alpha === Number.POSITIVE_INFINITY) {
    throw new ConfigError(
      `addLora: expected a positive integer rank and a finite alpha above 0, got ${rank} and ${alpha}. Correct them.`,
    );
  }
  const linears = loraLinears(root, targets);
  const adapted = linears.find(([, linear]) => linear.lora);
  if (adapted) {
    throw new ConfigError(
      `addLora: expected layers without adapters, got one on ${adapted[0]}. Call mergeLora first.`,
    );
  }
  for (const [, linear] of linears) {
    const [outputs, inputs] = linear.weight.dims(2);
    const here: Init = { ...init, device: linear.weight.device };
    linear.lora = new Lora(here, inputs, outputs, { rank, scale: alpha / rank });
    linear.weight.requiresGrad = false;
    linear.weight.touch();
    if (linear.bias) linear.bias.requiresGrad = false;
  }
}

/**
 * Adds every adapter below `root` to its weight, W += scale * B A in float32, and removes it; the weights
 * stay frozen. Nothing happens where there is none. Throws UnsupportedError, before anything changes, for
 * narrow weights: they would be rounded again.
 */
export function mergeLora(root: Module): void {
  const linears = [...adaptersOf(root)];
  const narrow = linears.find(([, linear]) => isNarrow(linear.weight.dtype));
  if (narrow) {
    throw new UnsupportedError(
      `mergeLora: expected f32 weights, got ${narrow[1].weight.dtype} for ${narrow[0]}. ` +
        "Load the model with weights: 'f32', or leave the adapters where they are: they work beside narrow weights.",
    );
  }
  for (const [, linear, { A, B, scale }] of linears) {
    scope(() => raw.axpy(raw.matmul(B, A), linear.weight, scale));
    linear.lora!.dispose();
    linear.lora = null;
  }
}

/**
 * The adapters' parameters with their paths below `root`: `....in_proj.lora.A` (rank, in), then
 * `....in_proj.lora.B` (out, rank).
 */
export function* loraParameters(root: Module): Generator<[string, Tensor]> {
  for (const [path, , lora] of adaptersOf(root)) yield* lora.namedParameters(`${path}.lora.`);
}

function* adaptersOf(root: Module): Generator<[string, Linear, Lora]> {
  for (const [path, module] of root.namedModules()) {
    if (module instanceof Linear && module.lora) yield [path, module, module.lora];
  }
}
