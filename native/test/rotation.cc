// Cases of the rotations and their gradients; the loops are those of src/backend/reference/rotation.ts.
#include <algorithm>

#include "harness.h"

namespace {

constexpr double TURN = 2 * M_PI;

struct Angles {
  int64_t b, l, h, s;
  Floats angle, dt;
  Ints ids, lengths;

  int64_t length(int64_t row) const { return lengths.empty() ? l : lengths[row]; }
  bool resets(int64_t token) const { return !ids.empty() && token % l > 0 && ids[token] != ids[token - 1]; }
  Ball bent(int64_t token, int64_t pair) const { return tanh_of(angle[token * s + pair]); }
  Call& operands(Call& call, bool more) const {
    std::string label;
    for (const int64_t size : {b, l, h, s}) label += std::to_string(size) + ' ';
    label += std::string(ids.empty() ? "" : " documents") + (lengths.empty() ? "" : " lengths") + (more ? " state" : "");
    return call.label(label).in(angle).in(dt);
  }
  void sizes(Call& call) const { call.nums({(double)b, (double)l, (double)h, (double)s}).check(); }
};

void scan_forward(const Angles& o, const Floats& state) {
  Balls theta(o.b * o.l * o.h * o.s), state_out(o.b * o.h * o.s);
  for (int64_t i = 0; i < (int64_t)state_out.size(); i++) {
    const int64_t row = i / (o.h * o.s), head = i / o.s % o.h, pair = i % o.s;
    Ball carried = state.empty() ? Ball() : Ball(state[i]);
    for (int64_t t = 0; t < o.length(row); t++) {
      const int64_t token = row * o.l + t;
      const Ball step = constant(M_PI) * o.bent(token, pair) * o.dt[token * o.h + head];
      const Ball sum = o.resets(token) ? step : carried + step;
      carried = rounded({sum.v - TURN * floor(sum.v / TURN), sum.r});
      carried.period = TURN;
      theta[(token * o.h + head) * o.s + pair] = carried;
    }
    state_out[i] = carried;
  }
  Call call("angleScan");
  o.operands(call, !state.empty()).maybe(state).maybe(o.ids).maybe(o.lengths).out(theta).out(state_out);
  o.sizes(call);
}

void scan_backward(const Angles& o, bool more) {
  const Floats dtheta = normal(o.b * o.l * o.h * o.s), dstate_out = normal(more ? o.b * o.h * o.s : 0);
  std::vector<Sum> dangle(o.b * o.l * o.s), ddt(o.b * o.l * o.h);
  Balls dstate, dangles, ddts;
  for (int64_t i = 0; i < o.b * o.h * o.s; i++) {
    const int64_t row = i / (o.h * o.s), head = i / o.s % o.h, pair = i % o.s;
    Ball g = more ? Ball(dstate_out[i]) : Ball();
    for (int64_t t = o.length(row) - 1; t >= 0; t--) {
      const int64_t token = row * o.l + t;
      const Ball bent = o.bent(token, pair);
      g = g + dtheta[(token * o.h + head) * o.s + pair];
      dangle[token * o.s + pair] += g * (constant(M_PI) * (Ball(1) - bent * bent) * o.dt[token * o.h + head]);
      ddt[token * o.h + head] += g * constant(M_PI) * bent;
      if (o.resets(token)) g = Ball();
    }
    dstate.push_back(g);
  }
  for (const Sum& sum : dangle) dangles.push_back(sum.total());
  for (const Sum& sum : ddt) ddts.push_back(sum.total());
  Call call("angleScanGrad");
  o.operands(call, more).maybe(o.ids).maybe(o.lengths).in(dtheta).maybe(dstate_out).out(dangles).out(ddts);
  more ? call.out(dstate) : call.null();
  call.scratch(o.b * ((o.h + 7) / 8) * o.l * o.s);
  o.sizes(call);
}

struct Turn {
  int64_t tokens, r, h, n, s, heads, step, gap;

  std::string label() const {
    std::string text;
    for (const int64_t size : {tokens, r, h, n, s, heads, step, gap}) text += std::to_string(size) + ' ';
    return text;
  }
  int64_t size() const { return tokens * r * h * n; }
  int64_t angles() const { return tokens * heads * s; }
  // visit(i0, i1, angle) for every pair.
  template <class F>
  void each(const F& visit) const {
    for (int64_t i = 0; i < tokens * r * h * s; i++) {
      const int64_t vector = i / s, i0 = vector * n + i % s * step;
      visit(i0, i0 + gap, (vector / (r * h) * heads + (heads == 1 ? 0 : vector % h)) * s + i % s);
    }
  }
  void sizes(Call& call) const {
    call.nums({(double)tokens, (double)r, (double)h, (double)n, (double)s, (double)heads, (double)step, (double)gap}).check();
  }
};

void turn_forward(const Turn& o) {
  const Floats x = normal(o.size()), theta = uniform(o.angles(), 0, TURN);
  Balls y(x.begin(), x.end());
  o.each([&](int64_t i0, int64_t i1, int64_t at) {
    const Ball c = cos_of(theta[at]), w = sin_of(theta[at]);
    y[i0] = Ball(x[i0]) * c - Ball(x[i1]) * w;
    y[i1] = Ball(x[i0]) * w + Ball(x[i1]) * c;
  });
  Call call("rotate");
  o.sizes(call.label(o.label()).in(x).in(theta).out(y));
}

void turn_backward(const Turn& o, bool more) {
  const Floats y = normal(o.size()), theta = uniform(o.angles(), -1e4, 1e4), dy = normal(o.size());
  Balls dx(dy.begin(), dy.end()), dthetas;
  std::vector<Sum> dtheta(o.angles());
  o.each([&](int64_t i0, int64_t i1, int64_t at) {
    const Ball c = cos_of(theta[at]), w = sin_of(theta[at]);
    dx[i0] = Ball(dy[i0]) * c + Ball(dy[i1]) * w;
    dx[i1] = Ball(dy[i1]) * c - Ball(dy[i0]) * w;
    dtheta[at] += Ball(dy[i1]) * y[i0] - Ball(dy[i0]) * y[i1];
  });
  for (const Sum& sum : dtheta) dthetas.push_back(sum.total());
  Call call("rotateGrad");
  call.label(o.label()).in(y).in(theta).in(dy).out(dx);
  more ? call.out(dthetas) : call.null();
  o.sizes(call);
}

// Keys and queries; the loops are those of src/backend/reference/rotation-heads.ts.
struct Heads {
  int64_t tokens, r, h, g, n, s, step, gap;
  Floats x, weights[2], biases[2], theta;

  Heads(int64_t tokens, int64_t r, int64_t h, int64_t g, int64_t n, int64_t s, int64_t step, int64_t gap)
      : tokens(tokens), r(r), h(h), g(g), n(n), s(s), step(step), gap(gap), x(normal(tokens * 2 * r * g * n)),
        theta(uniform(tokens * h * s, 0, TURN)) {
    for (int kind = 0; kind < 2; kind++) weights[kind] = normal(n), biases[kind] = normal(h * r * n);
  }
  Ball scale(int64_t source) const {
    Sum square;
    for (int64_t j = 0; j < n; j++) square += Ball(x[source + j]) * x[source + j];
    return rsqrt_of(square.total() * constant(1.0 / (double)n) + constant(1e-5));
  }
  // visit(kind, source, bias, result, angles) for every token, head, kind and rank.
  template <class F>
  void each(const F& visit) const {
    for (int64_t i = 0; i < tokens * h * 2 * r; i++) {
      const int64_t k = i % r, kind = i / r % 2, head = i / (2 * r) % h, token = i / (2 * r * h);
      visit(kind, (((token * 2 + kind) * r + k) * g + head / (h / g)) * n, (head * r + k) * n, ((token * r + k) * h + head) * n,
            (token * h + head) * s);
    }
  }
  Balls values(int64_t kind, int64_t source, int64_t bias) const {
    const Ball rstd = scale(source);
    Balls v;
    for (int64_t j = 0; j < n; j++) v.push_back(Ball(x[source + j]) * rstd * weights[kind][j] + biases[kind][bias + j]);
    return v;
  }
  Call& operands(Call& call) const {
    std::string label;
    for (const int64_t size : {tokens, r, h, g, n, s, step, gap}) label += std::to_string(size) + ' ';
    return call.label(label).in(x).in(weights[0]).in(weights[1]).in(biases[0]).in(biases[1]).in(theta);
  }
  void sizes(Call& call) const {
    call.nums({(double)tokens, (double)r, (double)h, (double)g, (double)n, (double)s, (double)step, (double)gap, 1e-5}).check();
  }

  void forward() const {
    Balls results[2];
    for (Balls& result : results) result.resize(tokens * r * h * n);
    each([&](int64_t kind, int64_t source, int64_t bias, int64_t result, int64_t angles) {
      const Balls v = values(kind, source, bias);
      std::copy(v.begin(), v.end(), results[kind].begin() + result);
      for (int64_t i = 0; i < s; i++) {
        const Ball c = cos_of(theta[angles + i]), w = sin_of(theta[angles + i]), v0 = v[i * step], v1 = v[i * step + gap];
        results[kind][result + i * step] = v0 * c - v1 * w;
        results[kind][result + i * step + gap] = v0 * w + v1 * c;
      }
    });
    Call call("turnHeads");
    sizes(operands(call).out(results[0]).out(results[1]));
  }

  void backward() const {
    const Floats ups[2] = {normal(tokens * r * h * n), normal(tokens * r * h * n)};
    std::vector<Sum> dtheta(theta.size()), total(x.size()), dweights[2], dbiases[2];
    for (int kind = 0; kind < 2; kind++) dweights[kind].resize(n), dbiases[kind].resize(h * r * n);
    each([&](int64_t kind, int64_t source, int64_t bias, int64_t result, int64_t angles) {
      const Balls v = values(kind, source, bias);
      Balls dv(ups[kind].begin() + result, ups[kind].begin() + result + n);
      for (int64_t i = 0; i < s; i++) {
        const Ball c = cos_of(theta[angles + i]), w = sin_of(theta[angles + i]);
        Ball &first = dv[i * step], &second = dv[i * step + gap];
        const Ball up0 = first, up1 = second;
        first = up0 * c + up1 * w, second = up1 * c - up0 * w;
        dtheta[angles + i] += second * v[i * step] - first * v[i * step + gap];
      }
      const Ball rstd = scale(source);
      for (int64_t j = 0; j < n; j++) {
        dbiases[kind][bias + j] += dv[j], total[source + j] += dv[j];
        // The sum over heads may come in front of the product or behind it.
        dweights[kind][j] += rounded(dv[j] * (Ball(x[source + j]) * rstd), (int)h);
      }
    });
    Balls dx;
    for (int64_t row = 0; row < tokens * 2 * r * g; row++) {
      const Floats& weight = weights[row / (r * g) % 2];
      const Ball rstd = scale(row * n);
      Sum along;
      Balls up, xhat;
      for (int64_t j = 0; j < n; j++) {
        up.push_back(total[row * n + j].total() * weight[j]), xhat.push_back(Ball(x[row * n + j]) * rstd);
        along += up[j] * xhat[j];
      }
      for (int64_t j = 0; j < n; j++) {
        Sum sum;
        sum += rstd * up[j];
        sum += Ball(-1) * rstd * xhat[j] * (along.total() * constant(1.0 / (double)n));
        dx.push_back(sum.total());
      }
    }
    const auto totals = [](const std::vector<Sum>& sums) {
      Balls balls;
      for (const Sum& sum : sums) balls.push_back(sum.total());
      return balls;
    };
    Call call("turnHeadsGrad");
    operands(call).in(ups[0]).in(ups[1]).out(dx).out(totals(dweights[0])).out(totals(dweights[1]));
    call.out(totals(dbiases[0])).out(totals(dbiases[1])).out(totals(dtheta));
    sizes(call.scratch(32 * 2 * (h * r + 1) * n));
  }
};

}  // namespace

void test_rotation() {
  const int64_t shapes[][4] = {{1, 1, 1, 1}, {2, 7, 3, 5},   {3, 40, 9, 16}, {1, 66, 8, 32},
                               {2, 5, 17, 33}, {3, 9, 24, 2}, {2, 0, 3, 4}};
  for (const auto& [b, l, h, s] : shapes) {
    for (int options = 0; options < 8; options++) {
      Angles o = {b, l, h, s, normal(b * l * s, 2), uniform(b * l * h, 1e-3, options & 1 ? 50 : 0.5), {}, {}};
      if (options & 2) o.ids = documents(b, l);
      if (options & 4)
        for (int64_t row = 0; row < b; row++) o.lengths.push_back((int32_t)(row == 0 ? l / 2 : row == 1 ? l : 0));
      scan_forward(o, options & 1 ? uniform(b * h * s, 0, TURN) : Floats());
      scan_backward(o, options & 1);
    }
  }
  // n, s, step, gap.
  const int64_t pairings[][4] = {{2, 1, 2, 1},    {8, 2, 1, 4},    {7, 3, 2, 1},   {7, 3, 1, 4}, {128, 32, 2, 1}, {128, 32, 1, 64},
                                 {64, 32, 1, 32}, {66, 33, 2, 1}, {75, 17, 1, 41}, {6, 0, 2, 1}};
  for (const auto& [n, s, step, gap] : pairings) {
    for (int options = 0; options < 4; options++) {
      const int64_t r = options & 1 ? 4 : 1, h = 3, heads = options & 2 ? 1 : h;
      turn_forward({5, r, h, n, s, heads, step, gap});
      turn_backward({41, r, h, n, s, heads, step, gap}, options != 1);
    }
  }
  const int64_t heads[][8] = {{3, 1, 4, 2, 128, 32, 2, 1}, {2, 4, 3, 1, 128, 32, 1, 64}, {40, 2, 2, 2, 7, 3, 2, 1},
                              {5, 1, 3, 1, 21, 5, 1, 7},   {1, 3, 2, 1, 66, 33, 2, 1},   {0, 1, 2, 1, 8, 2, 1, 4}};
  for (const auto& [tokens, r, h, g, n, s, step, gap] : heads) {
    const Heads o(tokens, r, h, g, n, s, step, gap);
    o.forward();
    o.backward();
  }
}
