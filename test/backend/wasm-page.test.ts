/**
 * The WebAssembly device in a page, where a Chromium is found (CHROMIUM, else the usual places): with cross-origin isolation and
 * without, as a bundler makes it. The page sends what it saw to the server that served it.
 */
import { spawn } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { build } from 'esbuild';
import { afterAll, describe, expect, it } from 'vitest';

const root = fileURLToPath(new URL('../..', import.meta.url));
const places = [
  process.env.CHROMIUM,
  '/usr/bin/chromium',
  '/usr/bin/google-chrome',
  '/Applications/Chromium.app/Contents/MacOS/Chromium',
];
const chromium = places.find((path) => path && existsSync(path));

const PROGRAM = `
import { fetchWasm } from './src/backend/wasm.ts';
const send = (value) => fetch('/seen', { method: 'POST', body: JSON.stringify(value) });
const count = 100_000;
/** The same sums on one thread and on as many as there are. */
async function run(threads) {
  const device = await fetchWasm(threads);
  const y = { storage: device.alloc(4 * count), offset: 0 };
  device.kernels.fill({ y, value: 0, count });
  for (let i = 0; i < 500; i++) device.kernels.affine({ x: y, y, scale: 0.75, shift: 1.3, count });
  const values = await device.read(y, 'f32', count);
  return { description: device.description, sum: values.reduce((a, b) => a + b, 0) };
}
try {
  await send([await run({ threads: 1 }), await run({}), await run({ threads: 3 })]);
} catch (error) {
  await send({ error: String(error) });
}`;

const ISOLATED = {
  'Cross-Origin-Opener-Policy': 'same-origin',
  'Cross-Origin-Embedder-Policy': 'require-corp',
};
const folders: string[] = [];
afterAll(() => {
  for (const folder of folders) rmSync(folder, { recursive: true, force: true, maxRetries: 5 });
});

/** What the page reports, served with `headers`; `missing` files are not there. */
async function open(headers: Record<string, string>, missing: string[] = []): Promise<unknown> {
  const { outputFiles } = await build({
    stdin: { contents: PROGRAM, resolveDir: root, loader: 'ts' },
    bundle: true,
    format: 'esm',
    write: false,
    target: 'es2022',
  });
  const files: Record<string, [type: string, body: string | Uint8Array]> = {
    '/': ['text/html', '<!doctype html><script type="module" src="/page.js"></script>'],
    '/page.js': ['text/javascript', outputFiles[0]!.contents],
  };
  for (const name of ['kernels.wasm', 'kernels-relaxed.wasm'])
    if (!missing.includes(name))
      files[`/${name}`] = ['application/wasm', readFileSync(join(root, 'dist/backend', name))];
  let report: (seen: unknown) => void;
  const seen = new Promise((resolve) => {
    report = resolve;
  });
  const server = createServer((request, response) => {
    if (request.method === 'POST') {
      let body = '';
      request.on('data', (chunk) => {
        body += chunk;
      });
      request.on('end', () => report(JSON.parse(body)));
    }
    const file = files[request.url!];
    response
      .writeHead(file ? 200 : 404, { ...headers, 'Content-Type': file?.[0] ?? 'text/plain' })
      .end(file?.[1]);
  });
  await new Promise<void>((ready) => server.listen(0, '127.0.0.1', ready));
  const profile = mkdtempSync(join(tmpdir(), 'mamba-page-'));
  folders.push(profile);
  const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}/`;
  const args = [
    '--headless',
    '--no-sandbox',
    '--disable-gpu',
    '--no-first-run',
    `--user-data-dir=${profile}`,
    url,
  ];
  const browser = spawn(chromium!, args, { stdio: 'ignore' });
  try {
    return await seen;
  } finally {
    const ended = new Promise((resolve) => browser.once('exit', resolve));
    browser.kill();
    await ended;
    server.closeAllConnections();
    server.close();
  }
}

interface Seen {
  description: string;
  sum: number;
}

describe.skipIf(!chromium)(
  chromium ? 'in a page' : 'in a page: no Chromium found, set CHROMIUM to its path',
  () => {
    it('that is isolated it has workers, and the same bits with any number of them', async () => {
      const [one, all, three] = (await open(ISOLATED)) as [Seen, Seen, Seen];
      expect(one.description).toMatch(/^wasm (relaxed )?simd128, 1 thread$/);
      expect(all.description).toMatch(/^wasm (relaxed )?simd128, \d+ threads?$/);
      expect(three.description).toMatch(/^wasm (relaxed )?simd128, 3 threads$/);
      expect(one.sum).toBeGreaterThan(0);
      expect([all.sum, three.sum]).toEqual([one.sum, one.sum]);
    });

    it('that is not isolated it has one thread and says why; kernels.wasm alone is enough', async () => {
      const seen = (await open({}, ['kernels-relaxed.wasm'])) as Seen[];
      const alone = 'wasm simd128, 1 thread (the page is not cross-origin isolated)';
      expect(seen.map(({ description }) => description)).toEqual([alone, alone, alone]);
    });
  },
);
