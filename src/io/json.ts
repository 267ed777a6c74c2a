/**
 * JSON as model folders really contain it: the literals NaN, Infinity and -Infinity (Python's json
 * module writes them) are read and written, a key that appears twice is an error instead of a silent
 * choice, and errors name the place.
 */
import { ConfigError, FormatError } from '../base/errors.ts';

export type Json = null | boolean | number | string | Json[] | JsonObject;
export interface JsonObject {
  [key: string]: Json;
}

export interface ParseJsonOptions {
  /** Describes a position in the text for messages; default `line 3, column 5`. */
  where?: (position: number) => string;
  /** Called for a key that an object has already; the first value stays. Default: FormatError. */
  onDuplicate?: (key: string, position: number) => void;
}

const MAX_DEPTH = 128;
const NUMBER = /-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?/y;
const WORD = /-?[A-Za-z]+/y;
const WORDS = new Map<string, Json>([
  ['null', null],
  ['true', true],
  ['false', false],
  ['NaN', Number.NaN],
  ['Infinity', Number.POSITIVE_INFINITY],
  ['-Infinity', Number.NEGATIVE_INFINITY],
]);

/** `line L, column C`, both from 1. */
export function lineAndColumn(text: string, position: number): string {
  const before = text.slice(0, position).split('\n');
  return `line ${before.length}, column ${before[before.length - 1]!.length + 1}`;
}

/** Reads one JSON value; `name` is the file for messages. Throws FormatError with the place. */
export function parseJson(text: string, name: string, options: ParseJsonOptions = {}): Json {
  const where = options.where ?? ((position: number) => lineAndColumn(text, position));
  let at = 0;

  function fail(expected: string, position: number): never {
    const got =
      position < text.length ? JSON.stringify(text.slice(position, position + 12)) : 'the end of the text';
    throw new FormatError(
      `parseJson: expected ${expected}, got ${got} at ${where(position)} of ${name}. Correct the file.`,
    );
  }

  function skipSpace(): void {
    for (; at < text.length; at++) {
      const c = text.charCodeAt(at);
      if (c !== 0x20 && c !== 0x0a && c !== 0x0d && c !== 0x09) return;
    }
  }

  function string(): string {
    const start = at;
    let escaped = false;
    for (at++; at < text.length; at++) {
      const c = text.charCodeAt(at);
      if (c === 0x22) {
        at++;
        if (!escaped) return text.slice(start + 1, at - 1);
        try {
          return JSON.parse(text.slice(start, at)) as string;
        } catch {
          fail('a string with valid escapes', start);
        }
      }
      if (c < 0x20) fail('a string without control characters', at);
      if (c === 0x5c) {
        escaped = true;
        at++;
      }
    }
    return fail('a closing quote', text.length);
  }

  function scalar(): Json {
    for (const pattern of [NUMBER, WORD]) {
      pattern.lastIndex = at;
      const found = pattern.exec(text)?.[0];
      if (found === undefined) continue;
      const value = pattern === NUMBER ? Number(found) : WORDS.get(found);
      if (value === undefined) break;
      at += found.length;
      return value;
    }
    return fail('a JSON value', at);
  }

  /** The items between brackets, each read by `item`. */
  function items(close: string, depth: number, item: () => void): void {
    if (depth > MAX_DEPTH) fail(`at most ${MAX_DEPTH} nested values`, at);
    at++;
    skipSpace();
    if (text[at] === close) {
      at++;
      return;
    }
    for (;;) {
      item();
      skipSpace();
      const c = text[at];
      if (c !== ',' && c !== close) fail(`"," or "${close}"`, at);
      at++;
      if (c === close) return;
      skipSpace();
    }
  }

  function value(depth: number): Json {
    skipSpace();
    const c = text[at];
    if (c === '"') return string();
    if (c === '[') {
      const array: Json[] = [];
      items(']', depth, () => array.push(value(depth + 1)));
      return array;
    }
    if (c !== '{') return scalar();
    const entries = new Map<string, Json>();
    items('}', depth, () => {
      const start = at;
      if (text[at] !== '"') fail('a key in quotes', at);
      const key = string();
      skipSpace();
      if (text[at] !== ':') fail('":"', at);
      at++;
      const member = value(depth + 1);
      if (!entries.has(key)) entries.set(key, member);
      else if (options.onDuplicate) options.onDuplicate(key, start);
      else fail(`the key ${JSON.stringify(key)} once`, start);
    });
    return Object.fromEntries(entries);
  }

  const result = value(0);
  skipSpace();
  if (at < text.length) fail('nothing after the value', at);
  return result;
}

/** Like parseJson, for texts that must be an object. */
export function parseJsonObject(text: string, name: string, options?: ParseJsonOptions): JsonObject {
  const value = parseJson(text, name, options);
  if (isObject(value)) return value;
  throw new FormatError(
    `parseJson: expected an object { ... } in ${name}, got ${kindOf(value)}. Correct the file.`,
  );
}

export function isObject(value: Json | undefined): value is JsonObject {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

/** `an array`, `null`, `a string`: for messages. */
export function kindOf(value: Json | undefined): string {
  if (value === null || value === undefined) return String(value);
  if (Array.isArray(value)) return 'an array';
  return typeof value === 'object' ? 'an object' : `a ${typeof value}`;
}

const FLOAT_TAG = '__float__';

/** Numbers that JSON cannot hold, as transformers 5 writes them: `{"__float__": "Infinity"}`. */
export function tagFloats(value: Json): Json {
  if (typeof value === 'number' && !Number.isFinite(value)) return { [FLOAT_TAG]: String(value) };
  return mapValues(value, tagFloats);
}

/** Tagged numbers as numbers. */
export function untagFloats(value: Json): Json {
  if (isObject(value) && Object.keys(value).length === 1 && typeof value[FLOAT_TAG] === 'string') {
    const number = WORDS.get(value[FLOAT_TAG]);
    if (typeof number === 'number') return number;
  }
  return mapValues(value, untagFloats);
}

function mapValues(value: Json, change: (value: Json) => Json): Json {
  if (Array.isArray(value)) return value.map(change);
  if (!isObject(value)) return value;
  return Object.fromEntries(Object.entries(value).map(([key, member]) => [key, change(member)]));
}

/**
 * Writes `value` with two spaces of indent and a final newline, so that parseJson gives the same value back,
 * -0, NaN and Infinity included. Members that are undefined are left out; anything that is not plain data
 * (class instances, functions, typed arrays) is a ConfigError, because it would come back as something else.
 */
export function formatJson(value: unknown): string {
  return `${format(value, '', '$')}\n`;
}

function format(value: unknown, indent: string, path: string): string {
  if (typeof value === 'number') return Object.is(value, -0) ? '-0' : String(value);
  if (value === null || typeof value === 'boolean') return String(value);
  if (typeof value === 'string') return JSON.stringify(value);
  const inner = `${indent}  `;
  if (Array.isArray(value)) {
    const flat = value.every((x) => typeof x === 'number' || typeof x === 'boolean');
    const texts = value.map((x, i) => format(x, inner, `${path}[${i}]`));
    if (flat) return `[${texts.join(', ')}]`;
    return `[\n${texts.map((text) => inner + text).join(',\n')}\n${indent}]`;
  }
  const prototype = typeof value === 'object' ? Object.getPrototypeOf(value) : undefined;
  if (prototype === Object.prototype || (typeof value === 'object' && prototype === null)) {
    const lines = Object.entries(value as object)
      .filter(([, member]) => member !== undefined)
      .map(([key, member]) => `${inner}${JSON.stringify(key)}: ${format(member, inner, `${path}.${key}`)}`);
    return lines.length === 0 ? '{}' : `{\n${lines.join(',\n')}\n${indent}}`;
  }
  const got = typeof value === 'object' ? (value?.constructor?.name ?? 'an object') : typeof value;
  throw new ConfigError(
    `formatJson: expected plain data at ${path}, got ${got}. Convert it to numbers, strings, arrays or objects.`,
  );
}
