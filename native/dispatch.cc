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

// Whether a product on tiles of small integers, all of them exact in bfloat16 and their sums in float32, is what plain loops
// give: 2 x 2 tiles and parts of them, both orders of a. The tile kernel was never run on hardware by its authors.
bool tiles_multiply() {
  constexpr int64_t M = 45, N = 53, K = 77;
  static float a[M * K], b[N * K], c[M * N];
  const Entry* product = nullptr;
  for (int f = 0; f < FAMILIES; f++) {
    const Family& family = avx512::families()[f];
    for (int i = 0; i < family.count; i++)
      if (strcmp(family.entries[i].name, "matmul") == 0) product = &family.entries[i];
  }
  char* const scratch = (char*)aligned_alloc(64, SCRATCH_BYTES);
  if (!scratch || !product) return false;
  for (int64_t i = 0; i < M * K; i++) a[i] = (float)(i * 37 % 19 - 9);
  for (int64_t i = 0; i < N * K; i++) b[i] = (float)(i * 53 % 23 - 11);
  const Ctx ctx = {run_here, scratch, FEATURE_BF16 | FEATURE_AMX};
  bool same = true;
  for (int trans_a = 0; trans_a < 2; trans_a++) {
    char* const base = (char*)64;  // offsets count from here, as in native/test
    const double args[] = {(double)((char*)a - base), (double)((char*)b - base), (double)((char*)c - base), -1, 1, M, N, K,
                           (double)trans_a, 1, 0, 0, 0, 0, 1};
    product->fn({args, base}, ctx);
    for (int64_t i = 0; i < M; i++) {
      for (int64_t j = 0; j < N; j++) {
        float sum = 0;
        for (int64_t p = 0; p < K; p++) sum += a[trans_a ? p * M + i : i * K + p] * b[j * K + p];
        same = same && c[i * N + j] == sum;
      }
    }
  }
  free(scratch);
  return same;
}

// Whether this CPU has AMX with bfloat16, the system lets this process use it, and it computes what it should.
bool has_tiles() {
#if defined(__linux__)
  constexpr unsigned BF16 = 1u << 22, TILE = 1u << 24;     // leaf 7, edx
  constexpr long REQUEST_PERMISSION = 0x1023, TILE_DATA = 18;  // of arch_prctl
  unsigned eax, ebx, ecx, edx;
  if (!__get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx) || (edx & BF16) == 0 || (edx & TILE) == 0) return false;
  return syscall(SYS_arch_prctl, REQUEST_PERMISSION, TILE_DATA) == 0 && tiles_multiply();
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
