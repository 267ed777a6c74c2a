/**
 * Panels: how q8 and q4 tensors lie on a device. In files and host arrays a row is a chain of blocks
 * (blocks.ts); a product wants 16 rows side by side, so that a vector holds a piece of each. A tensor is rows
 * of `d` elements, d its last extent.
 *
 * 16 rows make a panel (the last one is filled up), and the 16 blocks of the same 32 columns lie together:
 * word w (4 bytes) of the quants of row r at byte 64 w + 4 r, behind the quants the 16 scales. The bytes are
 * those of the blocks, in another order.
 */
import { BLOCK, type BlockDType } from './blocks.ts';
import { type DType, LAYOUTS, storageBytes } from './dtype.ts';
import { type Shape, sizeOf } from './shape.ts';

/** Rows of a panel. */
export const PANEL_ROWS = 16;

/** Whether tensors of this type lie in panels. */
export function inPanels(dtype: DType): dtype is BlockDType {
  return dtype === 'q8' || dtype === 'q4';
}

/** Bytes of a tensor on a device. Throws DTypeError where rows are no whole blocks. */
export function deviceBytes(dtype: DType, shape: Shape): number {
  const size = sizeOf(shape);
  if (!inPanels(dtype) || size === 0) return storageBytes(dtype, size);
  const rows = size / shape.at(-1)!;
  return Math.ceil(rows / PANEL_ROWS) * PANEL_ROWS * storageBytes(dtype, shape.at(-1)!);
}

/**
 * Where block `index` of a tensor with rows of `d` elements is, counted row by row: bytes of its first word
 * and of its scale.
 */
function placeOf(size: number, d: number, index: number): [word: number, scale: number] {
  const width = d / BLOCK;
  const row = Math.floor(index / width);
  const [panel, lane] = [Math.floor(row / PANEL_ROWS), row % PANEL_ROWS];
  const start = (panel * width + (index % width)) * PANEL_ROWS * size;
  return [start + 4 * lane, start + (size - 2) * PANEL_ROWS + 2 * lane];
}

/**
 * Puts blocks, of which the first is block `first` of a tensor with rows of `d` elements, into its panels.
 */
export function packPanels(
  dtype: BlockDType,
  d: number,
  first: number,
  blocks: Uint8Array,
  panels: Uint8Array,
): void {
  const size = LAYOUTS[dtype].bytes;
  for (let at = 0; at < blocks.length; at += size) {
    const [word, scale] = placeOf(size, d, first + at / size);
    panels[scale] = blocks[at]!;
    panels[scale + 1] = blocks[at + 1]!;
    for (let i = 0; i < size - 2; i++) panels[word + 64 * (i >> 2) + (i & 3)] = blocks[at + 2 + i]!;
  }
}

/** The other way: fills `blocks` from panels. */
export function unpackPanels(
  dtype: BlockDType,
  d: number,
  first: number,
  panels: Uint8Array,
  blocks: Uint8Array,
): void {
  const size = LAYOUTS[dtype].bytes;
  for (let at = 0; at < blocks.length; at += size) {
    const [word, scale] = placeOf(size, d, first + at / size);
    blocks[at] = panels[scale]!;
    blocks[at + 1] = panels[scale + 1]!;
    for (let i = 0; i < size - 2; i++) blocks[at + 2 + i] = panels[word + 64 * (i >> 2) + (i & 3)]!;
  }
}
