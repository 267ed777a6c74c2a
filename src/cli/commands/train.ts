/** `mamba-ts train lm`: trains a language model on text. Ctrl-C finishes the step and saves; `--resume` goes on. */
import { join } from 'node:path';
import { type Command, Option } from 'commander';
import { type DeviceName, lossChart, trainLm, useDevice, writeReport } from '../../index.node.ts';
import {
  formatCount,
  type LmSettings,
  lmReport,
  PRESETS,
  SCHEDULES,
  trainLmProgress,
} from '../../train/index.ts';
import { addCommonOptions, integer, number, positive } from '../options.ts';
import { outputOf } from '../output.ts';

/** Options with the names of the settings pass as they are. */
interface Options extends Partial<LmSettings> {
  out: string;
  dModel?: number;
  layers?: number;
  dState?: number;
  dConv?: number;
  stream?: boolean;
  pack?: boolean;
  resume?: boolean;
  force?: boolean;
  device?: DeviceName;
  json?: boolean;
  /** Only one so far; the model's configuration says it. */
  arch?: string;
}

export function register(program: Command): void {
  const train = program.command('train').description('Trains models.');
  const command = train
    .command('lm')
    .description('Trains a language model on text. Ctrl-C finishes the step, saves and says how to go on.');
  addCommonOptions(command)
    .option('--data <path...>', 'files, folders or globs (text, .jsonl), or enwik8')
    .option('--valid <path...>', 'held-out text; default: the last tenth of --data')
    .option('--test <path...>', 'text that is measured once, after training')
    .requiredOption('--out <folder>', 'the model, its optimizer, metrics.jsonl and report.html')
    .addOption(
      new Option('--resume', 'go on with the run in --out; its settings are stored there').conflicts('force'),
    )
    .option('--force', 'replace the run in --out')
    .addOption(new Option('--steps <n>', 'optimizer steps').argParser(integer(1)).conflicts('minutes'))
    .option('--minutes <m>', 'time of training instead of steps; the schedule follows it', positive())
    .addOption(new Option('--arch <name>', 'the architecture').choices(['mamba1']))
    .addOption(new Option('--preset <name>', 'model shape (small)').choices(Object.keys(PRESETS)))
    .option('--d-model <n>', 'width, instead of the preset', integer(1))
    .option('--layers <n>', 'blocks, instead of the preset', integer(1))
    .option('--d-state <n>', 'state size per channel (16)', integer(1))
    .option('--d-conv <n>', 'width of the convolution (4)', integer(1))
    .option('--expand <x>', 'inner width as a multiple of --d-model (2)', positive())
    .option('--tokenizer <t>', 'bytes, bpe:SIZE (trained on --data), or a folder with tokenizer.json (bytes)')
    .option('--text-field <name>', 'field of a JSONL line that holds the text (text)')
    .option('--batch <n>', 'rows per batch (16)', integer(1))
    .option('--length <n>', 'tokens per row (256)', integer(1))
    .option('--accumulate <n>', 'batches per optimizer step (1)', integer(1))
    .option('--checkpointing', 'less memory, about a third more time')
    .addOption(new Option('--stream', 'read in order with carried state (truncated BPTT)').conflicts('pack'))
    .option('--pack', 'every window once per epoch, in shuffled order, instead of random windows')
    .option('--lr <x>', 'largest learning rate (4e-3)', number(0))
    .addOption(new Option('--schedule <name>', 'of the learning rate (cosine)').choices(SCHEDULES))
    .option('--warmup <n>', 'steps of linear warm-up (100, at most a tenth of --steps)', integer())
    .option('--final-lr <x>', 'last learning rate as a fraction of --lr (0.02)', number(0, 1))
    .option('--weight-decay <x>', 'of matrices and filters (0.1)', number(0))
    .option('--clip <x>', 'largest gradient norm; 0 = off (1)', number(0))
    .option('--seed <n>', 'of weights and batches (0)', integer())
    .option('--log-every <n>', 'steps between lines of metrics.jsonl (10)', integer(1))
    .option('--eval-every <n>', 'steps between evaluations; 0 = only at the end (0)', integer())
    .option('--eval-tokens <n>', 'held-out tokens an evaluation reads (262144)', integer(2))
    .option('--save-every <n>', 'steps between checkpoints; 0 = only at the end (500)', integer())
    .action(run);
}

async function run(options: Options, command: Command): Promise<void> {
  const out = outputOf(command);
  const { data, steps, minutes } = options;
  if (!options.resume && !data) command.error('error: --data is needed for a new run.');
  if (!options.resume && steps === undefined && minutes === undefined)
    command.error('error: --steps or --minutes is needed for a new run.');
  if (options.device) await useDevice(options.device);
  const progress = trainLmProgress(out.io.stderr);
  const result = await trainLm({
    out: options.out,
    settings: settingsOf(options),
    start: options.resume ? 'resume' : options.force ? 'replace' : 'new',
    signal: out.io.interrupts(),
    onProgress: progress.handle,
  }).finally(progress.end);

  const { model, settings, stopped, step, tokens, elapsedSeconds, metrics, parameterCount } = result;
  const { validation, test } = result;
  const report = join(options.out, 'report.html');
  const bytes = model.tokenizer?.kind === 'bytes';
  await writeReport(report, lmReport({ ...result, config: model.config, bytes }));
  model.dispose();
  const chart = lossChart(metrics);
  if (chart) out.text(`${chart}\n`);
  for (const [part, measured] of [
    ['held-out', validation],
    ['test', test],
  ] as const) {
    if (!measured) continue;
    const { bitsPerByte, bitsPerToken, perplexity } = measured;
    if (bitsPerByte !== null) out.text(`${part} bits per byte: ${bitsPerByte.toFixed(3)}\n`);
    if (!bytes)
      out.text(`${part} bits per token: ${bitsPerToken.toFixed(3)}, perplexity ${perplexity.toFixed(2)}\n`);
  }
  out.text(`saved ${options.out} after step ${step} (${formatCount(tokens)} tokens); curves: ${report}\n`);
  if (stopped === 'interrupted')
    out.text(`interrupted; go on with: mamba-ts train lm --out ${shellWord(options.out)} --resume\n`);
  out.json({
    out: options.out,
    report,
    stopped,
    step,
    tokens,
    elapsedSeconds,
    parameterCount,
    validation,
    test,
    settings,
  });
}

/** As one word of a command line. */
function shellWord(text: string): string {
  return /^[\w./:@-]+$/.test(text) ? text : `'${text.replaceAll("'", "'\\''")}'`;
}

function settingsOf(options: Options): Partial<LmSettings> {
  const { dModel, layers, dState, dConv, stream, pack, ...rest } = options;
  const {
    out: _out,
    resume: _resume,
    force: _force,
    device: _device,
    json: _json,
    arch: _arch,
    ...named
  } = rest;
  const sampling = stream ? 'stream' : pack ? 'pack' : undefined;
  return { ...named, d_model: dModel, n_layer: layers, d_state: dState, d_conv: dConv, sampling };
}
