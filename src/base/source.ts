/** Ranged reads over bytes that may live in memory, in a file or behind a URL. */
import { FormatError } from './errors.ts';

export interface ByteSource {
  /** For messages: a path or URL. */
  readonly name: string;
  readonly sizeBytes: number;
  /** Exactly the bytes [start, end); throws FormatError when they do not exist. */
  read(start: number, end: number): Promise<Uint8Array>;
  close(): Promise<void>;
}

export function memorySource(data: Uint8Array, name = 'memory'): ByteSource {
  const bytes = new Uint8Array(data.buffer, data.byteOffset, data.length); // a Node Buffer slices differently
  return {
    name,
    sizeBytes: bytes.length,
    read: async (start, end) => {
      if (start < 0 || end > bytes.length || start > end) {
        throw new FormatError(
          `${name}: expected bytes ${start}..${end}, got a source of ${bytes.length} bytes.`,
        );
      }
      return bytes.subarray(start, end);
    },
    close: async () => {},
  };
}
