/** Gathers what is wrong with a configuration, so that all of it can be reported at once. */
import { ConfigError } from '../base/errors.ts';

type Values<K extends string> = Readonly<Record<K, unknown>>;

export class ConfigCheck {
  readonly problems: string[];
  readonly #path: string;

  constructor(path = '', problems: string[] = []) {
    this.#path = path;
    this.problems = problems;
  }

  /** Checks the fields of an object inside; what is wrong is gathered here. */
  inside(path: string): ConfigCheck {
    return new ConfigCheck(`${this.#path}${path}.`, this.problems);
  }

  positiveIntegers<K extends string>(values: Values<K>, ...keys: K[]): void {
    this.#each(
      values,
      keys,
      (value) => Number.isInteger(value) && (value as number) > 0,
      'a positive integer',
    );
  }

  naturals<K extends string>(values: Values<K>, ...keys: K[]): void {
    this.#each(values, keys, (value) => Number.isInteger(value) && (value as number) >= 0, 'an integer >= 0');
  }

  positiveNumbers<K extends string>(values: Values<K>, ...keys: K[]): void {
    this.#each(values, keys, (value) => Number.isFinite(value) && (value as number) > 0, 'a positive number');
  }

  booleans<K extends string>(values: Values<K>, ...keys: K[]): void {
    this.#each(values, keys, (value) => typeof value === 'boolean', 'true or false');
  }

  /** A pair of numbers in order; the second may be infinite. */
  range<K extends string>(values: Values<K>, key: K, least: number): void {
    const isRange = (value: unknown) =>
      Array.isArray(value) &&
      value.length === 2 &&
      value.every((item) => typeof item === 'number') &&
      value[0]! >= least &&
      value[1]! >= value[0]!;
    this.#each(values, [key], isRange, `[low, high] with ${least} <= low <= high`);
  }

  oneOf<K extends string>(values: Values<K>, key: K, choices: readonly unknown[]): void {
    this.#each(values, [key], (value) => choices.includes(value), choices.join(' or '));
  }

  /** `part` must go into `whole` without rest. What is wrong with `whole` itself is told elsewhere. */
  divides<K extends string>(values: Values<K>, part: K, whole: string, extent: number): void {
    const value = values[part];
    const areCounts = [value, extent].every((count) => Number.isInteger(count) && (count as number) > 0);
    if (areCounts && extent % (value as number) !== 0)
      this.problems.push(`${this.#path}${part} ${String(value)} must divide ${whole} ${extent}`);
  }

  /** Typos are errors, not silently the default. */
  unknown(input: object, known: object): void {
    for (const key of Object.keys(input))
      if (!(key in known)) this.problems.push(`${this.#path}${key} is unknown`);
  }

  /** Throws ConfigError if anything was wrong. */
  done(): void {
    if (this.problems.length === 0) return;
    throw new ConfigError(`config: ${this.problems.join('; ')}. Correct the model configuration.`);
  }

  #each<K extends string>(
    values: Values<K>,
    keys: readonly K[],
    isFit: (v: unknown) => boolean,
    wanted: string,
  ) {
    for (const key of keys) {
      if (!isFit(values[key]))
        this.problems.push(`${this.#path}${key} must be ${wanted}, got ${show(values[key])}`);
    }
  }
}

const show = (value: unknown): string =>
  typeof value === 'object' || typeof value === 'string' ? JSON.stringify(value) : String(value);

/** Inner channels from `d_inner` or `expand`; both may be given if they agree. */
export function innerWidth(
  input: { d_model: number; d_inner?: number; expand?: number },
  check: ConfigCheck,
): number {
  const { d_model, d_inner, expand } = input;
  if (d_inner === undefined) return Math.floor((expand ?? 2) * d_model);
  if (expand !== undefined && d_inner !== Math.floor(expand * d_model)) {
    check.problems.push(
      `d_inner ${d_inner} contradicts expand ${expand} * d_model ${d_model}; give one of them`,
    );
  }
  return d_inner;
}
