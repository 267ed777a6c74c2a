/**
 * Weights of a file into the parameters of a model, one piece at a time: no
 * second copy, not even of one tensor.
 */
import { FormatError } from '../base/errors.ts';
import type { Shape } from '../base/shape.ts';
import type { WeightDType } from '../base/weight-types.ts';
import type { ClassifierHead } from '../models/classifier-config.ts';
import type { ModelConfig } from '../models/config.ts';
import type { Module } from '../nn/module.ts';
import { keep } from '../tensor/scope.ts';
import { Tensor } from '../tensor/tensor.ts';
import { keptType } from './kept-types.ts';
import { addNonFinite, countNonFinite, describeNonFinite, type NonFinite } from './non-finite.ts';
import { outputName } from './pretrained.ts';
import { convertPiece, type StoredWeight } from './weight-pieces.ts';

/** What loading needs of a model on disk; a Pretrained is one. */
export interface WeightFiles {
  readonly path: string;
  readonly config: ModelConfig;
  /** Null or absent for a language model. */
  readonly head?: ClassifierHead | null;
  readonly tensors: ReadonlyMap<string, Shape>;
  weight(name: string): StoredWeight;
}

/**
 * Fills every parameter. Matrices are kept as `weights` says, by default as the file has them
 * (keptType), and take the place of parameters of another type. Throws one FormatError that lists
 * the weights that are not finite.
 */
export async function loadWeights(model: Module, files: WeightFiles, weights?: WeightDType): Promise<void> {
  const reports: NonFinite[] = [];
  const output = outputName(files.config, files.head);
  for (const [name, parameter] of [...model.namedParameters()]) {
    const weight = files.weight(name);
    const dtype = keptType(name, parameter.shape, weight.dtype, weights, output);
    const tensor = dtype === parameter.dtype ? parameter : replace(model, name, parameter, dtype);
    let report: NonFinite | null = null;
    for await (const piece of weight.pieces()) {
      report = addNonFinite(name, report, countNonFinite(piece.data, weight.dtype), piece.at);
      if (report) continue;
      tensor.writeAt(piece.at, convertPiece(piece, weight.dtype, dtype, `${name} of ${files.path}`));
    }
    if (report) reports.push(report);
  }
  if (reports.length === 0) return;
  throw new FormatError(
    `loadWeights: expected finite weights in ${files.path}, got ${describeNonFinite(reports)}. ` +
      'The training diverged or the file is damaged; use an earlier checkpoint.',
  );
}

/**
 * Fills a part of a model from the tensors below `path`, such as `backbone`: also of another kind of model.
 */
export async function loadPart(
  part: Module,
  path: string,
  files: WeightFiles,
  weights?: WeightDType,
): Promise<void> {
  await loadWeights(part, { ...files, weight: (name) => files.weight(`${path}.${name}`) }, weights);
}

/**
 * Where a base has the weights for the stacks of a classifier, forward and reverse; a single one serves both.
 */
export function basePaths({
  head,
}: Pick<WeightFiles, 'head'>): ['backbone', 'backbone' | 'backbone_reverse'] {
  return ['backbone', head?.bidirectional ? 'backbone_reverse' : 'backbone'];
}

/** Rounds what is in memory to the types `weights` asks for; one parameter is there twice at a time. */
export async function narrowWeights(model: Module, weights: WeightDType): Promise<void> {
  for (const [name, parameter] of [...model.namedParameters()]) {
    const dtype = keptType(name, parameter.shape, parameter.dtype as WeightDType, weights, null);
    if (dtype === parameter.dtype) continue;
    const data = await parameter.floats();
    const tensor = replace(model, name, parameter, dtype);
    tensor.write(convertPiece({ at: 0, count: data.length, data }, 'f32', dtype, name));
  }
}

function replace(model: Module, name: string, before: Tensor, dtype: WeightDType): Tensor {
  const tensor = keep(Tensor.deferred(before.shape, dtype, before.device));
  model.replaceParameter(name, tensor);
  return tensor;
}
