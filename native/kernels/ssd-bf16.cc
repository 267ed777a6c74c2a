// Products of ssd by vdpbf16ps (AVX512_BF16), twice the products of a float32 multiply-add; part of ssd.cc. Those with the state
// and into it, where the caller permits rounded operands: the state itself, decays and everything within a piece stay float32.
//
// Operands lie in pairs along k, rounded to nearest even; an odd end is filled up with a zero.

#if defined(__AVX512F__)

// Rows of whole vectors, each times its weight (null = 1) -> pairs of rows, in rows `width` apart.
MM_BF16 static __attribute__((noinline)) SsdMatrix ssd_pair_rows(SsdMatrix from, const float* weight, int64_t rows,
                                                                 int64_t columns, float* to) {
  const int64_t width = ssd_padded(columns);
  for (int64_t i = 0; i < rows; i += 2) {
    const bool two = i + 1 < rows;
    const vf low = vset1(weight ? weight[i] : 1.0f), high = vset1(weight && two ? weight[i + 1] : 1.0f);
    const float* row = from.at + i * from.step;
    for (int64_t j = 0; j < columns; j += W) {
      const vf second = two ? vload(row + from.step + j) * high : vzero();
      vstore_i((int32_t*)to + i / 2 * width + j, matmul_pairs(vload(row + j) * low, second));
    }
  }
  return {to, width};
}

// Rows of whole vectors -> rows of pairs.
MM_BF16 static __attribute__((noinline)) SsdMatrix ssd_pair_columns(SsdMatrix from, int64_t rows, int64_t columns, float* to) {
  const int64_t step = ssd_padded(columns);
  for (int64_t i = 0; i < rows; i++) {
    for (int64_t j = 0; j < columns; j += 2 * W) {
      const float* at = from.at + i * from.step + j;
      const vf second = j + W < columns ? vload(at + W) : vzero();
      vstore(to + i * step + j / 2, (vf)_mm512_cvtne2ps_pbh((__m512)second, (__m512)vload(at)));
    }
  }
  return {to, step};
}

struct SsdPairs {
  // acc += a b of pairs; those of row r and step k of a are r * row + k * step behind it.
  template <int R, int V>
  MM_BF16 static void tile(const SsdProduct& s, int64_t i, int64_t j, int tail) {
    vf acc[R][V];
    MM_UNROLL for (int r = 0; r < R; r++) MM_UNROLL for (int v = 0; v < V; v++) acc[r][v] = vzero();
    __m512bh bk[V];
    if (s.k1 > 0) {
      const float *a = s.a1.at + i * s.a1.step, *b = s.b1.at + j;
      for (int64_t k = 0; k < s.k1; k++, a++, b += s.b1.step) {
        MM_UNROLL for (int v = 0; v < V; v++) bk[v] = (__m512bh)vload(b + v * W);
        MM_UNROLL for (int r = 0; r < R; r++) {
          const __m512bh ar = (__m512bh)vset1_i(*(const matmul_pair*)(a + r * s.a1.step));
          MM_UNROLL for (int v = 0; v < V; v++) acc[r][v] = (vf)_mm512_dpbf16_ps((__m512)acc[r][v], ar, bk[v]);
        }
      }
      ssd_weigh<R, V>(acc, s, i);
    }
    ssd_start<R, V>(acc, s, i, j);
    if (s.k2 > 0) {
      const float *a = s.a2.at + i, *b = s.b2.at + j;
      for (int64_t k = 0; k < s.k2; k++, a += s.a2.step, b += s.b2.step) {
        MM_UNROLL for (int v = 0; v < V; v++) bk[v] = (__m512bh)vload(b + v * W);
        MM_UNROLL for (int r = 0; r < R; r++) {
          const __m512bh ar = (__m512bh)vset1_i(*(const matmul_pair*)(a + r));
          MM_UNROLL for (int v = 0; v < V; v++) acc[r][v] = (vf)_mm512_dpbf16_ps((__m512)acc[r][v], ar, bk[v]);
        }
      }
    }
    ssd_store<R, V>(acc, s, i, j, tail);
  }
};

#endif
