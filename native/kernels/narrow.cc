// Weights in narrow storage: conversion, table rows, products. 16-bit weights (include/widen.h) are widened as they are read: a
// product is that of matmul.cc with another way of reading its right operand, in the same order, the same bits as with widened
// weights. q8 and q4 lie in panels, and their products are of integers (narrow-product.cc).

// Elements per task of a conversion; whole blocks.
constexpr int64_t NA_CHUNK = 1 << 14;

// body(F{}) for the format that src/backend/kernels.ts gives this number.
template <class Body>
static void narrow_with(int64_t format, const Body& body) {
  if (format == 0) body(WeightsBf16{});
  else if (format == 1) body(WeightsF16{});
  else if (format == 2) body(WeightsQ8{});
  else body(WeightsQ4{});
}

// `count` elements to float32; they begin with a whole step.
template <class F>
static void narrow_widen(const char* from, int64_t count, float* to) {
  const int64_t steps = count / F::STEP;
  for (int64_t i = 0; i < steps; i++, from += F::BYTES, to += F::STEP)
    MM_UNROLL for (int v = 0; v < F::STEP / W; v++) vstore(to + v * W, F::load(from, v));
  if constexpr (F::STEP == W) {
    const int rest = (int)(count % W);
    if (rest > 0) vstore_part(to, F::load_part(from, rest), rest);
  }
}

// Row `index` of panels to float32, block by block.
template <class F>
static void narrow_widen_row(const char* panels, int64_t index, int64_t d, float* to) {
  const int64_t width = d / NP_BLOCK;
  char block[F::BYTES];
  for (int64_t b = 0; b < width; b++) {
    panels_move<F, false>((char*)panels, block, width, index * width + b, 1);
    narrow_widen<F>(block, NP_BLOCK, to + b * NP_BLOCK);
  }
}

static void widen_kernel(const Args& args, const Ctx& ctx) {
  const char* x = (const char*)args.bits(0);
  float* y = args.f(1);
  const int64_t rows = args.n(3), d = args.n(4), count = rows * d;
  if (count == 0) return;
  narrow_with(args.n(2), [&](auto format) {
    using F = decltype(format);
    if constexpr (F::STEP == W) {
      ctx.parallel((count + NA_CHUNK - 1) / NA_CHUNK, [&](int64_t task, char*) {
        const int64_t begin = task * NA_CHUNK, left = count - begin;
        narrow_widen<F>(x + weight_bytes<F>(begin), left < NA_CHUNK ? left : NA_CHUNK, y + begin);
      });
    } else {
      ctx.parallel((rows + NP_ROWS - 1) / NP_ROWS, [&](int64_t task, char*) {
        const int64_t last = (task + 1) * NP_ROWS < rows ? (task + 1) * NP_ROWS : rows;
        for (int64_t i = task * NP_ROWS; i < last; i++) narrow_widen_row<F>(x, i, d, y + i * d);
      });
    }
  });
}

static void gatherRowsNarrow_kernel(const Args& args, const Ctx& ctx) {
  const char* table = (const char*)args.bits(0);
  const int32_t* ids = args.ids(1);
  float* y = args.f(2);
  const int64_t count = args.n(3), d = args.n(5);
  if (d == 0) return;
  const int64_t group = d < NA_CHUNK ? NA_CHUNK / d : 1;
  narrow_with(args.n(6), [&](auto format) {
    using F = decltype(format);
    ctx.parallel((count + group - 1) / group, [&](int64_t task, char*) {
      const int64_t last = (task + 1) * group < count ? (task + 1) * group : count;
      for (int64_t i = task * group; i < last; i++) {
        if constexpr (F::STEP == W) narrow_widen<F>(table + ids[i] * weight_bytes<F>(d), d, y + i * d);
        else narrow_widen_row<F>(table, ids[i], d, y + i * d);
      }
    });
  });
}

// Blocks of a tensor between the order of files and panels.
template <bool PACK>
static void panels_kernel(const Args& args, const Ctx& ctx) {
  char *x = (char*)args.bits(0), *y = (char*)args.bits(1);
  char *panels = PACK ? y : x, *blocks = PACK ? x : y;
  const int64_t width = args.n(3) / NP_BLOCK, first = args.n(4), count = args.n(5), group = NA_CHUNK / NP_BLOCK;
  narrow_with(args.n(2), [&](auto format) {
    using F = decltype(format);
    if constexpr (F::STEP != W) {
      ctx.parallel((count + group - 1) / group, [&](int64_t task, char*) {
        const int64_t at = task * group, left = count - at;
        panels_move<F, PACK>(panels, blocks + at * F::BYTES, width, first + at, left < group ? left : group);
      });
    }
  });
}

// ---- products ---------------------------------------------------------------------------------------------------------
// Columns p.. of the rows [j0, j1) -> panels, as matmul_pack_b_by_n: four rows at a time are widened, in whole steps around
// the piece, and turned from there.
template <class F>
static void narrow_pack(const MatmulShape& s, const char* b, int64_t j0, int64_t j1, int64_t p, int64_t kc, float* to) {
  constexpr int64_t ROW = MM_KC + 2 * F::STEP;
  alignas(64) float wide[4 * ROW];
  const int64_t first = p / F::STEP * F::STEP, covered = (p + kc + F::STEP - 1) / F::STEP * F::STEP;
  const int64_t count = (covered < s.k ? covered : s.k) - first, row_bytes = weight_bytes<F>(s.k);
  const char* from = b + weight_bytes<F>(first);
  for (int64_t j = j0; j < j1; j += MM_WIDTH, to += MM_PANEL) {
    const int64_t columns = j1 - j < MM_WIDTH ? j1 - j : MM_WIDTH, width = (columns + W - 1) / W * W;
    for (int64_t x = 0; x < width; x += 4) {
      const int64_t rows = columns - x < 4 ? columns - x : 4;
      for (int64_t r = 0; r < rows; r++) narrow_widen<F>(from + (j + x + r) * row_bytes, count, wide + r * ROW);
      matmul_turn(wide + (p - first), ROW, rows, kc, to + x, width);
    }
  }
}

static void linearNarrow_kernel(const Args& args, const Ctx& ctx) {
  const float *a = args.f(0), *bias = args.f(3);
  const char* w = (const char*)args.bits(1);
  float* c = args.f(2);
  const int64_t m = args.n(4), n = args.n(5), k = args.n(6), row = args.n(8), precision = args.n(9);
  narrow_with(args.n(7), [&](auto format) {
    using F = decltype(format);
    if constexpr (F::STEP == W) {
      MatmulShape s;
      s.m = m, s.n = n, s.k = k;
      s.transA = false, s.transB = true, s.accumulate = false, s.bf16 = precision == PRECISION_BF16;
      s.lda = s.ldb = s.k;
      const int64_t row_bytes = weight_bytes<F>(k);
      const MatmulRight b = {w + row * row_bytes, 0, row_bytes, narrow_pack<F>,
                             s.bf16 ? matvec_rows<RoundedToBf16<F>, true> : matvec_rows<F>};
      matmul_run(ctx, s, 1, a, 0, b, c, 0, bias);
    } else {
      product_run<F>(ctx, {m, n, k, row, precision == PRECISION_INT8}, a, w, c, bias);
    }
  });
}

// ---- float32 to 16 bits, as in src/base/dtype.ts, without branches so that the compiler can vectorise the loops ----

static inline uint32_t narrow_bits(float x) {
  uint32_t u;
  memcpy(&u, &x, 4);
  return u;
}
static inline float narrow_float(uint32_t u) {
  float x;
  memcpy(&x, &u, 4);
  return x;
}

static inline uint16_t narrow_to_bf16(float x) {
  const uint32_t u = narrow_bits(x);
  const uint32_t nan = (u >> 16) | 0x40, rounded = (u + 0x7fff + ((u >> 16) & 1)) >> 16;
  return (uint16_t)((u & 0x7fffffff) > 0x7f800000 ? nan : rounded);
}

static inline uint16_t narrow_to_f16(float x) {
  const uint32_t u = narrow_bits(x), sign = (u >> 16) & 0x8000, magnitude = u & 0x7fffffff;
  const uint32_t normal = (magnitude - 0x38000000 + 0xfff + ((magnitude >> 13) & 1)) >> 13;
  // Adding 1/2 leaves the subnormal half, rounded to even, in the low bits.
  const uint32_t small = narrow_bits(narrow_float(magnitude < 0x38800000 ? magnitude : 0) + 0.5f) - 0x3f000000;
  const uint32_t large = magnitude > 0x7f800000 ? 0x7e00 : 0x7c00;
  return (uint16_t)(sign | (magnitude < 0x38800000 ? small : magnitude >= 0x477ff000 ? large : normal));
}

template <class Convert>
static void narrow_elements(const Ctx& ctx, const float* x, uint16_t* y, int64_t count, const Convert& convert) {
  ctx.parallel((count + NA_CHUNK - 1) / NA_CHUNK, [&](int64_t task, char*) {
    const int64_t end = (task + 1) * NA_CHUNK < count ? (task + 1) * NA_CHUNK : count;
    for (int64_t i = task * NA_CHUNK; i < end; i++) y[i] = convert(x[i]);
  });
}

static void narrow_kernel(const Args& args, const Ctx& ctx) {
  const float* x = args.f(0);
  uint16_t* y = args.bits(1);
  if (args.n(2) == 0) narrow_elements(ctx, x, y, args.n(3), [](float v) VEC_LAMBDA { return narrow_to_bf16(v); });
  else narrow_elements(ctx, x, y, args.n(3), [](float v) VEC_LAMBDA { return narrow_to_f16(v); });
}

static const Entry narrow_entries[] = {
    {"widen", 5, widen_kernel},
    {"narrow", 4, narrow_kernel},
    {"pack", 6, panels_kernel<true>},
    {"unpack", 6, panels_kernel<false>},
    {"linearNarrow", 10, linearNarrow_kernel},
    {"gatherRowsNarrow", 7, gatherRowsNarrow_kernel},
};
