// Which of the compiled instruction sets this CPU can run.
#include "dispatch.h"

#if defined(__x86_64__)

#include <cpuid.h>
#include <stdlib.h>
#include <string.h>

#if defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace {

// Tasks one after the other, `pool` being the scratch.
void run_here(void* pool, int64_t tasks, Ctx::Task task, const void* body) {
  for (int64_t i = 0; i < tasks; i++) task(body, i, (char*)pool);
}

Kernel avx512_kernel(const char* name) {
  for (int f = 0; f < FAMILIES; f++) {
    const Family& family = avx512::families()[f];
    for (int i = 0; i < family.count; i++)
      if (strcmp(family.entries[i].name, name) == 0) return family.entries[i].fn;
  }
  return nullptr;
}

char* const BASE = (char*)64;  // offsets count from here, as in native/test
double offset_of(const void* p) { return (double)((const char*)p - BASE); }

// The tile kernels were never run on hardware by their authors: two small products of each are compared before they are used.
// Small integers, all of them exact in bfloat16 and their sums in float32, with what plain loops give: 2 x 2 tiles and parts
// of them, both orders of a.
bool tiles_multiply(char* scratch) {
  constexpr int64_t M = 45, N = 53, K = 77;
  static float a[M * K], b[N * K], c[M * N];
  for (int64_t i = 0; i < M * K; i++) a[i] = (float)(i * 37 % 19 - 9);
  for (int64_t i = 0; i < N * K; i++) b[i] = (float)(i * 53 % 23 - 11);
  const Ctx ctx = {run_here, scratch, FEATURE_BF16 | FEATURE_AMX};
  bool same = true;
  for (int trans_a = 0; trans_a < 2; trans_a++) {
    const double args[] = {offset_of(a), offset_of(b), offset_of(c), -1, 1, M, N, K, (double)trans_a, 1, 0, 0, 0, 0, 1};
    avx512_kernel("matmul")({args, BASE}, ctx);
    for (int64_t i = 0; i < M; i++) {
      for (int64_t j = 0; j < N; j++) {
        float sum = 0;
        for (int64_t p = 0; p < K; p++) sum += a[trans_a ? p * M + i : i * K + p] * b[j * K + p];
        same = same && c[i * N + j] == sum;
      }
    }
  }
  return same;
}

// Products with 8-bit weights and activations of 16 and 8 bits, with what the same kernel gives without tiles: the same bits.
bool tiles_multiply_bytes(char* scratch) {
  constexpr int64_t M = 21, N = 48, K = 96, Q8 = 2, PANEL_BYTES = 16 * 34;
  static float a[M * K], c[2][M * N];
  static char w[N / 16 * (K / 32) * PANEL_BYTES];
  const int16_t scale = 0x2400;  // 2^-6
  for (int64_t i = 0; i < M * K; i++) a[i] = (float)(i * 37 % 1019 - 509);
  for (int64_t i = 0; i < (int64_t)sizeof w; i++) w[i] = (char)(i * 53 % 251);
  for (int64_t at = 16 * 32; at < (int64_t)sizeof w; at += PANEL_BYTES)
    for (int64_t lane = 0; lane < 16; lane++) memcpy(w + at + 2 * lane, &scale, 2);
  bool same = true;
  const int64_t precisions[] = {PRECISION_F32, PRECISION_INT8};
  for (const int64_t precision : precisions) {
    for (int tiles = 0; tiles < 2; tiles++) {
      const Ctx ctx = {run_here, scratch, tiles ? FEATURE_AMX : 0};
      const double args[] = {offset_of(a), offset_of(w), offset_of(c[tiles]), -1, M, N, K, Q8, 0, (double)precision};
      avx512_kernel("linearNarrow")({args, BASE}, ctx);
    }
    same = same && memcmp(c[0], c[1], sizeof c[0]) == 0;
  }
  return same;
}

bool tiles_right() {
  char* const scratch = (char*)aligned_alloc(64, SCRATCH_BYTES);
  const bool right = scratch && tiles_multiply(scratch) && tiles_multiply_bytes(scratch);
  free(scratch);
  return right;
}

// Whether this CPU has AMX with bfloat16 and bytes, the system lets this process use it, and it computes what it should.
bool has_tiles() {
#if defined(__linux__)
  constexpr unsigned WANTED = 1u << 22 | 1u << 24 | 1u << 25;  // leaf 7, edx: AMX-BF16, AMX-TILE, AMX-INT8
  constexpr long REQUEST_PERMISSION = 0x1023, TILE_DATA = 18;  // of arch_prctl
  unsigned eax, ebx, ecx, edx;
  if (!__get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx) || (edx & WANTED) != WANTED) return false;
  return syscall(SYS_arch_prctl, REQUEST_PERMISSION, TILE_DATA) == 0 && tiles_right();
#else
  return false;
#endif
}

}  // namespace

int supported_variants(Variant* out) {
  __builtin_cpu_init();
  int count = 0;
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("fma")) {
    int dots = 0;
    if (__builtin_cpu_supports("avx512vnni")) dots |= FEATURE_VNNI;
    if (__builtin_cpu_supports("avx512bf16")) dots |= FEATURE_BF16;
    static const bool tiles = (dots & FEATURE_BF16) != 0 && has_tiles();
    if (tiles) out[count++] = {"amx", dots | FEATURE_AMX, avx512::families(), avx512::peak, avx512::read_all};
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
