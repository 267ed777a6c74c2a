/**
 * Fields out of a JSON object, checked for their kind. What is wrong is collected: one error can list it all.
 */
import { isObject, type JsonObject, kindOf, untagFloats } from './json.ts';

type Kind = 'number' | 'boolean' | 'string';
type KindOf<K extends Kind> = K extends 'number' ? number : K extends 'boolean' ? boolean : string;

export class Fields {
  readonly problems: string[] = [];
  readonly #json: JsonObject;
  /** In front of the names in messages: `mamba_ts.` */
  readonly prefix: string;

  constructor(json: JsonObject, prefix = '') {
    this.#json = json;
    this.prefix = prefix;
  }

  has(key: string): boolean {
    return this.#json[key] !== undefined && this.#json[key] !== null;
  }

  /** undefined if absent or wrong. */
  optional<K extends Kind>(key: string, kind: K): KindOf<K> | undefined {
    const value = this.#json[key];
    if (value === undefined || value === null) return undefined;
    if (typeof value === kind) return value as KindOf<K>;
    this.problems.push(`${this.prefix}${key} must be a ${kind}, got ${JSON.stringify(value)}`);
    return undefined;
  }

  required<K extends Kind>(key: string, kind: K): KindOf<K> | undefined {
    if (!this.has(key)) this.problems.push(`${this.prefix}${key} is missing`);
    return this.optional(key, kind);
  }

  /** Of numbers; infinite ones may be tagged. undefined if absent or wrong. */
  numbers(key: string): number[] | undefined {
    if (!this.has(key)) return undefined;
    const value = untagFloats(this.#json[key]!);
    if (Array.isArray(value) && value.every((item) => typeof item === 'number')) return value;
    this.problems.push(
      `${this.prefix}${key} must be an array of numbers, got ${JSON.stringify(this.#json[key])}`,
    );
    return undefined;
  }

  /** A rank may be the word `auto`. */
  rank(key: string): number | 'auto' | undefined {
    return this.#json[key] === 'auto' ? 'auto' : this.optional(key, 'number');
  }

  /** Empty if absent or wrong. */
  object(key: string): JsonObject {
    const value = this.#json[key];
    if (value === undefined || value === null) return {};
    if (isObject(value)) return value;
    this.problems.push(`${this.prefix}${key} must be an object, got ${kindOf(value)}`);
    return {};
  }

  texts(key: string): string[] {
    const value = this.#json[key];
    if (Array.isArray(value) && value.every((item) => typeof item === 'string')) return value;
    const got = value === undefined ? 'none' : JSON.stringify(value);
    this.problems.push(`${this.prefix}${key} must be an array of strings, got ${got}`);
    return [];
  }

  /** Whatever else is there is a problem. */
  unknown(known: readonly string[]): void {
    for (const key of Object.keys(this.#json)) {
      if (!known.includes(key)) this.problems.push(`${this.prefix}${key} is not a known field`);
    }
  }

  same(a: string, b: string): void {
    const [x, y] = [this.#json[a], this.#json[b]];
    if (x !== undefined && y !== undefined && x !== y) {
      this.problems.push(`${a} ${JSON.stringify(x)} contradicts ${b} ${JSON.stringify(y)}`);
    }
  }
}
