// All kernels for one instruction set. Compiled once per set, with -DMAMBA_ISA=<name> and the matching -m flags.
#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "dispatch.h"
#include "include/dots.h"
#include "include/kernels.h"
#include "include/tiles.h"
#include "include/transpose.h"
#include "include/vec.h"
#include "include/widen.h"

namespace MAMBA_ISA {

#include "kernels/elementwise.cc"
#include "kernels/reduce.cc"
#include "kernels/copy.cc"
#include "kernels/matmul.cc"
#include "kernels/narrow-panels.cc"
#include "kernels/narrow-vnni.cc"
#include "kernels/narrow-amx.cc"
#include "kernels/narrow-product.cc"
#include "kernels/narrow.cc"
#include "kernels/norm.cc"
#include "kernels/conv.cc"
#include "kernels/scan.cc"
#include "kernels/ssd.cc"
#include "kernels/rotation.cc"
#include "kernels/attention.cc"
#include "kernels/loss.cc"
#include "kernels/limits.cc"

#define FAMILY(name) {name##_entries, (int)(sizeof(name##_entries) / sizeof(Entry))}

const Family* families() {
  static const Family all[FAMILIES] = {
      FAMILY(elementwise), FAMILY(reduce), FAMILY(copy),     FAMILY(matmul),    FAMILY(narrow), FAMILY(norm),
      FAMILY(conv),        FAMILY(scan),   FAMILY(ssd),      FAMILY(rotation),  FAMILY(attention), FAMILY(loss),
  };
  return all;
}

}  // namespace MAMBA_ISA
