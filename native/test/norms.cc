// Cases of the norms, by the equations of src/backend/reference/norm.ts.
#include "harness.h"

namespace {

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

// Operands of the gated norm. Without a weight, and so without a norm, a row is one group.
struct Gated {
  int64_t rows, d, size;
  bool behind;  // the gate; says nothing without a weight
  Floats x, z, weight;
  static constexpr double eps = 1e-5;

  Gated(int64_t rows, int64_t d, int64_t size, bool gate, bool norm, bool behind)
      : rows(rows), d(d), size(size), behind(behind), x(normal(rows * d, 1, 0.5)) {
    z = normal(gate ? rows * d : 0, 3);
    weight = normal(norm ? d : 0, 0.3, 1);
  }
  int64_t span() const { return weight.empty() ? d : size; }
  bool last() const { return behind && !weight.empty(); }
  Ball gate(int64_t i) const { return z.empty() ? Ball(1) : silu_of(z[i]); }
  Ball scale(int64_t i) const { return weight.empty() ? Ball(1) : Ball(weight[i % d]); }
  // What is normalised. Factors that are not there are not multiplied with: that would grant a rounding.
  Ball s(int64_t i) const { return z.empty() || last() ? Ball(x[i]) : Ball(x[i]) * gate(i); }
  Ball rstd(int64_t at) const {
    Sum square;
    for (int64_t i = at; i < at + size; i++) square += s(i) * s(i);
    return rsqrt_of(square.total() * constant(1.0 / (double)size) + constant(eps));
  }
  Call& operands(Call& call) const {
    const char* kind = weight.empty() ? ", no norm" : z.empty() ? "" : behind ? ", gate behind" : ", gate in front";
    const std::string text = std::to_string(rows) + " by " + std::to_string(d) + " in " + std::to_string(size);
    return call.label(text + kind + (z.empty() ? ", no gate" : "")).in(x).maybe(z).maybe(weight);
  }
  // The size of a group says nothing without a weight: one that no row has room for.
  void numbers(Call& call) const {
    const int64_t group = weight.empty() ? d + 2 : size;
    call.nums({(double)rows, (double)d, (double)group, (double)behind, eps}).check();
  }
};

void test_gated_forward(const Gated& o) {
  Balls y;
  for (int64_t at = 0; at < o.rows * o.d; at += o.span()) {
    const Ball rstd = o.weight.empty() ? Ball(1) : o.rstd(at);
    for (int64_t i = at; i < at + o.span(); i++) {
      const Ball normed = o.weight.empty() ? o.s(i) : o.s(i) * rstd * o.scale(i);
      y.push_back(!o.z.empty() && o.last() ? normed * o.gate(i) : normed);
    }
  }
  Call call("gatedNorm");
  o.numbers(o.operands(call).out(y));
}

void test_gated_backward(const Gated& o) {
  const Floats dy = normal(o.rows * o.d);
  const bool gate = !o.z.empty(), norm = !o.weight.empty();
  Balls dx, dz, dweight;
  std::vector<Sum> weights(o.d);
  for (int64_t at = 0; at < o.rows * o.d; at += o.span()) {
    const Ball rstd = norm ? o.rstd(at) : Ball(1);
    Balls xhat, g;
    Sum along;
    for (int64_t i = at; i < at + o.span(); i++) {
      const Ball behind = gate && o.last() ? Ball(dy[i]) * o.gate(i) : Ball(dy[i]);
      xhat.push_back(norm ? o.s(i) * rstd : o.s(i));
      g.push_back(norm ? behind * o.scale(i) : behind);
      along += rounded(g.back() * xhat.back(), 2);  // rstd may come in front of the sum or behind it
      weights[i % o.d] += behind * xhat.back();
    }
    const Ball mean = along.total() * constant(1.0 / (double)o.span());
    for (int64_t i = at; i < at + o.span(); i++) {
      Sum sum;
      if (norm) sum += Ball(-1) * rstd * xhat[i - at] * mean;
      sum += norm ? rstd * g[i - at] : g[i - at];
      const Ball ds = sum.total();
      dx.push_back(gate && !o.last() ? ds * o.gate(i) : ds);
      if (!gate) continue;
      const Ball slope = silu_grad_of(o.z[i]);
      dz.push_back(o.last() ? Ball(dy[i]) * o.scale(i) * xhat[i - at] * slope : ds * o.x[i] * slope);
    }
  }
  for (const Sum& sum : weights) dweight.push_back(sum.total());
  for (const bool frozen : {true, false}) {
    if (!norm && !frozen) continue;  // no weight, no gradient of it
    Call call("gatedNormGrad");
    o.operands(call).in(dy).out(dx);
    gate ? call.out(dz) : call.null();
    frozen ? call.null() : call.out(dweight);
    o.numbers(call.scratch(32 * o.d));
  }
}

}  // namespace

void test_norms() {
  const int64_t norms[][2] = {{1, 1}, {3, 5}, {2, 16}, {5, 67}, {33, 100}, {300, 257}};
  for (const auto& [rows, d] : norms) {
    for (int options = 0; options < 4; options++) {
      test_norm_forward(rows, d, options & 1, options & 2);
      test_norm_backward(rows, d, options & 1, options & 2);
    }
  }
  // Rows, channels, channels of a group: one group and many, and more than a task takes at once.
  const int64_t gated[][3] = {{1, 1, 1},     {3, 5, 5},      {2, 21, 7},    {5, 68, 17},
                              {33, 105, 35}, {70, 258, 129}, {300, 67, 67}, {3, 16390, 745}};
  for (const auto& [rows, d, size] : gated) {
    for (int options = 0; options < 8; options++) {
      const Gated o(rows, d, size, options & 1, options & 2, options & 4);
      test_gated_forward(o);
      test_gated_backward(o);
    }
  }
}
