/**
 * Cases of narrow storage: every bit pattern, products at the edges of vectors, blocks and tiles, all ranges
 * of scales.
 */
import { NARROW } from '../../../src/backend/kernels.ts';
import { type BlockDType, encodeBlocks } from '../../../src/base/blocks.ts';
import { bf16ToF32, f16ToF32, narrow as narrowed } from '../../../src/base/dtype.ts';
import { deviceBytes, packPanels } from '../../../src/base/panels.ts';
import { PRECISIONS, type Precision } from '../../../src/tensor/precision.ts';
import { type Case, out } from '../harness.ts';
import { define, pick, type Values } from './values.ts';

/** Every pattern of 16 bits. */
const ALL_BITS = Uint16Array.from({ length: 65536 }, (_, i) => i);

/** Ties, halves of subnormals, the ends of the range, specials. */
const NARROW_EDGES = [
  0,
  -0,
  1,
  1 + 2 ** -8,
  1 + 3 * 2 ** -8,
  1 + 2 ** -8 + 2 ** -20,
  1 + 2 ** -11,
  1 + 3 * 2 ** -11,
  65504,
  65519.99,
  65520,
  -65520,
  1e30,
  3.4e38,
  3.39e38,
  2 ** -14,
  2 ** -15,
  2 ** -24,
  2 ** -25,
  3 * 2 ** -25,
  2 ** -26,
  -(2 ** -24),
  2 ** -126,
  Number.POSITIVE_INFINITY,
  Number.NEGATIVE_INFINITY,
  Number.NaN,
]; // prettier-ignore

const isBlocks = (format: number): boolean => NARROW[format]!.startsWith('q');
/** 16-bit units of a block, its scale included. */
const unitsOf = (format: number): number => (NARROW[format] === 'q8' ? 17 : 9);

/** A quant of panels and its scale, from the definition of the layout. */
export function quantAt(
  format: number,
  bits: Uint16Array,
  d: number,
  row: number,
  column: number,
): { q: number; scale: number } {
  const bytes = new DataView(bits.buffer, bits.byteOffset, bits.byteLength);
  const quants = 2 * unitsOf(format) - 2;
  const block = (Math.floor(row / 16) * (d / 32) + Math.floor(column / 32)) * 16 * (quants + 2);
  const [element, lane] = [column % 32, row % 16];
  const index = element % quants;
  const byte = bytes.getUint8(block + 64 * Math.floor(index / 4) + 4 * lane + (index % 4));
  const scale = f16ToF32(bytes.getUint16(block + 16 * quants + 2 * lane, true));
  if (NARROW[format] === 'q8') return { q: byte < 128 ? byte : byte - 256, scale };
  return { q: (element < 16 ? byte % 16 : Math.floor(byte / 16)) - 8, scale };
}

/** The values (rows, d) of narrow storage, from the definition of the formats. */
export function widened(format: number, bits: Uint16Array, rows: number, d: number): Float64Array {
  if (!isBlocks(format)) return Float64Array.from(bits, NARROW[format] === 'bf16' ? bf16ToF32 : f16ToF32);
  return Float64Array.from({ length: rows * d }, (_, i) => {
    const { q, scale } = quantAt(format, bits, d, Math.floor(i / d), i % d);
    return scale * q;
  });
}

/** Blocks in the order of files -> panels, with rubbish in the rows that fill up the last. */
function inPanels(format: number, blocks: Uint16Array, rows: number, d: number): Uint16Array {
  const dtype = NARROW[format] as BlockDType;
  const panels = new Uint8Array(deviceBytes(dtype, [rows, d])).fill(0x7e);
  packPanels(dtype, d, 0, new Uint8Array(blocks.buffer), panels);
  return new Uint16Array(panels.buffer);
}

/** Rows of float32 values in a format: what a device holds of a converted checkpoint. */
function stored(format: number, values: Float32Array, d: number): Uint16Array {
  const dtype = NARROW[format]!;
  if (dtype === 'bf16' || dtype === 'f16') return narrowed(values, dtype);
  return inPanels(format, new Uint16Array(encodeBlocks(values, dtype).buffer), d && values.length / d, d);
}

/** `count` elements of random bits. Scales, and 16-bit elements, count through `patterns`. */
function raw(format: number, values: Values, count: number, patterns: (i: number) => number): Uint16Array {
  if (!isBlocks(format)) return Uint16Array.from({ length: count }, (_, i) => patterns(i));
  const units = unitsOf(format);
  return Uint16Array.from({ length: (count / 32) * units }, (_, i) =>
    i % units === 0 ? patterns(i / units) : values.rng.below(65536),
  );
}

/** Bits of zero, subnormals, the smallest and the largest normal numbers as float16, of either sign. */
const FINITE_EDGES = [0, 0x8000, 1, 0x8001, 0x3ff, 0x83ff, 0x400, 0x8400, 0x7bff, 0xfbff, 0x3c00, 0xbc01];
/** And what no weight should be. */
const SPECIALS = [0x7c00, 0xfc00, 0x7e00, 0x7c01, 0x7f80, 0xff80, 0x7fc0, ...FINITE_EDGES];

interface Options {
  bias?: boolean;
  row?: number;
  precision?: Precision;
  /** Exponents of two that scale whole rows of activations, one after the other. */
  scales?: readonly number[];
  /** Bit patterns of scales (q8, q4) or elements (f16, bf16) instead of those of normal weights. */
  patterns?: readonly number[];
}

function product(format: number, m: number, n: number, k: number, options: Options = {}): Case {
  const { bias = false, row = 0, precision = 'f32', scales, patterns } = options;
  const extras = [
    precision !== 'f32' && precision,
    bias && 'bias',
    row > 0 && `from row ${row}`,
    scales && 'activations of every size',
    patterns && (patterns === SPECIALS ? 'specials' : 'edges'),
  ];
  const name = [`${NARROW[format]} (${m}, ${n}, ${k})`, ...extras].filter(Boolean).join(', ');
  return define('linearNarrow', name, (values) => {
    const rows = row + n + 1;
    const bits = patterns && raw(format, values, rows * k, (i) => pick(patterns, i));
    const a = values.normal(m * k);
    if (scales) for (let i = 0; i < m * k; i++) a[i]! *= 2 ** pick(scales, Math.floor(i / k));
    return {
      a,
      w: !bits
        ? stored(format, values.normal(rows * k), k)
        : isBlocks(format)
          ? inPanels(format, bits, rows, k)
          : bits,
      c: out(m * n),
      bias: bias ? values.normal(n) : null,
      ...{ m, n, k, format, row },
      precision: PRECISIONS.indexOf(precision),
    };
  });
}

/**
 * Rows of a on both sides of every border between a few and many; columns around the widths of vectors and
 * tiles.
 */
const ROWS = [1, 2, 3, 4, 5, 8, 15, 16, 17, 18, 33, 65];
const COLUMNS = [1, 5, 8, 9, 17, 32, 33, 300];
const DEPTHS = [1, 2, 7, 8, 15, 16, 17, 33, 63, 130];
const BLOCK_DEPTHS = [32, 64, 96, 160, 288];

/**
 * Across the tiles and blocks of every implementation, and cuts of the depth within blocks of 32. Too large
 * for balls.
 */
export const LARGE = NARROW.flatMap((_, format) => [
  product(format, 1, 2061, 544, { bias: true, row: 1 }),
  product(format, 3, 1030, 544),
  product(format, 16, 130, 288, { bias: true }),
  product(format, 40, 130, 288, { bias: true, row: 2 }),
  product(format, 530, 530, 160),
  product(format, 20, 70, 1120),
  ...(isBlocks(format)
    ? [
        product(format, 530, 530, 160, { precision: 'int8' }),
        product(format, 70, 70, 1120, { precision: 'int8' }),
      ]
    : []),
  ...[1, 2, 5, 16, 17, 40].map((m) => product(format, m, 19, 160, { bias: true, patterns: SPECIALS })),
]) as Case<'linearNarrow'>[];

export const narrow: Case[] = NARROW.flatMap((dtype, format) => {
  const depths = isBlocks(format) ? BLOCK_DEPTHS : DEPTHS;
  const scale = isBlocks(format) ? 32 : 1;
  return [
    define('widen', `${dtype}: ${isBlocks(format) ? 'scales of every kind' : 'every pattern'}`, (values) => {
      const [rows, d] = isBlocks(format) ? [151, 31 * 32] : [1, 65536];
      const x = isBlocks(format)
        ? inPanels(
            format,
            raw(format, values, rows * d, (i) => 14 * i),
            rows,
            d,
          )
        : ALL_BITS;
      return { x, y: out(rows * d), format, rows, d };
    }),
    ...[0, 1, 7, 8, 9, 33].flatMap((rows) =>
      [1, 3].map((width) => {
        const d = width * scale;
        return define('widen', `${dtype}: (${rows}, ${d})`, (values) => {
          const bits = raw(format, values, rows * d, () => values.rng.below(0x7c00));
          return {
            x: isBlocks(format) ? inPanels(format, bits, rows, d) : bits,
            y: out(rows * d),
            ...{ format, rows, d },
          };
        });
      }),
    ),
    ...ROWS.flatMap((m, i) =>
      [0, 1, 2].map((round) => {
        const [n, k] = [pick(COLUMNS, 3 * i + round), pick(depths, 2 * i + 3 * round)];
        return product(format, m, n, k, { bias: round === 1, row: round === 2 ? 3 : 0 });
      }),
    ),
    // Across the blocks of every implementation, and cuts of the depth that are no multiples of 32.
    product(format, 1, 1030, 160, { bias: true, row: 1 }),
    product(format, 20, 33, 288, { row: 2 }),
    ...(isBlocks(format) ? quantised(format) : []),
    ...ROWS.map((m, i) =>
      product(format, m, pick(COLUMNS, i), pick(depths, i), {
        precision: isBlocks(format) ? 'int8' : 'bf16',
        bias: i % 2 === 1,
        row: i % 5,
      }),
    ),
    // Nothing to add up, nothing to compute.
    product(format, 3, 5, 0, { bias: true }),
    product(format, 0, 5, 32),
    product(format, 3, 0, 32),
    ...[1, 3, 20].map((m) => product(format, m, 9, 96, { patterns: FINITE_EDGES })),
    ...[
      [0, 5, 1],
      [1, 1, 1],
      [5, 3, 17],
      [200, 50, 4],
      [3, 4, 0],
      [40, 9, 600],
    ].map(([count, rows, width]) => {
      const d = isBlocks(format) ? Math.ceil(width! / 32) * 32 : width!;
      return define('gatherRowsNarrow', `${dtype}: ${count} of (${rows}, ${d})`, (values) => ({
        table: stored(format, values.normal(rows! * d), d),
        ids: values.ids(count!, rows!),
        y: out(count! * d),
        ...{ count: count!, rows: rows!, d, format },
      }));
    }),
    ...(isBlocks(format) ? [] : toNarrow(format)),
  ];
});

/** What only blocks have: panels, their packing, activations as integers. */
function quantised(format: number): Case[] {
  const dtype = NARROW[format]!;
  const units = unitsOf(format);
  const every = [0, -20, 30, -90, -109, -112, -125, -140, 100];
  const moves = [
    [1, 1, 0, 1],
    [16, 2, 0, 32],
    [17, 3, 5, 40],
    [40, 1, 39, 1],
    [33, 5, 7, 0],
    [200, 7, 3, 1390],
  ] as const;
  return [
    product(format, 9, 20, 96, { scales: every, bias: true }),
    product(format, 9, 20, 96, { scales: every, precision: 'int8' }),
    ...moves.flatMap(([rows, width, first, count]) => {
      const [d, name] = [32 * width, `${dtype}: ${count} blocks of (${rows}, ${32 * width}) from ${first}`];
      return [
        define('pack', name, (values) => ({
          x: raw(format, values, count * 32, () => values.rng.below(65536)),
          y: out(deviceBytes(dtype, [rows, d]) / 2),
          ...{ format, d, first, count },
        })),
        define('unpack', name, (values) => ({
          x: inPanels(
            format,
            raw(format, values, rows * d, () => values.rng.below(65536)),
            rows,
            d,
          ),
          y: out(count * units),
          ...{ format, d, first, count },
        })),
      ];
    }),
  ];
}

function toNarrow(format: number): Case[] {
  const dtype = NARROW[format]!;
  return [
    ...[0, 1, 7, 8, 9, 33].map((count) =>
      define('narrow', `${dtype}: ${count}`, (values) => {
        return { x: values.normal(count), y: out(count), format, count };
      }),
    ),
    define('narrow', `${dtype}: edges`, () => {
      const x = Float32Array.from(NARROW_EDGES);
      return { x, y: out(x.length), format, count: x.length };
    }),
    define('narrow', `${dtype}: all magnitudes`, (values) => {
      return { x: values.logUniform(20_000, 1e-38, 3e38), y: out(20_000), format, count: 20_000 };
    }),
  ];
}
