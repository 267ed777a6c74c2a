/**
 * The error bounds of native/include/vec.h, checked by a small C++ program per instruction set. Skipped without a C++
 * compiler, as the native device is.
 */
import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, describe, expect, it } from 'vitest';
import { isaVariants } from '../../src/backend/native.ts';

const FLAGS: Record<string, string[]> = {
  sse2: [],
  neon: [],
  avx2: ['-mavx2', '-mfma'],
  avx512: ['-mavx2', '-mfma', '-mavx512f', '-mavx512bw', '-mavx512dq', '-mavx512vl'],
};
/** Every 9973rd float: 430,000 arguments, all exponents. */
const STRIDE = '9973';
const source = fileURLToPath(new URL('../../native/test/vec.cc', import.meta.url));
const compiler = process.env.CXX || 'g++';

function variants(): string[] {
  try {
    execFileSync(compiler, ['--version'], { stdio: 'ignore' });
    return isaVariants().filter((isa) => isa in FLAGS);
  } catch {
    return [];
  }
}

const isas = variants();
const folder = mkdtempSync(join(tmpdir(), 'vec-math-'));
afterAll(() => rmSync(folder, { recursive: true }));

describe.skipIf(isas.length === 0)('vector mathematics keeps its error bounds', () => {
  it.each(isas)('%s', (isa) => {
    const program = join(folder, isa);
    const optimize = ['-std=c++17', '-O2', '-fno-math-errno', '-ffp-contract=fast', '-Wno-psabi'];
    const flags = [...optimize, ...FLAGS[isa]!, `-DMAMBA_ISA=${isa}`];
    execFileSync(compiler, [...flags, source, '-o', program]);
    const output = execFileSync(program, [STRIDE], { encoding: 'utf8' });
    expect(output).toContain('softplus');
    expect(output).not.toContain('BROKEN');
  });
});
