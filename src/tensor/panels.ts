/**
 * Blocks of q8 and q4 tensors between the host, where they lie row by row, and the panels of a device
 * (base/panels.ts).
 */
import { type Backend, type BufferRef, kernelOf } from '../backend/backend.ts';
import { NARROW } from '../backend/kernels.ts';
import { BLOCK, type BlockDType } from '../base/blocks.ts';
import { LAYOUTS } from '../base/dtype.ts';

/** Blocks that cross at a time: what a transfer needs beside the tensor is below a megabyte and a half. */
const PIECE_BLOCKS = 1 << 15;

/** A tensor in panels; d is its last extent. */
export interface PanelTensor {
  readonly device: Backend;
  readonly dtype: BlockDType;
  readonly d: number;
  readonly at: BufferRef;
}

/** [first, count] of each piece of `count` blocks, and a buffer on the device that holds the largest. */
function* pieces({ device, dtype }: PanelTensor, count: number): Generator<[BufferRef, number, number]> {
  const storage = device.alloc(Math.min(PIECE_BLOCKS, count) * LAYOUTS[dtype].bytes);
  try {
    for (let first = 0; first < count; first += PIECE_BLOCKS) {
      yield [{ storage, offset: 0 }, first, Math.min(PIECE_BLOCKS, count - first)];
    }
  } finally {
    device.free(storage);
  }
}

/** Overwrites blocks from block `first` on. */
export function writePanels(tensor: PanelTensor, first: number, blocks: Uint8Array): void {
  const { device, dtype, d, at } = tensor;
  const { bytes } = LAYOUTS[dtype];
  const format = NARROW.indexOf(dtype);
  for (const [x, from, count] of pieces(tensor, blocks.length / bytes)) {
    device.write(x, dtype, blocks.subarray(from * bytes, (from + count) * bytes));
    kernelOf(device, 'pack')({ x, y: at, format, d, first: first + from, count });
  }
}

/** A copy of `count` blocks from block `first` on. */
export async function readPanels(tensor: PanelTensor, first: number, count: number): Promise<Uint8Array> {
  const { device, dtype, d, at } = tensor;
  const { bytes } = LAYOUTS[dtype];
  const format = NARROW.indexOf(dtype);
  const out = new Uint8Array(count * bytes);
  for (const [y, from, some] of pieces(tensor, count)) {
    kernelOf(device, 'unpack')({ x: at, y, format, d, first: first + from, count: some });
    out.set((await device.read(y, dtype, some * BLOCK)) as Uint8Array, from * bytes);
  }
  return out;
}
