/** The table is complete: every kernel, every optional operand absent and present, no name twice. */
import { describe, expect, it } from 'vitest';
import type { KernelName } from '../../src/backend/backend.ts';
import { KERNELS } from '../../src/backend/kernels.ts';
import { TABLE } from './table.ts';

describe.each(Object.keys(KERNELS) as KernelName[])('%s', (kernel) => {
  const cases = TABLE.filter((test) => test.kernel === kernel);

  it('has cases, each with a name of its own', () => {
    expect(cases.length).toBeGreaterThan(0);
    const names = cases.map(({ name }) => name);
    expect(names.filter((name, i) => names.indexOf(name) !== i)).toEqual([]);
  });

  const optional = Object.entries(KERNELS[kernel]).filter(([, kind]) => kind.endsWith('?'));
  for (const [operand] of optional) {
    it(`has ${operand} absent and present`, () => {
      const given = cases.map(({ operands }) => (operands as Record<string, unknown>)[operand] !== null);
      expect(new Set(given)).toEqual(new Set([true, false]));
    });
  }
});
