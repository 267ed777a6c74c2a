// The product on tiles over SoftwareTiles, as a variant that has nothing else: its cases run where AMX itself is missing.
// Compiled like the kernels for avx512, with MAMBA_ISA=amx_twin.
#include <math.h>
#include <string.h>

#define MM_TILES SoftwareTiles

#include "../dispatch.h"
#include "../include/kernels.h"
#include "../include/tiles.h"
#include "../include/vec.h"
#include "../include/widen.h"

namespace MAMBA_ISA {

#include "../kernels/matmul.cc"

const Family* families() {
  static const Family all[FAMILIES] = {{matmul_entries, 1}};
  return all;
}

}  // namespace MAMBA_ISA
