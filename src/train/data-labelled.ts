/**
 * Batches of labelled texts. Each epoch sees every text once, in another order; texts of similar length
 * stand together, so that little of a batch is padding. The order of an epoch follows from the seed and its
 * number, so a position is two numbers.
 */
import { ConfigError } from '../base/errors.ts';
import { Rng } from '../base/rng.ts';
import { type BatchStream, positionOf } from './data-batches.ts';

/** A text as the model reads it. */
export interface LabelledText {
  ids: Int32Array;
  /** The number of its class. */
  label: number;
}

/** Batches that are sorted by length together: enough to save padding, few enough to stay random. */
const POOL_BATCHES = 32;

export interface LabelledOptions {
  texts: readonly LabelledText[];
  batch: number;
  seed: number;
}

/** Never ends. Throws ConfigError without texts. The position belongs to these texts, batch and seed. */
export function labelledBatches({ texts, batch, seed }: LabelledOptions): BatchStream<LabelledText[]> {
  if (texts.length === 0)
    throw new ConfigError('labelledBatches: expected at least one text, got none. Give more data.');
  const perEpoch = batchesPerEpoch(texts.length, batch);
  let next = 0; // batches given so far
  let epoch = -1;
  let order: number[][] = [];
  return {
    async next() {
      const wanted = Math.floor(next / perEpoch);
      if (wanted !== epoch) {
        epoch = wanted;
        order = epochOrder(texts, batch, new Rng(seed).fork(`epoch ${epoch}`));
      }
      const rows = order[next % perEpoch]!;
      next++;
      return rows.map((i) => texts[i]!);
    },
    ...positionOf(
      'labelled',
      { tokens: { fingerprint: fingerprintOf(texts, seed) }, batch, length: 0 },
      {
        save: () => [next],
        load: ([at]) => {
          next = at!;
        },
      },
    ),
  };
}

export function batchesPerEpoch(texts: number, batch: number): number {
  return Math.ceil(texts / batch);
}

/** The texts of each batch. The last batch of the shuffled texts may be smaller. */
function epochOrder(texts: readonly LabelledText[], batch: number, rng: Rng): number[][] {
  const order = shuffle(
    texts.map((_, i) => i),
    rng,
  );
  const batches: number[][] = [];
  for (let from = 0; from < order.length; from += batch * POOL_BATCHES) {
    const pool = order.slice(from, from + batch * POOL_BATCHES);
    pool.sort((a, b) => texts[b]!.ids.length - texts[a]!.ids.length || a - b);
    for (let at = 0; at < pool.length; at += batch) batches.push(pool.slice(at, at + batch));
  }
  return shuffle(batches, rng);
}

/** Fisher and Yates, in place. */
function shuffle<T>(items: T[], rng: Rng): T[] {
  for (let i = items.length - 1; i > 0; i--) {
    const j = rng.below(i + 1);
    [items[i], items[j]] = [items[j]!, items[i]!];
  }
  return items;
}

/** Differs when a text, a label, the order or the seed differs. */
function fingerprintOf(texts: readonly LabelledText[], seed: number): string {
  let hash = 0x811c9dc5;
  const mix = (value: number): void => {
    hash = Math.imul(hash ^ value, 0x01000193);
  };
  for (const { ids, label } of texts) {
    mix(label);
    mix(ids.length);
    for (const id of ids) mix(id);
  }
  return `labelled-${texts.length}-${(hash >>> 0).toString(16)}-${seed}`;
}
