// The WebAssembly host: linear memory, imported and shared, holds the arena. JavaScript writes operands to operands(), grows
// the memory as needed and calls run(index); every worker calls serve(thread) on an own instance of the module.
#include "dispatch.h"
#include "wasm-pool.h"

#define EXPORT(name) extern "C" __attribute__((export_name(#name)))

// Provided by the linker: the end of static data, where the threads' blocks begin, and behind them the arena.
extern "C" char __heap_base;

namespace {

using wasm_pool::pool;

constexpr int MAX_OPERANDS = 64;
double operand_values[MAX_OPERANDS];

const Entry* entry(int index) {
  const Family* families = simd128::families();
  for (int i = 0; i < FAMILIES; i++) {
    if (index < families[i].count) return &families[i].entries[index];
    index -= families[i].count;
  }
  return nullptr;
}

char* arena() { return wasm_pool::scratch(pool.threads); }

}  // namespace

#if defined(__wasm_relaxed_simd__)
EXPORT(isa) const char* isa() { return "relaxed simd128"; }
#else
EXPORT(isa) const char* isa() { return "simd128"; }
#endif
EXPORT(operands) double* operands() { return operand_values; }

EXPORT(kernel_name) const char* kernel_name(int index) {
  const Entry* found = entry(index);
  return found ? found->name : nullptr;
}

EXPORT(kernel_operands) int kernel_operands(int index) { return entry(index)->operands; }

// Divides the memory for `threads`, the caller's included. Returns where the arena begins.
EXPORT(open) char* open(int threads, int may_sleep) {
  pool.threads = threads;
  pool.may_sleep = may_sleep != 0;
  pool.blocks = (char*)(((uintptr_t)&__heap_base + 63) & ~(uintptr_t)63);
  return arena();
}

// Returns 0, or 1 when a worker has failed: then nothing more can be run.
EXPORT(run) int run(int index) {
  const Args args = {operand_values, arena()};
  const Ctx ctx = {wasm_pool::run, nullptr, 0};
  entry(index)->fn(args, ctx);
  return wasm_pool::load(pool.failed);
}

// A worker calls fail() when serve() has trapped. Its stack pointer is to be set to stack_top(thread) before.
EXPORT(stack_top) char* stack_top(int thread) { return wasm_pool::stack_top(thread); }
EXPORT(serve) void serve(int thread) { wasm_pool::serve(thread); }
EXPORT(fail) void fail() { wasm_pool::fail(); }
