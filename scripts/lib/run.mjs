/** Running other programs, and one line per stage. Plain Node: works before anything is installed. */
import { spawn } from 'node:child_process';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

export const ROOT = fileURLToPath(new URL('../../', import.meta.url)).replace(/[\\/]$/, '');

/** A failure that the user can act on: printed without a stack. */
export class ScriptError extends Error {}

/** Runs the main function of a script: expected failures become one message and exit code 1. */
export async function main(body) {
  try {
    process.exitCode = (await body(process.argv.slice(2))) ?? 0;
  } catch (error) {
    if (!(error instanceof ScriptError)) throw error;
    console.error(error.message);
    process.exitCode = 1;
  }
}

/**
 * Runs a program and waits. `capture` collects its output instead of showing it.
 * Resolves to { code, output }; a program that does not exist gives code 127.
 */
export function run(command, args, { cwd = ROOT, env = process.env, capture = false, shell = false } = {}) {
  return new Promise((resolve) => {
    const stdio = capture ? ['ignore', 'pipe', 'pipe'] : ['ignore', 'inherit', 'inherit'];
    const child = spawn(command, args, { cwd, env, stdio, shell });
    let output = '';
    child.stdout?.on('data', (data) => {
      output += data;
    });
    child.stderr?.on('data', (data) => {
      output += data;
    });
    // Ctrl-C reaches the child through the terminal; we stay to pass on how it ended.
    const wait = () => {};
    process.on('SIGINT', wait);
    const done = (code) => {
      process.off('SIGINT', wait);
      resolve({ code, output });
    };
    child.on('error', (error) => {
      output += error.message;
      done(127);
    });
    child.on('close', (code, signal) => done(code ?? (signal === 'SIGINT' ? 130 : 1)));
  });
}

export function npm(args, options = {}) {
  const cli = process.env.npm_execpath;
  if (cli && /npm-cli\.c?js$/.test(cli)) return run(process.execPath, [cli, ...args], options);
  return run('npm', args, { ...options, shell: process.platform === 'win32' });
}

/** Runs a tool that a package of node_modules brings, by its script, without going through npx. */
export function tool(script, args, options = {}) {
  return run(process.execPath, [join(ROOT, 'node_modules', script), ...args], options);
}

/** Work that ends sooner than this is not worth a line. */
const QUIET_MS = 300;

/** Prints `label ... 1.2 s` on stderr around a piece of work, unless it is done at once. */
export async function stage(label, body) {
  const begin = performance.now();
  let shown = false;
  const show = () => {
    if (!shown) process.stderr.write(`${label} ...`);
    shown = true;
  };
  const timer = setTimeout(show, QUIET_MS);
  try {
    const result = await body();
    const elapsedMs = performance.now() - begin;
    if (elapsedMs > QUIET_MS) show();
    if (shown) process.stderr.write(` ${(elapsedMs / 1000).toFixed(1)} s\n`);
    return result;
  } catch (error) {
    show();
    process.stderr.write(' failed\n');
    throw error;
  } finally {
    clearTimeout(timer);
  }
}
