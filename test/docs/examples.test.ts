/** Every example type-checks with the tests, and runs to its end against the built package without arguments. */
import { spawnSync } from 'node:child_process';
import { mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { transformSync } from 'esbuild';
import { describe, expect, it } from 'vitest';
import { ROOT } from '../../scripts/lib/run.mjs';

function run(name: string): { status: number | null; stdout: string; stderr: string } {
  const folder = join(ROOT, '.cache/examples'); // inside the package: its own name resolves from here
  mkdirSync(folder, { recursive: true });
  const path = join(folder, name.replace(/\.ts$/, '.mjs'));
  const source = readFileSync(join(ROOT, 'examples', name), 'utf8');
  writeFileSync(path, transformSync(source, { loader: 'ts', format: 'esm' }).code);
  return spawnSync(process.execPath, [path], { cwd: folder, encoding: 'utf8' });
}

describe('examples', () => {
  it('embed.ts prints how alike its sentences are', () => {
    const { status, stdout, stderr } = run('embed.ts');
    expect({ status, stderr }).toEqual({ status: 0, stderr: '' });
    const rows = stdout.split('\n').filter((line) => /^\d( +-?\d\.\d\d){8} {2}/.test(line));
    expect(rows).toHaveLength(16);
    // On the diagonal everything is like itself, and the two sentences of the same words are alike.
    for (const [i, row] of rows.entries())
      expect(row.slice(1, 49).match(/.{6}/g)![i % 8]!.trim()).toBe('1.00');
    const alike = Number(rows[8]!.slice(7, 13));
    for (const other of [3, 4, 5, 6, 7])
      expect(alike).toBeGreaterThan(Number(rows[8]!.slice(1 + 6 * other, 7 + 6 * other)));
  });

  it('all are run by this file', () => {
    expect(readdirSync(join(ROOT, 'examples')).filter((name) => name.endsWith('.ts'))).toEqual(['embed.ts']);
  });
});
