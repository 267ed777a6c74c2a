/**
 * Batches for training a language model: windows of tokens and the tokens that follow. Everything
 * is decided by the data, the options and a seeded stream; `state()` is plain JSON and
 * `restore()` continues bit for bit.
 *
 * Documents: where the data has several, rows carry `sequenceIds`, and the target behind the last token of a
 * document is ignored, so nothing is learned or carried across.
 */
import { ConfigError, StateError } from '../base/errors.ts';
import { Rng, type RngState } from '../base/rng.ts';
import { checkWindow, type TokenData } from './data-tokens.ts';

/** The target that no loss counts. */
export const IGNORE_INDEX = -100;

export interface Batch {
  readonly batch: number;
  readonly length: number;
  /** (b, l) row-major. */
  readonly inputs: Int32Array;
  /** (b, l): the token after each input, or IGNORE_INDEX. */
  readonly targets: Int32Array;
  /** (b, l): the number of the document within the row, from 0. Absent if the data is one document. */
  readonly sequenceIds?: Int32Array;
  /** Per row: whether it starts from a zero state. Absent if every row of every batch does. */
  readonly resets?: boolean[];
}

/** A position in the data, plain JSON. */
export type BatchPosition = {
  kind: string;
  /** The fingerprint of the token data. */
  data: string;
  batch: number;
  length: number;
  position: number[];
};

export interface BatchStream<B = Batch> {
  /** The next batch; never ends. */
  next(): Promise<B>;
  state(): BatchPosition;
  /** Throws StateError if the position belongs to other data or options. */
  restore(state: BatchPosition): void;
}

export interface BatchOptions {
  tokens: TokenData;
  batch: number;
  /** Inputs per row. */
  length: number;
}

/**
 * Windows that start anywhere, drawn with replacement. Throws ConfigError if the
 * data is not longer than a window.
 */
export function randomWindows(options: BatchOptions & { rng: Rng }): BatchStream {
  const { tokens, batch, length } = options;
  checkWindow('randomWindows', tokens, length, batch);
  let rng = new Rng(options.rng.state);
  return {
    async next() {
      const out = emptyBatch(tokens, batch, length);
      for (let row = 0; row < batch; row++)
        await fillRow(out, row, tokens, rng.below(tokens.length - length));
      return out;
    },
    ...positionOf('random', options, {
      save: () => rng.state,
      load: (position) => {
        rng = new Rng(position as RngState);
      },
    }),
  };
}

/**
 * Rows that each read on where they stopped, for training with a carried state (truncated BPTT). Row i
 * starts at i / batch of the data and runs to its end, then again from its beginning. `resets[i]` tells
 * that row i does not continue: in the first batch, after the end, and where a document begins. The last
 * tokens of the data that do not fill a window are skipped. Throws ConfigError unless the data gives
 * every row a window of its own.
 */
export function contiguousStreams(options: BatchOptions): BatchStream {
  const { tokens, batch, length } = options;
  checkWindow('contiguousStreams', tokens, length, batch);
  if (tokens.length <= batch * length) {
    throw new ConfigError(
      `contiguousStreams: expected more than ${batch} x ${length} tokens, got ${tokens.length} in ${tokens.name}. ` +
        'Give more text, a smaller batch or a shorter length.',
    );
  }
  let starts = Array.from({ length: batch }, (_, row) => Math.floor((row * tokens.length) / batch));
  let continues = 0; // 0 before the first batch, then 1
  return {
    async next() {
      const out = {
        ...emptyBatch(tokens, batch, length),
        resets: new Array<boolean>(batch).fill(continues === 0),
      };
      for (let row = 0; row < batch; row++) {
        if (starts[row]! + length >= tokens.length) starts[row] = 0;
        const start = starts[row]!;
        if (start === 0 || (await beginsDocument(tokens, start))) out.resets[row] = true;
        await fillRow(out, row, tokens, start);
      }
      starts = starts.map((start) => start + length);
      continues = 1;
      return out;
    },
    ...positionOf('streams', options, {
      save: () => [continues, ...starts],
      load: (position) => {
        [continues, ...starts] = position as [number, ...number[]];
      },
    }),
  };
}

async function beginsDocument(tokens: TokenData, position: number): Promise<boolean> {
  return tokens.severalDocuments && (await tokens.documentStarts(position, position + 1)).length > 0;
}

/** The two methods every stream has, around a list of numbers. */
export function positionOf(
  kind: string,
  { tokens, batch, length }: Omit<BatchOptions, 'tokens'> & { tokens: Pick<TokenData, 'fingerprint'> },
  own: { save(): number[]; load(position: number[]): void },
): Pick<BatchStream<unknown>, 'state' | 'restore'> {
  const identity = { kind, data: tokens.fingerprint, batch, length };
  return {
    state: () => ({ ...identity, position: [...own.save()] }),
    restore(state) {
      for (const key of ['kind', 'data', 'batch', 'length'] as const) {
        if (state[key] === identity[key]) continue;
        throw new StateError(
          `restore: expected a position in the same data, ${key} = ${identity[key]}, got ${state[key]}. ` +
            'Resume with the data and options of the first run.',
        );
      }
      own.load([...state.position]);
    },
  };
}

/** Inputs 0, targets ignored: what fillRow leaves untouched is padding. */
export function emptyBatch(tokens: TokenData, batch: number, length: number): Batch {
  return {
    batch,
    length,
    inputs: new Int32Array(batch * length),
    targets: new Int32Array(batch * length).fill(IGNORE_INDEX),
    ...(tokens.severalDocuments ? { sequenceIds: new Int32Array(batch * length) } : {}),
  };
}

/** Fills a row with `count` inputs from `start` on; reads one token more for the last target. */
export async function fillRow(
  out: Batch,
  row: number,
  tokens: TokenData,
  start: number,
  count = out.length,
): Promise<void> {
  const ids = await tokens.read(start, start + count + 1);
  const first = row * out.length;
  out.inputs.set(ids.subarray(0, count), first);
  out.targets.set(ids.subarray(1), first);
  if (out.sequenceIds === undefined) return;
  let number = 0;
  for (const position of await tokens.documentStarts(start + 1, start + count + 1)) {
    const at = position - start;
    out.targets[first + at - 1] = IGNORE_INDEX;
    out.sequenceIds.fill(++number, first + at, first + out.length);
  }
}
