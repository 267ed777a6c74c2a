/** Many problems in one message. */
const SHOWN = 20;

/** Joins problems; long lists end in a count. */
export function listProblems(problems: readonly string[]): string {
  const rest = problems.length - SHOWN;
  return problems.slice(0, SHOWN).join('; ') + (rest > 0 ? `; and ${rest} more` : '');
}
