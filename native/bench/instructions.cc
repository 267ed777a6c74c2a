// Runs kernels once, on one thread, for a program that counts instructions (bench/instructions.mjs).
//
//   instructions ISA < calls
//
// A call is a line "call KERNEL OPERANDS", then a line for each operand:
//   n VALUE            a number; -1 is a null buffer
//   f COUNT LOW HIGH   random floats
//   i COUNT BELOW      random ids
//   b UNITS            units of 16 bits: small positive numbers as bf16 and f16, and as the scales of blocks
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include <vector>

#include "../dispatch.h"

namespace {

constexpr size_t ARENA_BYTES = (size_t)1 << 32;
constexpr uint16_t SMALL_BITS = 0x1c1c;

void run_in_order(void* scratch, int64_t tasks, Ctx::Task task, const void* body) {
  for (int64_t i = 0; i < tasks; i++) task(body, i, (char*)scratch);
}

double random_unit() {  // xorshift64*
  static uint64_t state = 0x9e3779b97f4a7c15u;
  state ^= state >> 12, state ^= state << 25, state ^= state >> 27;
  return (double)((state * 0x2545f4914f6cdd1du) >> 11) * 0x1p-53;
}

[[noreturn]] void stop(const char* what, const char* got) {
  fprintf(stderr, "instructions: expected %s, got %s\n", what, got);
  exit(1);
}

class Arena {
 public:
  Arena() {
    void* memory = mmap(nullptr, ARENA_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED) stop("memory", "none");
    base = (char*)memory;
  }
  // The offset of fresh bytes, aligned to cache lines.
  size_t take(size_t bytes) {
    const size_t at = used;
    used += (bytes + 63) / 64 * 64;
    if (used > ARENA_BYTES) stop("operands within the arena", "more");
    return at;
  }
  char* base;

 private:
  size_t used = 0;
};

// One operand of the input, as the kernel receives it.
double read_operand(Arena& arena) {
  char kind;
  double size, low = 0, high = 0;
  if (scanf(" %c %lf", &kind, &size) != 2) stop("an operand", "the end");
  const size_t count = (size_t)size;
  if (kind == 'n') return size;
  if (kind == 'b') {
    const size_t at = arena.take(count * 2);
    uint16_t* bits = (uint16_t*)(arena.base + at);
    for (size_t i = 0; i < count; i++) bits[i] = SMALL_BITS;
    return (double)at;
  }
  if (scanf("%lf", &low) != 1 || (kind == 'f' && scanf("%lf", &high) != 1)) stop("a range", "none");
  const size_t at = arena.take(count * 4);
  for (size_t i = 0; i < count; i++) {
    if (kind == 'f') ((float*)(arena.base + at))[i] = (float)(low + (high - low) * random_unit());
    else ((int32_t*)(arena.base + at))[i] = (int32_t)(low * random_unit());
  }
  return (double)at;
}

}  // namespace

// What the counting program looks for, by its name.
extern "C" __attribute__((noinline)) void measured_call(const Entry* entry, const Args* args, const Ctx* ctx) {
  entry->fn(*args, *ctx);
}

int main(int argc, char** argv) {
  Variant found[MAX_VARIANTS];
  const int variants = supported_variants(found);
  int choice = 0;
  while (choice < variants && (argc < 2 || strcmp(found[choice].name, argv[1]) != 0)) choice++;
  if (choice == variants) stop("an instruction set of this CPU", argc < 2 ? "none" : argv[1]);
  const Variant& variant = found[choice];

  alignas(64) static char scratch[SCRATCH_BYTES];
  const Ctx ctx = {run_in_order, scratch, variant.features};
  Arena arena;
  char name[64];
  int operands;
  while (scanf(" call %63s %d", name, &operands) == 2) {
    const Entry* entry = nullptr;
    for (int i = 0; i < FAMILIES; i++)
      for (int j = 0; j < variant.families[i].count; j++)
        if (strcmp(variant.families[i].entries[j].name, name) == 0) entry = &variant.families[i].entries[j];
    if (!entry || entry->operands != operands) stop("a kernel of the table with its operands", name);
    std::vector<double> values;
    for (int i = 0; i < operands; i++) values.push_back(read_operand(arena));
    const Args args = {values.data(), arena.base};
    measured_call(entry, &args, &ctx);
  }
  return 0;
}
