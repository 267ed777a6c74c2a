/** `mamba-ts chat`: a conversation on a terminal, or line by line through a pipe. */
import { join } from 'node:path';
import { Readable } from 'node:stream';
import type { Command } from 'commander';
import { cacheFolder, loadModel } from '../../index.node.ts';
import { ChatHistory } from '../chat-history.ts';
import { openDesk } from '../chat-open.ts';
import { chatInLines } from '../chat-piped.ts';
import { chatOnTerminal } from '../chat-terminal.ts';
import { ChatView, harmless } from '../chat-view.ts';
import { inputLines } from '../input-lines.ts';
import {
  addCommonOptions,
  addModelOption,
  integer,
  type ModelOptions,
  modelOptions,
  number,
  positive,
} from '../options.ts';
import { outputOf } from '../output.ts';

interface Options extends ModelOptions {
  model: string;
  json?: boolean;
  chatTemplate?: string;
  system?: string;
  temperature?: number;
  topP?: number;
  topK?: number;
  minP?: number;
  repetitionPenalty?: number;
  maxTokens?: number;
  maxLength?: number;
  seed?: number;
  session?: string;
  prompt?: string;
  history: boolean;
}

const HELP = `
On a terminal: /help lists the commands, Ctrl-C stops an answer, Ctrl-D leaves.
In a pipe every line is one message, and only answers go to stdout.`;

export function register(program: Command): void {
  const command = program
    .command('chat')
    .description("A conversation with a model, through the model's chat template.");
  addCommonOptions(addModelOption(command))
    .option('--prompt <text>', 'answer this and exit')
    .option('--session <file>', 'go on with the conversation of this file; it is saved after every turn')
    .option('--system <text>', 'the system message')
    .option('--chat-template <name>', "zephyr, chatml, or a Jinja file (default: the model's own)")
    .option('--temperature <t>', '0 takes the most likely token (0.9)', number(0))
    .option('--top-p <p>', 'sample from the most likely tokens of mass p; 1 = all (0.7)', positive(1))
    .option('--top-k <k>', 'sample from the k most likely tokens; 0 = all (0)', integer())
    .option('--min-p <p>', 'drop tokens below p times the likeliest one (0)', number(0, 1))
    .option('--repetition-penalty <r>', 'make seen tokens less likely; 1 = off (1)', positive())
    .option('--max-tokens <n>', 'length of an answer (2000)', integer(1))
    .option('--max-length <n>', 'length of the whole conversation in tokens (no bound)', integer(1))
    .option('--seed <n>', 'the same seed gives the same conversation (random)', integer())
    .option('--no-history', 'do not keep what is typed for the arrow keys of the next chat')
    .addHelpText('after', HELP)
    .action(run);
}

async function run(options: Options, command: Command): Promise<void> {
  const out = outputOf(command);
  const { stdin, stdout } = out.io;
  if (options.prompt?.trim() === '') command.error('error: --prompt: expected some text.');
  const model = await loadModel(options.model, modelOptions(options, out));
  const { temperature, topP, topK, minP, repetitionPenalty, maxTokens, maxLength } = options;
  const turn = { temperature, topP, topK, minP, repetitionPenalty, maxTokens, maxLength };
  const desk = await openDesk(model, { ...options, turn });
  const signal = out.io.interrupts();

  const { NO_COLOR, TERM } = process.env;
  const isTalk = options.prompt === undefined && stdin.isTTY;
  if (isTalk && stdout.isTTY && !out.isJson && TERM !== 'dumb' && stdin instanceof Readable) {
    const view = new ChatView(stdout, !NO_COLOR);
    const { source, name } = desk.session.template;
    view.banner({
      model: options.model,
      template: options.chatTemplate ?? (source === model.chatTemplate ? "the model's own" : name),
      stateBytes: desk.session.stats.stateBytes,
    });
    if (options.session && desk.questions.length > 0) view.resume(options.session, desk.session);
    const history = new ChatHistory(options.history ? join(cacheFolder(), 'chat-history') : null);
    await chatOnTerminal(stdin, stdout, { desk, view, history, signal });
    return;
  }
  if (isTalk) out.log('Every line is a message. Ctrl-D ends.');
  const messages = options.prompt === undefined ? inputLines(stdin, signal) : [options.prompt];
  await chatInLines(desk, messages, (text) => out.text(stdout.isTTY ? harmless(text) : text), signal);
  out.json(desk.report());
}
