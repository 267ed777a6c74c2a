/**
 * Options that several commands share, and the reading of their values. A bad value
 * is a usage error (exit code 2).
 */
import { type Command, InvalidArgumentError, Option } from 'commander';
import {
  A_ACTIVATIONS,
  type ConfigOverrides,
  type DeviceName,
  type LoadModelOptions,
  PRECISIONS,
} from '../index.node.ts';
import { type FetchOptions, fetching } from './fetching.ts';
import type { Output } from './output.ts';

const DEVICES: readonly DeviceName[] = ['native', 'wasm', 'reference'];

/** What every command takes: --json and --device. */
export function addCommonOptions(command: Command): Command {
  return command
    .option('--json', 'print one JSON document on stdout; progress goes to stderr')
    .addOption(
      new Option('--device <name>', 'where to compute (default: MAMBA_DEVICE, else the fastest)').choices(
        DEVICES,
      ),
    );
}

/** A model that is read, not run. */
export function addSourceOption(command: Command): Command {
  return addFetchOptions(command.requiredOption('--model <model>', MODEL));
}

export const MODEL =
  'a model folder, a weights file beside its config.json, a .gguf file, or a hub id (org/name)';

/** Beside --model. Pass `fetching(out, options)` on. */
export function addFetchOptions(command: Command): Command {
  return command
    .option('--revision <name>', 'branch, tag or commit of a hub model (main)')
    .option('--tokenizer <path>', "a folder with tokenizer.json, or a hub id (the model's own)")
    .option(
      '--config <key=value>',
      `what files do not record: norm_groups=N (Mamba-2; 1 if trained with transformers 4), A_activation=${A_ACTIVATIONS.join('|')} (Mamba-3)`,
      configValue,
    );
}

const WEIGHTS: readonly NonNullable<LoadModelOptions['weights']>[] = ['f32', 'bf16', 'f16', 'q8', 'q4'];

/**
 * A model that is run: --model, --weights and --precision. Pass `modelOptions(options, out)` to loadModel.
 */
export function addModelOption(command: Command): Command {
  return addComputeOptions(addSourceOption(command));
}

/** How a model is kept and computed: --weights and --precision. */
export function addComputeOptions(command: Command): Command {
  return command
    .addOption(
      new Option(
        '--weights <type>',
        'how matrices are kept in memory (default: as the file has them)',
      ).choices(WEIGHTS),
    )
    .addOption(
      new Option(
        '--precision <p>',
        'of the products of projections and head: bf16 rounds both factors (by at most 2^-8 of each; f32, bf16 and f16 weights), ' +
          'int8 the activations (to 1/254 of the largest of 32; q8 and q4 weights); both may round those with the state in prompts ' +
          'of Mamba-2 and -3 to bfloat16; sums and all else stay float32 (f32)',
      ).choices(PRECISIONS),
    );
}

/** What addModelOption and addCommonOptions say about loading. */
export type ModelOptions = Pick<LoadModelOptions, 'device' | 'weights' | 'precision'> & FetchOptions;

export function modelOptions(options: ModelOptions, out: Output): LoadModelOptions {
  const { device, weights, precision } = options;
  return { device, weights, precision, ...fetching(out, options) };
}

/** For commander: any finite number in [min, max]. */
export function number(min: number, max = Number.POSITIVE_INFINITY) {
  return (text: string): number => {
    const value = finite(text);
    if (value >= min && value <= max) return value;
    throw new InvalidArgumentError(`expected a number in [${min}, ${max}].`);
  };
}

/** For commander: any finite number above 0, at most max. */
export function positive(max = Number.POSITIVE_INFINITY) {
  return (text: string): number => {
    const value = finite(text);
    if (value > 0 && value <= max) return value;
    throw new InvalidArgumentError(`expected a number above 0, at most ${max}.`);
  };
}

/** NaN, which no range holds, for anything else. */
function finite(text: string): number {
  const value = text.trim() === '' ? Number.NaN : Number(text);
  return Number.isFinite(value) ? value : Number.NaN;
}

/** For commander: an integer in [min, max]. */
export function integer(min = 0, max = Number.MAX_SAFE_INTEGER) {
  return (text: string): number => {
    const value = finite(text);
    if (Number.isInteger(value) && value >= min && value <= max) return value;
    const range = max === Number.MAX_SAFE_INTEGER ? `of at least ${min}` : `in [${min}, ${max}]`;
    throw new InvalidArgumentError(`expected an integer ${range}.`);
  };
}

/** The value of a limit: commander itself makes an empty text of a parsed null. */
export type Limit = number | 'none';

/** For commander: a positive integer, or the word `none`. */
export function limit(text: string): Limit {
  return text === 'none' ? text : integer(1)(text);
}

/** A limit as the library takes it: null is none, undefined the default. */
export function limitOf(value: Limit | undefined): number | null | undefined {
  return value === 'none' ? null : value;
}

/** For commander: text, at least one character, that may be given several times. */
export function collect(text: string, before: string[] = []): string[] {
  if (text === '') throw new InvalidArgumentError('expected at least one character.');
  return [...before, text];
}

/** For commander: norm_groups=N or A_activation=NAME, each once. */
export function configValue(text: string, before: ConfigOverrides = {}): ConfigOverrides {
  const [, key, value = ''] = /^(\w+)=(.*)$/.exec(text) ?? [];
  if (key === 'norm_groups') return { ...before, norm_groups: integer(1)(value) };
  const A_activation = A_ACTIVATIONS.find((name) => name === value);
  if (key === 'A_activation' && A_activation) return { ...before, A_activation };
  throw new InvalidArgumentError(`expected norm_groups=N or A_activation=${A_ACTIVATIONS.join('|')}.`);
}

/** For commander: ID=VALUE, -inf included, that may be given several times. */
export function logitBias(text: string, before: Record<number, number> = {}): Record<number, number> {
  const [, id, value = ''] = /^(\d+)=(.*)$/.exec(text) ?? [];
  const bias = value === '-inf' ? Number.NEGATIVE_INFINITY : finite(value);
  if (id !== undefined && !Number.isNaN(bias)) return { ...before, [Number(id)]: bias };
  throw new InvalidArgumentError('expected ID=NUMBER or ID=-inf.');
}

/** Rows of ids from "1,2,3;4,5,6". */
export function idRows(text: string): number[][] {
  return text.split(';').map((row) =>
    row.split(',').map((id) => {
      if (/^\s*\d+\s*$/.test(id)) return Number(id);
      throw new InvalidArgumentError(`expected rows such as "1,2,3;4,5,6", got ${JSON.stringify(id)}.`);
    }),
  );
}
