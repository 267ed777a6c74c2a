/** Starts the PyTorch worker when a Python with torch and mambapy is there (MAMBA_BENCH_PYTHON, else python3), and asks it for timings. */
import { spawn, spawnSync } from 'node:child_process';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';

const worker = fileURLToPath(new URL('./peers/mambapy_train.py', import.meta.url));

/** The worker, or null with the reason on stderr. */
export async function openPeer(threads) {
  const python = process.env.MAMBA_BENCH_PYTHON ?? 'python3';
  const probe = spawnSync(python, ['-c', 'import torch, mambapy.mamba'], { encoding: 'utf8' });
  if (probe.status !== 0) {
    console.error(
      `peer: ${python} has no torch and mambapy; measuring mamba.ts alone. Set MAMBA_BENCH_PYTHON.`,
    );
    return null;
  }
  const env = { ...process.env, OMP_NUM_THREADS: String(threads), MKL_NUM_THREADS: String(threads) };
  const child = spawn(python, [worker], { stdio: ['pipe', 'pipe', 'inherit'], env });
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
  const ask = async (request) => {
    child.stdin.write(`${JSON.stringify({ threads, ...request })}\n`);
    const { value, done } = await lines.next();
    if (done) throw new Error('peer: the worker ended early; its message is above.');
    return JSON.parse(value);
  };
  const { version } = await ask({ what: 'version' });
  return { version, ask, close: () => child.stdin.end() };
}
