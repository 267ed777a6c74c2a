// The kernel tables, one per instruction set, and the choice between them.
#pragma once

#include "include/kernels.h"

struct Family {
  const Entry* entries;
  int count;
};

struct Variant {
  const char* name;         // amx, avx512, avx512f, avx2, sse2, neon, simd128
  int features;             // FEATURE_* bits of Ctx
  const Family* families;   // FAMILIES of them
  // Runs register-only multiply-adds on every thread; returns the floating-point operations done.
  double (*peak)(const Ctx& ctx, int64_t threads, int64_t iterations);
};

constexpr int FAMILIES = 12;

// Defined once per instruction set, by isa.cc.
#define MAMBA_DECLARE(isa)   \
  namespace isa {            \
  const Family* families();  \
  double peak(const Ctx& ctx, int64_t threads, int64_t iterations); \
  }
MAMBA_DECLARE(sse2)
MAMBA_DECLARE(avx2)
MAMBA_DECLARE(avx512)
MAMBA_DECLARE(neon)
MAMBA_DECLARE(simd128)

constexpr int MAX_VARIANTS = 5;

// The variants that this CPU can run, best first. Returns how many were written to `out` (at most MAX_VARIANTS).
int supported_variants(Variant* out);
