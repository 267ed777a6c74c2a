// The products on tiles over SoftwareTiles, as a variant that has nothing else: their cases run where AMX itself is missing.
// Compiled like the kernels for avx512, with MAMBA_ISA=amx_twin.
#include <math.h>
#include <string.h>

#define MM_TILES SoftwareTiles

#include "../dispatch.h"
#include "../include/dots.h"
#include "../include/kernels.h"
#include "../include/tiles.h"
#include "../include/transpose.h"
#include "../include/vec.h"
#include "../include/widen.h"

namespace MAMBA_ISA {

#include "../kernels/matmul.cc"
#include "../kernels/narrow-panels.cc"
#include "../kernels/narrow-vnni.cc"
#include "../kernels/narrow-amx.cc"
#include "../kernels/narrow-product.cc"
#include "../kernels/narrow.cc"

const Family* families() {
  static const Family all[FAMILIES] = {{matmul_entries, 1}, {narrow_entries, sizeof narrow_entries / sizeof(Entry)}};
  return all;
}

}  // namespace MAMBA_ISA
