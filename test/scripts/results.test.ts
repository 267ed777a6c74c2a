/** The closing line of `npm test` and what counts as a failure. */
import { expect, it } from 'vitest';
import { closingLines, countResults } from '../../scripts/lib/results.mjs';

const file = (status: string, ...tests: string[]) => ({
  status,
  assertionResults: tests.map((test) => ({ status: test })),
});
const report = (passed: number, failed: number, pending: number, ...files: unknown[]) => ({
  numPassedTests: passed,
  numFailedTests: failed,
  numPendingTests: pending,
  numTodoTests: 0,
  testResults: files,
});

it('prints counts, and skipped tests only when there are some', () => {
  expect(closingLines({ passed: 3, failed: 0, skipped: 0 })).toEqual(['3 passed, 0 failed']);
  expect(closingLines({ passed: 3, failed: 1, skipped: 2 })).toEqual(['skipped: 2', '3 passed, 1 failed']);
});

it.each([
  ['all passed', report(2, 0, 0, file('passed', 'passed', 'passed')), 0, [2, 0, 0]],
  ['one failed, one skipped', report(1, 1, 1, file('failed', 'passed', 'failed', 'pending')), 1, [1, 1, 1]],
  [
    'a file that could not be loaded',
    report(1, 0, 0, file('passed', 'passed'), file('failed')),
    1,
    [1, 1, 0],
  ],
  ['a hook that threw', report(0, 0, 2, file('failed', 'pending', 'pending')), 1, [0, 1, 2]],
  ['an unhandled rejection', report(1, 0, 0, file('passed', 'passed')), 1, [1, 1, 0]],
  ['no report', null, 1, [0, 1, 0]],
  ['no test', report(0, 0, 0), 1, [0, 0, 0]],
])('counts %s', (_name, json, exitCode, [passed, failed, skipped]) => {
  expect(countResults(json, exitCode)).toEqual({ passed, failed, skipped });
});
