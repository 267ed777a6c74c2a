// Calls kernels as the hosts do, through the table and the operands of src/backend/kernels.ts, on one instruction set after
// the other. Every call runs with 1, 2 and 3 threads and once more with its tasks in reverse order on dirty scratch: all
// must give the same bits. Operands end where unmapped memory begins, at addresses that are multiples of the element size
// only: reading or writing behind them is a crash that names the case.
#pragma once

#include <stdint.h>

#include <string>
#include <vector>

#include "ball.h"

using Floats = std::vector<float>;
using Ints = std::vector<int32_t>;
using Balls = std::vector<Ball>;

// Reproducible operands: normal(n) is near N(mean, deviation), uniform(n, lo, hi) what it says.
Floats normal(int64_t count, double deviation = 1, double mean = 0);
Floats uniform(int64_t count, double lo, double hi);
// Document numbers of (b, l) tokens that change every few tokens.
Ints documents(int64_t b, int64_t l);

struct Operand {
  enum Kind { NUMBER, INPUT, BALLS, BITS, SCRATCH };
  Kind kind;
  double number;             // NUMBER; -1 is null
  std::vector<char> before;  // contents of a buffer
  Balls want;                // BALLS: where every float must be
  std::vector<char> bits;    // BITS: what it must hold
};

// One call: operands in their order, then check().
class Call {
 public:
  explicit Call(const char* kernel) : name(kernel) {}
  Call& label(const std::string& text);
  Call& num(double value);
  Call& nums(std::initializer_list<double> values);
  Call& null() { return num(-1); }
  Call& in(const Floats& x);
  Call& ids(const Ints& x);
  Call& bits(const std::vector<uint16_t>& x);
  // An empty vector stands for null.
  Call& maybe(const Floats& x) { return x.empty() ? null() : in(x); }
  Call& maybe(const Ints& x) { return x.empty() ? null() : ids(x); }
  Call& out(const Balls& want);
  Call& io(const Floats& before, const Balls& want);
  template <class T>
  Call& out_bits(const std::vector<T>& want) {
    return add_bits((const char*)want.data(), want.size() * sizeof(T));
  }
  Call& scratch(int64_t floats);
  // The first of the outputs, which the balls were compared with.
  Floats check();

 private:
  Call& add_bits(const char* want, size_t bytes);

  const char* name;
  std::string text;
  std::vector<Operand> operands;
};

// The cases, by family.
void test_elements();
void test_moves();
void test_narrow();
void test_matmul();
void test_layers();
void test_norms();
void test_conv();
void test_scan();
void test_ssd();
void test_rotation();
void test_attention();
