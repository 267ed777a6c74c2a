#!/usr/bin/env node
/** The command `mamba-ts`. Exit codes: 0 done, 1 failed (the message says why), 2 wrong usage. */
import { realpathSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { Command, CommanderError } from 'commander';
import { onDeviceNotice, VERSION } from '../index.node.ts';
import { register as registerBench } from './commands/bench.ts';
import { register as registerChat } from './commands/chat.ts';
import { register as registerConvert } from './commands/convert.ts';
import { register as registerEmbed } from './commands/embed.ts';
import { register as registerEval } from './commands/eval.ts';
import { register as registerGenerate } from './commands/generate.ts';
import { register as registerInfo } from './commands/info.ts';
import { register as registerLogits } from './commands/logits.ts';
import { register as registerPredict } from './commands/predict.ts';
import { register as registerQuantize } from './commands/quantize.ts';
import { register as registerTrain } from './commands/train.ts';
import { InterruptedError } from './fetching.ts';
import { type CliIo, connectIo } from './output.ts';

const COMMANDS = [
  registerTrain,
  registerEval,
  registerGenerate,
  registerChat,
  registerPredict,
  registerEmbed,
  registerLogits,
  registerConvert,
  registerQuantize,
  registerBench,
  registerInfo,
];

/** Runs one command line (without node and script) and gives its exit code. Never throws. */
export async function run(argv: readonly string[], io: CliIo): Promise<number> {
  const fail = (error: unknown, code: number): number => {
    const message = error instanceof Error ? error.message : String(error);
    const stack = process.env.MAMBA_DEBUG === '1' && error instanceof Error ? `${error.stack}\n` : '';
    // Commander has printed its own messages already.
    if (!(error instanceof CommanderError)) io.stderr.write(`${stack || `${message}\n`}`);
    if (argv.includes('--json')) io.stdout.write(`${JSON.stringify({ error: message })}\n`);
    return code;
  };
  const program = new Command('mamba-ts')
    .description('Trains, runs and inspects Mamba models.')
    .version(VERSION, '--version', 'print the version')
    .exitOverride()
    .configureOutput({
      writeOut: (text) => io.stdout.write(text),
      writeErr: (text) => io.stderr.write(text),
    })
    .showHelpAfterError('Run with --help for the options.');
  connectIo(program, io);
  for (const register of COMMANDS) register(program);
  onDeviceNotice((message) => io.stderr.write(`${message}\n`));
  try {
    await program.parseAsync([...argv], { from: 'user' });
    return 0;
  } catch (error) {
    if (error instanceof InterruptedError) return fail(error, error.exitCode);
    if (!(error instanceof CommanderError)) return fail(error, 1);
    return error.exitCode === 0 ? 0 : fail(error, 2);
  }
}

/**
 * Ctrl-C, and what `kill` and a stopping container send; each with the exit code of a program that it ends.
 */
const INTERRUPTS = [
  ['SIGINT', 130],
  ['SIGTERM', 143],
] as const;

function processIo(): CliIo {
  // Whoever reads our output may have seen enough (`| head`).
  for (const stream of [process.stdout, process.stderr]) {
    stream.on('error', (error: NodeJS.ErrnoException) => {
      if (error.code === 'EPIPE') process.exit(0);
      if (stream === process.stdout) {
        process.stderr.write(`output: expected to write to stdout, got ${error.message}. Write elsewhere.\n`);
      }
      process.exit(1);
    });
  }
  return {
    stdout: process.stdout,
    stderr: process.stderr,
    stdin: process.stdin,
    interrupts(until) {
      const controller = new AbortController();
      for (const [name, code] of INTERRUPTS) {
        const onSignal = (): void => {
          if (controller.signal.aborted) process.exit(code);
          controller.abort();
        };
        process.on(name, onSignal);
        until?.addEventListener('abort', () => process.off(name, onSignal), { once: true });
      }
      return controller.signal;
    },
  };
}

/** npm starts the command through a link. */
const script = process.argv[1];
if (script && realpathSync(script) === fileURLToPath(import.meta.url)) {
  process.exitCode = await run(process.argv.slice(2), processIo());
}
