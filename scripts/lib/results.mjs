/** What a finished test run amounts to. */

/**
 * Counts of a vitest JSON report. A file that failed although none of its tests did (it could not be loaded, or a
 * hook threw) counts as one failure, and so does a run that ended badly though no file says why (an unhandled
 * rejection, a crash, no report at all).
 */
export function countResults(report, exitCode) {
  const files = report?.testResults ?? [];
  const broken = files.filter(
    (file) => file.status === 'failed' && !file.assertionResults.some((test) => test.status === 'failed'),
  );
  let failed = (report?.numFailedTests ?? 0) + broken.length;
  const passed = report?.numPassedTests ?? 0;
  const noTests = report !== null && files.length === 0;
  if (failed === 0 && exitCode !== 0 && !noTests) failed = 1;
  const skipped = (report?.numPendingTests ?? 0) + (report?.numTodoTests ?? 0);
  return { passed, failed, skipped };
}

/** The last lines of `npm test`: what was skipped, if anything, then always `N passed, N failed`. */
export function closingLines({ passed, failed, skipped }) {
  return [...(skipped > 0 ? [`skipped: ${skipped}`] : []), `${passed} passed, ${failed} failed`];
}
