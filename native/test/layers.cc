// Cases of the matrix product and the loss.
#include "harness.h"

namespace {

// The nearest bfloat16, ties to even: 8 digits.
float nearest_bf16(float x) {
  int exponent;
  const double digits = frexp(x, &exponent);
  return (float)ldexp(nearbyint(ldexp(digits, 8)), exponent - 8);
}

void matmul_case(int64_t batch, int64_t m, int64_t n, int64_t k, bool trans_a, bool trans_b, bool with_bias, bool accumulate,
                 bool bf16 = false) {
  const Floats a = normal(batch * m * k), b = normal(k * n), bias = normal(with_bias ? n : 0), before = normal(batch * m * n);
  const auto operand = [=](float x) { return bf16 ? nearest_bf16(x) : x; };
  Balls c;
  for (int64_t i = 0; i < batch * m * n; i++) {
    const int64_t item = i / (m * n), row = i / n % m, column = i % n;
    Sum sum;
    for (int64_t p = 0; p < k; p++)
      sum += Ball(operand(a[item * m * k + (trans_a ? p * m + row : row * k + p)])) *
             operand(b[trans_b ? column * k + p : p * n + column]);
    if (with_bias) sum += bias[column];
    if (accumulate) sum += before[i];
    c.push_back(sum.total());
  }
  Call call("matmul");
  call.label(std::to_string(m) + ' ' + std::to_string(n) + ' ' + std::to_string(k) + (trans_a ? " A'" : "") + (trans_b ? " B'" : "") + (bf16 ? " bf16" : ""));
  call.in(a).in(b).io(before, c).maybe(bias);
  for (const int64_t value : {batch, m, n, k}) call.num((double)value);
  call.nums({(double)trans_a, (double)trans_b, (double)(m * k), 0, (double)(m * n), (double)accumulate, (double)bf16}).check();
}

}  // namespace

void test_matmul() {
  const int64_t shapes[][3] = {{1, 1, 1}, {1, 37, 70}, {3, 5, 7},   {5, 43, 66},  {16, 19, 33},
                               {17, 33, 65}, {29, 51, 150}, {4, 3, 0}, {500, 17, 9}, {20, 1100, 5}};
  for (const auto& [m, n, k] : shapes) {
    for (int options = 0; options < 16; options++)
      matmul_case(1 + (m < 10), m, n, k, options & 1, options & 2, options & 4, options & 8);
    for (int options = 0; options < 4; options++)
      matmul_case(1 + (m < 10), m, n, k, options & 1, options & 2, m % 2, n % 3 == 0, true);
  }
  for (int options = 0; options < 4; options++) matmul_case(1, 201, 263, 140, options & 1, options & 2, true, true);  // tiles
  for (int options = 0; options < 4; options++) matmul_case(1, 201, 263, 341, options & 1, options & 2, true, true, true);
  matmul_case(1, 1, 3001, 130, false, true, false, false);
}

namespace {

void test_loss(int64_t rows, int64_t v) {
  const int32_t ignore = -100;
  const Floats logits = normal(rows * v, 3), dloss = normal(rows);
  Floats lse(rows);
  Ints targets;
  Balls losses, lses, valid, dlogits;
  for (int64_t row = 0; row < rows; row++) {
    const float* x = logits.data() + row * v;
    const int32_t target = row % 4 == 3 ? ignore : (int32_t)(row * 7919 % v);
    targets.push_back(target);
    double largest = -INFINITY;
    for (int64_t j = 0; j < v; j++) largest = fmax(largest, x[j]);
    Sum sum;
    for (int64_t j = 0; j < v; j++) sum += exp_of(Ball(x[j]) - largest);
    lses.push_back(Ball(largest) + log_of(sum.total()));
    lse[row] = (float)lses[row].v;
    losses.push_back(target == ignore ? Ball() : lses[row] - x[target]);
    valid.push_back(target == ignore ? 0 : 1);
    for (int64_t j = 0; j < v; j++) {
      const Ball p = exp_of(Ball(x[j]) - lse[row]);
      dlogits.push_back(target == ignore ? Ball() : Ball(dloss[row]) * (target == j ? p - 1 : p));
    }
  }
  const auto sizes = {(double)rows, (double)v, (double)ignore};
  const std::string label = std::to_string(rows) + " by " + std::to_string(v);
  Call("crossEntropy").label(label).in(logits).ids(targets).out(losses).out(lses).out(valid).nums(sizes).check();
  Call("crossEntropyGrad").label(label).in(logits).ids(targets).in(lse).in(dloss).out(dlogits).nums(sizes).check();
}

}  // namespace

void test_layers() {
  test_matmul();
  const int64_t losses[][2] = {{1, 1}, {5, 3}, {4, 16}, {9, 37}, {20, 5003}};
  for (const auto& [rows, v] : losses) test_loss(rows, v);
}
