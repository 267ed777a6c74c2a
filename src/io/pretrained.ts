/**
 * The one place where names and layouts of other programs are brought to ours
 * (the Hugging Face names). Configurations: config-json.ts.
 */
import { FormatError } from '../base/errors.ts';
import { type Shape, sameShape, showShape, sizeOf } from '../base/shape.ts';
import type { ClassifierHead } from '../models/classifier-config.ts';
import type { ModelConfig } from '../models/config.ts';
import { EMBEDDINGS, LM_HEAD, SCORE } from './expected-tensors.ts';
import { listProblems } from './problems.ts';

/**
 * Our name of a tensor: `model.` in front goes (Codestral), `backbone.` comes where a bare backbone was
 * saved, and the original `embedding` becomes `embeddings`. Unknown names pass, checkTensors reports them.
 */
export function normaliseName(name: string): string {
  const bare = name.replace(/^model\./, '');
  const full = /^(embeddings?|layers|norm_f)\./.test(bare) ? `backbone.${bare}` : bare;
  return full === 'backbone.embedding.weight' ? EMBEDDINGS : full;
}

/** The name of one of our tensors in the original layout. */
export function originalName(name: string): string {
  return name === EMBEDDINGS ? 'backbone.embedding.weight' : name;
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

/**
 * Throws one FormatError that lists every missing, unknown and wrongly shaped tensor. A convolution
 * weight without its axis of 1 is accepted, and so is lm_head.weight in a model with tied embeddings
 * (whose values the loader compares).
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
    `checkTensors: expected the ${expected.size} tensors of the configuration in ${file}, got ${problems.length} differences: ${listProblems(problems)}. Do the configuration and the weights belong together?`,
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
