// Products of bfloat16 by vdpbf16ps (AVX512_BF16): twice the products of a float32 multiply-add. The packed pieces of matmul.cc
// hold pairs along k instead of floats, rounded to nearest even as they are packed; an odd end is filled up with a zero.
// The instruction adds both products to a float32 sum, one after the other, and takes subnormal numbers for zero.

#define MM_BF16 __attribute__((target("avx512bf16")))

// Elements along k that are packed as floats, then converted: with 32 columns 16 KiB, half of the first cache.
constexpr int64_t MM_PIECE = 128;

// A pair in a piece of floats.
typedef int32_t matmul_pair __attribute__((may_alias));

// Two rows of floats -> pairs, the first row in the low halves.
MM_BF16 static inline vi matmul_pairs(vf low, vf high) {
  alignas(64) static constexpr uint16_t ORDER[32] = {0, 16, 1, 17, 2,  18, 3,  19, 4,  20, 5,  21, 6,  22, 7,  23,
                                                     8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31};
  const __m512i both = (__m512i)_mm512_cvtne2ps_pbh((__m512)high, (__m512)low);
  return (vi)_mm512_maskz_permutexvar_epi16(0xffffffff, _mm512_load_si512(ORDER), both);
}

// `kc` rows of floats, `width` wide -> ceil(kc / 2) rows of pairs.
MM_BF16 static void matmul_pair_rows(const float* from, int64_t kc, int64_t width, float* to) {
  for (int64_t q = 0; q < kc; q += 2, from += 2 * width, to += width)
    for (int64_t x = 0; x < width; x += W)
      vstore_i((int32_t*)to + x, matmul_pairs(vload(from + x), q + 1 < kc ? vload(from + width + x) : vzero()));
}

// Rows i.. of a, columns p.. -> [rows][row] pairs, with zeros up to a multiple of 16.
MM_BF16 static void matmul_pack_a_bf16(const MatmulShape& s, const float* a, int64_t i, int rows, int64_t p, int64_t kc,
                                       float* to, int64_t row) {
  for (int r = 0; r < rows; r++) {
    const float* from = a + (i + r) * s.lda + p;
    for (int64_t q = 0; q < kc; q += 2 * W) {
      const int64_t left = kc - q;
      const vf low = vload_some(from + q, left < W ? (int)left : W);
      const vf high = left <= W ? vzero() : vload_some(from + q + W, left < 2 * W ? (int)left - W : W);
      vstore(to + r * row + q / 2, (vf)_mm512_cvtne2ps_pbh((__m512)high, (__m512)low));
    }
  }
}

// The same for a stored (k, m): slivers of [ceil(kc / 2)][MM_ROWS] pairs, MM_SLIVER apart.
MM_BF16 static void matmul_pack_a_by_k_bf16(const MatmulShape& s, const float* a, const MatmulCut& slivers, int64_t p,
                                            int64_t kc, float* to) {
  for (int64_t q = 0; q < kc; q += 2) {
    int64_t i = slivers.begin;
    const float* from = a + (p + q) * s.lda;
    for (int64_t sliver = 0; sliver < slivers.parts; sliver++) {
      const int rows = slivers.size(sliver), count = s.m - i < W ? (int)(s.m - i) : W;
      const vf high = q + 1 < kc ? vload_some(from + s.lda + i, count) : vzero();
      vstore_i((int32_t*)to + sliver * MM_SLIVER + q / 2 * MM_ROWS, matmul_pairs(vload_some(from + i, count), high));
      matmul_ask(from + i + MM_AHEAD * s.lda);
      matmul_ask(from + i + (MM_AHEAD + 1) * s.lda);
      i += rows;
    }
  }
}

// Sixteen rows of b stored (n, k) -> sixteen columns of a panel of pairs, which lie side by side already and are turned as such.
MM_BF16 static void matmul_turn16_bf16(const float* from, int64_t ld, int64_t kc, float* to, int64_t width) {
  for (int64_t q = 0; q < kc; q += 2 * W) {
    const int64_t left = kc - q;
    vi x[16];
    MM_UNROLL for (int i = 0; i < 16; i++) {
      const float* row = from + i * ld + q;
      const vf low = vload_some(row, left < W ? (int)left : W);
      const vf high = left <= W ? vzero() : vload_some(row + W, left < 2 * W ? (int)left - W : W);
      x[i] = (vi)_mm512_cvtne2ps_pbh((__m512)high, (__m512)low);
      matmul_ask(row + 16 * ld);
      matmul_ask(row + 16 * ld + W);
    }
    transpose_block(x);
    const int64_t pairs = left < 2 * W ? (left + 1) / 2 : W;
    for (int64_t i = 0; i < pairs; i++) vstore_i((int32_t*)to + (q / 2 + i) * width, x[i]);
  }
}

// op(b) -> panels of [ceil(kc / 2)][width] pairs, through floats in whatever way its storage is read, or straight from floats
// stored (n, k).
static void matmul_pack_b_bf16(const MatmulShape& s, const MatmulRight& b, const char* data, int64_t j0, int64_t j1, int64_t p,
                               int64_t kc, float* to) {
  alignas(64) float floats[MM_WIDTH * MM_PIECE];
  for (int64_t j = j0; j < j1; j += MM_WIDTH, to += MM_PANEL) {
    const int64_t end = j + MM_WIDTH < j1 ? j + MM_WIDTH : j1, width = (end - j + W - 1) / W * W;
    if (b.pack == matmul_pack_b_by_n && end - j == width) {
      for (int64_t x = 0; x < width; x += 16)
        matmul_turn16_bf16((const float*)data + (j + x) * s.ldb + p, s.ldb, kc, to + x, width);
      continue;
    }
    for (int64_t q = 0; q < kc; q += MM_PIECE) {
      const int64_t count = kc - q < MM_PIECE ? kc - q : MM_PIECE;
      b.pack(s, data, j, end, p + q, count, floats);
      matmul_pair_rows(floats, count, width, to + q / 2 * width);
    }
  }
}

struct MatmulBf16 : MatmulFloats {
  static constexpr int64_t ROWS = MM_ROWS, SLIVER = MM_SLIVER, STEP = 2;
  static void pack_a(const MatmulShape& s, const float* a, int64_t i, int rows, int64_t p, int64_t kc, float* to) {
    matmul_pack_a_bf16(s, a, i, rows, p, kc, to, MM_KC);
  }
  static void pack_a_by_k(const MatmulShape& s, const float* a, const MatmulCut& slivers, int64_t p, int64_t kc, float* to) {
    matmul_pack_a_by_k_bf16(s, a, slivers, p, kc, to);
  }
  static void pack_b(const MatmulShape& s, const MatmulRight& b, const char* data, int64_t j0, int64_t j1, int64_t p,
                     int64_t kc, float* to) {
    matmul_pack_b_bf16(s, b, data, j0, j1, p, kc, to);
  }
  static void multiply(const MatmulShape& s, int64_t steps, int rows, int vectors, const float* a, const float* b, float* c,
                       int tail, MatmulStore store) {
    const MatmulMicro micro =
        s.transA ? matmul_find<MatmulBf16, true>(rows, vectors) : matmul_find<MatmulBf16, false>(rows, vectors);
    micro(steps, a, b, c, s.n, tail, store);
  }

  // matmul_micro on pairs.
  template <int R, int V, bool A_BY_K>
  MM_BF16 static void micro(int64_t steps, const float* a, const float* b, float* c, int64_t ldc, int tail, MatmulStore store) {
    vf acc[R][V];
    MM_UNROLL for (int r = 0; r < R; r++) MM_UNROLL for (int v = 0; v < V; v++) prefetch_write(c + r * ldc + v * W);
    MM_UNROLL for (int r = 0; r < R; r++) MM_UNROLL for (int v = 0; v < V; v++) acc[r][v] = vzero();
    for (int64_t p = 0; p < steps; p++) {
      __m512bh bp[V];
      MM_UNROLL for (int v = 0; v < V; v++) bp[v] = (__m512bh)vload(b + v * W);
      MM_UNROLL for (int r = 0; r < R; r++) {
        const __m512bh ar = (__m512bh)vset1_i(*(const matmul_pair*)(A_BY_K ? a + r : a + r * MM_KC));
        MM_UNROLL for (int v = 0; v < V; v++) acc[r][v] = (vf)_mm512_dpbf16_ps((__m512)acc[r][v], ar, bp[v]);
      }
      a += A_BY_K ? MM_ROWS : 1;
      b += V * W;
    }
    matmul_store<R, V>(acc, c, ldc, tail, store);
  }
};
