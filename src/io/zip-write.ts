/**
 * Writing zip archives in pieces, uncompressed: sizes are known beforehand, contents are asked for, handed on
 * and forgotten, and each checksum follows its content (a data descriptor), as PyTorch's own writer does.
 * Contents start at multiples of ALIGNMENT. Nothing but names and contents is in the bytes: no time, no
 * system. Entries, offsets and counts beyond 32 and 16 bits are written as zip64. Source: PKWARE APPNOTE
 * 6.3.10, sections 4.3.7, 4.3.9, 4.3.12, 4.3.14 to 4.3.16, 4.5.3; the extra field FB:
 * caffe2/serialize/inline_container.cc.
 */
import { ShapeError } from '../base/errors.ts';

export interface ZipContent {
  name: string;
  sizeBytes: number;
  /** In any pieces. Called when the entry is written. */
  bytes: () => AsyncIterable<Uint8Array> | Iterable<Uint8Array>;
}

/** An entry that has been written. */
export interface WrittenEntry {
  name: string;
  sizeBytes: number;
  /** CRC-32 of the content. */
  checksum: number;
  headerOffset: number;
}

const ALIGNMENT = 64;
const LOCAL_BYTES = 30;
const UINT16 = 0xffff;
const UINT32 = 0xffffffff;
/** A descriptor follows the content; names are UTF-8. */
const FLAGS = 0x0808;
/** 1980-01-01, the first day of zip. */
const DATE = 0x0021;
/** The version that is needed to read plain entries, and those with 64-bit sizes. */
const [PLAIN, WIDE] = [20, 45];

/** The bytes of an archive, piece by piece; use each before asking for the next. */
export async function* zipChunks(contents: Iterable<ZipContent>): AsyncGenerator<Uint8Array> {
  const written: WrittenEntry[] = [];
  let offset = 0;
  for (const { name, sizeBytes, bytes } of contents) {
    const headerOffset = offset;
    const header = localHeader(name, sizeBytes, headerOffset);
    yield header;
    let [checksum, count] = [0, 0];
    for await (const piece of bytes()) {
      checksum = crc32(piece, checksum);
      count += piece.length;
      yield piece;
    }
    if (count !== sizeBytes)
      throw new ShapeError(`writeZip: expected ${sizeBytes} bytes for ${name}, got ${count}.`);
    const descriptor = dataDescriptor(checksum, sizeBytes);
    yield descriptor;
    offset += header.length + sizeBytes + descriptor.length;
    written.push({ name, sizeBytes, checksum, headerOffset });
  }
  yield zipDirectory(written, offset);
}

/** What stands before a content, filled up so that the content starts at a multiple of ALIGNMENT. */
export function localHeader(name: string, sizeBytes: number, headerOffset: number): Uint8Array {
  const isWide = sizeBytes >= UINT32;
  const sizes = isWide ? wideField([sizeBytes, sizeBytes]) : new Uint8Array(0);
  const text = new TextEncoder().encode(name);
  const bare = LOCAL_BYTES + text.length + sizes.length + 4;
  const rest = -(headerOffset + bare) & (ALIGNMENT - 1);
  const out = new Bytes(bare + rest);
  out.u32(0x04034b50);
  for (const x of [isWide ? WIDE : PLAIN, FLAGS, 0, 0, DATE]) out.u16(x);
  out.u32(0); // the checksum follows the content
  for (let i = 0; i < 2; i++) out.u32(isWide ? UINT32 : 0);
  out.u16(text.length);
  out.u16(sizes.length + 4 + rest);
  out.put(text);
  out.put(sizes);
  out.put(new TextEncoder().encode('FB'));
  out.u16(rest);
  out.put(new Uint8Array(rest).fill(0x5a));
  return out.bytes;
}

function dataDescriptor(checksum: number, sizeBytes: number): Uint8Array {
  const isWide = sizeBytes >= UINT32;
  const out = new Bytes(isWide ? 24 : 16);
  out.u32(0x08074b50);
  out.u32(checksum);
  for (let i = 0; i < 2; i++) isWide ? out.u64(sizeBytes) : out.u32(sizeBytes);
  return out.bytes;
}

/** Directory and end records of an archive whose contents end at byte `start`. */
export function zipDirectory(entries: readonly WrittenEntry[], start: number): Uint8Array {
  const lines = entries.map(directoryEntry);
  const sizeBytes = lines.reduce((sum, { length }) => sum + length, 0);
  const isWide = entries.length >= UINT16 || sizeBytes >= UINT32 || start >= UINT32;
  const out = new Bytes(sizeBytes + (isWide ? 76 : 0) + 22);
  for (const line of lines) out.put(line);
  if (isWide) {
    out.u32(0x06064b50);
    out.u64(44); // bytes of the rest of this record
    for (const version of [WIDE, WIDE]) out.u16(version);
    for (const disk of [0, 0]) out.u32(disk);
    for (const x of [entries.length, entries.length, sizeBytes, start]) out.u64(x);
    out.u32(0x07064b50);
    out.u32(0);
    out.u64(start + sizeBytes);
    out.u32(1); // disks
  }
  out.u32(0x06054b50);
  for (const disk of [0, 0]) out.u16(disk);
  for (let i = 0; i < 2; i++) out.u16(Math.min(entries.length, UINT16));
  for (const x of [sizeBytes, start]) out.u32(Math.min(x, UINT32));
  out.u16(0); // bytes of a comment
  return out.bytes;
}

function directoryEntry({ name, sizeBytes, checksum, headerOffset }: WrittenEntry): Uint8Array {
  const text = new TextEncoder().encode(name);
  // In this order: size, compressed size, offset, each only if it does not fit.
  const wide = [sizeBytes, sizeBytes, headerOffset].filter((x) => x >= UINT32);
  const extra = wide.length > 0 ? wideField(wide) : new Uint8Array(0);
  const out = new Bytes(46 + text.length + extra.length);
  const version = wide.length > 0 ? WIDE : PLAIN;
  out.u32(0x02014b50);
  for (const x of [version, version, FLAGS, 0, 0, DATE]) out.u16(x);
  out.u32(checksum);
  for (let i = 0; i < 2; i++) out.u32(Math.min(sizeBytes, UINT32));
  for (const x of [text.length, extra.length, 0, 0, 0]) out.u16(x); // no comment, disk 0, no attributes
  out.u32(0);
  out.u32(Math.min(headerOffset, UINT32));
  out.put(text);
  out.put(extra);
  return out.bytes;
}

/** The extra field with numbers of 64 bits. */
function wideField(values: readonly number[]): Uint8Array {
  const out = new Bytes(4 + 8 * values.length);
  out.u16(1);
  out.u16(8 * values.length);
  for (const value of values) out.u64(value);
  return out.bytes;
}

/** A record of known size, filled from its start. */
class Bytes {
  readonly bytes: Uint8Array;
  readonly #view: DataView;
  #at = 0;

  constructor(sizeBytes: number) {
    this.bytes = new Uint8Array(sizeBytes);
    this.#view = new DataView(this.bytes.buffer);
  }

  u16(value: number): void {
    this.#view.setUint16(this.#at, value, true);
    this.#at += 2;
  }

  u32(value: number): void {
    this.#view.setUint32(this.#at, value, true);
    this.#at += 4;
  }

  u64(value: number): void {
    this.#view.setBigUint64(this.#at, BigInt(value), true);
    this.#at += 8;
  }

  put(bytes: Uint8Array): void {
    this.bytes.set(bytes, this.#at);
    this.#at += bytes.length;
  }
}

/**
 * TABLE[256 * j + byte]: what a byte becomes when j more bytes follow it. Four at a time is twice as fast as
 * one.
 */
const TABLE = crcTable();

function crcTable(): Int32Array {
  const table = new Int32Array(4 * 256);
  for (let i = 0; i < 256; i++) {
    let value = i;
    for (let bit = 0; bit < 8; bit++) value = value & 1 ? (value >>> 1) ^ 0xedb88320 : value >>> 1;
    table[i] = value;
  }
  for (let i = 256; i < table.length; i++) {
    const before = table[i - 256]!;
    table[i] = (before >>> 8) ^ table[before & 255]!;
  }
  return table;
}

/** The CRC-32 of zip, of `bytes` behind those whose checksum is `before`. */
export function crc32(bytes: Uint8Array, before = 0): number {
  let crc = ~before;
  let i = 0;
  for (const end = bytes.length - 3; i < end; i += 4) {
    crc ^= bytes[i]! | (bytes[i + 1]! << 8) | (bytes[i + 2]! << 16) | (bytes[i + 3]! << 24);
    crc =
      TABLE[768 + (crc & 255)]! ^
      TABLE[512 + ((crc >>> 8) & 255)]! ^
      TABLE[256 + ((crc >>> 16) & 255)]! ^
      TABLE[crc >>> 24]!;
  }
  for (; i < bytes.length; i++) crc = (crc >>> 8) ^ TABLE[(crc ^ bytes[i]!) & 255]!;
  return ~crc >>> 0;
}
