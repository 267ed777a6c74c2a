/**
 * What attention keeps between calls, the keys and values of each row's current document in order, and the
 * places of tokens in it. Decided on the host from `past`, `sequenceIds` and `lengths`; the device only moves
 * vectors.
 */
import { expectShape } from '../base/shape.ts';
import { concat, gatherRows, reshape } from '../tensor/primitives.ts';
import * as raw from '../tensor/raw.ts';
import { Tensor, type TensorOptions } from '../tensor/tensor.ts';
import { pastOf } from './attention.ts';
import { checkSequence, hostIds } from './causal-conv.ts';

export interface DocumentOptions {
  /** Tokens of each row's document before token 0, (b); none when omitted. */
  past?: readonly number[] | null;
  /** Document of each token, i32 (b, l). A row's first document is the one that the past belongs to. */
  sequenceIds?: Tensor | null;
  /** Real tokens per row, i32 (b). */
  lengths?: Tensor | null;
}

export interface AppendedKeys {
  /**
   * What attention reads: past and fresh keys of every row, (b, c', h, d). Anything may follow the last real
   * one of a row.
   */
  all: Tensor;
  /** What is kept for the next call: those of the last document, (b, c'', h, d), zeros behind them. */
  kept: Tensor;
}

/**
 * cache (b, c, h, d), of which each row holds `past` keys (null = none), and the fresh ones (b, l, h, d);
 * values go the same way. Differentiable.
 */
export function appendKeys(cache: Tensor | null, fresh: Tensor, options: DocumentOptions = {}): AppendedKeys {
  const op = 'appendKeys';
  const [b, l, h, d] = fresh.dims(4);
  const c = cache ? cache.dims(4)[1] : 0;
  if (cache) expectShape(op, 'cache (b, c, h, d)', cache.shape, [b, c, h, d]);
  checkSequence(op, b, l, options);
  const past = pastOf(op, b, options.past);
  const ends = hostIds('lengths', options.lengths);
  const starts = lastStarts(b, l, options);
  const rows = Array.from({ length: b }, (_, row) => {
    const count = past[row]! + (ends ? ends[row]! : l);
    return { count, from: starts[row]! > 0 ? past[row]! + starts[row]! : 0 };
  });

  let table: Tensor | null = null; // the past, the fresh, and zeros
  const gather = (keys: readonly { from: number; count: number }[]): Tensor => {
    const flat = (x: Tensor) => reshape(x, [x.shape[0]! * x.shape[1]!, h * d]);
    table ??= concat(
      [...(cache ? [flat(cache)] : []), flat(fresh), raw.full([1, h * d], 0, fresh.device)],
      0,
    );
    const zero = b * (c + l);
    const extent = Math.max(0, ...keys.map(({ from, count }) => count - from));
    const places = new Int32Array(b * extent).fill(zero);
    keys.forEach(({ from, count }, row) => {
      for (let j = from; j < count; j++) {
        const t = j - past[row]!;
        places[row * extent + j - from] = t < 0 ? row * c + j : b * c + row * l + t;
      }
    });
    const ids = Tensor.from(places, [b, extent], { device: fresh.device });
    return reshape(gatherRows(table, ids), [b, extent, h, d]);
  };

  let all: Tensor;
  if (!cache || past.every((count) => count === 0)) all = fresh;
  else if (past.every((count) => count === c)) all = concat([cache, fresh], 1);
  else all = gather(rows.map(({ count }) => ({ from: 0, count })));
  const isWhole = rows.every(({ from, count }) => from === 0 && count === all.shape[1]);
  return { all, kept: isWhole ? all : gather(rows) };
}

/** The first token of each row's last document; 0 if no other begins in the row. */
function lastStarts(b: number, l: number, options: DocumentOptions): number[] {
  const ids = hostIds('sequenceIds', options.sequenceIds);
  const ends = hostIds('lengths', options.lengths);
  return Array.from({ length: b }, (_, row) => {
    let t = ids ? (ends ? ends[row]! : l) - 1 : 0;
    while (t > 0 && ids![row * l + t] === ids![row * l + t - 1]) t--;
    return Math.max(0, t);
  });
}

/**
 * Angles of rotary position embeddings (Su et al. 2021) for `rotate`: theta[t, i] = place * base^(-i / s),
 * (b, l, 1, s). A token's place counts within its document, from `past` on in the first of a row. Computed in
 * float64 and taken modulo 2 pi: far places are as exact as near ones.
 */
export function rotaryAngles(
  b: number,
  l: number,
  s: number,
  options: Omit<DocumentOptions, 'lengths'> & { base?: number; device?: TensorOptions['device'] } = {},
): Tensor {
  checkSequence('rotaryAngles', b, l, options);
  const past = pastOf('rotaryAngles', b, options.past);
  const ids = hostIds('sequenceIds', options.sequenceIds);
  const rates = Float64Array.from({ length: s }, (_, i) => (options.base ?? 10_000) ** (-i / s));
  const angles = new Float32Array(b * l * s);
  for (let row = 0; row < b; row++) {
    let place = past[row]!;
    for (let t = 0; t < l; t++, place++) {
      const token = row * l + t;
      if (ids && t > 0 && ids[token] !== ids[token - 1]) place = 0;
      for (let i = 0; i < s; i++) angles[token * s + i] = (place * rates[i]!) % (2 * Math.PI);
    }
  }
  return Tensor.from(angles, [b, l, 1, s], { device: options.device });
}
