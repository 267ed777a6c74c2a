/** `mamba-ts eval`: how well a model predicts text. */
import type { Command } from 'commander';
import { loadModel, openCorpus, openEnwik8 } from '../../index.node.ts';
import { evaluate } from '../../train/index.ts';
import { addCommonOptions, addModelOption, integer, type ModelOptions, modelOptions } from '../options.ts';
import { outputOf } from '../output.ts';

interface Options extends ModelOptions {
  model: string;
  data: string[];
  textField: string;
  window: number;
  batch: number;
  stream?: boolean;
}

export function register(program: Command): void {
  const command = program
    .command('eval')
    .description('Perplexity and bits per byte on text, every token but the first predicted once.');
  addCommonOptions(addModelOption(command))
    .requiredOption('--data <path...>', 'files, folders or globs (text, .jsonl), or enwik8: its test part')
    .option('--text-field <name>', 'field of a JSONL line that holds the text', 'text')
    .option('--window <n>', 'tokens per window; longer ones see more context', integer(1), 1024)
    .option('--batch <n>', 'windows at once', integer(1), 8)
    .option('--stream', 'carry the state through the whole text instead of starting each window anew')
    .action(run);
}

async function run(options: Options, command: Command): Promise<void> {
  const out = outputOf(command);
  const { data, textField, window, batch } = options;
  const model = await loadModel(options.model, modelOptions(options, out));
  const { tokenizer } = model;
  if (!tokenizer) command.error(`error: ${options.model} has no tokenizer to read text with.`);
  const sources = data.length === 1 && data[0] === 'enwik8' ? [(await openEnwik8()).test] : data;
  const tokens = await openCorpus(sources, { tokenizer, textField });
  const started = performance.now();
  let shown = started;
  const result = await evaluate(model, tokens, {
    window,
    batch,
    mode: options.stream ? 'stream' : 'windows',
    onProgress(done, total) {
      if (performance.now() - shown < PROGRESS_MS) return;
      shown = performance.now();
      out.log(`${((100 * done) / total).toFixed(0)} % of ${total} tokens`);
    },
  }).finally(() => tokens.close());
  const tokensPerSecond = result.tokens / ((performance.now() - started) / 1000);
  const { bitsPerByte, bitsPerToken, perplexity } = result;
  if (bitsPerByte !== null) out.text(`bits per byte: ${bitsPerByte.toFixed(4)}\n`);
  out.text(`bits per token: ${bitsPerToken.toFixed(4)}, perplexity ${perplexity.toFixed(3)}\n`);
  out.text(`${result.tokens} tokens of ${tokens.name}, ${tokensPerSecond.toFixed(0)} tokens/s\n`);
  out.json({ ...result, data: tokens.name, window, tokensPerSecond });
}

const PROGRESS_MS = 2000;
