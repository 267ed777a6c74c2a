/** Runs the program in this process with strings for streams. */
import { run } from '../../src/cli/main.ts';

export interface CliResult {
  code: number;
  stdout: string;
  stderr: string;
}

export interface CliInput {
  /** Null: a terminal. Pieces arrive one by one. */
  stdin?: readonly (string | Uint8Array)[] | null;
  signal?: AbortSignal;
}

export async function cli(argv: readonly string[], input: CliInput = {}): Promise<CliResult> {
  const { stdin = null, signal = new AbortController().signal } = input;
  const result = { stdout: '', stderr: '' };
  const code = await run(argv, {
    stdout: { write: (text) => void (result.stdout += text) },
    stderr: { write: (text) => void (result.stderr += text) },
    stdin: {
      isTTY: stdin === null,
      async *[Symbol.asyncIterator]() {
        yield* stdin ?? [];
      },
    },
    interrupts: () => signal,
  });
  return { code, ...result };
}
