// One vector type for all instruction sets, and the mathematics on it.
//
// `vf` holds W floats, `vi` and `vu` W int32 and uint32 lanes; W is 16 with AVX-512, 8 with AVX2, 4 with SSE2, NEON and
// WASM SIMD128. They are GCC/Clang vector types: + - * / and comparisons are written plainly, and a * b + c becomes one
// fused operation where the machine has it (-ffp-contract=fast). A comparison gives a `vi` of 0 and -1.
//
// The functions below are our own because WebAssembly has no math library and because a vector and a scalar must give
// the same bits. NaN and infinities go through. Error bounds are checked by native/test/vec.cc; see docs/numerics.md.
// Polynomials are minimax fits of the named function.
#pragma once

#include <stddef.h>
#include <stdint.h>

#if defined(__SSE2__)
#include <immintrin.h>
#endif

namespace MAMBA_ISA {

#if defined(__AVX512F__)
constexpr int W = 16;
#elif defined(__AVX2__)
constexpr int W = 8;
#else
constexpr int W = 4;
#endif

typedef float vf __attribute__((vector_size(W * 4)));
typedef int32_t vi __attribute__((vector_size(W * 4)));
typedef uint32_t vu __attribute__((vector_size(W * 4)));
typedef float vf_unaligned __attribute__((vector_size(W * 4), aligned(4), may_alias));
typedef int32_t vi_unaligned __attribute__((vector_size(W * 4), aligned(4), may_alias));

#define VEC_FN static inline __attribute__((always_inline))
// Between the parameters and the body of a lambda that must not become a call.
#define VEC_LAMBDA __attribute__((always_inline))

// ---- moving ---------------------------------------------------------------------------------------------------------
VEC_FN vf vload(const float* p) { return *(const vf_unaligned*)p; }
VEC_FN void vstore(float* p, vf x) { *(vf_unaligned*)p = x; }
VEC_FN vi vload_i(const int32_t* p) { return *(const vi_unaligned*)p; }
VEC_FN void vstore_i(int32_t* p, vi x) { *(vi_unaligned*)p = x; }
VEC_FN vf vset1(float x) { return x - vf{}; }
VEC_FN vi vset1_i(int32_t x) { return x - vi{}; }
VEC_FN vf vzero() { return vf{}; }
VEC_FN vi as_int(vf x) { return (vi)x; }
VEC_FN vf as_float(vi x) { return (vf)x; }
VEC_FN vf to_float(vi x) { return __builtin_convertvector(x, vf); }

// The lane numbers, and a mask of the first `count` lanes.
VEC_FN vi viota() {
  vi x = vi{};
  for (int i = 0; i < W; i++) x[i] = i;
  return x;
}
VEC_FN vi vlanes(int count) { return viota() < count; }

// The first `count` floats (0..W), zeros behind them; nothing is read beyond.
VEC_FN vf vload_part(const float* p, int count) {
#if defined(__AVX512F__)
  return (vf)_mm512_maskz_loadu_ps((__mmask16)((1u << count) - 1), p);
#else
  vf x = vf{};
  for (int i = 0; i < W; i++) x[i] = i < count ? p[i] : 0.0f;
  return x;
#endif
}

VEC_FN void vstore_part(float* p, vf x, int count) {
#if defined(__AVX512F__)
  _mm512_mask_storeu_ps(p, (__mmask16)((1u << count) - 1), (__m512)x);
#else
  for (int i = 0; i < W; i++)
    if (i < count) p[i] = x[i];
#endif
}

// `count` may be W: the usual load and store of a loop over anything.
VEC_FN vf vload_some(const float* p, int count) { return count == W ? vload(p) : vload_part(p, count); }
VEC_FN void vstore_some(float* p, vf x, int count) {
  if (count == W) {
    vstore(p, x);
  } else {
    vstore_part(p, x, count);
  }
}

// Ask for the cache line of p, soon to be read or to be written. Any address is allowed.
VEC_FN void prefetch_read(const float* p) { __builtin_prefetch(p, 0, 3); }
VEC_FN void prefetch_write(const float* p) { __builtin_prefetch(p, 1, 3); }
// The same, not into the first cache: what is far ahead would push out what is at work.
VEC_FN void prefetch_read_far(const float* p) { __builtin_prefetch(p, 0, 2); }

// ---- choosing and reducing ------------------------------------------------------------------------------------------
VEC_FN vf vselect(vi mask, vf a, vf b) { return mask ? a : b; }
VEC_FN vf vfma(vf a, vf b, vf c) { return a * b + c; }
// x, for the one of two products in a sum that is not fused. GCC fuses the one that is written first; Clang may take either.
VEC_FN vf vrounded(vf x) {
#if defined(__clang__) && defined(__wasm__)
  asm("" : "+r"(x));
#elif defined(__clang__) && defined(__aarch64__)
  asm("" : "+w"(x));
#elif defined(__clang__) && defined(__AVX512F__)
  asm("" : "+v"(x));
#elif defined(__clang__) && defined(__SSE2__)
  asm("" : "+x"(x));
#endif
  return x;
}
// a > b ? a : b, and the other way round. A NaN in b goes through, a NaN in a does not: keep the constant on the left.
// In intrinsics where GCC makes a comparison and a choice of it.
#if defined(__AVX512F__)
VEC_FN vf vmax(vf a, vf b) { return (vf)_mm512_maskz_max_ps(0xffff, (__m512)a, (__m512)b); }
VEC_FN vf vmin(vf a, vf b) { return (vf)_mm512_maskz_min_ps(0xffff, (__m512)a, (__m512)b); }
#elif defined(__AVX2__)
VEC_FN vf vmax(vf a, vf b) { return (vf)_mm256_max_ps((__m256)a, (__m256)b); }
VEC_FN vf vmin(vf a, vf b) { return (vf)_mm256_min_ps((__m256)a, (__m256)b); }
#elif defined(__SSE2__)
VEC_FN vf vmax(vf a, vf b) { return (vf)_mm_max_ps((__m128)a, (__m128)b); }
VEC_FN vf vmin(vf a, vf b) { return (vf)_mm_min_ps((__m128)a, (__m128)b); }
#elif defined(__wasm__)
// By name: with relaxed SIMD the compiler takes comparisons for minima and maxima that may lose a NaN.
VEC_FN vf vmax(vf a, vf b) { return __builtin_wasm_pmax_f32x4(b, a); }
VEC_FN vf vmin(vf a, vf b) { return __builtin_wasm_pmin_f32x4(b, a); }
#else
VEC_FN vf vmax(vf a, vf b) { return a > b ? a : b; }
VEC_FN vf vmin(vf a, vf b) { return a < b ? a : b; }
#endif
VEC_FN vf vabs(vf x) { return as_float(as_int(x) & 0x7fffffff); }
VEC_FN vf vcopysign(vf magnitude, vf sign) {
  return as_float((as_int(magnitude) & 0x7fffffff) | (as_int(sign) & (int32_t)0x80000000));
}

typedef float vec4 __attribute__((vector_size(16)));
typedef float vec4_unaligned __attribute__((vector_size(16), aligned(4), may_alias));
typedef float vec8 __attribute__((vector_size(32)));

// Sum and maximum of the lanes, as a tree of halves.
VEC_FN float hsum(vec4 x) {
  const vec4 a = x + __builtin_shufflevector(x, x, 2, 3, 0, 1);
  return a[0] + a[1];
}
// The sums of four vectors, in the order of their arguments.
VEC_FN vec4 hsum4(vec4 a, vec4 b, vec4 c, vec4 d) {
  const vec4 ab = __builtin_shufflevector(a, b, 0, 1, 4, 5) + __builtin_shufflevector(a, b, 2, 3, 6, 7);
  const vec4 cd = __builtin_shufflevector(c, d, 0, 1, 4, 5) + __builtin_shufflevector(c, d, 2, 3, 6, 7);
  return __builtin_shufflevector(ab, cd, 0, 2, 4, 6) + __builtin_shufflevector(ab, cd, 1, 3, 5, 7);
}
VEC_FN float hmax(vec4 x) {
  const vec4 y = __builtin_shufflevector(x, x, 2, 3, 0, 1);
#if defined(__wasm__)
  const vec4 a = vmax(x, y);
#else
  const vec4 a = x > y ? x : y;
#endif
  return a[0] > a[1] ? a[0] : a[1];
}
// Adds halves until four lanes are left.
VEC_FN vec4 fold(vec4 x) { return x; }
#if defined(__AVX2__)
VEC_FN vec4 fold(vec8 x) {
  return __builtin_shufflevector(x, x, 0, 1, 2, 3) + __builtin_shufflevector(x, x, 4, 5, 6, 7);
}
VEC_FN float hsum(vec8 x) { return hsum(fold(x)); }
VEC_FN float hmax(vec8 x) {
  const vec4 a = __builtin_shufflevector(x, x, 0, 1, 2, 3), b = __builtin_shufflevector(x, x, 4, 5, 6, 7);
  return hmax(a > b ? a : b);
}
#endif
#if defined(__AVX512F__)
VEC_FN vec4 fold(vf x) {
  return fold(__builtin_shufflevector(x, x, 0, 1, 2, 3, 4, 5, 6, 7) +
              __builtin_shufflevector(x, x, 8, 9, 10, 11, 12, 13, 14, 15));
}
VEC_FN float hsum(vf x) { return hsum(fold(x)); }
VEC_FN float hmax(vf x) {
  const vec8 a = __builtin_shufflevector(x, x, 0, 1, 2, 3, 4, 5, 6, 7);
  const vec8 b = __builtin_shufflevector(x, x, 8, 9, 10, 11, 12, 13, 14, 15);
  return hmax(a > b ? a : b);
}
#endif

VEC_FN bool vany(vi mask) {
#if defined(__AVX512F__)
  return _mm512_test_epi32_mask((__m512i)mask, (__m512i)mask) != 0;
#else
  int32_t any = 0;
  for (int i = 0; i < W; i++) any |= mask[i];
  return any != 0;
#endif
}

VEC_FN vf vsqrt(vf x) {
#if defined(__AVX512F__)
  return (vf)_mm512_maskz_sqrt_ps(0xffff, (__m512)x);
#else
  vf y;
  for (int i = 0; i < W; i++) y[i] = __builtin_sqrtf(x[i]);
  return y;
#endif
}

// ---- exponential and logarithm --------------------------------------------------------------------------------------
// Adding 1.5 * 2^23 rounds to an integer and leaves it in the low mantissa bits (|x| < 2^22).
constexpr float ROUND = 12582912.0f;

// p * 2^k for integral k in [-252, 254], rounded once: correct into the denormals.
VEC_FN vf vscale(vf p, vf k) {
#if defined(__AVX512F__)
  return (vf)_mm512_maskz_scalef_ps(0xffff, (__m512)p, (__m512)k);
#else
  const vi i = as_int(k + ROUND) - as_int(vset1(ROUND));
  const vi half = i >> 1;
  return p * as_float((half + 127) << 23) * as_float((i - half + 127) << 23);
#endif
}

// 2^r - 1 for |r| <= 1/2, relative error of 2^r below 9.2e-8 before rounding.
VEC_FN vf exp2_fraction(vf r) {
  vf p = vset1(0.00132647215f);
  p = p * r + 0.00967151299f;
  p = p * r + 0.0555073358f;
  p = p * r + 0.240222424f;
  p = p * r + 0.693147004f;
  return p * r;
}

// 2^(a b) for |a b| <= EXP2_SMALL and no NaN: no range checks. AVX-512 scales by any power of two in one operation, so there the
// limit is that of the product.
#if defined(__AVX512F__)
constexpr float EXP2_SMALL = 3e38f;
VEC_FN vf vexp2_small(vf a, vf b) {
  const vf t = a * b;
  const vf k = (vf)_mm512_maskz_roundscale_ps(0xffff, (__m512)t, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  return vscale(exp2_fraction(t - k) + 1.0f, k);
}
#else
constexpr float EXP2_SMALL = 125.0f;
VEC_FN vf vexp2_small(vf a, vf b) {
  const vf t = a * b + ROUND;
  const vf r = a * b - (t - ROUND);  // the product is not rounded where the machine fuses
  const vf p = exp2_fraction(r) + 1.0f;
  return (vf)((vu)p + ((vu)t << 23));  // unsigned: wraps outside the range
}
#endif

// 2^x: 0 below -150, infinite from 128 on.
VEC_FN vf vexp2(vf x) {
  x = vmin(vset1(130.0f), vmax(vset1(-151.0f), x));
  const vf k = (x + ROUND) - ROUND;
  return vscale(exp2_fraction(x - k) + 1.0f, k);
}

// e^x, gradual underflow: 0 below -104, infinite above 88.73.
VEC_FN vf vexp(vf x) {
  x = vmin(vset1(90.0f), vmax(vset1(-105.0f), x));
  const vf k = (x * 1.44269504f + ROUND) - ROUND;
  vf r = x - k * 0.693359375f;  // ln 2 in two parts; the product with the first is exact
  r = r - k * -2.12194440e-4f;
  vf p = vset1(0.00138146128f);
  p = p * r + 0.00836871006f;
  p = p * r + 0.0416683890f;
  p = p * r + 0.166665211f;
  p = p * r + 0.499999940f;
  return vscale((p * r) * r + r + 1.0f, k);
}

// log x: -infinity at 0, NaN below.
VEC_FN vf vlog(vf x) {
  const vi tiny = x < 1.17549435e-38f;
  const vf scaled = vselect(tiny, x * 8388608.0f, x);
  // x = m 2^e with m in [sqrt(1/2), sqrt(2)), log m = 2 atanh(s), s = f / (2 + f), f = m - 1.
  // Unsigned, because it wraps below zero, where the result is replaced.
  const vu bits = (vu)scaled;
  const vi e = (vi)(bits - 0x3f3504f3u) >> 23;
  const vf f = (vf)(bits - ((vu)e << 23)) - 1.0f;
  const vf ef = to_float(e) - vselect(tiny, vset1(23.0f), vzero());
  const vf s = f / (f + 2.0f);
  const vf q = s * s;
  vf p = q * 0.235826001f + 0.285372853f;
  p = p * q + 0.400003344f;
  p = p * q + 0.666666627f;
  const vf half = 0.5f * f * f;  // log m = f - (f^2/2 - s (f^2/2 + q p)): the leading term is exact
  vf y = ef * 0.693359375f + (f - (half - (s * (half + q * p) + ef * -2.12194440e-4f)));
  y = vselect(x == __builtin_inff(), x, y);
  y = vselect(x == 0.0f, vset1(-__builtin_inff()), y);
  return vselect(x >= 0.0f, y, vset1(__builtin_nanf("")));  // x < 0 and NaN
}

// log(1 + t) for t in [-1/2, 1], accurate relative to the result: 2 atanh(t / (2 + t)).
VEC_FN vf log1p_unit(vf t) {
  const vf s = t / (t + 2.0f);
  const vf q = s * s;
  vf p = q * 0.217924088f + 0.171478450f;
  p = p * q + 0.223015010f;
  p = p * q + 0.285683960f;
  p = p * q + 0.400000542f;
  p = p * q + 0.666666687f;
  return s * (q * p) + (s + s);
}

VEC_FN vf vlog1p(vf x) {
  // log(1 + x) = log(u) + (x - (u - 1)) / u with u = 1 + x as rounded; near 0 the series itself.
  const vf u = x + 1.0f;
  const vf y = vlog(u) + (x - (u - 1.0f)) / u;
  const vf z = vselect(vabs(x) < 0.5f, log1p_unit(x), y);
  return vselect(x == __builtin_inff(), x, vselect(x == -1.0f, vset1(-__builtin_inff()), z));
}

// ---- activations ----------------------------------------------------------------------------------------------------
// log(1 + e^x), for every x: it *is* x in float32 above 17.4, and e^x far below 0.
VEC_FN vf vsoftplus(vf x) { return vmax(vzero(), x) + log1p_unit(vexp(-vabs(x))); }
// The same bits, and the derivative, the sigmoid of x.
VEC_FN vf vsoftplus(vf x, vf* slope) {
  const vf t = vexp(-vabs(x));
  *slope = vselect(x > 0.0f, vset1(1.0f), t) / (t + 1.0f);
  return vmax(vzero(), x) + log1p_unit(t);
}
VEC_FN vf vsigmoid(vf x) { return 1.0f / (vexp(-x) + 1.0f); }
VEC_FN vf vsilu(vf x) { return x / (vexp(-x) + 1.0f); }

VEC_FN vf vtanh(vf x) {
  const vf a = vabs(x), q = x * x;
  vf p = q * -0.00571704470f + 0.0206505861f;
  p = p * q + -0.0537434965f;
  p = p * q + 0.133314908f;
  p = p * q + -0.333332837f;
  const vf big = 1.0f - 2.0f / (vexp(a + a) + 1.0f);
  return vselect(a < 0.625f, x * (q * p) + x, vcopysign(big, x));
}

// e^(z^2) erfc(z) for z >= 0, a polynomial in t = 2 / (2 + z), times t.
VEC_FN vf erfcx_positive(vf z) {
  const vf t = 2.0f / (z + 2.0f);
  vf p = vset1(-0.0590692908f);
  p = p * t + 0.284576535f;
  p = p * t + -0.487203032f;
  p = p * t + 0.278070569f;
  p = p * t + -0.0266279057f;
  p = p * t + 0.202687755f;
  p = p * t + 0.243103549f;
  p = p * t + 0.282375336f;
  p = p * t + 0.282086402f;
  return p * t;
}

// erf(x) / x for |x| < 1, a polynomial in q = x^2.
VEC_FN vf erf_ratio(vf q) {
  vf p = q * -0.000566013448f + 0.00492478441f;
  p = p * q + -0.0267177038f;
  p = p * q + 0.112804115f;
  p = p * q + -0.376123548f;
  return p * q + 1.12837911f;
}

VEC_FN vf verf(vf x) {
  const vf z = vmin(vset1(10.0f), vabs(x));
  const vf big = 1.0f - erfcx_positive(z) * vexp(-(z * z));
  return vselect(z < 1.0f, x * erf_ratio(x * x), vcopysign(big, x));
}

// The normal distribution function, accurate relative to the result in the lower tail too: gelu(x) = x vnormal_cdf(x).
VEC_FN vf vnormal_cdf(vf x) {
  const vf y = x * 0.707106781f;
  const vf z = vmin(vset1(15.0f), vabs(y));
  const vf tail = erfcx_positive(z) * vexp(-(z * z)) * 0.5f;
  const vf outer = vselect(y > 0.0f, 1.0f - tail, tail);
  return vselect(z < 0.5f, y * erf_ratio(y * y) * 0.5f + 0.5f, outer);
}
VEC_FN vf vgelu(vf x) { return x * vnormal_cdf(x); }

// ---- sine and cosine, |x| <= 1e4 ------------------------------------------------------------------------------------
// sin(x + quarter pi/2). pi/2 in four parts of at most 11 bits each, so that every product with k < 2^13 is exact.
VEC_FN vf sine_quarter(vf x, int32_t quarter) {
  const vf t = x * 0.636619772f + ROUND;
  const vf k = t - ROUND;
  vf r = x - k * 1.5703125f;
  r = r - k * 4.83751296997070312e-4f;
  r = r - k * 7.54953362047672272e-8f;
  r = r - k * 2.56334415159451890e-12f;
  const vf q = r * r;
  vf s = q * -0.000195172994f + 0.00833217800f;
  s = s * q + -0.166666552f;
  s = r * (q * s) + r;
  vf c = q * 0.0000244384501f + -0.00138873677f;
  c = c * q + 0.0416666456f;
  c = (q * c) * q + (1.0f - 0.5f * q);
  const vi n = as_int(t) + quarter;
  const vf y = vselect((n & 1) == 0, s, c);
  return as_float(as_int(y) ^ ((n & 2) << 30));
}
VEC_FN vf vsin(vf x) { return sine_quarter(x, 0); }
VEC_FN vf vcos(vf x) { return sine_quarter(x, 1); }

// ---- one number: the same code, hence the same bits -----------------------------------------------------------------
VEC_FN float exp1(float x) { return vexp(vset1(x))[0]; }
VEC_FN float log1(float x) { return vlog(vset1(x))[0]; }

}  // namespace MAMBA_ISA
