// Cases of the matrix product, the norms and the loss.
#include "harness.h"

namespace {

void matmul_case(int64_t batch, int64_t m, int64_t n, int64_t k, bool trans_a, bool trans_b, bool with_bias, bool accumulate) {
  const Floats a = normal(batch * m * k), b = normal(k * n), bias = normal(with_bias ? n : 0), before = normal(batch * m * n);
  Balls c;
  for (int64_t i = 0; i < batch * m * n; i++) {
    const int64_t item = i / (m * n), row = i / n % m, column = i % n;
    Sum sum;
    for (int64_t p = 0; p < k; p++)
      sum += Ball(a[item * m * k + (trans_a ? p * m + row : row * k + p)]) * b[trans_b ? column * k + p : p * n + column];
    if (with_bias) sum += bias[column];
    if (accumulate) sum += before[i];
    c.push_back(sum.total());
  }
  Call call("matmul");
  call.label(std::to_string(m) + ' ' + std::to_string(n) + ' ' + std::to_string(k) + (trans_a ? " A'" : "") + (trans_b ? " B'" : ""));
  call.in(a).in(b).io(before, c).maybe(bias);
  for (const int64_t value : {batch, m, n, k}) call.num((double)value);
  call.nums({(double)trans_a, (double)trans_b, (double)(m * k), 0, (double)(m * n), (double)accumulate}).check();
}

void test_matmul() {
  const int64_t shapes[][3] = {{1, 1, 1}, {1, 37, 70}, {3, 5, 7},   {5, 43, 66},  {16, 19, 33},
                               {17, 33, 65}, {29, 51, 150}, {4, 3, 0}, {500, 17, 9}, {20, 1100, 5}};
  for (const auto& [m, n, k] : shapes) {
    for (int options = 0; options < 16; options++)
      matmul_case(1 + (m < 10), m, n, k, options & 1, options & 2, options & 4, options & 8);
  }
  for (int options = 0; options < 4; options++) matmul_case(1, 201, 263, 140, options & 1, options & 2, true, true);  // tiles
  matmul_case(1, 1, 3001, 130, false, true, false, false);
}


void test_norm_forward(int64_t rows, int64_t d, bool center, bool full) {
  const double eps = 1e-5;
  const Floats x = normal(rows * d, 1, 0.5), residual = normal(full ? rows * d : 0);
  const Floats weight = normal(full ? d : 0, 0.3, 1), bias = normal(full && center ? d : 0);
  Balls y, sums, means, rstds;
  for (int64_t row = 0; row < rows; row++) {
    Balls s;
    Sum level, square;
    for (int64_t j = 0; j < d; j++) {
      s.push_back(full ? Ball(x[row * d + j]) + residual[row * d + j] : Ball(x[row * d + j]));
      level += s[j];
    }
    const Ball mean = center ? level.total() * constant(1.0 / d) : Ball();
    sums.insert(sums.end(), s.begin(), s.end());
    for (Ball& value : s) {
      if (center) value = value - mean;
      square += value * value;
    }
    const Ball rstd = rsqrt_of(square.total() * constant(1.0 / d) + constant(eps));
    for (int64_t j = 0; j < d; j++) {
      Ball value = s[j] * rstd;
      if (full) value = value * weight[j];
      y.push_back(full && center ? value + bias[j] : value);
    }
    means.push_back(mean), rstds.push_back(rstd);
  }
  Call call("norm");
  call.label(std::to_string(rows) + " by " + std::to_string(d) + (center ? ", centred" : "")).in(x);
  call.maybe(residual).maybe(weight).maybe(bias).out(y);
  full ? call.out(sums) : call.null();
  center ? call.out(means) : call.null();
  call.out(rstds).nums({(double)rows, (double)d, eps, (double)center}).check();
}

void test_norm_backward(int64_t rows, int64_t d, bool center, bool full) {
  const Floats s = normal(rows * d), weight = normal(full ? d : 0, 0.3, 1), mean = normal(center ? rows : 0, 0.1);
  const Floats rstd = uniform(rows, 0.5, 2), dy = normal(rows * d), dsum = normal(full ? rows * d : 0);
  Balls ds, dweight, dbias;
  std::vector<Sum> weights(d), biases(d);
  for (int64_t row = 0; row < rows; row++) {
    Balls xhat, g;
    Sum along, level;
    for (int64_t j = 0; j < d; j++) {
      const int64_t i = row * d + j;
      xhat.push_back((center ? Ball(s[i]) - mean[row] : Ball(s[i])) * rstd[row]);
      g.push_back(full ? Ball(dy[i]) * weight[j] : Ball(dy[i]));
      along += g[j] * xhat[j];
      level += g[j];
      weights[j] += Ball(dy[i]) * xhat[j];
      biases[j] += dy[i];
    }
    for (int64_t j = 0; j < d; j++) {
      Sum sum;
      sum += g[j] * rstd[row];
      sum += Ball(-rstd[row]) * xhat[j] * (along.total() * constant(1.0 / d));
      if (center) sum += Ball(-rstd[row]) * (level.total() * constant(1.0 / d));
      if (full) sum += dsum[row * d + j];
      ds.push_back(rounded(sum.total()));
    }
  }
  for (int64_t j = 0; j < d; j++) dweight.push_back(weights[j].total()), dbias.push_back(biases[j].total());
  Call call("normGrad");
  call.label(std::to_string(rows) + " by " + std::to_string(d) + (center ? ", centred" : "")).in(s);
  call.maybe(weight).maybe(mean).in(rstd).in(dy).maybe(dsum).out(ds);
  full ? call.out(dweight) : call.null();
  full && center ? call.out(dbias) : call.null();
  call.scratch(32 * 2 * d).nums({(double)rows, (double)d, (double)center}).check();
}

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
  const int64_t norms[][2] = {{1, 1}, {3, 5}, {2, 16}, {5, 67}, {33, 100}, {300, 257}};
  for (const auto& [rows, d] : norms) {
    for (int options = 0; options < 4; options++) {
      test_norm_forward(rows, d, options & 1, options & 2);
      test_norm_backward(rows, d, options & 1, options & 2);
    }
  }
  const int64_t losses[][2] = {{1, 1}, {5, 3}, {4, 16}, {9, 37}, {20, 5003}};
  for (const auto& [rows, v] : losses) test_loss(rows, v);
}
