/**
 * Block formats against golden blocks: bytes quantised by ggml itself and random bit patterns, decoded by the Python
 * package gguf 0.19.0 and by ggml's C code, which agreed in every bit. Nothing is tolerated.
 */
import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { FormatError } from '../../src/base/errors.ts';
import { GGML_TYPES } from '../../src/io/quants.ts';
import { convertPiece } from '../../src/io/weight-pieces.ts';

interface Golden {
  bytes: string;
  floats: string;
  source?: string;
  quantised?: string;
}
const goldens: Record<string, Golden> = JSON.parse(
  readFileSync(new URL('../fixtures/quants/blocks.json', import.meta.url), 'utf8'),
);
const bytesOf = (text: string): Uint8Array => new Uint8Array(Buffer.from(text, 'base64'));
const floatsOf = (text: string): Float32Array => new Float32Array(bytesOf(text).buffer);
const bitsOf = (values: Float32Array): Uint32Array => new Uint32Array(values.slice().buffer);
const typeOf = (name: string) => [...GGML_TYPES.values()].find((type) => type.name === name)!;
const decode = (name: string, bytes: Uint8Array): Float32Array => {
  const { block, bytes: size, dequantise } = typeOf(name);
  const out = new Float32Array((bytes.length / size) * block);
  dequantise!(bytes, out);
  return out;
};

const DTYPES = { F32: 'f32', F16: 'f16', BF16: 'bf16', Q8_0: 'q8', Q4_0: 'q4' } as const;
function encode(data: Float32Array, type: keyof typeof DTYPES, at = 0): Uint8Array {
  const out = convertPiece({ at, count: data.length, data }, 'f32', DTYPES[type], 'output.weight');
  return new Uint8Array(out.buffer, out.byteOffset, out.byteLength);
}

describe('golden blocks', () => {
  it('exist for every type that can be read, but F32', () => {
    const readable = [...GGML_TYPES.values()].filter((type) => type.dequantise).map(({ name }) => name);
    expect(Object.keys(goldens).sort()).toEqual(readable.filter((name) => name !== 'F32').sort());
  });

  it.each(Object.entries(goldens))('%s decodes to the same bits', (name, { bytes, floats }) => {
    expect(bitsOf(decode(name, bytesOf(bytes)))).toEqual(bitsOf(floatsOf(floats)));
  });

  it.each(Object.entries(goldens))('%s decodes at an odd address', (name, { bytes, floats }) => {
    const moved = new Uint8Array([0, ...bytesOf(bytes)]).subarray(1);
    expect(bitsOf(decode(name, moved))).toEqual(bitsOf(floatsOf(floats)));
  });

  it.each(['Q8_0', 'Q4_0'] as const)('%s rounds as ggml does', (name) => {
    const { source, quantised } = goldens[name]!;
    expect(encode(floatsOf(source!), name)).toEqual(bytesOf(quantised!));
  });
});

describe('convertPiece', () => {
  it('F32, F16 and BF16', () => {
    const values = Float32Array.of(1, -2.5, 65504, 2 ** -24);
    expect(decode('F32', encode(values, 'F32'))).toEqual(values);
    expect(decode('F16', encode(values, 'F16'))).toEqual(values);
    const short = Float32Array.of(1, -2.5, 65536, 2 ** -130);
    expect(decode('BF16', encode(short, 'BF16'))).toEqual(short);
  });

  it('values far below the scale of float16 become zero, not NaN', () => {
    for (const tiny of [1e-36, 1e-40, 2 ** -149, -1e-45]) {
      const values = new Float32Array(32).fill(tiny);
      for (const type of ['Q8_0', 'Q4_0'] as const) {
        expect(decode(type, encode(values, type)).every((x) => x === 0)).toBe(true);
      }
    }
  });

  it.each([
    ['F32', Number.NaN],
    ['F32', Number.POSITIVE_INFINITY],
    ['F16', 65536],
    ['BF16', 3.4e38],
    ['Q8_0', 1e7],
    ['Q4_0', Number.NaN],
    ['Q4_0', -1e6],
  ] as const)('%s refuses %f by name', (type, value) => {
    const values = new Float32Array(32);
    values[7] = value;
    expect(() => encode(values, type)).toThrow(FormatError);
    expect(() => encode(values, type, 64)).toThrow(/output\.weight.*element 71/);
  });
});
