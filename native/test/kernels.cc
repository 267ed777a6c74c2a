// Every kernel on every instruction set of this CPU, without Node: for cross-compiled and sanitized builds, where the tests
// in TypeScript cannot go. `kernels --list` names the instruction sets. Exit code 1 when a bound is broken, bits depend on
// the threads, or a kernel of the table is not called. Run by scripts/test-native.mjs.
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <set>

#include "../dispatch.h"
#include "../pool.h"
#include "harness.h"

namespace {

constexpr int RUNS = 4, MAX_THREADS = 3;  // three thread counts, and tasks in reverse
constexpr int POISON = 0xff;              // four of them are a NaN

Variant variant;
Pool* pools[MAX_THREADS + 1];
std::set<std::string> called;
int64_t calls = 0, failures = 0;
double worst = 0;
std::string worst_case;
char current[256];

void fail(const std::string& what) {
  if (++failures <= 20) printf("%s %s: %s\n", variant.name, current, what.c_str());
}

void crashed(int) {
  const char* text = " touched memory that is not its own\n";
  if (write(2, variant.name, strlen(variant.name)) < 0 || write(2, " ", 1) < 0) _exit(1);
  if (write(2, current, strlen(current)) < 0 || write(2, text, strlen(text)) < 0) _exit(1);
  _exit(1);
}

// A copy of an operand that ends at an inaccessible page, with a pattern in front.
class Guarded {
 public:
  explicit Guarded(const std::vector<char>& contents) : size(contents.size()) {
    const size_t page = (size_t)sysconf(_SC_PAGESIZE);
    length = (size + FRONT + page - 1) / page * page + page;
    memory = (char*)mmap(nullptr, length, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED || mprotect(memory + length - page, page, PROT_NONE) != 0) {
      perror("mmap");
      exit(1);
    }
    data = memory + length - page - size;
    memset(data - FRONT, PATTERN, FRONT);
    if (size) memcpy(data, contents.data(), size);
  }
  Guarded(const Guarded&) = delete;
  ~Guarded() { munmap(memory, length); }

  bool intact() const {
    for (size_t i = 1; i <= FRONT; i++)
      if (data[-(ptrdiff_t)i] != PATTERN) return false;
    return true;
  }

  char* data;
  size_t size;

 private:
  static constexpr size_t FRONT = 64;
  static constexpr char PATTERN = 0x5a;
  char* memory;
  size_t length;
};

void run_reversed(void* scratch, int64_t tasks, Ctx::Task task, const void* body) {
  static bool inside = false;
  if (inside) fail("began a job in a task");
  inside = true;
  for (int64_t i = tasks - 1; i >= 0; i--) {
    memset(scratch, POISON, SCRATCH_BYTES);
    task(body, i, (char*)scratch);
  }
  inside = false;
}

const Entry* find(const char* name) {
  for (int i = 0; i < FAMILIES; i++)
    for (int j = 0; j < variant.families[i].count; j++)
      if (strcmp(variant.families[i].entries[j].name, name) == 0) return &variant.families[i].entries[j];
  return nullptr;
}

void compare(size_t operand, const Balls& want, const float* got) {
  for (size_t i = 0; i < want.size(); i++) {
    const double v = fabs(want[i].v) < 0x1.ffffffp127 ? want[i].v : (double)(float)want[i].v;  // what overflows is infinite
    const double off = fabs(got[i] - v), period = want[i].period, error = period > 0 ? fmin(off, fabs(period - off)) : off;
    const bool ok = isnan(v) ? isnan(got[i]) : isinf(v) ? got[i] == v : error <= want[i].r;
    if (isfinite(v) && want[i].r > 0 && error / want[i].r > worst) worst = error / want[i].r, worst_case = current;
    if (ok) continue;
    char text[200];
    snprintf(text, sizeof text, "operand %zu [%zu] is %.9g, expected %.9g +- %.3g", operand, i, got[i], v, want[i].r);
    return fail(text);
  }
}

template <class F>
void values(Floats& x, const F& next) {
  for (float& value : x) value = (float)next();
}

double random_unit() {  // xorshift64*
  static uint64_t state = 0x9e3779b97f4a7c15u;
  state ^= state >> 12, state ^= state << 25, state ^= state >> 27;
  return (double)((state * 0x2545f4914f6cdd1du) >> 11) * 0x1p-53;
}

}  // namespace

Floats uniform(int64_t count, double lo, double hi) {
  Floats x(count);
  values(x, [=] { return lo + (hi - lo) * random_unit(); });
  return x;
}

Floats normal(int64_t count, double deviation, double mean) {
  Floats x(count);
  values(x, [=] {
    double sum = -6;
    for (int i = 0; i < 12; i++) sum += random_unit();
    return mean + deviation * sum;
  });
  return x;
}

Ints documents(int64_t b, int64_t l) {
  Ints ids(b * l);
  for (int64_t i = 0; i < b * l; i++) ids[i] = i > 0 && random_unit() < 0.8 ? ids[i - 1] : (int32_t)(i + 1);
  return ids;
}

Call& Call::label(const std::string& what) {
  text = what;
  return *this;
}
Call& Call::num(double value) {
  operands.push_back({Operand::NUMBER, value, {}, {}, {}});
  return *this;
}
Call& Call::nums(std::initializer_list<double> list) {
  for (double value : list) num(value);
  return *this;
}

template <class T>
static std::vector<char> bytes_of(const std::vector<T>& x) {
  return std::vector<char>((const char*)x.data(), (const char*)(x.data() + x.size()));
}

Call& Call::in(const Floats& x) {
  operands.push_back({Operand::INPUT, 0, bytes_of(x), {}, {}});
  return *this;
}
Call& Call::ids(const Ints& x) {
  operands.push_back({Operand::INPUT, 0, bytes_of(x), {}, {}});
  return *this;
}
Call& Call::bits(const std::vector<uint16_t>& x) {
  operands.push_back({Operand::INPUT, 0, bytes_of(x), {}, {}});
  return *this;
}
Call& Call::out(const Balls& want) {
  operands.push_back({Operand::BALLS, 0, std::vector<char>(want.size() * 4, (char)POISON), want, {}});
  return *this;
}
Call& Call::io(const Floats& before, const Balls& want) {
  operands.push_back({Operand::BALLS, 0, bytes_of(before), want, {}});
  return *this;
}
Call& Call::add_bits(const char* want, size_t bytes) {
  operands.push_back({Operand::BITS, 0, std::vector<char>(bytes, (char)POISON), {}, {want, want + bytes}});
  return *this;
}
Call& Call::scratch(int64_t floats) {
  operands.push_back({Operand::SCRATCH, 0, std::vector<char>(floats * 4, (char)POISON), {}, {}});
  return *this;
}

Floats Call::check() {
  snprintf(current, sizeof current, "%s %s", name, text.c_str());
  const Entry* entry = find(name);
  const int given = (int)operands.size();
  if (!entry) fail("is not in the table");
  else if (entry->operands != given)
    fail("has " + std::to_string(entry->operands) + " operands, called with " + std::to_string(given));
  if (!entry || entry->operands != given) return {};
  called.insert(name);
  calls++;

  // Offsets count from here: any address below 2^53 is an exact double. Not 0: a null pointer has no offsets.
  char* const base = (char*)64;
  std::vector<std::vector<char>> first(operands.size());
  for (int run = 0; run < RUNS; run++) {
    std::vector<double> passed;
    std::vector<Guarded*> buffers;
    for (const Operand& operand : operands) {
      buffers.push_back(operand.kind == Operand::NUMBER ? nullptr : new Guarded(operand.before));
      passed.push_back(buffers.back() ? (double)(buffers.back()->data - base) : operand.number);
    }
    static char* const scratch = (char*)aligned_alloc(64, SCRATCH_BYTES);
    const Ctx ctx = run < MAX_THREADS ? Ctx{pool_run, pools[run + 1], variant.features}
                                       : Ctx{run_reversed, scratch, variant.features};
    entry->fn({passed.data(), base}, ctx);

    for (size_t i = 0; i < operands.size(); i++) {
      const Operand& operand = operands[i];
      if (operand.kind == Operand::NUMBER) continue;
      const std::vector<char> now(buffers[i]->data, buffers[i]->data + buffers[i]->size);
      const std::string which = "operand " + std::to_string(i);
      if (!buffers[i]->intact()) fail(which + " was written in front of its first element");
      if (operand.kind == Operand::INPUT && now != operand.before) fail(which + ", an input, has changed");
      if (operand.kind == Operand::BITS && now != operand.bits) fail(which + " has other bits than expected");
      if (run == 0 && operand.kind == Operand::BALLS) compare(i, operand.want, (const float*)buffers[i]->data);
      if (run == 0) first[i] = now;
      else if (operand.kind != Operand::SCRATCH && now != first[i])
        fail(which + (run < MAX_THREADS ? " depends on the number of threads" : " depends on the order of tasks"));
      delete buffers[i];
    }
  }
  for (size_t i = 0; i < operands.size(); i++) {
    if (operands[i].kind != Operand::BALLS) continue;
    const float* values = (const float*)first[i].data();
    return Floats(values, values + first[i].size() / sizeof(float));
  }
  return {};
}

#if defined(__x86_64__)
namespace amx_twin {
const Family* families();  // amx.cc
}
#endif

// All cases, or those of the only families that the tiles in software have.
static int64_t test_variant(const Variant& which, void (*only)() = nullptr) {
  variant = which;
  called.clear(), calls = failures = 0, worst = 0;
  if (only) {
    only();
  } else {
    test_elements();
    test_moves();
    test_narrow();
    test_layers();
    test_norms();
    test_conv();
    test_scan();
    test_ssd();
    test_rotation();
    test_attention();
  }
  snprintf(current, sizeof current, "table");
  for (int f = 0; f < FAMILIES; f++)
    for (int k = 0; k < variant.families[f].count; k++)
      if (!called.count(variant.families[f].entries[k].name))
        fail(std::string(variant.families[f].entries[k].name) + " has no case here");
  printf("%s: %zu kernels, %lld calls, largest error / bound %.2f (%s), %lld failed\n", variant.name, called.size(),
         (long long)calls, worst, worst_case.c_str(), (long long)failures);
  return failures;
}

int main(int argc, char** argv) {
  Variant found[MAX_VARIANTS];
  const int count = supported_variants(found);
  if (argc > 1 && strcmp(argv[1], "--list") == 0) {
    for (int i = 0; i < count; i++) printf("%s\n", found[i].name);
    return 0;
  }
  signal(SIGSEGV, crashed);
  signal(SIGBUS, crashed);
  for (int threads = 1; threads <= MAX_THREADS; threads++) pools[threads] = pool_create(threads);
  int64_t total = 0;
  for (int i = 0; i < count; i++) total += test_variant(found[i]);
#if defined(__x86_64__)
  if (found[0].features & FEATURE_BF16)
    total += test_variant({"amx in software", found[0].features | FEATURE_AMX, amx_twin::families(), nullptr, nullptr}, [] {
      test_matmul();
      test_narrow();
    });
  else
    printf("amx in software: skipped, this CPU has no AVX512_BF16\n");
#endif
  for (int threads = 1; threads <= MAX_THREADS; threads++) pool_destroy(pools[threads]);
  return total ? 1 : 0;
}
