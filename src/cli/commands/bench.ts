/** `mamba-ts bench`: how fast a model reads, writes and trains here, beside what the machine allows. */
import { availableParallelism } from 'node:os';
import { type Command, InvalidArgumentError } from 'commander';
import {
  type BenchOptions,
  benchModel,
  benchText,
  type LanguageModel,
  loadModel,
  openNative,
  randomModel,
  useDevice,
} from '../../index.node.ts';
import { PRESETS, type Preset } from '../../train/index.ts';
import {
  addCommonOptions,
  addComputeOptions,
  addFetchOptions,
  integer,
  MODEL,
  type ModelOptions,
  modelOptions,
} from '../options.ts';
import { type Output, outputOf } from '../output.ts';

/** Of the official models; what --shape does not say. */
const VOCABULARY = 50277;
const SHAPES = Object.keys(PRESETS) as Preset[];

interface Options
  extends ModelOptions,
    Pick<BenchOptions, 'batch' | 'prompt' | 'generate' | 'train' | 'rounds'> {
  model?: string;
  shape?: Preset;
  vocab?: number;
  threads?: number;
}

export function register(program: Command): void {
  const command = program
    .command('bench')
    .description(
      'How fast a model is on this machine: tokens per second of prompts, of decoding and of training, and the share of the limits that are measured in the same run.',
    );
  addComputeOptions(addFetchOptions(addCommonOptions(command).option('--model <model>', MODEL)))
    .option('--shape <name>', `random weights instead of a model: ${SHAPES.join(', ')}`, shape)
    .option('--vocab <n>', `vocabulary of --shape (${VOCABULARY})`, integer(1))
    .option('--threads <n>', `threads of the native device (${availableParallelism()})`, integer(1, 1024))
    .option('--batch <n>', 'rows that are read, continued and trained on together', integer(1), 1)
    .option('--prompt <n>', 'tokens of a prompt, and of a row in training', integer(1), 512)
    .option('--generate <n>', 'tokens that each row is continued with; 0: no decoding', integer(), 64)
    .option('--train', 'training steps too: forward, backward, AdamW')
    .option('--rounds <n>', 'measurements of each, after one that does not count', integer(1), 5)
    .action(run);
}

async function run(options: Options, command: Command): Promise<void> {
  const { model: path, shape, vocab, threads, device, weights, ...rest } = options;
  if ((path === undefined) === (shape === undefined))
    command.error(`error: expected --model or --shape, got ${path === undefined ? 'neither' : 'both'}.`);
  if (path !== undefined && vocab !== undefined)
    command.error('error: --vocab is of --shape: a model has its own vocabulary.');
  if (threads !== undefined && device !== undefined && device !== 'native')
    command.error(`error: --threads is of the native device, got --device ${device}.`);
  if (options.train && weights !== undefined && weights !== 'f32')
    command.error(`error: --train needs --weights f32, got ${weights}.`);
  const out = outputOf(command);
  const signal = out.io.interrupts();
  if (threads !== undefined) await useDevice(openNative({ threads }));
  else if (device !== undefined) await useDevice(device);
  const model = await open(options, out);
  try {
    const onRound = (round: number, rounds: number) =>
      out.log(round === 0 ? 'warmed up' : `round ${round} of ${rounds}`);
    const result = await benchModel(model, { ...rest, onRound, signal });
    const name = shape === undefined ? path! : `${shape}, random weights`;
    out.text(benchText(name, result));
    out.json({ name, ...result });
  } finally {
    model.dispose();
  }
}

async function open(
  { model: path, shape, vocab = VOCABULARY, ...options }: Options,
  out: Output,
): Promise<LanguageModel> {
  if (shape === undefined) return loadModel(path!, modelOptions(options, out));
  const model = await randomModel({ ...PRESETS[shape], vocab_size: vocab }, { weights: options.weights });
  model.precision = options.precision ?? 'f32';
  return model;
}

function shape(text: string): Preset {
  const found = SHAPES.find((name) => name === text);
  if (found) return found;
  throw new InvalidArgumentError(`expected one of ${SHAPES.join(', ')}.`);
}
