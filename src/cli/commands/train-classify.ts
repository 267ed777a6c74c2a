/**
 * `mamba-ts train classify`: trains a classifier on labelled texts. Ctrl-C finishes the step
 * and saves; `--resume` goes on.
 */
import { type Command, Option } from 'commander';
import { POOLINGS, trainClassify } from '../../index.node.ts';
import {
  CLASS_WEIGHTS,
  CLASSIFY_DEFAULTS,
  CLASSIFY_PRESETS,
  type ClassifySettings,
  summarizeClassification,
  TUNINGS,
  trainClassifyProgress,
} from '../../train/index.ts';
import { trainingJson, trainingText, writeClassifyReports } from '../classify-result.ts';
import { InterruptedError } from '../fetching.ts';
import { integer, type Limit, limit, limitOf, number, positive } from '../options.ts';
import { outputOf } from '../output.ts';
import {
  addRunOptions,
  addShapeOptions,
  openRun,
  type RunFlags,
  resumeLine,
  SHAPE_FLAGS,
  settingsOf,
} from '../run-options.ts';

/** Options with the names of the settings pass as they are. */
interface Options extends RunFlags, Partial<Omit<ClassifySettings, keyof RunFlags | 'maxTokens'>> {
  maxTokens?: Limit;
  text?: string[];
  label?: string;
  baselines: boolean;
}

const D = CLASSIFY_DEFAULTS;
const SHARE = number(0, 1);

export function register(train: Command): void {
  const command = train
    .command('classify')
    .description(
      'Trains a classifier on labelled texts, and two simple baselines beside it. ' +
        `Defaults are those of --preset ${D.preset}. Ctrl-C finishes the step, saves and says how to go on.`,
    )
    .optionsGroup('Data:')
    .option(
      '--data <path...>',
      '.jsonl, .json, .csv, .tsv, .parquet, a folder per class (or with train and test in it), or imdb',
    )
    .option('--valid <path...>', 'held-out texts; default: a share of --data')
    .option('--test <path...>', 'texts that are measured once, after training; default: those of --data')
    .option('--valid-share <x>', `of each class, without --valid (${D.validShare})`, SHARE)
    .option('--text <column...>', `columns that hold the text (${D.textFields.join(' ')})`)
    .option('--label <column>', `the column that holds the class (${D.labelField})`)
    .option(
      '--tokenizer <t>',
      `bytes, bpe:SIZE or words:SIZE (made from --data), a folder or a hub id (${D.tokenizer})`,
    )
    .option('--no-lowercase', 'bpe:SIZE and words:SIZE tell capital letters apart')
    .option('--max-tokens <n>', `texts are cut to; none = never (${D.maxTokens})`, limit)
    .option('--no-baselines', 'leave out naive Bayes and logistic regression')
    .optionsGroup('Model:')
    .addOption(
      new Option('--preset <name>', `a recipe (${D.preset}; with --from: fine-tune)`).choices(
        Object.keys(CLASSIFY_PRESETS),
      ),
    );
  addShapeOptions(command)
    .option('--embedding-std <x>', `of the first embeddings (${D.embeddingStd})`, positive())
    .addOption(
      new Option('--pooling <name>', `how tokens become one vector (${D.pooling})`).choices(POOLINGS),
    )
    .option('--bidirectional', 'a second stack reads the text backwards')
    .option('--from <model>', 'a pretrained model to start from: a folder, a file or a hub id')
    .addOption(
      new Option('--tune <what>', `of --from: all, the head, or adapters (${D.tune})`).choices(TUNINGS),
    )
    .option('--lora-rank <n>', `of the adapters (${D.loraRank})`, integer(1))
    .option('--lora-alpha <x>', `their scale is alpha / rank (${D.loraAlpha})`, positive())
    .option(
      '--lora-targets <name...>',
      'the matrices they stand beside (in_proj, out_proj and, of mamba1, x_proj)',
    )
    .optionsGroup('Run:')
    .addOption(
      new Option('--epochs <n>', `times all texts are read, instead of --steps or --minutes (${D.epochs})`)
        .argParser(integer(1))
        .conflicts(['steps', 'minutes']),
    );
  addRunOptions(command, D, { rows: 'texts', evaluations: 'after each epoch' })
    .optionsGroup('Training:')
    .option(
      '--patience <n>',
      `evaluations without a better one until it stops; 0 = never (${D.patience})`,
      integer(),
    )
    .option('--dropout <x>', `of embedded tokens and pooled features (${D.dropout})`, SHARE)
    .option('--token-dropout <x>', `share of tokens that are hidden (${D.tokenDropout})`, SHARE)
    .option('--label-smoothing <x>', `share of the target for all classes (${D.labelSmoothing})`, SHARE)
    .addOption(
      new Option(
        '--class-weights <how>',
        `equal, or every class the same in all (${D.classWeights})`,
      ).choices(CLASS_WEIGHTS),
    )
    .action(run);
}

async function run(options: Options, command: Command): Promise<void> {
  const out = outputOf(command);
  if (!options.resume && !options.data) command.error('error: --data is needed for a new run.');
  refuseIdle(options, command);
  const { text, label, lowercase, baselines, ...flags } = options;
  const progress = trainClassifyProgress(out.io.stderr);
  const opened = await openRun(options, out);
  const { signal } = opened;
  try {
    const result = await trainClassify({
      ...opened,
      settings: {
        ...settingsOf(flags),
        maxTokens: limitOf(flags.maxTokens),
        textFields: text,
        labelField: label,
        lowercase: lowercase ? undefined : false, // commander's default of a --no- option is true
      },
      baselines,
      onProgress: progress.handle,
    }).finally(progress.end);
    const summary = await summarizeClassification(result, { signal }).finally(() => result.model.dispose());
    const reports = await writeClassifyReports(options.out, summary);
    out.text(trainingText(options.out, result.stopped, summary));
    if (result.stopped === 'interrupted') out.text(resumeLine('classify', options));
    out.json({ out: options.out, ...reports, stopped: result.stopped, ...trainingJson(summary) });
  } catch (error) {
    if (!signal.aborted || error !== signal.reason) throw error;
    throw new InterruptedError(
      `interrupted after training; ${options.out} holds the model, and --resume measures it again.`,
    );
  }
}

/** What is decided by the model one starts from, and what is said of adapters that there will not be. */
function refuseIdle({ from, tune, resume }: Options, command: Command): void {
  if (resume) return;
  const given = (flags: string[]) =>
    flags.find((flag) =>
      command.options.some((o) => o.long === flag && command.getOptionValue(o.attributeName()) !== undefined),
    );
  const shape = from && given([...SHAPE_FLAGS, '--embedding-std']);
  if (shape) command.error(`error: ${shape} cannot be used with --from, which decides the shape.`);
  const lora = tune !== 'lora' && given(['--lora-rank', '--lora-alpha', '--lora-targets']);
  if (lora) command.error(`error: ${lora} needs --tune lora.`);
}
