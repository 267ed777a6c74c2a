import { describe, expect, it } from 'vitest';
import { kernelOf } from '../../src/backend/backend.ts';
import { copy } from './cases/copy.ts';
import { checkKernels } from './check.ts';
import { devices } from './devices.ts';

checkKernels(['copy', 'scatter', 'gatherRows', 'scatterAddRows'], copy);

describe.each(devices)('$label', ({ backend }) => {
  it('copy and scatter move every bit pattern, of ints and of signalling NaN', async () => {
    const values = Int32Array.of(0x7fa00001, -1, 0x7f800000, 1, -2147483648, 0x7fc12345);
    const [x, y, z] = [0, 1, 2].map(() => ({ storage: backend.alloc(values.byteLength), offset: 0 }));
    backend.write(x!, 'i32', values);
    const layout = { d0: 1, d1: 1, d2: 1, d3: 1, d4: 2, d5: 3, s0: 0, s1: 0, s2: 0, s3: 0, s4: 1, s5: 2 };
    kernelOf(backend, 'copy')({ x: x!, y: y!, ...layout });
    expect(Array.from(await backend.read(y!, 'i32', 6))).toEqual([0, 2, 4, 1, 3, 5].map((i) => values[i]));
    kernelOf(backend, 'scatter')({ x: y!, y: z!, ...layout, accumulate: 0 });
    expect(Array.from(await backend.read(z!, 'i32', 6))).toEqual(Array.from(values));
    for (const { storage } of [x!, y!, z!]) backend.free(storage);
  });
});
