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

// Four rows at `from` (or fewer, with zeros below them), ld apart -> four columns of a panel of [kc][width].
static void matmul_turn(const float* from, int64_t ld, int64_t rows, int64_t kc, float* to, int64_t width) {
  int64_t q = 0;
  if (rows == 4)
    for (; q + 4 <= kc; q += 4) transpose4(to + q * width, width, from + q, ld, 1.0f);
  for (; q < kc; q++)
    for (int x = 0; x < 4; x++) to[q * width + x] = x < rows ? from[x * ld + q] : 0.0f;
}

#if defined(__AVX512F__)
// 16 rows -> 16 columns of a panel, as matmul_turn, asking for the same piece of the 16 rows below.
static void matmul_turn16(const float* from, int64_t ld, int64_t kc, float* to, int64_t width) {
  int64_t q = 0;
  for (; q + 16 <= kc; q += 16) {
    vf x[16];
    MM_UNROLL for (int i = 0; i < 16; i++) x[i] = vload(from + i * ld + q);
    MM_UNROLL for (int i = 0; i < 16; i++) matmul_ask(from + (16 + i) * ld + q);
    transpose_block(x);
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
