// The C ABI between the hosts (Node addon, WebAssembly) and the kernels.
//
// A kernel receives its operands as doubles, in the order of src/backend/kernels.ts: buffers as byte offsets from `base`
// (negative = null), numbers as they are. The hosts have checked every offset; kernels trust their arguments.
//
// Every native/kernels/<family>.cc is compiled once per instruction set, inside `namespace MAMBA_ISA`, through
// native/isa.cc. All families share that namespace, so file-local helpers carry the family's name as a prefix.
// Kernels use no library but <math.h> builtins and <string.h>, do not allocate, do not throw, have no globals.
#pragma once

#include <stddef.h>
#include <stdint.h>

// Everything in this header is inlined by force: a shared out-of-line copy, compiled for a newer instruction set,
// could otherwise be picked by the linker and run on an older CPU.
#define MAMBA_INLINE inline __attribute__((always_inline))

// The constants of src/backend/kernels.ts.
constexpr int64_t SCAN_CHUNK = 64;
constexpr int64_t SCAN_PARTS = 4;
constexpr int64_t SSD_ROWS = 64;
constexpr int64_t SSD_PARTS = 4;
constexpr int64_t NORM_BLOCKS = 32;
constexpr int64_t ATTENTION_BLOCK = 128;
constexpr int64_t ATTENTION_WIDTH = 512;
constexpr int64_t ANGLE_HEADS = 8;
constexpr int64_t PRECISION_F32 = 0, PRECISION_BF16 = 1, PRECISION_INT8 = 2;

// Scratch of one thread: 64-byte aligned, contents undefined at the start of a task.
constexpr int64_t SCRATCH_BYTES = 4 << 20;

struct Args {
  const double* v;
  char* base;

  // Buffer operand i, nullptr when absent.
  MAMBA_INLINE float* f(int i) const { return (float*)at(i); }
  MAMBA_INLINE int32_t* ids(int i) const { return (int32_t*)at(i); }
  MAMBA_INLINE uint16_t* bits(int i) const { return (uint16_t*)at(i); }
  MAMBA_INLINE int64_t n(int i) const { return (int64_t)v[i]; }
  MAMBA_INLINE float num(int i) const { return (float)v[i]; }
  MAMBA_INLINE double num64(int i) const { return v[i]; }

 private:
  MAMBA_INLINE char* at(int i) const { return v[i] < 0 ? nullptr : base + (ptrdiff_t)(int64_t)v[i]; }
};

// What a CPU has beyond the instruction set that a kernel is compiled for. Code that needs one of them is compiled for it by
// a target attribute, stands in a file of its own, and is called only where Ctx::features names it.
constexpr int FEATURE_VNNI = 1;  // dot products of 8-bit integers (AVX512_VNNI)
constexpr int FEATURE_BF16 = 2;  // dot products of bfloat16 (AVX512_BF16)
constexpr int FEATURE_AMX = 4;   // tiles of both (AMX-TILE, AMX-BF16, AMX-INT8), permitted by the system

struct Ctx {
  using Task = void (*)(const void* body, int64_t task, char* scratch);
  void (*run)(void* pool, int64_t tasks, Task task, const void* body);
  void* pool;
  int features;

  // Runs body(task, scratch) for every task in [0, tasks), in any order, on any thread, and returns when all are done.
  // The split into tasks must depend on sizes only: results must not depend on the thread count. Not nestable.
  template <class F>
  MAMBA_INLINE void parallel(int64_t tasks, const F& body) const {
    if (tasks <= 0) return;
    const Task call = [](const void* f, int64_t task, char* scratch) { (*(const F*)f)(task, scratch); };
    run(pool, tasks, call, &body);
  }
};

using Kernel = void (*)(const Args&, const Ctx&);

struct Entry {
  const char* name;
  int operands;
  Kernel fn;
};
