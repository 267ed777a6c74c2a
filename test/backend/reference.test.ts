/** Buffers of the reference device: pool, life time, dtypes, 64-bit storage. Its kernels: test/kernels. */
import { describe, expect, it } from 'vitest';
import { createReference } from '../../src/backend/reference/index.ts';
import { DTypeError, StateError } from '../../src/base/errors.ts';

const at = (storage: { sizeBytes: number }, offset = 0) => ({ storage, offset });

describe.each(['f32', 'f64'] as const)('reference with %s storage', (storage) => {
  it('reuses freed buffers and counts them', () => {
    const backend = createReference({ storage });
    const first = backend.alloc(100);
    expect(first.sizeBytes).toBeGreaterThanOrEqual(100);
    const other = backend.alloc(1000);
    const two = first.sizeBytes + other.sizeBytes;
    backend.free(first);
    expect(backend.alloc(100)).toBe(first);
    expect(backend.memory).toEqual({ liveBytes: two, peakBytes: two, newBuffers: 2, reservedBytes: two });
    backend.free(first);
    backend.free(other);
    expect(backend.memory).toEqual({ liveBytes: 0, peakBytes: two, newBuffers: 2, reservedBytes: two });
    backend.resetPeak();
    expect(backend.memory.peakBytes).toBe(0);
  });

  it('allows empty buffers', async () => {
    const backend = createReference({ storage });
    expect(await backend.read(at(backend.alloc(0)), 'f32', 0)).toEqual(new Float32Array(0));
  });

  it('fills fresh buffers with NaN, reused ones too', async () => {
    const backend = createReference({ storage });
    for (let i = 0; i < 2; i++) {
      const buffer = backend.alloc(8);
      expect(await backend.read(at(buffer), 'f32', 2)).toEqual(Float32Array.of(Number.NaN, Number.NaN));
      backend.write(at(buffer), 'f32', [1, 2]);
      backend.free(buffer);
    }
  });

  it('refuses freed buffers and those of another device', () => {
    const backend = createReference({ storage });
    const buffer = backend.alloc(4);
    backend.free(buffer);
    expect(() => backend.free(buffer)).toThrow(StateError);
    expect(() => backend.kernels.fill({ y: at(buffer), value: 0, count: 1 })).toThrow(StateError);
    expect(() => backend.kernels.fill({ y: at({ sizeBytes: 4 }), value: 0, count: 1 })).toThrow(StateError);
  });

  it('reads back what was written, from any offset', async () => {
    const backend = createReference({ storage });
    const buffer = backend.alloc(64);
    backend.write(at(buffer, 3), 'f32', [0.5, -1.25, 3e38]);
    expect(await backend.read(at(buffer, 4), 'f32', 2)).toEqual(Float32Array.of(-1.25, 3e38));
    backend.write(at(buffer, 1), 'i32', [7, -8]);
    expect(await backend.read(at(buffer, 1), 'i32', 2)).toEqual(Int32Array.of(7, -8));
    backend.write(at(buffer, 5), 'bf16', Uint16Array.of(0x3f80, 0xffff));
    expect(await backend.read(at(buffer, 5), 'bf16', 2)).toEqual(Uint16Array.of(0x3f80, 0xffff));
    expect(() => backend.write(at(buffer), 'f16', [1.5])).toThrow(DTypeError);
  });
});

it('64-bit storage keeps 64 bits, through kernels too', async () => {
  const backend = createReference({ storage: 'f64' });
  const [x, y] = [at(backend.alloc(8)), at(backend.alloc(8))];
  backend.write(x, 'f32', Float64Array.of(0.1, 1 / 3));
  backend.kernels.affine({ x, y, scale: 2, shift: 0, count: 2 });
  expect(backend.readF64(y, 2)).toEqual(Float64Array.of(0.2, 2 / 3));
  expect(await backend.read(y, 'f32', 2)).toEqual(Float32Array.of(0.2, 2 / 3));
});
