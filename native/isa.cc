// All kernels for one instruction set. Compiled once per set, with -DMAMBA_ISA=<name> and the matching -m flags.
#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "dispatch.h"
#include "include/kernels.h"
#include "include/vec.h"
#include "include/widen.h"

namespace MAMBA_ISA {

#include "kernels/elementwise.cc"
#include "kernels/reduce.cc"
#include "kernels/copy.cc"
#include "kernels/matmul.cc"
#include "kernels/narrow.cc"
#include "kernels/norm.cc"
#include "kernels/conv.cc"
#include "kernels/scan.cc"
#include "kernels/ssd.cc"
#include "kernels/rotation.cc"
#include "kernels/attention.cc"
#include "kernels/loss.cc"

#define FAMILY(name) {name##_entries, (int)(sizeof(name##_entries) / sizeof(Entry))}

const Family* families() {
  static const Family all[FAMILIES] = {
      FAMILY(elementwise), FAMILY(reduce), FAMILY(copy),     FAMILY(matmul),    FAMILY(narrow), FAMILY(norm),
      FAMILY(conv),        FAMILY(scan),   FAMILY(ssd),      FAMILY(rotation),  FAMILY(attention), FAMILY(loss),
  };
  return all;
}

// The ceiling of every kernel: products and sums that never leave the registers, as many chains as hide their latency.
double peak(const Ctx& ctx, int64_t threads, int64_t iterations) {
  constexpr int CHAINS = 10;
  ctx.parallel(threads, [=](int64_t, char* scratch) {
    vf sums[CHAINS];
    for (int i = 0; i < CHAINS; i++) sums[i] = vset1((float)i);
    const vf factor = vset1(0.999f), term = vset1(1e-3f);
    for (int64_t i = 0; i < iterations; i++)
      for (int j = 0; j < CHAINS; j++) sums[j] = vfma(sums[j], factor, term);
    for (int i = 1; i < CHAINS; i++) sums[0] += sums[i];
    vstore((float*)scratch, sums[0]);
  });
  return 2.0 * W * CHAINS * (double)threads * (double)iterations;
}

}  // namespace MAMBA_ISA
