// Products with panels on the tile registers of AMX. A block of a panel lies as a tile of bytes wants it, eight words of 16 rows,
// so a block of up to 16 rows of activations times a panel is one product of signed bytes; with activations of 16 bits, which are
// 256 hi + lo, two. The same integers, scaled in the same order, as narrow-vnni.cc, and so the same bits.

#if defined(__AVX512BW__)

constexpr int PA_TILE = 16;
// Fewer rows leave most of a tile empty.
constexpr int64_t PA_FROM = 8;

// A block of a panel as signed bytes: where it lies, or unpacked to `space`.
VEC_FN const char* amx_weights(WeightsQ8, const char* w, char*) { return w; }
VEC_FN const char* amx_weights(WeightsQ4, const char* w, char* space) {
  const __m512i low = _mm512_set1_epi8(15), middle = _mm512_set1_epi8(8);
  for (int g = 0; g < 4; g++) {
    const __m512i pairs = _mm512_loadu_si512(w + 64 * g);
    _mm512_store_si512(space + 64 * g, _mm512_sub_epi8(_mm512_and_si512(pairs, low), middle));
    _mm512_store_si512(space + 64 * (g + 4), _mm512_sub_epi8(_mm512_and_si512(_mm512_srli_epi16(pairs, 4), low), middle));
  }
  return space;
}

// Sums of hi (not with int8) and lo in tiles 0 and 1, for a second panel 2 and 3; activations in 4 and 5, weights in 6 and 7.
template <class T, bool INT8, int V>
VEC_FN void amx_product(const char* w, int32_t (*sums)[PA_TILE][NP_ROWS]) {
  T::template load<6 + V>(w, 64);
  if (!INT8) {
    T::template zero<2 * V>();
    T::template dot_bytes<2 * V, 4, 6 + V>();
    T::template store<2 * V>(sums[0], 64);
  }
  T::template zero<2 * V + 1>();
  T::template dot_bytes<2 * V + 1, 5, 6 + V>();
  T::template store<2 * V + 1>(sums[1], 64);
}

// Activations as vnni_pack leaves them; its corrections are for unsigned weights.
template <class F, class T, bool INT8, int V>
static void amx_dots(int64_t rows, int64_t blocks, const char* a, const char* w, float* c, PanelsAhead ahead) {
  const int64_t next = blocks * NP_BYTES<F>;
  TileConfig config;
  for (int tile = 0; tile < 6; tile++) config.rows[tile] = (uint8_t)rows, config.bytes[tile] = tile < 4 ? 64 : NP_BLOCK;
  for (int tile = 6; tile < 8; tile++) config.rows[tile] = NP_BLOCK / 4, config.bytes[tile] = 64;
  T::configure(config);
  alignas(64) int32_t sums[V][2][PA_TILE][NP_ROWS];
  alignas(64) char space[V][NP_BLOCK * NP_ROWS];
  for (int64_t i = 0; i < V * rows; i++) vstore(c + i * NP_ROWS, vzero());
  for (int64_t b = 0; b < blocks; b++, w += NP_BYTES<F>) {
    for (int64_t i = 0; i < ahead.step; i += 64) __builtin_prefetch(ahead.from + i, 0, 2);
    ahead.from += ahead.step;
    if (!INT8) {
      T::template load<4>(a, NP_BLOCK);
      a += rows * NP_BLOCK;
    }
    T::template load<5>(a, NP_BLOCK);
    amx_product<T, INT8, 0>(amx_weights(F{}, w, space[0]), sums[0]);
    if constexpr (V > 1) amx_product<T, INT8, 1>(amx_weights(F{}, w + next, space[1]), sums[1]);
    const float* scale = (const float*)(a + rows * (NP_BLOCK + 4));
    for (int v = 0; v < V; v++) {
      const vf d = vload_f16(w + v * next + 64 * NP_WORDS<F>);
      for (int64_t r = 0; r < rows; r++) {
        vi s = vload_i(sums[v][1][r]);
        if (!INT8) s += vload_i(sums[v][0][r]) << 8;
        float* sum = c + (v * rows + r) * NP_ROWS;
        vstore(sum, vfma(vset1(scale[r]), d * to_float(s), vload(sum)));
      }
    }
    a += rows * (NP_BLOCK + 8);
  }
  T::release();
}

template <class F, class T>
static PanelsMethod amx_method(bool int8) {
  PanelsMethod method = {PA_TILE, int8 ? PV_UNIT_INT8 : PV_UNIT, vnni_pack<F>, {}, {}};
  for (int rows = 1; rows <= PA_TILE; rows++) {
    method.dots[rows] = int8 ? amx_dots<F, T, true, 1> : amx_dots<F, T, false, 1>;
    method.pair_dots[rows] = int8 ? amx_dots<F, T, true, 2> : amx_dots<F, T, false, 2>;
  }
  return method;
}

#endif
