// Reading weights of any storage format, W at a time, as exact float32: what src/base/blocks.ts and dtype.ts define.
//
// A format F reads steps of F::STEP elements in F::BYTES bytes. F::load(step, v) gives the v-th of the STEP / W vectors of a
// step; F::load_part(step, rest) the first `rest` < W elements, zeros behind them (formats with STEP == W; rows of the
// others are whole steps). Nothing is read beyond. v is a constant once loops are unrolled.
#pragma once

#include "vec.h"

#if defined(__aarch64__)
#include <arm_neon.h>
#endif

// With AVX-512, the masked forms with a full mask: the plain ones make GCC warn of their undefined operands.
namespace MAMBA_ISA {

typedef int8_t bytes16 __attribute__((vector_size(16)));
typedef uint16_t halves8 __attribute__((vector_size(16)));

VEC_FN uint16_t load_half(const char* p) {
  uint16_t h;
  __builtin_memcpy(&h, p, 2);
  return h;
}

// ---- 16-bit elements ------------------------------------------------------------------------------------------------
#if !defined(__AVX2__)
VEC_FN halves8 load_halves4(const char* p) {
  typedef uint64_t words2 __attribute__((vector_size(16)));
  uint64_t x;
  __builtin_memcpy(&x, p, 8);
  return (halves8)words2{x, 0};
}
#endif

// W times bf16: the upper halves of floats.
VEC_FN vf vload_bf16(const char* p) {
#if defined(__AVX512F__)
  return (vf)((vi)_mm512_maskz_cvtepu16_epi32(0xffff, _mm256_loadu_si256((const __m256i*)p)) << 16);
#elif defined(__AVX2__)
  return (vf)((vi)_mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i*)p)) << 16);
#else
  return (vf)__builtin_shufflevector(halves8{}, load_halves4(p), 0, 8, 1, 9, 2, 10, 3, 11);
#endif
}

#if !defined(__AVX2__) && !defined(__aarch64__)
// float16 in the upper half of every lane. Sign and digits are moved into place, and scaled: exact, for subnormal numbers too.
// What lies beyond the range were infinities and NaN.
VEC_FN vf vfrom_f16(vi upper) {
  const vi u = as_int(as_float((upper >> 3) & (int32_t)0x8fffffff) * 0x1p112f);
  return as_float(u | (((u & 0x7fffffff) >= 0x47800000) & 0x7f800000));
}
#endif

// The nearest bf16, ties to even, as a float. NaN stays one.
VEC_FN vf vround_bf16(vf x) {
  const vu u = (vu)x, rounded = (u + 0x7fff + ((u >> 16) & 1)) & 0xffff0000u;
  return vselect(x == x, (vf)rounded, x);
}

// W times float16.
VEC_FN vf vload_f16(const char* p) {
#if defined(__AVX512F__)
  return (vf)_mm512_maskz_cvtph_ps(0xffff, _mm256_loadu_si256((const __m256i*)p));
#elif defined(__AVX2__)
  return (vf)_mm256_cvtph_ps(_mm_loadu_si128((const __m128i*)p));
#elif defined(__aarch64__)
  return (vf)vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16((const uint16_t*)p)));
#else
  return vfrom_f16((vi)__builtin_shufflevector(halves8{}, load_halves4(p), 0, 8, 1, 9, 2, 10, 3, 11));
#endif
}

// One float16 in every lane.
VEC_FN vf vset1_f16(uint16_t h) {
#if defined(__AVX512F__)
  return (vf)_mm512_maskz_broadcastss_ps(0xffff, _mm_cvtph_ps(_mm_cvtsi32_si128(h)));
#elif defined(__AVX2__)
  return (vf)_mm256_cvtph_ps(_mm_set1_epi16((short)h));
#elif defined(__aarch64__)
  return (vf)vcvt_f32_f16(vreinterpret_f16_u16(vdup_n_u16(h)));
#else
  return vfrom_f16(vset1_i((int32_t)((uint32_t)h << 16)));
#endif
}

// ---- bytes ----------------------------------------------------------------------------------------------------------
#if !defined(__AVX2__)
VEC_FN bytes16 load_bytes16(const char* p) {
  bytes16 x;
  __builtin_memcpy(&x, p, 16);
  return x;
}

// The `group`-th four of 16 signed bytes: each is doubled until it fills its lane, and shifted down from the top of it.
VEC_FN vf vfrom_bytes(bytes16 x, int group) {
  const bytes16 low = __builtin_shufflevector(x, x, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
  const bytes16 high = __builtin_shufflevector(x, x, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31);
  const halves8 two = (halves8)(group < 2 ? low : high);
  const halves8 four = group % 2 == 0 ? __builtin_shufflevector(two, two, 0, 8, 1, 9, 2, 10, 3, 11)
                                      : __builtin_shufflevector(two, two, 4, 12, 5, 13, 6, 14, 7, 15);
  return to_float((vi)four >> 24);
}
#endif

// ---- the formats ----------------------------------------------------------------------------------------------------
struct WeightsF32 {
  static constexpr int STEP = W, BYTES = 4 * W;
  VEC_FN vf load(const char* step, int) { return vload((const float*)step); }
  VEC_FN vf load_part(const char* step, int rest) { return vload_part((const float*)step, rest); }
};

// A format whose values are rounded to bf16 as they are read.
template <class F>
struct RoundedToBf16 {
  static constexpr int STEP = F::STEP, BYTES = F::BYTES;
  VEC_FN vf load(const char* step, int v) { return vround_bf16(F::load(step, v)); }
  VEC_FN vf load_part(const char* step, int rest) { return vround_bf16(F::load_part(step, rest)); }
};

struct WeightsBf16 {
  static constexpr int STEP = W, BYTES = 2 * W;
  VEC_FN vf load(const char* step, int) { return vload_bf16(step); }
  VEC_FN vf load_part(const char* step, int rest) {
    char whole[BYTES] = {};
    __builtin_memcpy(whole, step, 2 * rest);
    return vload_bf16(whole);
  }
};

struct WeightsF16 {
  static constexpr int STEP = W, BYTES = 2 * W;
  VEC_FN vf load(const char* step, int) { return vload_f16(step); }
  VEC_FN vf load_part(const char* step, int rest) {
    char whole[BYTES] = {};
    __builtin_memcpy(whole, step, 2 * rest);
    return vload_f16(whole);
  }
};

// | d:2 | q:32 int8 |  y = d q
struct WeightsQ8 {
  static constexpr int STEP = 32, BYTES = 34;
  VEC_FN vf load(const char* step, int v) {
    const vf d = vset1_f16(load_half(step));
#if defined(__AVX512F__)
    return d * to_float((vi)_mm512_maskz_cvtepi8_epi32(0xffff, _mm_loadu_si128((const __m128i*)(step + 2 + 16 * v))));
#elif defined(__AVX2__)
    return d * to_float((vi)_mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i*)(step + 2 + 8 * v))));
#else
    return d * vfrom_bytes(load_bytes16(step + 2 + 16 * (v / 4)), v % 4);
#endif
  }
};

// | d:2 | q:16 |  y = d (q - 8), the low halves of the bytes first
struct WeightsQ4 {
  static constexpr int STEP = 32, BYTES = 18;
  VEC_FN vf load(const char* step, int v) {
    const vf d = vset1_f16(load_half(step));
#if defined(__AVX512F__)
    // All 16 values that the block can have; a permutation looks at the low four bits of its indices.
    const vf values = d * (to_float(viota()) - 8.0f);
    const vi q = (vi)_mm512_maskz_cvtepu8_epi32(0xffff, _mm_loadu_si128((const __m128i*)(step + 2)));
    return (vf)_mm512_maskz_permutexvar_ps(0xffff, (__m512i)(v == 0 ? q : q >> 4), (__m512)values);
#elif defined(__AVX2__)
    const vi q = (vi)_mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i*)(step + 2 + 8 * (v % 2))));
    return d * to_float((v < 2 ? q & 15 : q >> 4) - 8);
#else
    const bytes16 q = load_bytes16(step + 2);
    const bytes16 high = (bytes16)((halves8)q >> 4) & 15;
    return d * vfrom_bytes((v < 4 ? q & 15 : high) - 8, v % 4);
#endif
  }
};

// Bytes of `count` elements, whole steps where the format has blocks.
template <class F>
VEC_FN int64_t weight_bytes(int64_t count) {
  return count * F::BYTES / F::STEP;
}

}  // namespace MAMBA_ISA
