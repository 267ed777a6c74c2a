/**
 * What a forward pass reads, from what it is given: rows of ids, lengths or an attention mask, document ids.
 * Real tokens are packed to the front of each row, so that padding on either side never reaches a convolution
 * or a scan; `places` leads back to where they stood.
 */
import { DTypeError, ShapeError } from '../base/errors.ts';
import { sizeOf } from '../base/shape.ts';
import { IGNORE_INDEX } from '../ops/cross-entropy.ts';
import { gatherRows, reshape } from '../tensor/primitives.ts';
import { Tensor } from '../tensor/tensor.ts';
import type { SequenceContext } from './mixer.ts';

/** Rows of token ids, ragged allowed, or an i32 tensor (b, l). */
export type Ids = readonly (readonly number[] | Int32Array)[] | Tensor;

/**
 * 1 for a token, 0 for padding: rows like those of the ids, or an i32 tensor (b, l). Per row one run of
 * ones, at either end or between.
 */
export type AttentionMask = readonly (readonly number[] | Int32Array)[] | Tensor;

export interface InputOptions {
  /**
   * Real tokens per row; the rest is padding that never reaches the state. Follows from ragged ids by itself.
   */
  lengths?: readonly number[] | Int32Array;
  /**
   * Padding on the left or right, as Hugging Face tokenizers give it. The values at real positions,
   * the state and the gradients are those of the row alone; the ids under the padding are not
   * looked at. Instead of `lengths`.
   */
  attentionMask?: AttentionMask;
  /**
   * Document of each token, rows like those of the ids or (b, l): packed documents do not see each other. One
   * begins wherever the number changes, so numbers may come again.
   */
  sequenceIds?: readonly (readonly number[])[] | Tensor;
}

export interface Inputs {
  /** (b, l) i32, the real tokens of each row first. */
  input: Tensor;
  /** Real tokens per row; null when all are. */
  lengths: readonly number[] | null;
  context: SequenceContext;
  /** For each given position its row in (b * l); null when the tokens are where they were given. */
  places: Int32Array | null;
}

/** Throws ShapeError and DTypeError for anything that does not fit together. */
export function packInputs(ids: Ids, options: InputOptions, device: Tensor['device']): Inputs {
  const { input, widths } = packIds(ids, device);
  const [b, l] = input.dims(2);
  if (options.attentionMask && options.lengths) {
    throw new ShapeError('forward: expected lengths or an attentionMask, got both. The mask is enough.');
  }
  const spans = options.attentionMask ? maskSpans(options.attentionMask, widths) : null;
  const lengths = spans ? spans.map(({ length }) => length) : lengthsOf(options.lengths ?? widths, b, l);
  const isMoved = spans?.some(({ start }) => start > 0) ?? false;
  const { sequenceIds } = options;
  const documents =
    sequenceIds &&
    numbered(
      sequenceIds instanceof Tensor
        ? sequenceIds
        : packSequenceIds(sequenceIds, spans ? [widths] : [widths, lengths], b, l, device),
    );
  return {
    input: spans && (isMoved || input.host) ? toFront('ids', input, spans, l) : input,
    lengths: lengths.some((n) => n !== l) ? lengths : null,
    context: {
      sequenceIds:
        documents && spans && isMoved ? toFront('sequenceIds', documents, spans, l) : (documents ?? null),
      lengths: lengths.some((n) => n !== l) ? Tensor.from(Int32Array.from(lengths), [b], { device }) : null,
    },
    places: spans && isMoved ? placesOf(spans, l) : null,
  };
}

/**
 * Tokens of each row's current document, of which `before` were read earlier. A document ends
 * where the ids of documents change.
 */
export function positionsAfter(inputs: Inputs, before: readonly number[]): number[] {
  const l = inputs.input.shape[1]!;
  const documents = inputs.context.sequenceIds?.host;
  return before.map((count, row) => {
    const end = inputs.lengths?.[row] ?? l;
    let start = documents ? end : 0;
    const current = documents?.[row * l + end - 1];
    while (start > 0 && documents![row * l + start - 1] === current) start--;
    return start === 0 ? count + end : end - start;
  });
}

/**
 * Where the ones of each row are. `widths`: ids per row. Throws ShapeError for holes, rows of
 * zeros and other values or shapes.
 */
export function maskSpans(
  mask: AttentionMask,
  widths: readonly number[],
): { start: number; length: number }[] {
  const rows = mask instanceof Tensor ? tensorRows(mask) : mask;
  const found = rows.map((row) => row.length);
  if (found.length !== widths.length || found.some((n, i) => n !== widths[i])) {
    throw new ShapeError(
      `attentionMask: expected a value for each id of rows of [${widths.join(', ')}], got rows of [${found.join(', ')}].`,
    );
  }
  return rows.map((values, row) => {
    const start = values.indexOf(1);
    const end = values.lastIndexOf(1) + 1;
    const at = values.findIndex((value, t) => value !== (t >= start && t < end ? 1 : 0));
    if (start < 0 || at >= 0) {
      const got = at < 0 ? 'no 1' : `${values[at]} at token ${at}`;
      throw new ShapeError(
        `attentionMask: expected one run of ones and zeros around it, got ${got} in row ${row}. Pad at the ends only.`,
      );
    }
    return { start, length: end - start };
  });
}

/**
 * x (b, l, ...) of packed rows, with every token where it was given. The values at padding are meaningless.
 */
export function atPlaces(x: Tensor, places: Int32Array | null): Tensor {
  if (!places) return x;
  const [b, l, d] = x.dims(3);
  return gatherRows(reshape(x, [b * l, d]), Tensor.from(places, [b, l], { device: x.device }));
}

/** (b, l, d) of packed rows -> (b, 1, d) at the last real token of each. */
export function lastTokens(x: Tensor, lengths: readonly number[] | null): Tensor {
  const [b, l, d] = x.dims(3);
  const at = Int32Array.from({ length: b }, (_, row) => row * l + (lengths?.[row] ?? l) - 1);
  return gatherRows(reshape(x, [b * l, d]), Tensor.from(at, [b, 1], { device: x.device }));
}

/** Targets (b, l) with those at padding replaced by IGNORE_INDEX. */
export function withoutPadding(targets: Tensor, { lengths, places }: Inputs): Tensor {
  if (!lengths) return targets;
  if (!targets.host) {
    throw new DTypeError('loss: expected targets made with Tensor.from(Int32Array) for rows with padding.');
  }
  const l = targets.size / lengths.length;
  const isReal = (at: number) => {
    const place = places ? places[at]! : at;
    return place % l < lengths[Math.floor(place / l)]!;
  };
  const host = targets.host.map((target, at) => (isReal(at) ? target : IGNORE_INDEX));
  return Tensor.from(host, targets.shape, { device: targets.device });
}

/**
 * A rotation of each row, so that no position is read twice: the padding before the
 * tokens comes from behind them.
 */
function placesOf(spans: readonly { start: number }[], l: number): Int32Array {
  return Int32Array.from({ length: spans.length * l }, (_, at) => {
    const row = Math.floor(at / l);
    return row * l + ((at - row * l - spans[row]!.start + l) % l);
  });
}

function toFront(
  what: string,
  values: Tensor,
  spans: readonly { start: number; length: number }[],
  l: number,
): Tensor {
  if (!values.host || sizeOf(values.shape) !== spans.length * l) {
    throw new DTypeError(
      `forward: expected ${what} (${spans.length}, ${l}) made with Tensor.from(Int32Array) under a mask, got ${values.toString()}.`,
    );
  }
  const host = new Int32Array(values.size);
  for (const [row, { start, length }] of spans.entries()) {
    host.set(values.host.subarray(row * l + start, row * l + start + length), row * l);
  }
  return Tensor.from(host, values.shape, { device: values.device });
}

function tensorRows(mask: Tensor): Int32Array[] {
  if (!mask.host || mask.shape.length !== 2) {
    throw new ShapeError(
      `attentionMask: expected rows of 0 and 1 or (b, l) made with Tensor.from(Int32Array), got ${mask.toString()}.`,
    );
  }
  const [b, l] = mask.dims(2);
  return Array.from({ length: b }, (_, row) => mask.host!.subarray(row * l, (row + 1) * l));
}

function lengthsOf(given: readonly number[] | Int32Array, b: number, l: number): number[] {
  const lengths = [...given];
  if (lengths.length !== b || lengths.some((n) => !Number.isInteger(n) || n < 0 || n > l)) {
    throw new ShapeError(`forward: expected ${b} lengths in [0, ${l}], got [${lengths.join(', ')}].`);
  }
  return lengths;
}

/** Host rows to an i32 tensor (b, l), padded with 0; `widths` are the ids given per row. */
function packIds(ids: Ids, device: Tensor['device']): { input: Tensor; widths: number[] } {
  if (ids instanceof Tensor) {
    if (ids.dtype !== 'i32') throw new DTypeError(`forward: expected i32 ids, got ${ids.dtype}.`);
    const [b, l] = ids.dims(2);
    return { input: ids, widths: new Array<number>(b).fill(l) };
  }
  if (ids.length === 0 || !ids.every((row) => typeof row === 'object')) {
    const got = ids.length === 0 ? 'none' : 'ids without rows';
    throw new ShapeError(
      `forward: expected rows of ids such as [[1, 2, 3]], got ${got}. Wrap a single row in a list.`,
    );
  }
  const widths = ids.map((row) => row.length);
  const l = Math.max(...widths);
  const host = new Int32Array(sizeOf([ids.length, l]));
  ids.forEach((row, i) => {
    row.forEach((id, t) => {
      if (!Number.isInteger(id))
        throw new DTypeError(`forward: expected integer ids, got ${id} in row ${i}.`);
      host[i * l + t] = id;
      // The 32 bits of a larger number would be another id.
      if (host[i * l + t] !== id)
        throw new ShapeError(`forward: expected ids in the vocabulary, got ${id} in row ${i}.`);
    });
  });
  return { input: Tensor.from(host, [ids.length, l], { device }), widths };
}

/** Rows as long as the ids' (or l, or the row's length), padded with 0: padding is no document's. */
function packSequenceIds(
  rows: readonly (readonly number[])[],
  sizes: readonly (readonly number[])[],
  b: number,
  l: number,
  device: Tensor['device'],
): Tensor {
  const host = new Int32Array(b * l);
  const isFit = (row: readonly number[], i: number) =>
    row.length === l || sizes.some((size) => row.length === size[i]);
  if (rows.length !== b || !rows.every(isFit)) {
    const got = rows.map((row) => row.length).join(', ');
    throw new ShapeError(
      `forward: expected a sequence id for each token of ${b} rows, got rows of [${got}]. Give one per id.`,
    );
  }
  rows.forEach((row, i) => {
    host.set(row, i * l);
  });
  return Tensor.from(host, [b, l], { device });
}

/**
 * The same documents under numbers that do not come again: a convolution takes equal numbers within its width
 * for one document, also across a short one between them.
 */
function numbered(ids: Tensor): Tensor {
  const { host, shape } = ids;
  if (!host || shape.length !== 2) return ids;
  let document = 0;
  const own = Int32Array.from(host, (id, at) => {
    if (at % shape[1]! > 0 && id !== host[at - 1]) document++;
    return document;
  });
  return Tensor.from(own, shape, { device: ids.device });
}
