// Packing of the operands of a product: pieces of a and b copied to where the micro-kernel reads them in order. Included by
// matmul.cc.

// Rows ahead of a copy that are asked for: short pieces at long strides are invisible to the hardware's prefetchers. Into the
// second cache: at strides of whole pages all of them share a few sets of the first.
constexpr int64_t MM_AHEAD = 16;

static inline void matmul_ask(const float* p) { __builtin_prefetch(p, 0, 2); }

// Packed operands rounded to bfloat16 where they lie; `count` floats, and what whole vectors take beyond.
static void matmul_round(float* x, int64_t count) {
  for (int64_t i = 0; i < count; i += W) vstore(x + i, vround_bf16(vload(x + i)));
}

// Rows i.. of a, columns p.. -> [rows][MM_KC].
static void matmul_pack_a(const MatmulShape& s, const float* a, int64_t i, int rows, int64_t p, int64_t kc, float* to) {
  for (int r = 0; r < rows; r++) memcpy(to + r * MM_KC, a + (i + r) * s.lda + p, kc * sizeof(float));
}

// The same for a stored (k, m), all slivers at once because its rows run across them: each -> [kc][MM_ROWS], MM_SLIVER apart.
static void matmul_pack_a_by_k(const MatmulShape& s, const float* a, const MatmulCut& slivers, int64_t p, int64_t kc,
                               float* to) {
  for (int64_t q = 0; q < kc; q++) {
    int64_t i = slivers.begin;
    const float* from = a + (p + q) * s.lda;
    for (int64_t sliver = 0; sliver < slivers.parts; sliver++) {
      const int rows = slivers.size(sliver);
      float* row = to + sliver * MM_SLIVER + q * MM_ROWS;
      matmul_ask(from + i + MM_AHEAD * s.lda);
      for (int x = 0; x < rows; x += W) {
        // Whole vectors wherever the row of a has them; what is written too much is overwritten by the next row.
        const int64_t left = s.m - i - x;
        vstore(row + x, left >= W ? vload(from + i + x) : vload_part(from + i + x, (int)left));
      }
      i += rows;
    }
  }
}

// 4 x 4 transposition: the same instructions on every set.
typedef float matmul_quad __attribute__((vector_size(16), aligned(4), may_alias));

static inline void matmul_transpose4(const float* from, int64_t ld, float* to, int64_t to_ld) {
  const matmul_quad a = *(const matmul_quad*)from, b = *(const matmul_quad*)(from + ld);
  const matmul_quad c = *(const matmul_quad*)(from + 2 * ld), d = *(const matmul_quad*)(from + 3 * ld);
  const matmul_quad ab0 = __builtin_shufflevector(a, b, 0, 4, 1, 5), ab1 = __builtin_shufflevector(a, b, 2, 6, 3, 7);
  const matmul_quad cd0 = __builtin_shufflevector(c, d, 0, 4, 1, 5), cd1 = __builtin_shufflevector(c, d, 2, 6, 3, 7);
  *(matmul_quad*)to = __builtin_shufflevector(ab0, cd0, 0, 1, 4, 5);
  *(matmul_quad*)(to + to_ld) = __builtin_shufflevector(ab0, cd0, 2, 3, 6, 7);
  *(matmul_quad*)(to + 2 * to_ld) = __builtin_shufflevector(ab1, cd1, 0, 1, 4, 5);
  *(matmul_quad*)(to + 3 * to_ld) = __builtin_shufflevector(ab1, cd1, 2, 3, 6, 7);
}

// Four rows at `from` (or fewer, with zeros below them), ld apart -> four columns of a panel of [kc][width].
static void matmul_turn(const float* from, int64_t ld, int64_t rows, int64_t kc, float* to, int64_t width) {
  int64_t q = 0;
  if (rows == 4)
    for (; q + 4 <= kc; q += 4) matmul_transpose4(from + q, ld, to + q * width, width);
  for (; q < kc; q++)
    for (int x = 0; x < 4; x++) to[q * width + x] = x < rows ? from[x * ld + q] : 0.0f;
}

#if defined(__AVX512F__)
// 16 x 16 transposition of 4-byte elements in registers: pairs, fours, then the quarters of the vectors.
template <class V>
static inline void matmul_transpose16(V (&x)[16]) {
  V y[16];
  MM_UNROLL for (int i = 0; i < 16; i += 2) {
    y[i] = __builtin_shufflevector(x[i], x[i + 1], 0, 16, 1, 17, 4, 20, 5, 21, 8, 24, 9, 25, 12, 28, 13, 29);
    y[i + 1] = __builtin_shufflevector(x[i], x[i + 1], 2, 18, 3, 19, 6, 22, 7, 23, 10, 26, 11, 27, 14, 30, 15, 31);
  }
  MM_UNROLL for (int i = 0; i < 16; i += 4) {
    MM_UNROLL for (int h = 0; h < 2; h++) {
      x[i + 2 * h] = __builtin_shufflevector(y[i + h], y[i + 2 + h], 0, 1, 16, 17, 4, 5, 20, 21, 8, 9, 24, 25, 12, 13, 28, 29);
      x[i + 2 * h + 1] =
          __builtin_shufflevector(y[i + h], y[i + 2 + h], 2, 3, 18, 19, 6, 7, 22, 23, 10, 11, 26, 27, 14, 15, 30, 31);
    }
  }
  MM_UNROLL for (int i = 0; i < 4; i++) {
    const V a = x[i], b = x[4 + i], c = x[8 + i], d = x[12 + i];
    const V ab0 = __builtin_shufflevector(a, b, 0, 1, 2, 3, 8, 9, 10, 11, 16, 17, 18, 19, 24, 25, 26, 27);
    const V ab1 = __builtin_shufflevector(a, b, 4, 5, 6, 7, 12, 13, 14, 15, 20, 21, 22, 23, 28, 29, 30, 31);
    const V cd0 = __builtin_shufflevector(c, d, 0, 1, 2, 3, 8, 9, 10, 11, 16, 17, 18, 19, 24, 25, 26, 27);
    const V cd1 = __builtin_shufflevector(c, d, 4, 5, 6, 7, 12, 13, 14, 15, 20, 21, 22, 23, 28, 29, 30, 31);
    y[i] = __builtin_shufflevector(ab0, cd0, 0, 1, 2, 3, 8, 9, 10, 11, 16, 17, 18, 19, 24, 25, 26, 27);
    y[8 + i] = __builtin_shufflevector(ab0, cd0, 4, 5, 6, 7, 12, 13, 14, 15, 20, 21, 22, 23, 28, 29, 30, 31);
    y[4 + i] = __builtin_shufflevector(ab1, cd1, 0, 1, 2, 3, 8, 9, 10, 11, 16, 17, 18, 19, 24, 25, 26, 27);
    y[12 + i] = __builtin_shufflevector(ab1, cd1, 4, 5, 6, 7, 12, 13, 14, 15, 20, 21, 22, 23, 28, 29, 30, 31);
  }
  MM_UNROLL for (int i = 0; i < 16; i++) x[i] = y[i];
}

// 16 rows -> 16 columns of a panel, as matmul_turn, asking for the same piece of the 16 rows below.
static void matmul_turn16(const float* from, int64_t ld, int64_t kc, float* to, int64_t width) {
  int64_t q = 0;
  for (; q + 16 <= kc; q += 16) {
    vf x[16];
    MM_UNROLL for (int i = 0; i < 16; i++) x[i] = vload(from + i * ld + q);
    MM_UNROLL for (int i = 0; i < 16; i++) matmul_ask(from + (16 + i) * ld + q);
    matmul_transpose16(x);
    MM_UNROLL for (int i = 0; i < 16; i++) vstore(to + (q + i) * width, x[i]);
  }
  for (; q < kc; q++)
    for (int x = 0; x < 16; x++) to[q * width + x] = from[x * ld + q];
}
#endif

// Rows p.. of op(b), columns [j0, j1) -> panels of [kc][width], MM_PANEL apart; width is MM_WIDTH, in the last panel what
// covers the rest in whole vectors, filled up with zeros.
static void matmul_pack_b(const MatmulShape& s, const char* b, int64_t j0, int64_t j1, int64_t p, int64_t kc, float* to) {
  // Row by row across the panels: long pieces.
  const float* from = (const float*)b + p * s.ldb;
  for (int64_t q = 0; q < kc; q++, from += s.ldb) {
    float* panel = to;
    for (int64_t j = j0; j < j1; j += MM_WIDTH, panel += MM_PANEL) {
      const int64_t columns = j1 - j < MM_WIDTH ? j1 - j : MM_WIDTH, width = (columns + W - 1) / W * W;
      for (int64_t x = 0; x < width; x += 16) matmul_ask(from + j + x + MM_AHEAD * s.ldb);
      for (int64_t x = 0; x < width; x += W) {
        const int64_t left = columns - x;
        vstore(panel + q * width + x, left >= W ? vload(from + j + x) : vload_part(from + j + x, (int)left));
      }
    }
  }
}

// The same for b stored (n, k), panel by panel.
static void matmul_pack_b_by_n(const MatmulShape& s, const char* b, int64_t j0, int64_t j1, int64_t p, int64_t kc,
                               float* to) {
  for (int64_t j = j0; j < j1; j += MM_WIDTH, to += MM_PANEL) {
    const int64_t columns = j1 - j < MM_WIDTH ? j1 - j : MM_WIDTH, width = (columns + W - 1) / W * W;
    const float* from = (const float*)b + j * s.ldb + p;
    int64_t x = 0;
#if defined(__AVX512F__)
    for (; x + 16 <= columns; x += 16) matmul_turn16(from + x * s.ldb, s.ldb, kc, to + x, width);
#endif
    for (; x < width; x += 4) matmul_turn(from + x * s.ldb, s.ldb, columns - x < 4 ? columns - x : 4, kc, to + x, width);
  }
}
