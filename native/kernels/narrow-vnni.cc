// Products with panels by dot products of bytes (AVX-512 VNNI), unsigned weights by signed activations: 64 products in an
// instruction. Weights become unsigned by adding 128 (8 for q4); what that adds to a sum is known from the activations alone.
// An activation of 16 bits is two bytes, 256 hi + lo: two passes over the block, which is in a register or the first cache.

#if defined(__AVX512BW__)

#define PV_TARGET __attribute__((target("avx512vnni")))

// A tile: for each block R times 32 hi (not with int8), R times 32 lo, R corrections, R scales.
template <class F>
constexpr int32_t PV_OFFSET = F::BYTES == WeightsQ8::BYTES ? 128 : 8;
constexpr int64_t PV_UNIT = 2 * NP_BLOCK + 8, PV_UNIT_INT8 = NP_BLOCK + 8;
constexpr int PV_TILE = 6;  // with two panels 12 sums of integers, 12 of floats

template <class F>
static void vnni_pack(const float* a, int64_t lda, int64_t rows, int64_t blocks, bool int8, char* to) {
  for (int64_t b = 0; b < blocks; b++, a += NP_BLOCK) {
    char* low = int8 ? to : to + rows * NP_BLOCK;
    char* tail = low + rows * NP_BLOCK;
    for (int64_t r = 0; r < rows; r++) {
      vi q[2];
      const float scale = panels_quantise(a + r * lda, int8 ? NP_LEVELS_INT8 : NP_LEVELS, q);
      const int32_t correction = -PV_OFFSET<F> * hsum_i(q[0] + q[1]);
      for (int v = 0; v < 2; v++) {
        const int64_t at = r * NP_BLOCK + v * W;
        _mm_storeu_si128((__m128i*)(low + at), _mm512_maskz_cvtepi32_epi8(0xffff, (__m512i)q[v]));
        // What is left above lo, which is a signed byte: rounded, not cut.
        if (!int8) _mm_storeu_si128((__m128i*)(to + at), _mm512_maskz_cvtepi32_epi8(0xffff, (__m512i)((q[v] + 128) >> 8)));
      }
      memcpy(tail + 4 * r, &correction, 4);
      memcpy(tail + 4 * (rows + r), &scale, 4);
    }
    to = tail + 8 * rows;
  }
}

// The g-th words of a block as unsigned bytes: one vector of q8, two of q4 (words g and g + 4).
PV_TARGET VEC_FN void vnni_weights(WeightsQ8, const char* w, int g, __m512i* x) {
  x[0] = _mm512_xor_si512(_mm512_loadu_si512(w + 64 * g), _mm512_set1_epi8((char)0x80));
}
PV_TARGET VEC_FN void vnni_weights(WeightsQ4, const char* w, int g, __m512i* x) {
  const __m512i pairs = _mm512_loadu_si512(w + 64 * g), low = _mm512_set1_epi8(15);
  x[0] = _mm512_and_si512(pairs, low);
  x[1] = _mm512_and_si512(_mm512_srli_epi16(pairs, 4), low);
}

// Adds one pass of bytes of activations over a block of V panels, `next` bytes apart.
template <class F, int R, int V>
PV_TARGET VEC_FN void vnni_pass(const char* a, const char* w, int64_t next, __m512i (*s)[R]) {
  constexpr int WORDS = NP_WORDS<F>, HALVES = 8 / WORDS;
#pragma GCC unroll 8
  for (int g = 0; g < WORDS; g++) {
    __m512i x[V][HALVES];
    MM_UNROLL for (int v = 0; v < V; v++) vnni_weights(F{}, w + v * next, g, x[v]);
    MM_UNROLL for (int h = 0; h < HALVES; h++) {
      MM_UNROLL for (int r = 0; r < R; r++) {
        const __m512i ar = _mm512_set1_epi32(((const int32_t*)a)[r * 8 + g + h * WORDS]);
        MM_UNROLL for (int v = 0; v < V; v++) s[v][r] = _mm512_dpbusd_epi32(s[v][r], x[v][h], ar);
      }
    }
  }
}

template <class F, bool INT8, int R, int V>
PV_TARGET static void vnni_dots(int64_t, int64_t blocks, const char* a, const char* w, float* c, PanelsAhead ahead) {
  const int64_t next = blocks * NP_BYTES<F>;
  __m512 sum[V][R];
  MM_UNROLL for (int v = 0; v < V; v++) MM_UNROLL for (int r = 0; r < R; r++) sum[v][r] = _mm512_setzero_ps();
  for (int64_t b = 0; b < blocks; b++, w += NP_BYTES<F>) {
    if (R > 2) {
      for (int64_t i = 0; i < ahead.step; i += 64) __builtin_prefetch(ahead.from + i, 0, 2);
      ahead.from += ahead.step;
    }
    __m512i s[V][R];
    MM_UNROLL for (int v = 0; v < V; v++) MM_UNROLL for (int r = 0; r < R; r++) s[v][r] = _mm512_setzero_si512();
    if (!INT8) {
      vnni_pass<F, R, V>(a, w, next, s);
      MM_UNROLL for (int v = 0; v < V; v++) MM_UNROLL for (int r = 0; r < R; r++) s[v][r] = (__m512i)((vi)s[v][r] << 8);
      a += R * NP_BLOCK;
    }
    const int32_t* correction = (const int32_t*)(a + R * NP_BLOCK);
    const float* scale = (const float*)correction + R;
    MM_UNROLL for (int r = 0; r < R; r++) {
      const __m512i more = _mm512_set1_epi32(correction[r]);
      MM_UNROLL for (int v = 0; v < V; v++) s[v][r] = _mm512_add_epi32(s[v][r], more);
    }
    vnni_pass<F, R, V>(a, w, next, s);
    MM_UNROLL for (int v = 0; v < V; v++) {
      const vf d = vload_f16(w + v * next + 64 * NP_WORDS<F>);
      MM_UNROLL for (int r = 0; r < R; r++)
        sum[v][r] = _mm512_fmadd_ps(_mm512_set1_ps(scale[r]), (__m512)(d * to_float((vi)s[v][r])), sum[v][r]);
    }
    a = (const char*)(scale + R);
  }
  MM_UNROLL for (int v = 0; v < V; v++)
    MM_UNROLL for (int r = 0; r < R; r++) _mm512_storeu_ps(c + (v * R + r) * NP_ROWS, sum[v][r]);
}

template <class F, bool INT8, int R = PV_TILE>
static void vnni_fill(PanelsMethod& method) {
  method.dots[R] = vnni_dots<F, INT8, R, 1>;
  if constexpr (R >= NP_PAIRS_FROM) method.pair_dots[R] = vnni_dots<F, INT8, R, 2>;
  if constexpr (R > 1) vnni_fill<F, INT8, R - 1>(method);
}

template <class F>
static PanelsMethod vnni_method(bool int8) {
  PanelsMethod method = {PV_TILE, int8 ? PV_UNIT_INT8 : PV_UNIT, vnni_pack<F>, {}, {}};
  if (int8) vnni_fill<F, true>(method);
  else vnni_fill<F, false>(method);
  return method;
}

#endif
