/**
 * Runs a chat template in `@huggingface/jinja` within bounds. A template comes with a model, so it is input
 * like any other: it may be broken, loop for hours or print gigabytes. Here it gets so many steps and so much
 * text, and no way to hang the program.
 */
import * as jinja from '@huggingface/jinja';
import { ConfigError, FormatError } from '../base/errors.ts';

/**
 * Characters. The largest published templates have a third of it; the lexer takes
 * quadratic time over runs of spaces.
 */
const MAX_SOURCE = 2 ** 16;
/**
 * Expressions and statements evaluated, in all and for each message; published
 * templates take about fifty for one.
 */
const MAX_STEPS = 200_000;
const STEPS_PER_MESSAGE = 1000;
/** The library makes a scope and eleven values for each round of a loop, whatever is in it. */
const STEPS_PER_ROUND = 10;
/** Steps may be slow where texts are long. */
const MAX_MS = 10_000;
/** Characters of any one value when printed, the rendering itself included. */
const MAX_TEXT = 2 ** 24;
const MAX_RANGE = 100_000;

interface Value {
  readonly type: string;
  readonly value: unknown;
}
interface Environment {
  set(name: string, value: unknown): unknown;
}
interface Interpreter {
  run(program: unknown): Value;
  evaluate(statement: Statement | undefined, environment: Environment): Value;
}
/** What is looked at of a node of the syntax tree. */
interface Statement {
  readonly type: string;
  /** Of a `For`. */
  readonly iterable?: Statement;
  /** Of a `SelectExpression`, a loop's list under a condition. */
  readonly lhs?: Statement;
}

/** The library's own types name files without their endings, which TypeScript does not follow in a module. */
const library = jinja as unknown as {
  tokenize(source: string, options: { lstrip_blocks: boolean; trim_blocks: boolean }): unknown;
  parse(tokens: unknown): unknown;
  Environment: new () => Environment;
  Interpreter: new (environment: Environment) => Interpreter;
};

/** Ready to run with variables of plain data. */
export type Program = (variables: Variables, now: Date) => string;

export interface Variables {
  readonly messages: readonly unknown[];
  readonly [name: string]: unknown;
}

/**
 * Throws FormatError for a source that is too long or not Jinja; so does the program when it fails, and
 * ConfigError for raise_exception.
 */
export function compile(source: string, name: string): Program {
  if (source.length > MAX_SOURCE) {
    throw new FormatError(
      `chatTemplate: expected at most ${MAX_SOURCE} characters in ${name}, got ${source.length}. Is it a template?`,
    );
  }
  const program = attempt(name, 'a Jinja template', () =>
    library.parse(library.tokenize(source, { lstrip_blocks: true, trim_blocks: true })),
  );
  return (variables, now) =>
    attempt(name, 'a template that renders these messages', () => {
      const environment = globals(now);
      for (const [key, value] of Object.entries(variables)) environment.set(key, value);
      const steps = MAX_STEPS + STEPS_PER_MESSAGE * variables.messages.length;
      return String(new BoundedInterpreter(environment, steps).run(program).value);
    });
}

/** The library throws plain errors, and a deep recursion overflows the stack. */
function attempt<T>(name: string, expected: string, run: () => T): T {
  try {
    return run();
  } catch (cause) {
    if (cause instanceof ConfigError) throw cause;
    const why = cause instanceof Error ? cause.message : String(cause);
    throw new FormatError(
      `chatTemplate: expected ${expected} in ${name}, got: ${why}. Correct the template or give another.`,
      { cause },
    );
  }
}

/** What transformers gives to every template. */
function globals(now: Date): Environment {
  const environment = new library.Environment();
  const constants = { true: true, false: false, none: null, True: true, False: false, None: null };
  for (const [name, value] of Object.entries(constants)) environment.set(name, value);
  environment.set('raise_exception', (message: unknown) => {
    throw new ConfigError(
      `chatTemplate: expected messages that the template accepts, got: ${String(message)}. Change the messages.`,
    );
  });
  environment.set('strftime_now', (format: string) => strftime(now, format));
  environment.set('range', range);
  return environment;
}

function range(first: number, last?: number, step = 1): number[] {
  const [start, stop] = last === undefined ? [0, first] : [first, last];
  const count = Math.max(0, Math.ceil((stop - start) / step));
  if (!(count <= MAX_RANGE)) throw new Error(`a range of ${count} numbers`);
  return Array.from({ length: count }, (_, i) => start + i * step);
}

class BoundedInterpreter extends library.Interpreter {
  /** Left to take. */
  #steps: number;
  readonly #deadline = Date.now() + MAX_MS;
  /** Expressions that give what loops run over. */
  readonly #lists = new WeakSet<Statement>();
  /** Printed length of lists and objects that cannot change any more. */
  readonly #weights = new WeakMap<object, number>();
  /** Whether the value being weighed holds a namespace, the only kind that can change. */
  #isMutable = false;

  constructor(environment: Environment, steps: number) {
    super(environment);
    this.#steps = steps;
  }

  override evaluate(statement: Statement | undefined, environment: Environment): Value {
    this.#count(1);
    if (statement?.iterable) this.#lists.add(statement.iterable.lhs ?? statement.iterable);
    const value = super.evaluate(statement, environment);
    if (statement && this.#lists.has(statement)) this.#count(STEPS_PER_ROUND * sizeOf(value.value));
    this.#isMutable = false;
    this.#weigh(value);
    return value;
  }

  #count(steps: number): void {
    this.#steps -= steps;
    if (this.#steps < 0) throw new Error('too many steps');
    if (Date.now() > this.#deadline) throw new Error(`more than ${MAX_MS / 1000} seconds of work`);
  }

  /**
   * About the characters it takes to print. Lists of lists of lists are small in memory and endless on paper.
   */
  #weigh(value: Value): number {
    const inside: unknown = value.value;
    if (typeof inside === 'string') return checkLength(inside.length + 1);
    if (typeof inside !== 'object' || inside === null) return 1;
    const known = this.#weights.get(value);
    if (known !== undefined) return known;
    let total = 1;
    for (const item of (inside as Value[] | Map<string, Value>).values()) {
      this.#count(1);
      total = checkLength(total + this.#weigh(item));
    }
    if (value.type === 'NamespaceValue') this.#isMutable = true;
    if (!this.#isMutable) this.#weights.set(value, total);
    return total;
  }
}

function sizeOf(list: unknown): number {
  return Array.isArray(list) ? list.length : list instanceof Map ? list.size : 0;
}

function checkLength(length: number): number {
  if (length > MAX_TEXT) throw new Error(`more than ${MAX_TEXT} characters`);
  return length;
}

const MONTHS = 'January February March April May June July August September October November December'.split(
  ' ',
);
const DAYS = 'Sunday Monday Tuesday Wednesday Thursday Friday Saturday'.split(' ');

/** Python's strftime with English names, local time. Unknown codes stay as they are. */
function strftime(now: Date, format: string): string {
  const two = (n: number) => String(n).padStart(2, '0');
  const codes: Record<string, string> = {
    Y: String(now.getFullYear()),
    y: two(now.getFullYear() % 100),
    m: two(now.getMonth() + 1),
    d: two(now.getDate()),
    B: MONTHS[now.getMonth()]!,
    b: MONTHS[now.getMonth()]!.slice(0, 3),
    A: DAYS[now.getDay()]!,
    a: DAYS[now.getDay()]!.slice(0, 3),
    H: two(now.getHours()),
    I: two(now.getHours() % 12 || 12),
    M: two(now.getMinutes()),
    S: two(now.getSeconds()),
    p: now.getHours() < 12 ? 'AM' : 'PM',
    '%': '%',
  };
  return format.replace(/%(.)/g, (code, letter: string) => codes[letter] ?? code);
}
