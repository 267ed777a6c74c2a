// Cases of the causal convolution and its gradients; the loops are those of src/backend/reference/conv.ts.
#include "harness.h"

namespace {

struct Conv {
  int64_t b, l, e, k;
  bool silu;
  Floats x, weight, bias, window;
  Ints ids, lengths;

  int64_t length(int64_t row) const { return lengths.empty() ? l : lengths[row]; }
  // Input p of one channel, counted from the start of the window, and its document.
  float input(int64_t row, int64_t c, int64_t p) const {
    if (p >= k) return x[(row * l + p - k) * e + c];
    return window.empty() ? 0.0f : window[(row * e + c) * k + p];
  }
  int32_t document(int64_t row, int64_t p) const {
    return ids.empty() || length(row) == 0 ? 0 : ids[row * l + (p < k ? 0 : p - k)];
  }
  Ball pre(int64_t row, int64_t c, int64_t t) const {
    Sum sum;
    for (int64_t j = 0; j < k; j++)
      if (document(row, t + 1 + j) == document(row, t + k)) sum += Ball(weight[c * k + j]) * input(row, c, t + 1 + j);
    sum += bias.empty() ? 0.0 : bias[c];
    return sum.total();
  }
  // Where y is cut, and where an element stands in its part.
  int64_t cut(int64_t i) const { return e < 16 * i || bias.empty() ? e : 16 * i; }
  int64_t place(int64_t row, int64_t t, int64_t c) const {
    const int64_t part = c < cut(1) ? 0 : c < cut(2) ? cut(1) : cut(2), end = c < cut(1) ? cut(1) : c < cut(2) ? cut(2) : e;
    return b * l * part + (row * l + t) * (end - part) + c - part;
  }
  Call& operands(Call& call) const {
    const char* options[] = {bias.empty() ? "" : " bias", window.empty() ? "" : " window", ids.empty() ? "" : " documents",
                             lengths.empty() ? "" : " lengths", silu ? " silu" : ""};
    std::string label;
    for (const int64_t size : {b, l, e, k}) label += std::to_string(size) + ' ';
    for (const char* option : options) label += option;
    return call.label(label).in(x).in(weight).maybe(bias).maybe(window).maybe(ids).maybe(lengths);
  }
};

void forward(const Conv& o) {
  Balls y(o.b * o.l * o.e), window(o.b * o.e * o.k);
  for (int64_t row = 0; row < o.b; row++) {
    const int64_t length = o.length(row);
    for (int64_t c = 0; c < o.e; c++) {
      for (int64_t t = 0; t < length; t++) {
        const Ball pre = o.pre(row, c, t);
        y[o.place(row, t, c)] = o.silu ? silu_of(pre) : pre;
      }
      for (int64_t j = 0; j < o.k; j++) {
        const bool same = o.document(row, length + j) == o.document(row, length + o.k - 1);
        window[(row * o.e + c) * o.k + j] = same ? o.input(row, c, length + j) : 0.0;
      }
    }
  }
  Call call("causalConv");
  o.operands(call).out(y);
  o.window.empty() ? call.null() : call.out(window);
  call.nums({(double)o.b, (double)o.l, (double)o.e, (double)o.k, (double)o.silu, (double)o.cut(1), (double)o.cut(2)}).check();
}

Balls totals(const std::vector<Sum>& sums) {
  Balls balls;
  for (const Sum& sum : sums) balls.push_back(sum.total());
  return balls;
}

void backward(const Conv& o) {
  const int64_t b = o.b, l = o.l, e = o.e, k = o.k;
  const Floats dy = normal(b * l * e), dwindow_out = normal(o.window.empty() ? 0 : b * e * k);
  std::vector<Sum> dx(b * l * e), dweight(e * k), dbias(e), dwindow(b * e * k);
  for (int64_t row = 0; row < b; row++) {
    const int64_t length = o.length(row);
    for (int64_t c = 0; c < e; c++) {
      const auto dinput = [&](int64_t p) -> Sum& {
        return p < k ? dwindow[(row * e + c) * k + p] : dx[(row * l + p - k) * e + c];
      };
      for (int64_t t = 0; t < length; t++) {
        const float up = dy[(row * l + t) * e + c];
        const Ball dpre = o.silu ? Ball(up) * silu_grad_of(o.pre(row, c, t)) : Ball(up);
        dbias[c] += dpre;
        for (int64_t j = 0; j < k; j++) {
          if (o.document(row, t + 1 + j) != o.document(row, t + k)) continue;
          dweight[c * k + j] += dpre * o.input(row, c, t + 1 + j);
          dinput(t + 1 + j) += dpre * o.weight[c * k + j];
        }
      }
      for (int64_t j = 0; j < k && !dwindow_out.empty(); j++)
        if (o.document(row, length + j) == o.document(row, length + k - 1))
          dinput(length + j) += dwindow_out[(row * e + c) * k + j];
    }
  }
  Call call("causalConvGrad");
  o.operands(call).in(dy).maybe(dwindow_out).out(totals(dx)).out(totals(dweight));
  o.bias.empty() ? call.null() : call.out(totals(dbias));
  o.window.empty() ? call.null() : call.out(totals(dwindow));
  call.scratch(b * e * (k + 1)).nums({(double)b, (double)l, (double)e, (double)k, (double)o.silu}).check();
}

}  // namespace

void test_conv() {
  const int64_t shapes[][4] = {{1, 1, 1, 4}, {2, 7, 5, 4},  {3, 70, 19, 4},  {2, 130, 33, 3},
                               {1, 5, 17, 1}, {3, 9, 6, 6}, {2, 131, 37, 4}, {2, 3, 16, 4}};
  for (const auto& [b, l, e, k] : shapes) {
    for (int options = 0; options < 32; options++) {
      Conv o = {b, l, e, k, (options & 1) != 0, normal(b * l * e), normal(e * k), {}, {}, {}, {}};
      if (options & 2) o.bias = normal(e);
      if (options & 4) o.window = normal(b * e * k);
      if (options & 8) o.ids = documents(b, l);
      if (options & 16)
        for (int64_t row = 0; row < b; row++) o.lengths.push_back((int32_t)(row == 0 ? l : row == 1 ? l / 2 : 0));
      forward(o);
      backward(o);
    }
  }
}
