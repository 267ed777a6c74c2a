/**
 * `mamba-ts eval`: how well a language model predicts text, or a classifier labels. The
 * model's folder says which it is.
 */
import { type Command, Option } from 'commander';
import { modelKind } from '../../index.node.ts';
import { ATTENTION_CONTEXT } from '../../train/index.ts';
import { evaluateLabels } from '../eval-classifier.ts';
import { evaluateText } from '../eval-lm.ts';
import {
  addCommonOptions,
  addModelOption,
  integer,
  type Limit,
  limit,
  type ModelOptions,
  modelOptions,
} from '../options.ts';
import { type Output, outputOf } from '../output.ts';

/** Of both kinds; what belongs to one only is refused with the other. */
export interface EvalOptions extends ModelOptions {
  model: string;
  data: string[];
  batch?: number;
  textField: string;
  window: number;
  stream?: boolean;
  text?: string[];
  label?: string;
  maxTokens?: Limit;
  errors: number;
}

const KINDS = { 'language model': evaluateText, classifier: evaluateLabels } as const satisfies Record<
  Awaited<ReturnType<typeof modelKind>>,
  (options: EvalOptions, out: Output) => Promise<void>
>;
type Kind = keyof typeof KINDS;

/** The heading in the help, which also says whose option it is. */
const groupOf = (kind: Kind): string => `Of a ${kind}:`;

export function register(program: Command): void {
  const command = program
    .command('eval')
    .description(
      'Of a language model: perplexity and bits per byte, every token but the first predicted once. ' +
        'Of a classifier: accuracy, macro-F1, AUC, log loss, calibration and confusion.',
    );
  addCommonOptions(addModelOption(command))
    .requiredOption(
      '--data <path...>',
      'files, folders or globs: text, .jsonl or enwik8 (its test part); of a classifier: .jsonl, .csv, ... as train classify',
    )
    .option('--batch <n>', 'windows or texts at once (8 windows, texts of about 2048 tokens)', integer(1))
    .optionsGroup(groupOf('language model'))
    .option('--text-field <name>', 'field of a JSONL line that holds the text', 'text')
    .option('--window <n>', 'tokens per window; longer ones see more context', integer(1), 1024)
    .option(
      '--stream',
      `carry the state through the whole text (with attention layers: ${ATTENTION_CONTEXT} tokens of it) instead of starting each window anew`,
    )
    .optionsGroup(groupOf('classifier'))
    .option('--text <column...>', 'columns that hold the text (text)')
    .option('--label <column>', 'the column that holds the class (label)')
    .option('--max-tokens <n>', 'texts are cut to; none = never (as it was trained)', limit)
    .addOption(
      new Option('--errors <n>', 'also the n most confident errors').argParser(integer(0)).default(0, 'none'),
    )
    .action(run);
}

async function run(options: EvalOptions, command: Command): Promise<void> {
  const out = outputOf(command);
  const {
    device: _device,
    weights: _weights,
    precision: _precision,
    ...location
  } = modelOptions(options, out);
  const kind = await modelKind(options.model, location);
  refuseOthers(command, kind, options.model);
  await KINDS[kind](options, out);
}

function refuseOthers(command: Command, kind: Kind, model: string): void {
  const other: Kind = kind === 'classifier' ? 'language model' : 'classifier';
  const wrong = command.options
    .filter(({ helpGroupHeading }) => helpGroupHeading === groupOf(other))
    .find((option) => command.getOptionValueSource(option.attributeName()) === 'cli');
  if (wrong) command.error(`error: ${wrong.long} is for a ${other}, and ${model} is a ${kind}.`);
}
