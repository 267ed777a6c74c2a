/** What the `train` commands share: options of the model's shape and of a run, and how they become settings. */
import { type Command, Option } from 'commander';
import { type DeviceName, useDevice } from '../index.node.ts';
import { type RunSettings, SCHEDULES } from '../train/index.ts';
import { addCommonOptions, integer, number, positive } from './options.ts';
import type { Output } from './output.ts';

/** What addShapeOptions and addRunOptions say; options with the names of settings pass as they are. */
export interface RunFlags extends Partial<RunSettings> {
  out: string;
  resume?: boolean;
  force?: boolean;
  device?: DeviceName;
  json?: boolean;
  /** Only one so far; the model's configuration says it. */
  arch?: string;
  dModel?: number;
  layers?: number;
  dState?: number;
  dConv?: number;
}

/** The shape of a model that is trained from the beginning. */
export function addShapeOptions(command: Command): Command {
  return command
    .addOption(new Option('--arch <name>', 'the architecture').choices(['mamba1']))
    .option('--d-model <n>', 'width, instead of the preset', integer(1))
    .option('--layers <n>', 'blocks, instead of the preset', integer(1))
    .option('--d-state <n>', 'state size per channel (16)', integer(1))
    .option('--d-conv <n>', 'width of the convolution (4)', integer(1))
    .option('--expand <x>', 'inner width as a multiple of --d-model (2)', positive());
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
  const { out, resume, force, device, json, arch, dModel, layers, dState, dConv, ...named } = flags;
  return { ...named, d_model: dModel, n_layer: layers, d_state: dState, d_conv: dConv };
}

/** What to type after an interrupt. */
export function resumeLine(task: string, { out }: RunFlags): string {
  return `interrupted; go on with: mamba-ts train ${task} --out ${shellWord(out)} --resume\n`;
}

/** As one word of a command line. */
export function shellWord(text: string): string {
  return /^[\w./:@-]+$/.test(text) ? text : `'${text.replaceAll("'", "'\\''")}'`;
}
