/**
 * What the `train` commands share: options of the model's shape and of a run, and how they become settings.
 */
import { type Command, InvalidArgumentError, Option } from 'commander';
import { ARCHITECTURES, type DeviceName, useDevice } from '../index.node.ts';
import { type RunSettings, SCHEDULES, type ShapeSettings, TRAIN_PRECISIONS } from '../train/index.ts';
import { addCommonOptions, integer, number, positive } from './options.ts';
import type { Output } from './output.ts';

/** What addShapeOptions and addRunOptions say; options with the names of settings pass as they are. */
export interface RunFlags extends Partial<RunSettings>, Partial<ShapeSettings> {
  out: string;
  resume?: boolean;
  force?: boolean;
  device?: DeviceName;
  json?: boolean;
  dModel?: number;
  layers?: number;
  dState?: number;
  dConv?: number;
  mimoRank?: number;
  ropeFraction?: number;
  dIntermediate?: number;
}

/** Of the shape of a model that is trained from the beginning. */
const SHAPE_OPTIONS = [
  new Option('--arch <name>', 'the architecture (mamba1, or the official model of --preset)').choices(
    ARCHITECTURES,
  ),
  new Option('--d-model <n>', 'width, instead of the preset').argParser(integer(1)),
  new Option('--layers <n>', 'blocks, instead of the preset').argParser(integer(1)),
  new Option('--d-state <n>', 'state size per channel (mamba1: 16, others: 64)').argParser(integer(1)),
  new Option('--d-conv <n>', 'width of the convolution; mamba3 has none (4)').argParser(integer(1)),
  new Option('--expand <x>', 'inner width as a multiple of --d-model (2)').argParser(positive()),
  new Option('--headdim <n>', 'channels per head of mamba2 and mamba3 (up to 64)').argParser(integer(1)),
  new Option('--ngroups <n>', 'groups of heads that share B and C, in mamba2 and mamba3 (1)').argParser(
    integer(1),
  ),
  new Option('--mimo-rank <r>', 'mamba3 with r inputs and outputs per head and token').argParser(integer(1)),
  new Option('--rope-fraction <x>', 'share of the state that mamba3 rotates: 0.5 or 1 (0.5)').argParser(
    positive(1),
  ),
  new Option('--d-intermediate <n>', 'hidden width of an MLP after each mixer; 0 = none (0)').argParser(
    integer(),
  ),
  new Option('--attn-layers <list>', 'layers that are attention, from 0, such as 1,3 (none)').argParser(
    layerList,
  ),
  new Option('--attn-heads <n>', 'heads of attention layers (as few as have at most 64 elements)').argParser(
    integer(1),
  ),
  new Option('--attn-kv-heads <n>', 'heads of keys and values (--attn-heads)').argParser(integer(1)),
  new Option('--attn-rotary <n>', 'elements of a head that are rotated by position (half)').argParser(
    integer(),
  ),
  new Option('--attn-conv <n>', 'width of the convolution before attention; 0 = none (4)').argParser(
    integer(),
  ),
];
/** As they are typed. */
export const SHAPE_FLAGS = SHAPE_OPTIONS.map(({ long }) => long!);

export function addShapeOptions(command: Command): Command {
  for (const option of SHAPE_OPTIONS) command.addOption(option);
  return command;
}

/** For commander: layers from "1,3". */
function layerList(text: string): number[] {
  return text.split(',').map((layer) => {
    if (/^\s*\d+\s*$/.test(layer)) return Number(layer);
    throw new InvalidArgumentError(`expected layers such as "1,3", got ${JSON.stringify(layer)}.`);
  });
}

/** Where a run lives, how long it goes on, and how it learns; `defaults` are told in the help. */
export function addRunOptions(
  command: Command,
  defaults: RunSettings,
  { rows, evaluations }: { rows: string; evaluations: string },
): Command {
  command
    .optionsGroup('Run:')
    .requiredOption('--out <folder>', 'the model, its optimizer, metrics.jsonl and report.html')
    .addOption(
      new Option('--resume', 'go on with the run in --out; its settings are stored there').conflicts('force'),
    )
    .option('--force', 'replace the run in --out')
    .addOption(new Option('--steps <n>', 'optimizer steps').argParser(integer(1)).conflicts('minutes'))
    .option('--minutes <m>', 'time of training instead of steps; the schedule follows it', positive())
    .option('--log-every <n>', `steps between lines of metrics.jsonl (${defaults.logEvery})`, integer(1))
    .option('--eval-every <n>', `steps between evaluations; 0 = ${evaluations} (0)`, integer())
    .option(
      '--save-every <n>',
      `steps between checkpoints; 0 = only at the end (${defaults.saveEvery})`,
      integer(),
    )
    .optionsGroup('Training:')
    .option('--batch <n>', `${rows} per batch (${defaults.batch})`, integer(1))
    .option('--accumulate <n>', `batches per optimizer step (${defaults.accumulate})`, integer(1))
    .option('--checkpointing', 'less memory, about a third more time')
    .addOption(
      new Option(
        '--precision <p>',
        `of the products of projections and head; bf16 rounds both factors (by at most 2^-8 of each), weights, gradients, moments and sums stay float32 (${defaults.precision})`,
      ).choices(TRAIN_PRECISIONS),
    )
    .option('--lr <x>', `largest learning rate (${defaults.lr})`, number(0))
    .addOption(
      new Option('--schedule <name>', `of the learning rate (${defaults.schedule})`).choices(SCHEDULES),
    )
    .option('--warmup <n>', `steps of linear warm-up (${defaults.warmup}, at most a tenth of all)`, integer())
    .option('--final-lr <x>', `last learning rate as a fraction of --lr (${defaults.finalLr})`, number(0, 1))
    .option('--weight-decay <x>', `of matrices and filters (${defaults.weightDecay})`, number(0))
    .option('--clip <x>', `largest gradient norm; 0 = off (${defaults.clip})`, number(0))
    .option('--seed <n>', `of all that is random (${defaults.seed})`, integer())
    .optionsGroup('Other:');
  return addCommonOptions(command);
}

/** The flags that are no settings of the run, as trainLm and its like take them; makes --device current. */
export async function openRun<S extends RunFlags>(flags: S, { io }: Output) {
  if (flags.device) await useDevice(flags.device);
  const start: 'new' | 'resume' | 'replace' = flags.resume ? 'resume' : flags.force ? 'replace' : 'new';
  return { out: flags.out, start, signal: io.interrupts() };
}

/** The flags that are settings of the run. */
export function settingsOf<S extends RunFlags>(flags: S) {
  const { out, resume, force, device, json, ...settings } = flags;
  const { dModel, layers, dState, dConv, mimoRank, ropeFraction, dIntermediate, ...named } = settings;
  return {
    ...named,
    d_model: dModel,
    n_layer: layers,
    d_state: dState,
    d_conv: dConv,
    mimo_rank: mimoRank,
    rope_fraction: ropeFraction,
    d_intermediate: dIntermediate,
  };
}

/** What to type after an interrupt. */
export function resumeLine(task: string, { out }: RunFlags): string {
  return `interrupted; go on with: mamba-ts train ${task} --out ${shellWord(out)} --resume\n`;
}

/** As one word of a command line. */
export function shellWord(text: string): string {
  return /^[\w./:@-]+$/.test(text) ? text : `'${text.replaceAll("'", "'\\''")}'`;
}
