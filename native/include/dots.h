// Integer arithmetic of quantised products on the vector type: rounding, and dot products of 16-bit pairs.
#pragma once

#include "vec.h"

#if defined(__aarch64__)
#include <arm_neon.h>
#elif defined(__SSE2__)
#include <emmintrin.h>
#endif

namespace MAMBA_ISA {

// 2 W halves, and as many bytes.
typedef int16_t vh __attribute__((vector_size(4 * W)));
typedef int8_t vb __attribute__((vector_size(2 * W)));
typedef uint8_t vub __attribute__((vector_size(2 * W)));
typedef int64_t vl __attribute__((vector_size(4 * W)));

VEC_FN vb vload_bytes(const char* p) {
  vb x;
  __builtin_memcpy(&x, p, sizeof x);
  return x;
}
VEC_FN vh to_halves(vb x) { return __builtin_convertvector(x, vh); }

// The same four halves in every four lanes.
VEC_FN vh vset4_h(const int16_t* p) {
  int64_t x;
  __builtin_memcpy(&x, p, sizeof x);
  return (vh)(x - vl{});
}

// x[2i] y[2i] + x[2i + 1] y[2i + 1] in lane i.
VEC_FN vi vdot_pairs(vh x, vh y) {
#if defined(__AVX512BW__)
  return (vi)_mm512_madd_epi16((__m512i)x, (__m512i)y);
#elif defined(__AVX2__)
  return (vi)_mm256_madd_epi16((__m256i)x, (__m256i)y);
#elif defined(__SSE2__)
  return (vi)_mm_madd_epi16((__m128i)x, (__m128i)y);
#elif defined(__aarch64__)
  const int16x8_t a = (int16x8_t)x, b = (int16x8_t)y;
  return (vi)vpaddq_s32(vmull_s16(vget_low_s16(a), vget_low_s16(b)), vmull_high_s16(a, b));
#else
  return (vi)__builtin_wasm_dot_s_i32x4_i16x8(x, y);
#endif
}

// Sums of neighbouring lanes: those of x, then those of y.
VEC_FN vi vsum_pairs(vi x, vi y) {
#if defined(__AVX512F__)
  return __builtin_shufflevector(x, y, 0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30) +
         __builtin_shufflevector(x, y, 1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31);
#elif defined(__AVX2__)
  return __builtin_shufflevector(x, y, 0, 2, 4, 6, 8, 10, 12, 14) + __builtin_shufflevector(x, y, 1, 3, 5, 7, 9, 11, 13, 15);
#else
  return __builtin_shufflevector(x, y, 0, 2, 4, 6) + __builtin_shufflevector(x, y, 1, 3, 5, 7);
#endif
}

// To the nearest integer, ties to even, for |x| < 2^31. An instruction, not a sum with ROUND: a product in x is rounded before,
// and never fused with it, so that all instruction sets find the same integer.
VEC_FN vi vround_i(vf x) {
#if defined(__AVX512F__)
  return (vi)_mm512_maskz_cvtps_epi32(0xffff, (__m512)x);
#elif defined(__AVX2__)
  return (vi)_mm256_cvtps_epi32((__m256)x);
#elif defined(__SSE2__)
  return (vi)_mm_cvtps_epi32((__m128)x);
#elif defined(__aarch64__)
  return (vi)vcvtnq_s32_f32((float32x4_t)x);
#else
  return __builtin_convertvector(__builtin_wasm_nearest_f32x4(x), vi);
#endif
}

// The largest lane, and the sum of all.
typedef int32_t vi4 __attribute__((vector_size(16)));

VEC_FN vi4 vmax_i(vi4 x, vi4 y) { return x > y ? x : y; }
VEC_FN vi4 quarter_i(vi x, int i) {
#if defined(__AVX512F__)
  const vi4 q[4] = {__builtin_shufflevector(x, x, 0, 1, 2, 3), __builtin_shufflevector(x, x, 4, 5, 6, 7),
                    __builtin_shufflevector(x, x, 8, 9, 10, 11), __builtin_shufflevector(x, x, 12, 13, 14, 15)};
  return q[i];
#elif defined(__AVX2__)
  const vi4 q[2] = {__builtin_shufflevector(x, x, 0, 1, 2, 3), __builtin_shufflevector(x, x, 4, 5, 6, 7)};
  return q[i];
#else
  return i == 0 ? x : vi4{};
#endif
}
VEC_FN int32_t hmax_i(vi x) {
  vi4 top = quarter_i(x, 0);
  for (int i = 1; i < W / 4; i++) top = vmax_i(top, quarter_i(x, i));
  top = vmax_i(top, __builtin_shufflevector(top, top, 2, 3, 0, 1));
  return top[0] > top[1] ? top[0] : top[1];
}
VEC_FN int32_t hsum_i(vi x) {
  vi4 sum = quarter_i(x, 0);
  for (int i = 1; i < W / 4; i++) sum += quarter_i(x, i);
  sum += __builtin_shufflevector(sum, sum, 2, 3, 0, 1);
  return sum[0] + sum[1];
}

}  // namespace MAMBA_ISA
