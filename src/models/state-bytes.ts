/**
 * The bytes of a State: a safetensors file of float32 tensors with string metadata. Synchronous and whole,
 * because a state is small; io/safetensors.ts reads large files piece by piece.
 */
import { FormatError } from '../base/errors.ts';
import { type Shape, sizeOf } from '../base/shape.ts';

export interface StateTensor {
  shape: readonly number[];
  data: Float32Array;
}

export function encodeStateBytes(
  tensors: readonly { name: string; shape: Shape; data: Float32Array }[],
  metadata: Record<string, string>,
): Uint8Array {
  const header: Record<string, unknown> = { __metadata__: metadata };
  let end = 0;
  for (const { name, shape, data } of tensors) {
    header[name] = { dtype: 'F32', shape, data_offsets: [end, end + data.byteLength] };
    end += data.byteLength;
  }
  const json = new TextEncoder().encode(JSON.stringify(header));
  const headerBytes = Math.ceil(json.length / 8) * 8;
  const bytes = new Uint8Array(8 + headerBytes + end);
  new DataView(bytes.buffer).setBigUint64(0, BigInt(headerBytes), true);
  bytes.fill(0x20, 8, 8 + headerBytes);
  bytes.set(json, 8);
  let at = 8 + headerBytes;
  for (const { data } of tensors) {
    bytes.set(new Uint8Array(data.buffer, data.byteOffset, data.byteLength), at);
    at += data.byteLength;
  }
  return bytes;
}

export function decodeStateBytes(bytes: Uint8Array): {
  tensors: Map<string, StateTensor>;
  metadata: Record<string, string>;
} {
  const fail = (problem: string): never => {
    throw new FormatError(
      `State.fromBytes: expected the bytes of a saved state, ${problem}. The file is damaged or is not a state.`,
    );
  };
  if (bytes.length < 8) fail(`got ${bytes.length} bytes`);
  const headerBytes = Number(new DataView(bytes.buffer, bytes.byteOffset).getBigUint64(0, true));
  if (headerBytes > bytes.length - 8)
    fail(`got a header of ${headerBytes} bytes in a file of ${bytes.length}`);
  let header: unknown;
  try {
    header = JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(bytes.subarray(8, 8 + headerBytes)));
  } catch {
    fail('got a header that is not JSON');
  }
  if (typeof header !== 'object' || header === null || Array.isArray(header))
    fail('got a header that is not an object');
  const { __metadata__: metadata, ...entries } = header as Record<
    string,
    Record<string, unknown> | undefined
  >;
  const body = bytes.subarray(8 + headerBytes);
  const tensors = new Map<string, StateTensor>();
  for (const [name, entry] of Object.entries(entries)) {
    const shape = entry?.shape;
    const offsets = entry?.data_offsets;
    const isCount = (n: unknown) => Number.isSafeInteger(n) && (n as number) >= 0;
    if (
      !Array.isArray(shape) ||
      !shape.every(isCount) ||
      !Array.isArray(offsets) ||
      !offsets.every(isCount)
    ) {
      return fail(`got a broken entry for ${name}`);
    }
    const [start, end] = offsets as [number, number];
    if (entry?.dtype !== 'F32' || end - start !== 4 * sizeOf(shape) || end > body.length) {
      fail(`got ${name} as ${String(entry?.dtype)} at bytes ${start}..${end} of ${body.length}`);
    }
    const data = new Float32Array(sizeOf(shape));
    new Uint8Array(data.buffer).set(body.subarray(start, end)); // not slice(): a Node Buffer's shares its memory
    tensors.set(name, { shape, data });
  }
  return { tensors, metadata: (metadata ?? {}) as Record<string, string> };
}
