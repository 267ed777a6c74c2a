// The kernel tables, one per instruction set, and the choice between them.
#pragma once

#include "include/kernels.h"

struct Family {
  const Entry* entries;
  int count;
};

// Multiply-adds of these types: float32, bfloat16 summed in float32, 8-bit integers summed in int32.
enum PeakKind { PEAK_F32, PEAK_BF16, PEAK_INT8 };

struct Variant {
  const char* name;         // amx, avx512, avx512f, avx2, sse2, neon, simd128
  int features;             // FEATURE_* bits of Ctx
  const Family* families;   // FAMILIES of them
  // Runs register-only multiply-adds on every thread; returns the operations done. Where the CPU has no dot products of
  // the kind they are float32, in which the kernels then compute.
  double (*peak)(const Ctx& ctx, int64_t threads, PeakKind kind, int64_t iterations);
  // Adds up floats from memory, in several streams on every thread; returns how many of the `count` were read.
  int64_t (*read_all)(const Ctx& ctx, int64_t threads, const float* data, int64_t count);
};

constexpr int FAMILIES = 12;

// Defined once per instruction set, by isa.cc.
#define MAMBA_DECLARE(isa)                                                                      \
  namespace isa {                                                                               \
  const Family* families();                                                                     \
  double peak(const Ctx& ctx, int64_t threads, PeakKind kind, int64_t iterations);              \
  int64_t read_all(const Ctx& ctx, int64_t threads, const float* data, int64_t count);          \
  }
MAMBA_DECLARE(sse2)
MAMBA_DECLARE(avx2)
MAMBA_DECLARE(avx512)
MAMBA_DECLARE(neon)
MAMBA_DECLARE(simd128)

constexpr int MAX_VARIANTS = 5;

// The variants that this CPU can run, best first. Returns how many were written to `out` (at most MAX_VARIANTS).
int supported_variants(Variant* out);
