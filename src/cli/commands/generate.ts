/** `mamba-ts generate`: one completion, streamed to stdout. */
import type { Command } from 'commander';
import { type GeneratedPart, loadModel } from '../../index.node.ts';
import {
  addCommonOptions,
  addModelOption,
  collect,
  integer,
  type ModelOptions,
  modelOptions,
  number,
  positive,
} from '../options.ts';
import { outputOf, readStdin } from '../output.ts';
import { readState, writeState } from '../state-file.ts';

interface Options extends ModelOptions {
  model: string;
  prompt?: string;
  maxTokens: number;
  temperature: number;
  topK: number;
  topP: number;
  minP: number;
  repetitionPenalty: number;
  seed?: number;
  stop?: string[];
  stateIn?: string;
  stateOut?: string;
}

export function register(program: Command): void {
  const command = program
    .command('generate')
    .description('Completes a prompt. Ctrl-C ends the text; --state-out is still written.');
  addCommonOptions(addModelOption(command))
    .option('--prompt <text>', 'default: standard input, if it is not a terminal')
    .option('--max-tokens <n>', 'length of the completion', integer(), 256)
    .option('--temperature <t>', '0 takes the most likely token', number(0), 1)
    .option('--top-k <k>', 'sample from the k most likely tokens; 0 = all', integer(), 0)
    .option('--top-p <p>', 'sample from the most likely tokens of mass p; 1 = all', positive(1), 1)
    .option('--min-p <p>', 'drop tokens below p times the likeliest one', number(0, 1), 0)
    .option('--repetition-penalty <r>', 'make seen tokens less likely; 1 = off', positive(), 1)
    .option('--seed <n>', 'the same seed gives the same text; default: random', integer())
    .option('--stop <text>', 'end before this text; may be repeated', collect)
    .option('--state-in <file>', 'continue from a saved state')
    .option('--state-out <file>', 'save the state after the completion')
    .action(run);
}

async function run(options: Options, command: Command): Promise<void> {
  const out = outputOf(command);
  const { stateIn, stateOut, seed = Math.floor(Math.random() * 2 ** 32), ...rest } = options;
  const bytes = options.prompt === undefined && !out.io.stdin.isTTY ? await readStdin(out.io) : null;
  // A lone BOM at the start is part of the text.
  const prompt = bytes ? new TextDecoder('utf-8', { ignoreBOM: true }).decode(bytes) : (options.prompt ?? '');
  const signal = out.io.interrupts();
  const model = await loadModel(options.model, modelOptions(options, out));
  const state = await readState(stateIn, model);
  const started = performance.now();
  const tokens: number[] = [];
  let text = '';
  let last: GeneratedPart | undefined;
  // A model of bytes reads them as they are, UTF-8 or not.
  const input = bytes && model.tokenizer?.kind === 'bytes' ? [...bytes] : prompt;
  for await (const part of model.generate(input, { ...rest, seed, state, signal })) {
    out.text(part.text);
    text += part.text;
    tokens.push(...part.tokens);
    last = part;
  }
  out.text('\n');
  const seconds = (performance.now() - started) / 1000;
  const { finishReason, state: after } = last!; // there is always a last part
  await writeState(stateOut, after);
  const [stateTokens] = after.tokens;
  after.dispose();
  const tokensPerSecond = tokens.length / seconds;
  out.log(`${tokens.length} tokens, ${tokensPerSecond.toFixed(1)} tokens/s, seed ${seed}, ${finishReason}`);
  out.json({ prompt, text, tokens, finishReason, seed, stateTokens, stateOut, seconds, tokensPerSecond });
}
