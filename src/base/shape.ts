/** Shape arithmetic: counts, row-major strides, broadcasting. Pure functions over number lists. */
import { ShapeError } from './errors.ts';

export type Shape = readonly number[];

export function sizeOf(shape: Shape): number {
  let size = 1;
  for (const extent of shape) size *= extent;
  return size;
}

export function showShape(shape: Shape): string {
  return `[${shape.join(', ')}]`;
}

export function sameShape(a: Shape, b: Shape): boolean {
  return a.length === b.length && a.every((extent, i) => extent === b[i]);
}

/** Row-major strides in elements. */
export function stridesOf(shape: Shape): number[] {
  const strides = new Array<number>(shape.length);
  let stride = 1;
  for (let i = shape.length - 1; i >= 0; i--) {
    strides[i] = stride;
    stride *= shape[i]!;
  }
  return strides;
}

/** Resolves a possibly negative axis. */
export function axisOf(op: string, axis: number, rank: number): number {
  const resolved = axis < 0 ? axis + rank : axis;
  if (!Number.isInteger(resolved) || resolved < 0 || resolved >= rank) {
    throw new ShapeError(`${op}: expected an axis in [${-rank}, ${rank - 1}], got ${axis}.`);
  }
  return resolved;
}

/** The NumPy broadcasting rule. */
export function broadcastShapes(op: string, a: Shape, b: Shape): number[] {
  const rank = Math.max(a.length, b.length);
  const out = new Array<number>(rank);
  for (let i = 0; i < rank; i++) {
    const x = a[a.length - rank + i] ?? 1;
    const y = b[b.length - rank + i] ?? 1;
    if (x !== y && x !== 1 && y !== 1) {
      throw new ShapeError(
        `${op}: expected shapes that broadcast, got ${showShape(a)} and ${showShape(b)}. ` +
          `Axis ${i - rank} is ${x} against ${y}; make them equal or 1.`,
      );
    }
    out[i] = x === 1 ? y : x;
  }
  return out;
}

/** Strides that read `shape` as if it were `target`: 0 along broadcast axes. */
export function broadcastStrides(shape: Shape, target: Shape): number[] {
  const own = stridesOf(shape);
  const lead = target.length - shape.length;
  return target.map((extent, i) =>
    i < lead || (shape[i - lead] === 1 && extent !== 1) ? 0 : own[i - lead]!,
  );
}

/** Throws unless `shape` equals `expected`; `what` names the operand with its letters, e.g. `B (b, l, n)`. */
export function expectShape(op: string, what: string, shape: Shape, expected: Shape, remedy = ''): void {
  if (sameShape(shape, expected)) return;
  const hint = remedy === '' ? '' : ` ${remedy}`;
  throw new ShapeError(`${op}: expected ${what} = ${showShape(expected)}, got ${showShape(shape)}.${hint}`);
}
