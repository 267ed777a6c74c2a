/**
 * Programs that are measured in turns. Each is a process of its own that answers one JSON line with another and waits, without
 * spinning, while the others work: between two turns there is a pause in which thread pools go to sleep.
 */
import { spawn } from 'node:child_process';
import { createInterface } from 'node:readline';
import { setTimeout as pause } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';

/** Longer than any thread pool spins for work (libgomp: a few milliseconds). */
export const PAUSE_MS = 150;

/**
 * Starts `command` and asks it. `ask` gives the answer, or throws an Error with the program's last words when it fails or ends;
 * `close` waits for the end.
 */
export function startProcess(name, command, args, env = {}) {
  const child = spawn(command, args, { stdio: ['pipe', 'pipe', 'pipe'], env: { ...process.env, ...env } });
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
  let complaints = '';
  child.stderr.on('data', (text) => {
    complaints = (complaints + text).slice(-2000);
  });
  child.stdin.on('error', () => {}); // it ended; the next answer tells
  const ended = new Promise((resolve) => {
    child.on('error', (error) => resolve(error.message));
    child.on('exit', (code, signal) => resolve(signal ?? `exit code ${code}`));
  });
  return {
    async ask(request) {
      await pause(PAUSE_MS);
      child.stdin.write(`${JSON.stringify(request)}\n`);
      for (;;) {
        const { value, done } = await lines.next();
        if (done) {
          const last = complaints.trim().split('\n').slice(-2).join(' ').slice(-300);
          throw new Error(`${name}: ended with ${await ended}. ${last}`);
        }
        if (!value.startsWith('{')) continue; // libraries print too
        const answer = JSON.parse(value);
        if (answer.error) throw new Error(`${name}: ${answer.error}`);
        return answer;
      }
    },
    /** One that is still at work, because its answer came too late, is ended. */
    async close() {
      child.stdin.end();
      const timer = setTimeout(() => child.kill('SIGKILL'), 5000);
      await ended;
      clearTimeout(timer);
    },
  };
}

const script = (name) => fileURLToPath(new URL(name, import.meta.url));

/** mamba.ts; see ours_worker.mjs. */
export const startOurs = (threads) =>
  startProcess('mamba.ts', process.execPath, [script('ours_worker.mjs')], { MAMBA_THREADS: String(threads) });

/** llama.cpp of node-llama-cpp in `folder`; see llama_worker.mjs. */
export const startLlama = (folder, threads) =>
  startProcess('llama.cpp', process.execPath, [script('llama_worker.mjs'), folder, String(threads)]);

/** PyTorch by the Python at `path`; see torch_worker.py. */
export const startTorch = (path, threads) =>
  startProcess('PyTorch', path, [script('torch_worker.py')], {
    OMP_NUM_THREADS: String(threads),
    MKL_NUM_THREADS: String(threads),
  });
