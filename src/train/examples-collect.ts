/**
 * Takes the records of the readers as examples, and the problems by kind: few of
 * each are shown, all are counted.
 */
import { ConfigError, FormatError } from '../base/errors.ts';
import { listProblems } from '../io/problems.ts';
import type { Example } from './examples.ts';

/** Which columns are read, and whether there are labels at all. */
export interface ExampleFields {
  textFields: readonly string[];
  labelField: string;
  isLabelled: boolean;
}

/** Places shown per kind of problem. */
const SHOWN_PLACES = 3;
const SHOWN_COLUMNS = 20;
const PROGRESS_EVERY = 1000;
const CORRECT = 'Correct or remove them.';
const NAME_COLUMNS = 'Name the columns that hold text and label (--text, --label).';

interface Problem {
  places: string[];
  count: number;
  remedy: string;
}

/** Everything that one call reads. `finish` is the end: examples, or all problems in one FormatError. */
export class ExampleCollector {
  readonly fields: ExampleFields;
  readonly #examples: Example[] = [];
  readonly #labels = new Map<string, string>(); // one string per class, not one per example
  readonly #problems = new Map<string, Problem>();
  readonly #onCount: ((examples: number) => void) | undefined;
  #records = 0;

  constructor(fields: ExampleFields, onCount?: (examples: number) => void) {
    const { textFields } = fields;
    if (textFields.length === 0 || new Set(textFields).size < textFields.length) {
      throw new ConfigError(
        `data: expected the names of text columns, each once, got ${textFields.join(', ') || 'none'}. Name at least one.`,
      );
    }
    this.fields = fields;
    this.#onCount = onCount;
  }

  /** Records seen so far, good or bad. */
  get records(): number {
    return this.#records;
  }

  /** The names of all columns that are read: those of the text, then the label. */
  get columns(): string[] {
    const { textFields, labelField, isLabelled } = this.fields;
    return isLabelled ? [...new Set([...textFields, labelField])] : [...textFields];
  }

  /** Throws ConfigError unless all columns are among `there`, the columns of `where`. */
  expectColumns(there: readonly string[], where: string): void {
    for (const column of this.columns) {
      const count = there.filter((name) => name === column).length;
      if (count === 1) continue;
      const expected = `the column ${JSON.stringify(column)}${count > 1 ? ' once' : ''}`;
      const got = there.slice(0, SHOWN_COLUMNS).map((name) => JSON.stringify(name.slice(0, 40)));
      if (there.length > SHOWN_COLUMNS) got.push(`${there.length - SHOWN_COLUMNS} more`);
      throw new ConfigError(
        `${where}: expected ${expected}, got ${got.join(', ') || 'no columns'}. ${NAME_COLUMNS}`,
      );
    }
  }

  /** A record; `get` gives a column's value, undefined where it has none. */
  add(where: string, get: (column: string) => unknown): void {
    const { textFields, labelField, isLabelled } = this.fields;
    const missing = this.columns.find((column) => get(column) === undefined);
    const texts = textFields.map(get);
    const odd = texts.find((value) => typeof value !== 'string' && !isNothing(value));
    if (missing !== undefined) this.problem(`no ${JSON.stringify(missing)}`, where, NAME_COLUMNS);
    else if (odd !== undefined) this.problem(`${kindOf(odd)} as text`, where, NAME_COLUMNS);
    else {
      const text = texts.filter((value) => typeof value === 'string' && value !== '').join('\n');
      this.#take(text, isLabelled ? get(labelField) : '', where);
    }
  }

  /** A file that is one example. */
  addText(text: string, label: string, where: string): void {
    this.#take(text, label, where);
  }

  /** A record that is no example: `got` completes "expected a text and a label, got 3 with". */
  problem(got: string, where: string, remedy = CORRECT): void {
    this.#records++;
    const known = this.#problems.get(got);
    if (!known) this.#problems.set(got, { places: [where], count: 1, remedy });
    else if (++known.count <= SHOWN_PLACES) known.places.push(where);
  }

  #take(text: string, value: unknown, where: string): void {
    const isPlain = ['string', 'number', 'boolean', 'bigint'].includes(typeof value);
    const label = isPlain && !isNothing(value) ? String(value).trim() : '';
    if (text.trim() === '') this.problem('an empty text', where);
    else if (!this.fields.isLabelled) this.#keep({ text, label: '', where });
    else if (!isPlain && !isNothing(value)) this.problem(`${kindOf(value)} as label`, where, NAME_COLUMNS);
    else if (label === '') this.problem('an empty label', where);
    else this.#keep({ text, label, where });
  }

  #keep(example: Example): void {
    this.#records++;
    const known = this.#labels.get(example.label);
    if (known === undefined) this.#labels.set(example.label, example.label);
    else example.label = known;
    this.#examples.push(example);
    if (this.#examples.length % PROGRESS_EVERY === 0) this.#onCount?.(this.#examples.length);
  }

  finish(): Example[] {
    if (this.#problems.size === 0) {
      this.#onCount?.(this.#examples.length);
      return this.#examples;
    }
    const list = [...this.#problems].map(([got, { places, count }]) => {
      const rest = count > places.length ? ` and ${count - places.length} more` : '';
      return `${count} with ${got} (${places.join(', ')}${rest})`;
    });
    const remedies = new Set([...this.#problems.values()].map(({ remedy }) => remedy));
    const expected = this.fields.isLabelled ? 'a text and a label' : 'a text';
    throw new FormatError(
      `data: expected ${expected} in every example, got ${listProblems(list)}. ${[...remedies].join(' ')}`,
    );
  }
}

/** NaN is how tables write a missing value. */
function isNothing(value: unknown): boolean {
  return value === null || value === undefined || Number.isNaN(value);
}

function kindOf(value: unknown): string {
  if (Array.isArray(value)) return 'a list';
  return typeof value === 'object' ? 'an object' : `a ${typeof value}`;
}
