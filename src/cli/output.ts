/**
 * Where a command writes. Results go to stdout, everything else to stderr. With --json stdout holds
 * exactly one JSON document, so a command passes its text to `text` (silent under --json) and its
 * result to `json` (silent without).
 */
import type { Command } from 'commander';

export interface CliIo {
  stdout: { write(text: string): unknown; isTTY?: boolean; columns?: number };
  stderr: { write(text: string): unknown; isTTY?: boolean };
  stdin: AsyncIterable<Uint8Array | string> & { isTTY?: boolean };
  /**
   * Aborted by the first Ctrl-C (or SIGTERM) after this call, the second ends the program; without a call the
   * first does. From `until` on it is as without the call.
   */
  interrupts(until?: AbortSignal): AbortSignal;
}

export interface Output {
  readonly io: CliIo;
  readonly isJson: boolean;
  /** Part of the human-readable result, as it is. */
  text(text: string): void;
  /** The machine-readable result; called once, at the end. */
  json(result: unknown): void;
  /** A line of progress, a notice. */
  log(line: string): void;
}

/** The program's own io, keyed by the root command, so that register(program) needs no second parameter. */
const ios = new WeakMap<Command, CliIo>();

export function connectIo(program: Command, io: CliIo): void {
  ios.set(program, io);
}

/** Call in an action: `const out = outputOf(command)`, `command` being the action's last parameter. */
export function outputOf(command: Command): Output {
  let root = command;
  while (root.parent) root = root.parent;
  const io = ios.get(root)!;
  const isJson = command.optsWithGlobals().json === true;
  return {
    io,
    isJson,
    text: (text) => void (isJson || io.stdout.write(text)),
    json: (result) => void (isJson && io.stdout.write(`${JSON.stringify(result)}\n`)),
    log: (line) => void io.stderr.write(`${line}\n`),
  };
}

/** All of stdin. */
export async function readStdin(io: CliIo): Promise<Uint8Array> {
  const chunks: Uint8Array[] = [];
  for await (const chunk of io.stdin) chunks.push(Buffer.from(chunk));
  return Buffer.concat(chunks);
}
