/**
 * Examples from Parquet, by hyparquet, one row group after the other. Text and label are flat columns. Class
 * names that the `datasets` library stores beside numbered labels are used; -1 is its number for no label.
 */
import { gunzipSync } from 'node:zlib';
import type {
  ColumnMetaData,
  Compressors,
  FileMetaData,
  RowGroup,
  SchemaElement,
  SchemaTree,
} from 'hyparquet';
import { FormatError, MambaError } from '../base/errors.ts';
import { fileSource } from '../io/file.ts';
import type { ExampleCollector } from './examples-collect.ts';

/** Writers make row groups of some hundred thousand rows. */
const MAX_GROUP_ROWS = 1 << 24;

/** Throws FormatError for files that are damaged or have no text in the text column. */
export async function readParquet(path: string, collector: ExampleCollector): Promise<void> {
  const [hyparquet, codecs, { checkPages }] = await Promise.all([
    import('hyparquet'),
    import('hyparquet-compressors'),
    import('./examples-parquet-pages.ts'),
  ]);
  const compressors: Compressors = { ...codecs.compressors, GZIP: gunzip };
  const source = await fileSource(path);
  try {
    if (source.sizeBytes === 0) return;
    const file = {
      byteLength: source.sizeBytes,
      slice: async (start: number, end = source.sizeBytes) =>
        (await source.read(start, end)).buffer as ArrayBuffer,
    };
    const metadata = await hyparquet.parquetMetadataAsync(file, { geoparquet: false });
    const { children } = hyparquet.parquetSchema(metadata);
    collector.expectColumns(
      children.map(({ element }) => element.name),
      path,
    );
    const columns = collector.columns.map((name) => children.find(({ element }) => element.name === name)!);
    for (const column of columns) checkType(column, collector, path);
    const names = classNames(metadata, collector.fields.labelField);
    let rowStart = 0;
    for (const group of metadata.row_groups) {
      const rows = Number(group.num_rows);
      if (!(rows >= 0 && rows <= MAX_GROUP_ROWS)) throw new Error(`a row group of ${rows} rows`);
      for (const { element } of columns) {
        const { start, end, meta } = chunkOf(group, element);
        if (rows > 0) checkPages(await file.slice(start, end), meta, element, rows, compressors);
      }
      const records = await hyparquet.parquetReadObjects({
        file,
        metadata,
        rowStart,
        rowEnd: rowStart + rows,
        columns: collector.columns,
        compressors,
        parsers: { stringFromBytes: decodeStrict },
      });
      for (const [i, record] of records.entries()) {
        collector.add(`${path}:${rowStart + i + 1}`, (column) => {
          const value: unknown = record[column] ?? null;
          return names !== null && column === collector.fields.labelField ? nameOf(names, value) : value;
        });
      }
      rowStart += rows;
    }
  } catch (error) {
    if (error instanceof MambaError) throw error;
    const message = error instanceof Error ? error.message : String(error);
    throw new FormatError(
      `${path}: expected a whole Parquet file, got: ${message}. It may be damaged: download or write it again, or convert it to JSON lines.`,
      { cause: error },
    );
  } finally {
    await source.close();
  }
}

/** Node's own takes less than half the time. */
function gunzip(bytes: Uint8Array, length: number): Uint8Array {
  return gunzipSync(bytes, { maxOutputLength: Math.max(1, length) });
}

/** Where the decoder will look for a column of a row group. */
function chunkOf(
  { columns }: RowGroup,
  { name, type }: SchemaElement,
): { start: number; end: number; meta: ColumnMetaData } {
  const found = columns.filter(({ meta_data }) => meta_data?.path_in_schema[0] === name);
  const meta = found[0]?.meta_data;
  if (!meta || found.length > 1 || meta.type !== type) throw new Error(`a row group without a whole ${name}`);
  const start = Number(meta.dictionary_page_offset || meta.data_page_offset);
  return { start, end: start + Number(meta.total_compressed_size), meta };
}

function decodeStrict(bytes: Uint8Array): string {
  try {
    return bytes && new TextDecoder('utf-8', { fatal: true }).decode(bytes); // null stays null
  } catch (cause) {
    throw new Error('text that is not UTF-8', { cause });
  }
}

function checkType({ element, children }: SchemaTree, collector: ExampleCollector, path: string): void {
  const isText = collector.fields.textFields.includes(element.name);
  const isFlat = children.length === 0 && element.repetition_type !== 'REPEATED';
  if (isFlat && (element.type === 'BYTE_ARRAY' || !isText)) return;
  const got = isFlat ? element.type : 'a nested column';
  const expected = isText ? 'text' : 'one value per row';
  throw new FormatError(
    `${path}: expected ${expected} in the column ${JSON.stringify(element.name)}, got ${got}. Name another column.`,
  );
}

/**
 * The names of a ClassLabel column: `{"info": {"features": {"label": {"_type":
 * "ClassLabel", "names": […]}}}}`.
 */
function classNames({ key_value_metadata }: FileMetaData, labelField: string): string[] | null {
  const stored = key_value_metadata?.find(({ key }) => key === 'huggingface')?.value;
  if (!stored) return null;
  try {
    const names: unknown = JSON.parse(stored)?.info?.features?.[labelField]?.names;
    return Array.isArray(names) && names.every((name) => typeof name === 'string') ? names : null;
  } catch {
    return null; // another program's note
  }
}

/** -1 has no name: the label is missing. A number outside is shown as it is. */
function nameOf(names: readonly string[], value: unknown): unknown {
  if (typeof value !== 'number' && typeof value !== 'bigint') return value;
  return Number(value) === -1 ? null : (names[Number(value)] ?? value);
}
