// The tile registers of AMX, as far as products of bfloat16 and of bytes need them, in two forms with one interface: HardwareTiles are the
// instructions, SoftwareTiles what Intel's manual says that they do, in plain C++, so that a kernel written over them can be
// tested anywhere (native/test/amx.cc).
//
// Run so far: the kernels over SoftwareTiles, on every CPU with AVX512_BF16. Not run so far: the instructions, for want of a CPU
// that has them. That is why native/dispatch.cc compares a product with plain loops before it offers them.
#pragma once

#include <stdint.h>
#include <string.h>

namespace MAMBA_ISA {

// What LDTILECFG reads: rows and bytes per row of each register.
struct alignas(64) TileConfig {
  uint8_t palette = 1, start_row = 0, reserved[14] = {};
  uint16_t bytes[16] = {};
  uint8_t rows[16] = {};
};
static_assert(sizeof(TileConfig) == 64, "as the instruction reads it");

// All eight tiles as large as they are: 16 rows of 64 bytes.
static inline TileConfig tiles_whole() {
  TileConfig config;
  for (int tile = 0; tile < 8; tile++) config.rows[tile] = 16, config.bytes[tile] = 64;
  return config;
}

#if defined(__x86_64__)
// Register numbers are part of the instructions. The configuration is an operand of the first, so that no compiler can leave
// out the stores that fill it; all others say that they read or write memory, in the order of the program.
struct HardwareTiles {
  static void configure(const TileConfig& config) { asm volatile("ldtilecfg %0" ::"m"(config) : "memory"); }
  static void release() { asm volatile("tilerelease" ::: "memory"); }
  template <int T>
  static void zero() {
    asm volatile("tilezero %%tmm%c0" ::"i"(T));
  }
  // `stride` bytes from one row to the next.
  template <int T>
  static void load(const void* from, int64_t stride) {
    asm volatile("tileloadd (%0,%1,1), %%tmm%c2" ::"r"(from), "r"(stride), "i"(T) : "memory");
  }
  template <int T>
  static void store(void* to, int64_t stride) {
    asm volatile("tilestored %%tmm%c2, (%0,%1,1)" ::"r"(to), "r"(stride), "i"(T) : "memory");
  }
  // C += A B: rows of A are pairs of bfloat16 along k, rows of B too, each the pairs of one k for all columns.
  template <int C, int A, int B>
  static void dot() {
    asm volatile("tdpbf16ps %%tmm%c2, %%tmm%c1, %%tmm%c0" ::"i"(C), "i"(A), "i"(B));
  }
  // The same of signed bytes, four along k instead of two, into integers of 32 bits.
  template <int C, int A, int B>
  static void dot_bytes() {
    asm volatile("tdpbssd %%tmm%c2, %%tmm%c1, %%tmm%c0" ::"i"(C), "i"(A), "i"(B));
  }
};

#endif

// One thread's registers. Subnormal numbers count as zero and results that small become zero, roundings are to nearest even,
// and even and odd elements of k have a sum each until the end: TDPBF16PS in Intel's manual.
struct SoftwareTiles {
  static void configure(const TileConfig& config) {
    state() = {};
    state().config = config;
  }
  static void release() { state() = {}; }
  template <int T>
  static void zero() {
    memset(state().tile[T], 0, sizeof state().tile[T]);
  }
  template <int T>
  static void load(const void* from, int64_t stride) {
    zero<T>();
    for (int r = 0; r < state().config.rows[T]; r++)
      memcpy(state().tile[T][r], (const char*)from + r * stride, state().config.bytes[T]);
  }
  template <int T>
  static void store(void* to, int64_t stride) {
    for (int r = 0; r < state().config.rows[T]; r++)
      memcpy((char*)to + r * stride, state().tile[T][r], state().config.bytes[T]);
  }
  template <int C, int A, int B>
  static void dot() {
    const TileConfig& config = state().config;
    const int columns = config.bytes[C] / 4, pairs = config.bytes[A] / 4;
    for (int r = 0; r < config.rows[C]; r++) {
      for (int n = 0; n < columns; n++) {
        float even = 0, odd = 0;
        for (int p = 0; p < pairs; p++) {
          even = flushed(__builtin_fmaf(half(A, r, 2 * p), half(B, p, 2 * n), even));
          odd = flushed(__builtin_fmaf(half(A, r, 2 * p + 1), half(B, p, 2 * n + 1), odd));
        }
        float c;
        memcpy(&c, state().tile[C][r] + 4 * n, 4);
        c = flushed(flushed(c) + flushed(even + odd));
        memcpy(state().tile[C][r] + 4 * n, &c, 4);
      }
    }
  }
  template <int C, int A, int B>
  static void dot_bytes() {
    const TileConfig& config = state().config;
    for (int r = 0; r < config.rows[C]; r++) {
      for (int n = 0; n < config.bytes[C] / 4; n++) {
        int32_t c;
        memcpy(&c, state().tile[C][r] + 4 * n, 4);
        for (int p = 0; p < config.bytes[A]; p++)
          c += (int8_t)state().tile[A][r][p] * (int8_t)state().tile[B][p / 4][4 * n + p % 4];
        memcpy(state().tile[C][r] + 4 * n, &c, 4);
      }
    }
  }

 private:
  struct State {
    TileConfig config;
    char tile[8][16][64];
  };
  static State& state() {
    static thread_local State own;
    return own;
  }
  static float flushed(float x) { return __builtin_fabsf(x) < 0x1p-126f ? __builtin_copysignf(0.0f, x) : x; }
  static float half(int tile, int row, int at) {
    uint16_t h;
    memcpy(&h, state().tile[tile][row] + 2 * at, 2);
    const uint32_t u = (uint32_t)h << 16;
    float x;
    memcpy(&x, &u, 4);
    return flushed(x);
  }
};

}  // namespace MAMBA_ISA
