// The WebAssembly host: linear memory is the arena, tasks run one after another.
// JavaScript writes operands to operands(), grows the memory as needed and calls run(index).
#include "dispatch.h"

#define EXPORT(name) extern "C" __attribute__((export_name(#name)))

// Provided by the linker: the end of static data, where the arena begins.
extern "C" char __heap_base;

namespace {

constexpr int MAX_OPERANDS = 64;
double operand_values[MAX_OPERANDS];
alignas(64) char scratch[SCRATCH_BYTES];

void run_in_order(void*, int64_t tasks, Ctx::Task task, const void* body) {
  for (int64_t i = 0; i < tasks; i++) task(body, i, scratch);
}

const Entry* entry(int index) {
  const Family* families = simd128::families();
  for (int i = 0; i < FAMILIES; i++) {
    if (index < families[i].count) return &families[i].entries[index];
    index -= families[i].count;
  }
  return nullptr;
}

char* arena() { return (char*)(((uintptr_t)&__heap_base + 63) & ~(uintptr_t)63); }

}  // namespace

EXPORT(operands) double* operands() { return operand_values; }
EXPORT(arena_start) char* arena_start() { return arena(); }

EXPORT(kernel_name) const char* kernel_name(int index) {
  const Entry* found = entry(index);
  return found ? found->name : nullptr;
}

EXPORT(kernel_operands) int kernel_operands(int index) { return entry(index)->operands; }

EXPORT(run) void run(int index) {
  const Args args = {operand_values, arena()};
  const Ctx ctx = {run_in_order, nullptr, 0};
  entry(index)->fn(args, ctx);
}
