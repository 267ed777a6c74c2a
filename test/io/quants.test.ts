/**
 * Block formats against golden blocks: bytes quantised by ggml itself and random bit patterns, decoded by the Python
 * package gguf 0.19.0 and by ggml's C code, which agreed in every bit. Nothing is tolerated.
 */
import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { FormatError } from '../../src/base/errors.ts';
import { GGML_TYPES } from '../../src/io/quants.ts';
import { encodeValues } from '../../src/io/quants-encode.ts';

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
    expect(encodeValues(floatsOf(source!), name, 'x')).toEqual(bytesOf(quantised!));
  });
});

describe('encodeValues', () => {
  it('F32, F16 and BF16', () => {
    const values = Float32Array.of(1, -2.5, 65504, 2 ** -24);
    expect(decode('F32', encodeValues(values, 'F32', 'x'))).toEqual(values);
    expect(decode('F16', encodeValues(values, 'F16', 'x'))).toEqual(values);
    const short = Float32Array.of(1, -2.5, 65536, 2 ** -130);
    expect(decode('BF16', encodeValues(short, 'BF16', 'x'))).toEqual(short);
  });

  it('values far below the scale of float16 become zero, not NaN', () => {
    for (const tiny of [1e-36, 1e-40, 2 ** -149, -1e-45]) {
      const values = new Float32Array(32).fill(tiny);
      for (const type of ['Q8_0', 'Q4_0'] as const) {
        expect(decode(type, encodeValues(values, type, 'x')).every((x) => x === 0)).toBe(true);
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
    expect(() => encodeValues(values, type, 'output.weight')).toThrow(FormatError);
    expect(() => encodeValues(values, type, 'output.weight')).toThrow(/output\.weight.*element 7/);
  });
});
