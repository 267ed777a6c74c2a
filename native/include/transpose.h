// Rows <-> columns: blocks of W x W in registers, and matrices in memory.
#pragma once

#include "vec.h"

namespace MAMBA_ISA {

// The numbers 0 .. W - 1 as template arguments.
template <int... L>
struct Lanes {};
template <int N, int... L>
struct MakeLanes : MakeLanes<N - 1, N - 1, L...> {};
template <int... L>
struct MakeLanes<0, L...> {
  using Type = Lanes<L...>;
};

// Swaps the lanes with bit D of a for those without of b, D lanes apart.
template <int D, class V, int... L>
VEC_FN void swap_lanes(V& a, V& b, Lanes<L...>) {
  const V low = __builtin_shufflevector(a, b, (L & D ? W + L - D : L)...);
  const V high = __builtin_shufflevector(a, b, (L & D ? W + L : L + D)...);
  a = low, b = high;
}

template <int D, class V>
VEC_FN void transpose_stage(V* rows) {
#pragma GCC unroll 16
  for (int i = 0; i < W; i++) {
    if (!(i & D)) swap_lanes<D>(rows[i], rows[i + D], typename MakeLanes<W>::Type());
  }
}

// rows[i][j] <-> rows[j][i] for i, j < W; V is any vector of W lanes.
template <class V>
VEC_FN void transpose_block(V* rows) {
  transpose_stage<1>(rows);
  transpose_stage<2>(rows);
  if constexpr (W >= 8) transpose_stage<4>(rows);
  if constexpr (W >= 16) transpose_stage<8>(rows);
}

// out[j * out_step + i] = in[i * in_step + j] * scale for i, j < 4.
VEC_FN void transpose4(float* out, int64_t out_step, const float* in, int64_t in_step, float scale) {
  const vec4 a = *(const vec4_unaligned*)in, b = *(const vec4_unaligned*)(in + in_step);
  const vec4 c = *(const vec4_unaligned*)(in + 2 * in_step), d = *(const vec4_unaligned*)(in + 3 * in_step);
  const vec4 ab = __builtin_shufflevector(a, b, 0, 4, 1, 5), AB = __builtin_shufflevector(a, b, 2, 6, 3, 7);
  const vec4 cd = __builtin_shufflevector(c, d, 0, 4, 1, 5), CD = __builtin_shufflevector(c, d, 2, 6, 3, 7);
  *(vec4_unaligned*)out = __builtin_shufflevector(ab, cd, 0, 1, 4, 5) * scale;
  *(vec4_unaligned*)(out + out_step) = __builtin_shufflevector(ab, cd, 2, 3, 6, 7) * scale;
  *(vec4_unaligned*)(out + 2 * out_step) = __builtin_shufflevector(AB, CD, 0, 1, 4, 5) * scale;
  *(vec4_unaligned*)(out + 3 * out_step) = __builtin_shufflevector(AB, CD, 2, 3, 6, 7) * scale;
}

// out (columns, rows) = scale * in (rows, columns), stored out_step and in_step apart.
VEC_FN void transpose(float* out, int64_t out_step, const float* in, int64_t in_step, int64_t rows, int64_t columns,
                      float scale) {
  int64_t i = 0;
  for (; i + 4 <= rows; i += 4) {
    int64_t j = 0;
    for (; j + 4 <= columns; j += 4) transpose4(out + j * out_step + i, out_step, in + i * in_step + j, in_step, scale);
    for (; j < columns; j++) {
      for (int64_t k = i; k < i + 4; k++) out[j * out_step + k] = in[k * in_step + j] * scale;
    }
  }
  for (; i < rows; i++) {
    for (int64_t j = 0; j < columns; j++) out[j * out_step + i] = in[i * in_step + j] * scale;
  }
}

}  // namespace MAMBA_ISA
