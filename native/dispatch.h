// The kernel tables, one per instruction set, and the choice between them.
#pragma once

#include "include/kernels.h"

struct Family {
  const Entry* entries;
  int count;
};

struct Variant {
  const char* name;         // avx512, avx2, sse2, neon, simd128
  const Family* families;   // FAMILIES of them
};

constexpr int FAMILIES = 8;

// Defined once per instruction set, by isa.cc.
namespace sse2 { const Family* families(); }
namespace avx2 { const Family* families(); }
namespace avx512 { const Family* families(); }
namespace neon { const Family* families(); }
namespace simd128 { const Family* families(); }

// The variants that this CPU can run, best first. Returns how many were written to `out` (at most 4).
int supported_variants(Variant* out);
