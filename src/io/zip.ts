/**
 * The directory of a zip archive and the place of each entry's bytes; decompressing is left to the caller.
 * Zip64 is read; encrypted and split archives are not. Nothing the archive says about sizes is believed
 * before it is checked. Source: PKWARE APPNOTE 6.3.10, sections 4.3.7, 4.3.12, 4.3.14 to 4.3.16 and 4.5.3.
 */
import { FormatError, UnsupportedError } from '../base/errors.ts';
import type { ByteSource } from '../base/source.ts';

export interface ZipEntry {
  readonly name: string;
  /** 0 stored, 8 deflated. */
  readonly method: number;
  readonly compressedBytes: number;
  readonly sizeBytes: number;
  readonly headerOffset: number;
}

const END_BYTES = 22;
const END64_BYTES = 56;
const LOCATOR_BYTES = 20;
const CENTRAL_BYTES = 46;
const LOCAL_BYTES = 30;
const MAX_COMMENT_BYTES = 0xffff;
/** Room for 300,000 entries with names of 10 bytes. */
const MAX_DIRECTORY_BYTES = 1 << 24;
const UINT16 = 0xffff;
const UINT32 = 0xffffffff;
const ENCRYPTED = 1;

export function zipDamaged(source: ByteSource, got: string, byte: number, cause?: unknown): FormatError {
  return new FormatError(
    `${source.name}: expected a whole zip archive, got ${got} (byte ${byte}). Remove it if it is still there and fetch it again.`,
    { cause },
  );
}

/** All entries by name, in the order of the directory. */
export async function readZipDirectory(source: ByteSource): Promise<Map<string, ZipEntry>> {
  const place = await findDirectory(source);
  const directory = view(await readChecked(source, place.start, place.end - place.start));
  const entries = new Map<string, ZipEntry>();
  for (let at = 0; at < directory.byteLength; ) {
    const byte = place.start + at;
    if (at + CENTRAL_BYTES > directory.byteLength || directory.getUint32(at, true) !== 0x02014b50)
      throw zipDamaged(source, 'a damaged directory', byte);
    const nameEnd = at + CENTRAL_BYTES + directory.getUint16(at + 28, true);
    const extraEnd = nameEnd + directory.getUint16(at + 30, true);
    const next = extraEnd + directory.getUint16(at + 32, true);
    if (next > directory.byteLength) throw zipDamaged(source, 'a damaged directory', byte);
    const name = new TextDecoder().decode(slice(directory, at + CENTRAL_BYTES, nameEnd));
    if (directory.getUint16(at + 8, true) & ENCRYPTED) {
      throw new UnsupportedError(
        `${source.name}: expected a zip archive that is not encrypted, got an encrypted ${name} (byte ${byte}). Decrypt it.`,
      );
    }
    if (entries.has(name)) throw zipDamaged(source, `the entry ${name} twice`, byte);
    const wide = wideFields(source, directory, at, nameEnd, extraEnd, byte);
    entries.set(name, { name, method: directory.getUint16(at + 10, true), ...wide });
    at = next;
  }
  return entries;
}

/** Where the (possibly compressed) bytes of an entry start: known only from its local header. */
export async function zipEntryStart(source: ByteSource, entry: ZipEntry): Promise<number> {
  const { headerOffset, compressedBytes, name } = entry;
  const header = view(await readChecked(source, headerOffset, LOCAL_BYTES));
  if (header.getUint32(0, true) !== 0x04034b50)
    throw zipDamaged(source, `no local header of ${name}`, headerOffset);
  const start = headerOffset + LOCAL_BYTES + header.getUint16(26, true) + header.getUint16(28, true);
  if (start + compressedBytes > source.sizeBytes) {
    throw zipDamaged(
      source,
      `an entry ${name} that ends at byte ${start + compressedBytes} of ${source.sizeBytes}`,
      headerOffset,
    );
  }
  return start;
}

async function findDirectory(source: ByteSource): Promise<{ start: number; end: number }> {
  const tailStart = Math.max(0, source.sizeBytes - END_BYTES - MAX_COMMENT_BYTES);
  const tail = view(await source.read(tailStart, source.sizeBytes));
  let end = tail.byteLength - END_BYTES;
  // The signature may stand in the comment as well; the record that reaches to the
  // end of the file is the real one.
  const isEnd = (at: number) =>
    tail.getUint32(at, true) === 0x06054b50 &&
    at + END_BYTES + tail.getUint16(at + 20, true) === tail.byteLength;
  while (end >= 0 && !isEnd(end)) end--;
  if (end < 0) throw zipDamaged(source, 'no directory at its end', source.sizeBytes);
  const byte = tailStart + end;
  let [count, sizeBytes, start] = [
    tail.getUint16(end + 10, true),
    tail.getUint32(end + 12, true),
    tail.getUint32(end + 16, true),
  ];
  if (count === UINT16 || sizeBytes === UINT32 || start === UINT32) {
    const record = await readEnd64(source, byte);
    if (record) {
      sizeBytes = uint64(record, 40);
      start = uint64(record, 48);
    }
  }
  if (sizeBytes > MAX_DIRECTORY_BYTES)
    throw zipDamaged(source, `a directory of ${sizeBytes} bytes, more than ${MAX_DIRECTORY_BYTES}`, byte);
  if (start + sizeBytes > byte)
    throw zipDamaged(source, `a directory that ends at byte ${start + sizeBytes}, behind its place`, byte);
  return { start, end: start + sizeBytes };
}

/** The zip64 end record, null where there is no locator: then the plain numbers are meant as they stand. */
async function readEnd64(source: ByteSource, end: number): Promise<DataView | null> {
  const at = end - LOCATOR_BYTES;
  if (at < 0) return null;
  const locator = view(await source.read(at, end));
  if (locator.getUint32(0, true) !== 0x07064b50) return null;
  const byte = uint64(locator, 8);
  const record = view(await readChecked(source, byte, END64_BYTES));
  if (record.getUint32(0, true) !== 0x06064b50) throw zipDamaged(source, 'no zip64 end record', byte);
  return record;
}

/**
 * Sizes and offset of a directory entry; numbers that do not fit stand in the
 * zip64 extra field, in this order.
 */
function wideFields(
  source: ByteSource,
  directory: DataView,
  at: number,
  extraStart: number,
  extraEnd: number,
  byte: number,
): Pick<ZipEntry, 'sizeBytes' | 'compressedBytes' | 'headerOffset'> {
  const narrow = [24, 20, 42].map((field) => directory.getUint32(at + field, true));
  let [from, to] = [extraEnd, extraEnd];
  for (let extra = extraStart; extra + 4 <= extraEnd; ) {
    const fieldEnd = extra + 4 + directory.getUint16(extra + 2, true);
    if (directory.getUint16(extra, true) === 1) [from, to] = [extra + 4, Math.min(fieldEnd, extraEnd)];
    extra = fieldEnd;
  }
  const [sizeBytes, compressedBytes, headerOffset] = narrow.map((value) => {
    if (value !== UINT32) return value;
    if (from + 8 > to) throw zipDamaged(source, 'an entry without its zip64 sizes', byte);
    from += 8;
    return uint64(directory, from - 8);
  }) as [number, number, number];
  return { sizeBytes, compressedBytes, headerOffset };
}

/** Beyond 2^53 the number is rounded, and refused as outside the file by whoever reads there. */
function uint64(data: DataView, at: number): number {
  return Number(data.getBigUint64(at, true));
}

async function readChecked(source: ByteSource, start: number, sizeBytes: number): Promise<Uint8Array> {
  if (start + sizeBytes > source.sizeBytes)
    throw zipDamaged(source, `an entry that ends at byte ${start + sizeBytes} of ${source.sizeBytes}`, start);
  return source.read(start, start + sizeBytes);
}

function slice(data: DataView, start: number, end: number): Uint8Array {
  return new Uint8Array(data.buffer, data.byteOffset + start, end - start);
}

function view(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}
