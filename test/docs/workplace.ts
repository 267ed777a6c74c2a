/** Where documents and examples run, against the built package: a folder inside it, so that its own name resolves from there. */
import { type SpawnSyncReturns, spawnSync } from 'node:child_process';
import { cpSync, mkdirSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { transformSync } from 'esbuild';
import { ROOT } from '../../scripts/lib/run.mjs';

/** What a page of a browser has and Node has not: relative addresses. Here they are files. */
const RELATIVE_FETCH = `import { readFile as readRelative } from 'node:fs/promises';
const fetchAbsolute = globalThis.fetch;
globalThis.fetch = async (address, options) =>
  /^\\w+:/.test(String(address)) ? fetchAbsolute(address, options) : new Response(await readRelative(address));
`;

/** An empty folder with nothing in it but what examples and guides read. */
export function workplace(name: string): string {
  const folder = join(ROOT, '.cache', name);
  rmSync(folder, { recursive: true, force: true });
  mkdirSync(folder, { recursive: true });
  cpSync(join(ROOT, 'examples/data'), join(folder, 'examples/data'), { recursive: true });
  return folder;
}

/** A module in TypeScript; `name` is that of its file, without extension. */
export function runTypeScript(folder: string, name: string, code: string): SpawnSyncReturns<string> {
  const path = join(folder, `${name}.mjs`);
  writeFileSync(path, RELATIVE_FETCH + transformSync(code, { loader: 'ts', format: 'esm' }).code);
  return spawnSync(process.execPath, [path], { cwd: folder, encoding: 'utf8' });
}

/** Lines for a shell, in which `npx mamba-ts` is the built command. Ends with the first that fails. */
export function runShell(folder: string, code: string): SpawnSyncReturns<string> {
  const env = { ...process.env, MAMBA_NODE: process.execPath, MAMBA_CLI: join(ROOT, 'dist/cli/main.js') };
  const script = `npx() { shift; "$MAMBA_NODE" "$MAMBA_CLI" "$@"; }\n${code}`;
  return spawnSync('sh', ['-e', '-c', script], { cwd: folder, env, encoding: 'utf8' });
}
