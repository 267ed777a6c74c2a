// Cases of attention and its gradient, score by score; see src/backend/reference/attention.ts for the equations, and
// test/kernels/attention-bounds.ts for the bounds.
#include "../include/kernels.h"
#include "harness.h"

namespace {

struct Attention {
  int64_t b, l, c, hq, hk, d;
  double scale;
  Floats q, k, v;
  Ints past, ids, lengths;

  int64_t length(int64_t row) const { return lengths.empty() ? l : lengths[row]; }
  int64_t first(int64_t row, int64_t t) const {
    while (t > 0 && (ids.empty() || ids[row * l + t] == ids[row * l + t - 1])) t--;
    return t == 0 ? 0 : past[row] + t;
  }
  int64_t key(int64_t row, int64_t j, int64_t head) const { return ((row * c + j) * hk + head / (hq / hk)) * d; }
  Ball score(int64_t at, int64_t key) const {
    Sum sum;
    for (int64_t i = 0; i < d; i++) sum += Ball(q[at + i]) * constant(scale) * k[key + i];
    return sum.total();
  }
  // Calls body(row, token, head, first key, last key) for every token that exists.
  template <class F>
  void each(const F& body) const {
    for (int64_t row = 0; row < b; row++)
      for (int64_t t = 0; t < length(row); t++)
        for (int64_t head = 0; head < hq; head++) body(row, row * l + t, head, first(row, t), past[row] + t);
  }
  Call& operands(Call& call) const {
    std::string label;
    for (const int64_t size : {b, l, c, hq, hk, d}) label += std::to_string(size) + ' ';
    if (!ids.empty()) label += " documents";
    if (!lengths.empty()) label += " lengths";
    return call.label(label).in(q).in(k).in(v).ids(past).maybe(ids).maybe(lengths);
  }
  Call& sizes(Call& call) const {
    for (const int64_t size : {b, l, c, hq, hk, d}) call.num((double)size);
    return call.num(scale);
  }
};

struct Saved {
  Floats y, lse;
};

Saved forward(const Attention& o) {
  Balls y(o.b * o.l * o.hq * o.d), lse(o.b * o.l * o.hq);
  o.each([&](int64_t row, int64_t token, int64_t head, int64_t first, int64_t last) {
    const int64_t at = (token * o.hq + head) * o.d;
    Balls scores;
    double largest = -INFINITY, smallest = INFINITY, radius = 0;
    for (int64_t j = first; j <= last; j++) {
      scores.push_back(o.score(at, o.key(row, j, head)));
      largest = fmax(largest, scores.back().v), smallest = fmin(smallest, scores.back().v);
      radius = fmax(radius, scores.back().r);
    }
    // Once per block all sums may be rescaled: exp, its argument, the product.
    const int blocks = (int)((last - first) / ATTENTION_BLOCK);
    const double span = largest - smallest + 2 * radius;
    Sum total;
    std::vector<Sum> sums(o.d);
    for (int64_t j = first; j <= last; j++) {
      const Ball s = scores[j - first];
      const Ball p = rounded(exp_of({s.v - largest, s.r + 2 * EPS * span}), 6 * blocks);
      total += p;
      for (int64_t i = 0; i < o.d; i++) sums[i] += p * o.v[o.key(row, j, head) + i];
    }
    for (int64_t i = 0; i < o.d; i++) y[at + i] = sums[i].total() / total.total();
    lse[token * o.hq + head] = Ball(largest, 4 * EPS * radius) + log_of(total.total());
  });
  Call call("attention");
  o.sizes(o.operands(call).out(y).out(lse)).check();
  Saved saved;
  for (const Ball& x : y) saved.y.push_back((float)x.v);
  for (const Ball& x : lse) saved.lse.push_back((float)x.v);
  return saved;
}

Balls totals(const std::vector<Sum>& sums) {
  Balls balls;
  for (const Sum& sum : sums) balls.push_back(sum.total());
  return balls;
}

void backward(const Attention& o, const Saved& saved) {
  const Floats dy = normal(o.b * o.l * o.hq * o.d);
  std::vector<Sum> dq(o.q.size()), dk(o.k.size()), dv(o.v.size());
  const Ball scale = constant(o.scale);
  o.each([&](int64_t row, int64_t token, int64_t head, int64_t first, int64_t last) {
    const int64_t at = (token * o.hq + head) * o.d;
    Sum level;
    for (int64_t i = 0; i < o.d; i++) level += Ball(dy[at + i]) * saved.y[at + i];
    for (int64_t j = first; j <= last; j++) {
      const int64_t key = o.key(row, j, head);
      const Ball p = exp_of(o.score(at, key) - saved.lse[token * o.hq + head]);
      Sum pulled;
      for (int64_t i = 0; i < o.d; i++) pulled += Ball(dy[at + i]) * o.v[key + i];
      const Ball ds = p * (pulled.total() - level.total()) * scale;
      for (int64_t i = 0; i < o.d; i++) {
        dq[at + i] += ds * o.k[key + i];
        dk[key + i] += ds * o.q[at + i];
        dv[key + i] += p * dy[at + i];
      }
    }
  });
  Call call("attentionGrad");
  o.operands(call).in(saved.y).in(saved.lse).in(dy).out(totals(dq)).out(totals(dk)).out(totals(dv));
  o.sizes(call.scratch(o.b * o.hq * o.l + (o.hq > o.hk ? 2 * o.b * o.c * o.hq * o.d : 0))).check();
}

}  // namespace

void test_attention() {
  // b, l, hq, hk, d, keys before token 0.
  const int64_t shapes[][6] = {{1, 1, 1, 1, 1, 0},  {2, 1, 4, 2, 8, 130}, {3, 5, 3, 1, 5, 3},   {1, 70, 2, 2, 16, 0},
                               {2, 33, 4, 1, 9, 7}, {1, 150, 1, 1, 4, 1}, {1, 3, 2, 1, 130, 2}, {1, 2, 1, 1, 512, 1},
                               {2, 0, 2, 1, 4, 3},  {1, 17, 8, 8, 33, 120}};
  for (const auto& [b, l, hq, hk, d, past] : shapes) {
    for (int options = 0; options < 4; options++) {
      const int64_t c = past + l + (options == 3 ? 2 : 0);
      Attention o = {b, l, c, hq, hk, d, options == 2 ? 2.5 : 0.3, normal(b * l * hq * d), normal(b * c * hk * d),
                     normal(b * c * hk * d), {}, {}, {}};
      for (int64_t row = 0; row < b; row++) o.past.push_back((int32_t)(row % 2 ? past / 2 : past));
      if (options & 1) o.ids = documents(b, l);
      if (options & 2)
        for (int64_t row = 0; row < b; row++) o.lengths.push_back((int32_t)(row == 0 ? l : row == 1 ? l / 2 : 0));
      // Keys and values that nobody sees may be anything.
      for (int64_t row = 0; row < b; row++) {
        const size_t from = (row * c + o.past[row] + o.length(row)) * hk * d, to = (row + 1) * c * hk * d;
        for (size_t i = from; i < to; i++) o.k[i] = o.v[i] = NAN;
      }
      backward(o, forward(o));
    }
  }
}
