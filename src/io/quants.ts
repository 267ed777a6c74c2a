/**
 * The element types of GGUF and how their blocks become float32. A row consists of whole blocks; every block
 * stands for itself. Each layout is drawn in bytes, where `d`, `m` are float16 and `lo`, `hi` the two halves
 * of a byte. Products and sums are taken in double precision and rounded once, which gives the bits of
 * ggml's float32 code: a float16 times the small integers of a block is exact in float32 already. Source of
 * the layouts: ggml, ggml-common.h.
 */
import { decodeQ4, decodeQ8, half } from '../base/blocks.ts';
import { widen } from '../base/dtype.ts';
import { dequantQ2K, dequantQ3K, dequantQ4K, dequantQ5K, dequantQ6K } from './quants-k.ts';

/** Writes the elements of one block, which starts at byte `at`, to `out` from index `to`. */
type Block = (bytes: Uint8Array, at: number, out: Float32Array, to: number) => void;

export interface GgmlType {
  readonly name: string;
  /** Elements and bytes of one block. */
  readonly block: number;
  readonly bytes: number;
  /**
   * Whole blocks to float32; `out` holds as many elements. Absent where this library cannot read the type.
   */
  readonly dequantise?: (bytes: Uint8Array, out: Float32Array<ArrayBuffer>) => void;
}

function blocks(name: string, block: number, bytes: number, read: Block): GgmlType {
  return {
    name,
    block,
    bytes,
    dequantise: (data, out) => {
      for (let at = 0, to = 0; at < data.length; at += bytes, to += block) read(data, at, out, to);
    },
  };
}

/** The bytes in a buffer of their own, where a typed array of wider elements may look at them. */
export function aligned(bytes: Uint8Array): ArrayBufferLike {
  return bytes.byteLength === bytes.buffer.byteLength ? bytes.buffer : bytes.slice().buffer;
}

/** | d:2 | m:2 | q:16 |  nibbles as in Q4_0;  y = d q + m */
const q4_1: Block = (bytes, at, out, to) => {
  const d = half(bytes, at);
  const m = half(bytes, at + 2);
  for (let i = 0; i < 16; i++) {
    const q = bytes[at + 4 + i]!;
    out[to + i] = d * (q & 15) + m;
    out[to + i + 16] = d * (q >> 4) + m;
  }
};

/** | d:2 | h:4 | q:16 |  nibbles as in Q4_0, bit i of h is the fifth bit of element i;  y = d (q - 16) */
const q5_0: Block = (bytes, at, out, to) => fiveBits(bytes, at + 2, half(bytes, at), -16, -0, out, to); // adding -0 keeps every bit

/** | d:2 | m:2 | h:4 | q:16 |  as Q5_0;  y = d q + m */
const q5_1: Block = (bytes, at, out, to) =>
  fiveBits(bytes, at + 4, half(bytes, at), 0, half(bytes, at + 2), out, to);

function fiveBits(
  bytes: Uint8Array,
  at: number,
  d: number,
  zero: number,
  m: number,
  out: Float32Array,
  to: number,
): void {
  const h = bytes[at]! | (bytes[at + 1]! << 8) | (bytes[at + 2]! << 16) | (bytes[at + 3]! << 24);
  for (let i = 0; i < 16; i++) {
    const q = bytes[at + 4 + i]!;
    out[to + i] = d * (((q & 15) | (((h >>> i) & 1) << 4)) + zero) + m;
    out[to + i + 16] = d * (((q >> 4) | (((h >>> (i + 16)) & 1) << 4)) + zero) + m;
  }
}

/** The levels of IQ4_NL: denser around zero. */
const LEVELS = Int8Array.of(-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113);

/** | d:2 | q:16 |  nibbles as in Q4_0;  y = d LEVELS[q] */
const iq4nl: Block = (bytes, at, out, to) => {
  const d = half(bytes, at);
  for (let i = 0; i < 16; i++) {
    const q = bytes[at + 2 + i]!;
    out[to + i] = d * LEVELS[q & 15]!;
    out[to + i + 16] = d * LEVELS[q >> 4]!;
  }
};

/** By the number in the file. Types that stand here with a size only can be listed and skipped, not read. */
export const GGML_TYPES: ReadonlyMap<number, GgmlType> = new Map<number, GgmlType>([
  [0, { name: 'F32', block: 1, bytes: 4, dequantise: (b, out) => out.set(new Float32Array(aligned(b))) }],
  [
    1,
    {
      name: 'F16',
      block: 1,
      bytes: 2,
      dequantise: (b, out) => widen(new Uint16Array(aligned(b)), 'f16', out),
    },
  ],
  [2, blocks('Q4_0', 32, 18, decodeQ4)],
  [3, blocks('Q4_1', 32, 20, q4_1)],
  [6, blocks('Q5_0', 32, 22, q5_0)],
  [7, blocks('Q5_1', 32, 24, q5_1)],
  [8, blocks('Q8_0', 32, 34, decodeQ8)],
  [10, blocks('Q2_K', 256, 84, dequantQ2K)],
  [11, blocks('Q3_K', 256, 110, dequantQ3K)],
  [12, blocks('Q4_K', 256, 144, dequantQ4K)],
  [13, blocks('Q5_K', 256, 176, dequantQ5K)],
  [14, blocks('Q6_K', 256, 210, dequantQ6K)],
  [16, { name: 'IQ2_XXS', block: 256, bytes: 66 }],
  [17, { name: 'IQ2_XS', block: 256, bytes: 74 }],
  [18, { name: 'IQ3_XXS', block: 256, bytes: 98 }],
  [19, { name: 'IQ1_S', block: 256, bytes: 50 }],
  [20, blocks('IQ4_NL', 32, 18, iq4nl)],
  [21, { name: 'IQ3_S', block: 256, bytes: 110 }],
  [22, { name: 'IQ2_S', block: 256, bytes: 82 }],
  [23, { name: 'IQ4_XS', block: 256, bytes: 136 }],
  [24, { name: 'I8', block: 1, bytes: 1 }],
  [25, { name: 'I16', block: 1, bytes: 2 }],
  [26, { name: 'I32', block: 1, bytes: 4 }],
  [27, { name: 'I64', block: 1, bytes: 8 }],
  [28, { name: 'F64', block: 1, bytes: 8 }],
  [29, { name: 'IQ1_M', block: 256, bytes: 56 }],
  [
    30,
    {
      name: 'BF16',
      block: 1,
      bytes: 2,
      dequantise: (b, out) => widen(new Uint16Array(aligned(b)), 'bf16', out),
    },
  ],
  [34, { name: 'TQ1_0', block: 256, bytes: 54 }],
  [35, { name: 'TQ2_0', block: 256, bytes: 66 }],
  [39, { name: 'MXFP4', block: 32, bytes: 17 }],
]);
