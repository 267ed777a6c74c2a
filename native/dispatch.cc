// Which of the compiled instruction sets this CPU can run.
#include "dispatch.h"

#if defined(__x86_64__)

int supported_variants(Variant* out) {
  __builtin_cpu_init();
  int count = 0;
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("fma")) {
    int dots = 0;
    if (__builtin_cpu_supports("avx512vnni")) dots |= FEATURE_VNNI;
    if (__builtin_cpu_supports("avx512bf16")) dots |= FEATURE_BF16;
    out[count++] = {"avx512", dots, avx512::families(), avx512::peak, avx512::read_all};
    // What an AVX-512 CPU without these does, where there are some.
    if (dots) out[count++] = {"avx512f", 0, avx512::families(), avx512::peak, avx512::read_all};
  }
  // Every CPU with AVX2 and FMA also has F16C (both came together, Haswell and Zen).
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
    out[count++] = {"avx2", 0, avx2::families(), avx2::peak, avx2::read_all};
  out[count++] = {"sse2", 0, sse2::families(), sse2::peak, sse2::read_all};
  return count;
}

#elif defined(__aarch64__)

int supported_variants(Variant* out) {
  out[0] = {"neon", 0, neon::families(), neon::peak, neon::read_all};
  return 1;
}

#else
#error "mamba: expected x86-64 or arm64"
#endif
