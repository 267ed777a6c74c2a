/**
 * `mamba-ts train lm`: trains a language model on text. Ctrl-C finishes the step
 * and saves; `--resume` goes on.
 */
import { join } from 'node:path';
import { type Command, Option } from 'commander';
import { lossChart, trainLm, writeReport } from '../../index.node.ts';
import {
  formatCount,
  type LmSettings,
  lmReport,
  PRESETS,
  RUN_DEFAULTS,
  trainLmProgress,
} from '../../train/index.ts';
import { integer } from '../options.ts';
import { outputOf } from '../output.ts';
import {
  addRunOptions,
  addShapeOptions,
  openRun,
  type RunFlags,
  resumeLine,
  settingsOf,
} from '../run-options.ts';

interface Options extends RunFlags, Partial<Omit<LmSettings, keyof RunFlags>> {
  stream?: boolean;
  pack?: boolean;
}

export function register(train: Command): void {
  const command = train
    .command('lm')
    .description('Trains a language model on text. Ctrl-C finishes the step, saves and says how to go on.')
    .optionsGroup('Data:')
    .option('--data <path...>', 'files, folders or globs (text, .jsonl), or enwik8')
    .option('--valid <path...>', 'held-out text; default: the last tenth of --data')
    .option('--test <path...>', 'text that is measured once, after training')
    .option('--text-field <name>', 'field of a JSONL line that holds the text (text)')
    .option(
      '--tokenizer <t>',
      'bytes, bpe:SIZE (trained on --data), a folder with tokenizer.json or a hub id (bytes)',
    )
    .option('--length <n>', 'tokens per row (256)', integer(1))
    .addOption(new Option('--stream', 'read in order with carried state (truncated BPTT)').conflicts('pack'))
    .option('--pack', 'every window once per epoch, in shuffled order, instead of random windows')
    .option('--eval-tokens <n>', 'held-out tokens an evaluation reads (262144)', integer(2))
    .optionsGroup('Model:')
    .addOption(new Option('--preset <name>', 'model shape (small)').choices(Object.keys(PRESETS)));
  addRunOptions(addShapeOptions(command), RUN_DEFAULTS, {
    rows: 'rows',
    evaluations: 'only at the end',
  }).action(run);
}

async function run(options: Options, command: Command): Promise<void> {
  const out = outputOf(command);
  const { data, steps, minutes } = options;
  if (!options.resume && !data) command.error('error: --data is needed for a new run.');
  if (!options.resume && steps === undefined && minutes === undefined)
    command.error('error: --steps or --minutes is needed for a new run.');
  const { stream, pack, ...flags } = options;
  const sampling = stream ? 'stream' : pack ? 'pack' : undefined;
  const progress = trainLmProgress(out.io.stderr);
  const result = await trainLm({
    ...(await openRun(options, out)),
    settings: { ...settingsOf(flags), sampling },
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
  if (stopped === 'interrupted') out.text(resumeLine('lm', options));
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
