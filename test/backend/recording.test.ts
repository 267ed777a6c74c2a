/**
 * Recordings on every device: replays equal the calls, what they own, and when they are no longer current.
 */
import { describe, expect, it } from 'vitest';
import type { Backend, BufferRef, Storage } from '../../src/backend/backend.ts';
import { kernelOf } from '../../src/backend/backend.ts';
import { UNARY } from '../../src/backend/kernels.ts';
import { StateError } from '../../src/base/errors.ts';
import { devices, reportMissing } from '../kernels/devices.ts';

reportMissing();

describe.each(devices)('Backend.record on $label', ({ backend }) => {
  const COUNT = 5;
  const device: Backend = backend;
  const make = (): BufferRef => ({ storage: device.alloc(4 * COUNT), offset: 0 });
  const floats = (...values: number[]) => Float32Array.from({ length: COUNT }, (_, i) => values[i] ?? 0);
  const upload = (...values: number[]): BufferRef => {
    const ref = make();
    device.write(ref, 'f32', floats(...values));
    return ref;
  };
  const read = async (ref: BufferRef) => Array.from(await device.read(ref, 'f32', COUNT));
  const free = (...refs: BufferRef[]) => {
    for (const { storage } of refs) device.free(storage);
  };
  const unary = (name: (typeof UNARY)[number], x: BufferRef): BufferRef => {
    const y = make();
    kernelOf(device, 'unary')({ op: UNARY.indexOf(name), x, y, count: COUNT });
    return y;
  };
  const add = (x: BufferRef, y: BufferRef) => kernelOf(device, 'axpy')({ x, y, alpha: 1, count: COUNT });
  const live = () => device.memory.liveBytes;

  it('runs the kernels again over what the varying buffers hold then', async () => {
    const before = live();
    const x = upload(1, 2, 3);
    const { result: y, recording } = device.record([x.storage], () => {
      const square = unary('square', x);
      const y = unary('neg', square);
      free(square);
      return y;
    });
    expect(await read(y)).toEqual([-1, -4, -9, -0, -0]);
    device.write(x, 'f32', floats(5, -6));
    recording.replay();
    expect(await read(y)).toEqual([-25, -36, -0, -0, -0]);
    expect(recording.isCurrent).toBe(true);
    recording.dispose();
    free(x, y);
    expect(live()).toBe(before);
  });

  it('hands out a freed buffer again inside, and to nobody else before it ends', async () => {
    const x = upload(2);
    const made = new Set<Storage>();
    const { result: y, recording } = device.record([x.storage], () => {
      let last = unary('abs', x);
      for (let i = 0; i < 20; i++) {
        const next = unary('neg', last);
        made.add(next.storage);
        free(last);
        last = next;
      }
      return last;
    });
    expect(made.size).toBeLessThan(4);
    const others = Array.from({ length: 8 }, () => upload(7, 7, 7, 7, 7));
    device.write(x, 'f32', floats(3));
    recording.replay();
    expect(await read(y)).toEqual([3, 0, 0, 0, 0]);
    for (const other of others) expect(await read(other)).toEqual([7, 7, 7, 7, 7]);
    recording.dispose();
    free(x, y, ...others);
  });

  it('gives back what it owns when it ends, whether its results were freed before or are after', () => {
    const x = upload(1);
    const before = live();
    for (const isFreedFirst of [true, false]) {
      const { result: y, recording } = device.record([x.storage], () => unary('neg', x));
      if (isFreedFirst) free(y);
      expect(live()).toBeGreaterThan(before);
      recording.dispose();
      if (!isFreedFirst) free(y);
      expect(live()).toBe(before);
    }
    free(x);
  });

  it('computes once what does not vary, and keeps it apart from what does', async () => {
    const [weight, x] = [upload(3, 3, 3), upload(1, 2, 3)];
    const { result: y, recording } = device.record([x.storage], () => {
      const scale = unary('square', weight);
      const factor = unary('neg', scale);
      free(scale);
      const y = unary('abs', x); // may not lie where `scale` was
      const scratch = unary('neg', y);
      free(scratch);
      const late = unary('abs', factor); // may lie where `scratch` was, which every replay overwrites
      add(factor, y);
      add(late, y);
      free(factor, late);
      return y;
    });
    for (const values of [
      [1, 2, 3],
      [-4, 5, 6],
    ]) {
      device.write(x, 'f32', floats(...values));
      recording.replay();
      expect(await read(y)).toEqual(Array.from(floats(...values.map(Math.abs))));
    }
    recording.dispose();
    free(weight, x, y);
  });

  it('host data is written once and stays, wherever it lands', async () => {
    const x = upload(1);
    const { result, recording } = device.record([x.storage], () => {
      const fresh = upload(10, 20, 30, 40, 50);
      const scratch = unary('neg', x);
      free(scratch);
      const again = upload(1, 1, 1, 1, 1); // where `scratch` was
      const y = unary('square', x);
      add(fresh, y);
      add(again, y);
      free(fresh, again);
      return { y, same: again.storage === scratch.storage };
    });
    expect(await read(result.y)).toEqual([12, 21, 31, 41, 51]);
    for (const value of [2, 3]) {
      device.write(x, 'f32', floats(value));
      recording.replay();
      expect(await read(result.y)).toEqual([11 + value * value, 21, 31, 41, 51]);
    }
    recording.dispose();
    free(x, result.y);
  });

  it('exchanges pairs of buffers, there and back', async () => {
    const a = upload(1, 2);
    const { result: b, recording } = device.record([a.storage], () => {
      const b = unary('square', a);
      add(a, b);
      return b;
    });
    const back = recording.exchanged([[a.storage, b.storage]]);
    back();
    expect(await read(b)).toEqual([2, 6, 0, 0, 0]);
    expect(await read(a)).toEqual([6, 42, 0, 0, 0]);
    recording.replay();
    expect(await read(b)).toEqual([42, 42 * 43, 0, 0, 0]);
    const large = device.alloc(4096);
    expect(() => recording.exchanged([[a.storage, large]])).toThrow('one size');
    recording.dispose();
    expect(back).toThrow(StateError);
    free(a, b);
    device.free(large);
  });

  it('works in place where kernels can, and copies elsewhere', async () => {
    const flags = { b: 1, l: 1, e: COUNT, k: 1, silu: 0, cut1: COUNT, cut2: COUNT };
    const sequence = { bias: null, sequenceIds: null, lengths: null };
    const [x, weight, window, total] = [upload(1, 2), upload(1, 1, 1, 1, 1), upload(), upload(10)];
    const { result, recording } = device.record(
      [x, window, total].map(({ storage }) => storage),
      () => {
        const [y, windowOut, next] = [make(), make(), make()];
        kernelOf(device, 'causalConv')({ x, weight, window, y, windowOut, ...sequence, ...flags });
        kernelOf(device, 'affine')({ x: total, y: next, scale: 1, shift: 0, count: COUNT });
        add(windowOut, next);
        return { y, windowOut, next };
      },
    );
    const { y, windowOut, next } = result;
    const run = recording.inPlace([
      [window.storage, windowOut.storage],
      [total.storage, next.storage],
    ]);
    for (let step = 1; step <= 3; step++) {
      device.write(x, 'f32', floats(step, 5));
      run();
      expect(await read(window)).toEqual([step, 5, 0, 0, 0]);
      expect((await read(total)).slice(0, 2)).toEqual([10 + (step * (step + 1)) / 2, 5 * step]);
    }
    recording.dispose();
    free(x, weight, window, total, y, windowOut, next);
  });

  it.each<[string, (weight: BufferRef) => void]>([
    ['a kernel', (weight) => add(weight, weight)],
    ['the host', (weight) => device.write(weight, 'f32', floats(9))],
    ['free', (weight) => free(weight)],
  ])('is no longer current when a buffer that it read is changed by %s', (by, change) => {
    const [weight, x] = [upload(3), upload(1)];
    const { result: y, recording } = device.record([x.storage], () => {
      const y = unary('square', x);
      add(weight, y);
      return y;
    });
    device.write(x, 'f32', floats(2));
    recording.replay();
    change(weight);
    expect(recording.isCurrent).toBe(false);
    expect(() => recording.replay()).toThrow('Record again');
    recording.dispose();
    free(x, y, ...(by === 'free' ? [] : [weight]));
  });

  it('an error inside leaves the pool as it was, and the device ready', async () => {
    const x = upload(4);
    const before = live();
    expect(() =>
      device.record([x.storage], () => {
        free(unary('sqrt', x));
        throw new Error('half way');
      }),
    ).toThrow('half way');
    expect(live()).toBe(before);
    await expect(read(x)).resolves.toEqual([2 * 2, 0, 0, 0, 0]);
    free(x);
  });

  it('refuses to read, and to begin another recording, inside', async () => {
    const x = upload(1);
    let reading: Promise<unknown> = Promise.resolve();
    const { recording } = device.record([x.storage], () => {
      reading = device.read(x, 'f32', 1);
      reading.catch(() => {});
      expect(() => device.record([], () => {})).toThrow('expected no recording');
    });
    await expect(reading).rejects.toThrow(StateError);
    recording.dispose();
    free(x);
  });
});
