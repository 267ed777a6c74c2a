/**
 * The K-quants of ggml: 256 elements in parts of 16 or 32, whose scales (and minima) are small
 * integers times one float16 of the block. Layouts in bytes, `lo` and `hi` being the halves of
 * a byte. Source: ggml-common.h.
 */
import { half } from '../base/blocks.ts';

/**
 * | s:16 | q:64 | d:2 | m:2 |, 16 parts of 16: lo of s[p] is the scale, hi the
 * minimum of part p; y = d lo q - m hi
 * Two bits per element: each half of 128 elements has 32 bytes, whose bit pairs 0..3 are its four runs of 32.
 */
export function dequantQ2K(bytes: Uint8Array, at: number, out: Float32Array, to: number): void {
  const d = half(bytes, at + 80);
  const m = half(bytes, at + 82);
  for (let i = 0; i < 256; i++) {
    const s = bytes[at + (i >> 4)]!;
    out[to + i] = d * (s & 15) * twoBits(bytes, at + 16, i) - m * (s >> 4);
  }
}

/**
 * | h:32 | q:64 | s:12 | d:2 |, 16 parts of 16;  y = d (scale - 32) (q - 4 where the high bit is clear)
 * q as in Q2_K; the high bit of element i is bit i / 32 of h[i % 32]. Scales have six bits: the low four of
 * part p are lo of s[p] (p < 8) or hi of s[p - 8], the high two are bit pair p / 4 of s[8 + p % 4].
 */
export function dequantQ3K(bytes: Uint8Array, at: number, out: Float32Array, to: number): void {
  const d = half(bytes, at + 108);
  for (let p = 0; p < 16; p++) {
    const s = at + 96;
    const low = p < 8 ? bytes[s + p]! & 15 : bytes[s + p - 8]! >> 4;
    const high = (bytes[s + 8 + (p & 3)]! >> (2 * (p >> 2))) & 3;
    const scale = d * ((low | (high << 4)) - 32);
    for (let i = 16 * p; i < 16 * p + 16; i++) {
      const bit = (bytes[at + (i & 31)]! >> (i >> 5)) & 1;
      out[to + i] = scale * (twoBits(bytes, at + 32, i) - (bit ? 0 : 4));
    }
  }
}

function twoBits(bytes: Uint8Array, q: number, i: number): number {
  return (bytes[q + 32 * (i >> 7) + (i & 31)]! >> (2 * ((i >> 5) & 3))) & 3;
}

/**
 * | d:2 | m:2 | s:12 | q:128 |, 8 parts of 32;  y = d scale q - m minimum
 * Each 32 bytes of q are two parts: lo the even one, hi the odd one. Scales: see sixBits.
 */
export function dequantQ4K(bytes: Uint8Array, at: number, out: Float32Array, to: number): void {
  const [d, m] = [half(bytes, at), half(bytes, at + 2)];
  for (let p = 0; p < 8; p++) {
    const scale = d * sixBits(bytes, at + 4, p, 0);
    const minimum = m * sixBits(bytes, at + 4, p, 4);
    for (let i = 0; i < 32; i++) {
      const q = bytes[at + 16 + 32 * (p >> 1) + i]!;
      out[to + 32 * p + i] = scale * (p & 1 ? q >> 4 : q & 15) - minimum;
    }
  }
}

/**
 * | d:2 | m:2 | s:12 | h:32 | q:128 |, as Q4_K with a fifth bit: that of
 * element i of part p is bit p of h[i].
 */
export function dequantQ5K(bytes: Uint8Array, at: number, out: Float32Array, to: number): void {
  const [d, m] = [half(bytes, at), half(bytes, at + 2)];
  for (let p = 0; p < 8; p++) {
    const scale = d * sixBits(bytes, at + 4, p, 0);
    const minimum = m * sixBits(bytes, at + 4, p, 4);
    for (let i = 0; i < 32; i++) {
      const q = bytes[at + 48 + 32 * (p >> 1) + i]!;
      const high = ((bytes[at + 16 + i]! >> p) & 1) << 4;
      out[to + 32 * p + i] = scale * ((p & 1 ? q >> 4 : q & 15) | high) - minimum;
    }
  }
}

/**
 * Eight scales (`kind` 0) and eight minima (`kind` 4) of six bits in 12 bytes. Those of parts 0..3 are the
 * low six bits of s[p + kind]; parts 4..7 take four bits from s[p + 4] (lo for scales, hi for minima) and the
 * top two bits that s[p - 4 + kind] has left.
 */
function sixBits(bytes: Uint8Array, s: number, p: number, kind: 0 | 4): number {
  if (p < 4) return bytes[s + p + kind]! & 63;
  return ((bytes[s + p + 4]! >> kind) & 15) | ((bytes[s + p - 4 + kind]! >> 6) << 4);
}

/**
 * | l:128 | h:64 | s:16 int8 | d:2 |, 16 parts of 16;  y = d s[p] (q - 32)
 * Each half of 128 elements has 64 bytes of l and 32 of h. Its run r of 32 takes the low four bits from l at
 * 32 (r & 1), lo for r < 2 and hi for the others, and the high two from bit pair r of h.
 */
export function dequantQ6K(bytes: Uint8Array, at: number, out: Float32Array, to: number): void {
  const d = half(bytes, at + 208);
  for (let i = 0; i < 256; i++) {
    const part = i >> 7;
    const r = (i >> 5) & 3;
    const l = bytes[at + 64 * part + 32 * (r & 1) + (i & 31)]!;
    const h = (bytes[at + 128 + 32 * part + (i & 31)]! >> (2 * r)) & 3;
    const scale = (bytes[at + 192 + (i >> 4)]! << 24) >> 24;
    out[to + i] = d * scale * (((r < 2 ? l & 15 : l >> 4) | (h << 4)) - 32);
  }
}
