/**
 * Packed windows: the documents one after another, cut into windows, each window once per epoch in
 * shuffled order. The shuffle is a keyed permutation computed number by number, so it needs no
 * memory and resumes from its key.
 */
import { Rng, type RngState } from '../base/rng.ts';
import { type BatchOptions, type BatchStream, emptyBatch, fillRow, positionOf } from './data-batches.ts';
import { checkWindow } from './data-tokens.ts';

/**
 * Goes through the data epoch by epoch. Each epoch shifts the grid of windows by a random offset below
 * `length`; what does not fill a window at either end (fewer than 2 * length tokens) is left out of that
 * epoch. A batch may span two epochs. Throws ConfigError if the data is not longer than a window.
 */
export function packedWindows(options: BatchOptions & { rng: Rng }): BatchStream {
  const { tokens, batch, length } = options;
  checkWindow('packedWindows', tokens, length, batch);
  let key: RngState = options.rng.state; // of the current epoch
  let done = 0; // windows of the current epoch
  let epoch = planEpoch(key, tokens.length, length);
  return {
    async next() {
      const out = emptyBatch(tokens, batch, length);
      for (let row = 0; row < batch; row++) {
        if (done === epoch.count) {
          key = epoch.nextKey;
          done = 0;
          epoch = planEpoch(key, tokens.length, length);
        }
        await fillRow(out, row, tokens, epoch.offset + epoch.order(done++) * length);
      }
      return out;
    },
    ...positionOf('packed', options, {
      save: () => [done, ...key],
      load: (position) => {
        done = position[0]!;
        key = position.slice(1) as RngState;
        epoch = planEpoch(key, tokens.length, length);
      },
    }),
  };
}

function planEpoch(key: RngState, tokenCount: number, length: number) {
  const rng = new Rng(key);
  const offset = rng.below(Math.min(length, tokenCount - length));
  const count = Math.floor((tokenCount - 1 - offset) / length);
  return { offset, count, order: permutation(count, rng), nextKey: rng.state };
}

const ROUNDS = 6;

/**
 * A permutation of 0..count-1: a Feistel network over the next even power of two, walked until it lands
 * inside. Source: J. Black, P. Rogaway, "Ciphers with Arbitrary Finite Domains" (2002).
 */
export function permutation(count: number, rng: Rng): (index: number) => number {
  let half = 1; // 2^bits of one half
  while (half * half < count) half *= 2;
  const keys = Array.from({ length: ROUNDS }, () => rng.uint32());
  const mix = (value: number, key: number): number => {
    let x = Math.imul(value ^ key, 0x85ebca6b);
    x = Math.imul(x ^ (x >>> 13), 0xc2b2ae35);
    return ((x ^ (x >>> 16)) >>> 0) % half;
  };
  return (index) => {
    let x = index;
    do {
      let left = Math.floor(x / half);
      let right = x % half;
      for (const key of keys) [left, right] = [right, (left ^ mix(right, key)) >>> 0];
      x = left * half + right;
    } while (x >= count);
    return x;
  };
}
