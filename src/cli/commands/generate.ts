/** `mamba-ts generate`: one completion, streamed to stdout; or several, each when it has ended. */
import type { Command } from 'commander';
import { type GeneratedPart, loadModel, type TokenLogprob } from '../../index.node.ts';
import { logprobLines, printCompletions } from '../completions.ts';
import {
  addCommonOptions,
  addModelOption,
  collect,
  integer,
  logitBias,
  type ModelOptions,
  modelOptions,
  number,
  positive,
} from '../options.ts';
import { outputOf, readStdin } from '../output.ts';
import { readState, writeState } from '../state-file.ts';
import { readTexts } from '../text-file.ts';

interface Options extends ModelOptions {
  model: string;
  prompt?: string;
  prompts?: string;
  n?: number;
  batchSize?: number;
  maxTokens: number;
  temperature: number;
  topK: number;
  topP: number;
  minP: number;
  repetitionPenalty: number;
  seed?: number;
  stop?: string[];
  logitBias?: Record<number, number>;
  logprobs?: number;
  echo?: boolean;
  stateIn?: string;
  stateOut?: string;
}

export function register(program: Command): void {
  const command = program
    .command('generate')
    .description('Completes a prompt, or several. Ctrl-C ends the text; --state-out is still written.');
  addCommonOptions(addModelOption(command))
    .option('--prompt <text>', 'default: standard input, if it is not a terminal')
    .option('--prompts <file>', 'many: one per line, or JSONL with "prompt"; empty lines do not count')
    .option('--n <n>', 'completions per prompt; the prompt is read once', integer(1))
    .option('--batch-size <n>', 'completions computed together (16)', integer(1))
    .option('--max-tokens <n>', 'length of the completion', integer(), 256)
    .option('--temperature <t>', '0 takes the most likely token', number(0), 1)
    .option('--top-k <k>', 'sample from the k most likely tokens; 0 = all', integer(), 0)
    .option('--top-p <p>', 'sample from the most likely tokens of mass p; 1 = all', positive(1), 1)
    .option('--min-p <p>', 'drop tokens below p times the likeliest one', number(0, 1), 0)
    .option('--repetition-penalty <r>', 'make seen tokens less likely; 1 = off', positive(), 1)
    .option('--seed <n>', 'the same seed gives the same text, the next ones those of --n (random)', integer())
    .option('--stop <text>', 'end before this text; may be repeated', collect)
    .option('--logit-bias <id=value>', 'make a token more likely, or never with -inf; repeatable', logitBias)
    .option('--logprobs <k>', 'log-probabilities of the tokens, and of the k likeliest', integer())
    .option('--echo', 'begin with the prompt; with --logprobs, its log-probabilities too')
    .option('--state-in <file>', 'continue from a saved state')
    .option('--state-out <file>', 'save the state after the completion')
    .action(run);
}

async function run(options: Options, command: Command): Promise<void> {
  const isOne = options.prompts === undefined && options.n === undefined;
  if (options.prompts !== undefined && options.prompt !== undefined)
    command.error('error: expected --prompt or --prompts, got both.');
  if (!isOne && options.stateOut !== undefined)
    command.error('error: --state-out keeps the state of a single completion: leave out --prompts and --n.');
  const out = outputOf(command);
  const { stateIn, stateOut, prompts: file, seed = Math.floor(Math.random() * 2 ** 32), ...rest } = options;
  const isPiped = options.prompt === undefined && file === undefined && !out.io.stdin.isTTY;
  const bytes = isPiped ? await readStdin(out.io) : null;
  // A lone BOM at the start is part of the text.
  const prompt = bytes ? new TextDecoder('utf-8', { ignoreBOM: true }).decode(bytes) : (options.prompt ?? '');
  const many = file === undefined ? null : await readTexts(file, 'prompt');
  const signal = out.io.interrupts();
  const model = await loadModel(options.model, modelOptions(options, out));
  const state = await readState(stateIn, model);
  // A model of bytes reads them as they are, UTF-8 or not.
  const input = bytes && model.tokenizer?.kind === 'bytes' ? [...bytes] : prompt;
  if (!isOne) {
    const several = { ...rest, seed, state, signal };
    return printCompletions(model, many ?? [input], many ?? [prompt], several, out);
  }

  const started = performance.now();
  const tokens: number[] = [];
  const logprobs: (TokenLogprob | null)[] = [];
  let text = '';
  let last: GeneratedPart | undefined;
  for await (const part of model.generate(input, { ...rest, seed, state, signal })) {
    out.text(part.text);
    text += part.text;
    tokens.push(...part.tokens);
    logprobs.push(...(part.logprobs ?? []));
    last = part;
  }
  out.text(`\n${logprobLines(logprobs, model.tokenizer)}`);
  const seconds = (performance.now() - started) / 1000;
  const { finishReason, state: after } = last!; // there is always a last part
  await writeState(stateOut, after);
  const [stateTokens] = after.tokens;
  after.dispose();
  const tokensPerSecond = tokens.length / seconds;
  const count = `${tokens.length} tokens${options.echo ? ' with the prompt' : ''}`;
  out.log(`${count}, ${tokensPerSecond.toFixed(1)} tokens/s, seed ${seed}, ${finishReason}`);
  const shown = options.logprobs === undefined ? {} : { logprobs };
  const speed = { seconds, tokensPerSecond };
  out.json({ prompt, text, tokens, ...shown, finishReason, seed, stateTokens, stateOut, ...speed });
}
