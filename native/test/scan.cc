// Cases of the selective scan and its gradients, token by token; see src/backend/reference/scan.ts for the equations.
// exp(dt A) may round its argument twice more: implementations scale A by log2(e) beforehand.
#include "../include/kernels.h"
#include "harness.h"

namespace {

struct Token {
  int64_t i, at_b, at_c;  // of u, delta, z, y; of B and C
  Ball raw, dt;
  float u;
  bool resets;
};

struct Scan {
  int64_t b, l, e, n, b_groups, c_groups;
  bool softplus;
  Floats u, delta, A, B, C, D, z, bias, state;
  Ints ids, lengths;

  int64_t length(int64_t row) const { return lengths.empty() ? l : lengths[row]; }
  int64_t chunks() const { return (l + SCAN_CHUNK - 1) / SCAN_CHUNK; }

  Token token(int64_t row, int64_t t, int64_t c) const {
    const int64_t at = row * l + t;
    const auto offset = [&](int64_t groups) { return (groups == 0 ? c : at * groups + c / (e / groups)) * n; };
    Token k = {at * e + c, offset(b_groups), offset(c_groups), {}, {}, u[at * e + c], false};
    k.raw = bias.empty() ? Ball(delta[k.i]) : Ball(delta[k.i]) + bias[c];
    k.dt = softplus ? softplus_of(k.raw) : k.raw;
    k.resets = !ids.empty() && t > 0 && ids[at] != ids[at - 1];
    return k;
  }
  Ball decay(const Token& k, int64_t c, int64_t s) const { return exp_of(rounded(k.dt * A[c * n + s], 2)); }
  Balls advance(const Token& k, int64_t c, const Balls& before) const {
    Balls after;
    for (int64_t s = 0; s < n; s++) {
      const Ball fresh = k.dt * k.u * B[k.at_b + s];
      after.push_back(k.resets ? fresh : decay(k, c, s) * before[s] + fresh);
    }
    return after;
  }
  Ball read(const Token& k, int64_t c, const Balls& h) const {
    Sum sum;
    for (int64_t s = 0; s < n; s++) sum += Ball(C[k.at_c + s]) * h[s];
    if (!D.empty()) sum += Ball(D[c]) * k.u;
    return sum.total();
  }
  Call& operands(Call& call) const {
    std::string label;
    for (const int64_t size : {b, l, e, n, b_groups, c_groups}) label += std::to_string(size) + ' ';
    if (!z.empty()) label += " z";
    if (!ids.empty()) label += " documents";
    if (!lengths.empty()) label += " lengths";
    return call.label(label).in(u).in(delta).in(A).in(B).in(C).maybe(D).maybe(z).maybe(bias);
  }
  Call& sizes(Call& call) const {
    for (const int64_t size : {b, l, e, n, b_groups, c_groups}) call.num((double)size);
    return call.num(softplus);
  }
};

// Returns the checkpoints, (b, chunks, e, n).
Floats forward(const Scan& o) {
  Balls y(o.b * o.l * o.e), last, checkpoints(o.b * o.chunks() * o.e * o.n);
  for (int64_t row = 0; row < o.b; row++) {
    for (int64_t c = 0; c < o.e; c++) {
      Balls h(o.n);
      for (int64_t s = 0; s < o.n && !o.state.empty(); s++) h[s] = o.state[(row * o.e + c) * o.n + s];
      for (int64_t t = 0; t < o.l; t++) {
        for (int64_t s = 0; s < o.n && t % SCAN_CHUNK == 0; s++)
          checkpoints[((row * o.chunks() + t / SCAN_CHUNK) * o.e + c) * o.n + s] = h[s];
        if (t >= o.length(row)) continue;
        const Token k = o.token(row, t, c);
        h = o.advance(k, c, h);
        y[k.i] = o.z.empty() ? o.read(k, c, h) : o.read(k, c, h) * silu_of(o.z[k.i]);
      }
      last.insert(last.end(), h.begin(), h.end());
    }
  }
  Call call("selectiveScan");
  o.operands(call).maybe(o.state).maybe(o.ids).maybe(o.lengths).out(y).out(last);
  o.sizes(o.z.empty() ? call.null() : call.out(checkpoints)).check();
  Floats saved;
  for (const Ball& value : checkpoints) saved.push_back((float)value.v);
  return saved;
}

Balls totals(const std::vector<Sum>& sums) {
  Balls balls;
  for (const Sum& sum : sums) balls.push_back(sum.total());
  return balls;
}

void backward(const Scan& o, const Floats& checkpoints) {
  const int64_t b = o.b, l = o.l, e = o.e, n = o.n, gb = o.b_groups, gc = o.c_groups;
  const Floats dy = normal(b * l * e), dlast = normal(o.state.empty() ? 0 : b * e * n);
  std::vector<Sum> dA(e * n), dB(gb ? b * l * gb * n : e * n), dC(gc ? b * l * gc * n : e * n), dD(e), dbias(e);
  Balls du(b * l * e), ddelta(b * l * e), dz(b * l * e), dstate;
  for (int64_t row = 0; row < b; row++) {
    for (int64_t c = 0; c < e; c++) {
      std::vector<Balls> states;  // before each token, from the checkpoint of its chunk
      Balls h(n);
      for (int64_t t = 0; t < o.length(row); t++) {
        for (int64_t s = 0; s < n && t % SCAN_CHUNK == 0; s++)
          h[s] = checkpoints[((row * o.chunks() + t / SCAN_CHUNK) * e + c) * n + s];
        states.push_back(h);
        h = o.advance(o.token(row, t, c), c, h);
      }
      Balls carried(n);
      for (int64_t s = 0; s < n && !dlast.empty(); s++) carried[s] = dlast[(row * e + c) * n + s];
      for (int64_t t = o.length(row) - 1; t >= 0; t--) {
        const Token k = o.token(row, t, c);
        const Balls after = o.advance(k, c, states[t]);
        const Ball q = o.z.empty() ? Ball(dy[k.i]) : Ball(dy[k.i]) * silu_of(o.z[k.i]);
        Sum written, ddt;
        for (int64_t s = 0; s < n; s++) {
          const Ball g = Ball(o.C[k.at_c + s]) * q + carried[s], decay = o.decay(k, c, s), in = o.B[k.at_b + s];
          const Ball through = k.resets ? Ball() : g * decay * states[t][s];
          written += in * g;
          ddt += through * o.A[c * n + s];
          ddt += g * in * k.u;
          dC[k.at_c + s] += q * after[s];
          dB[k.at_b + s] += g * k.dt * k.u;
          dA[c * n + s] += through * k.dt;
          carried[s] = k.resets ? Ball() : decay * g;
        }
        const Ball slope = k.raw.v > 20 ? Ball(1) : sigmoid_of(k.raw);
        ddelta[k.i] = o.softplus ? ddt.total() * slope : ddt.total();
        dbias[c] += ddelta[k.i];
        dD[c] += q * k.u;
        Sum sum;
        if (!o.D.empty()) sum += q * o.D[c];
        sum += k.dt * written.total();
        du[k.i] = sum.total();
        if (!o.z.empty()) dz[k.i] = Ball(dy[k.i]) * o.read(k, c, after) * silu_grad_of(o.z[k.i]);
      }
      dstate.insert(dstate.end(), carried.begin(), carried.end());
    }
  }
  const int64_t row_size = e * (n + 2) + (gb ? 0 : e * n) + (gc ? 0 : e * n);
  Call call("selectiveScanGrad");
  o.operands(call).maybe(o.ids).maybe(o.lengths).in(checkpoints).in(dy).maybe(dlast);
  call.out(du).out(ddelta).out(totals(dA)).out(totals(dB)).out(totals(dC));
  o.D.empty() ? call.null() : call.out(totals(dD));
  o.z.empty() ? call.null() : call.out(dz);
  o.bias.empty() ? call.null() : call.out(totals(dbias));
  o.state.empty() ? call.null() : call.out(dstate);
  call.scratch(b * row_size + SCAN_PARTS * b * l * n * (gb + gc));
  o.sizes(call).check();
}

}  // namespace

void test_scan() {
  const int64_t shapes[][6] = {{1, 1, 1, 1, 1, 1},    {2, 5, 3, 4, 0, 0},    {3, 70, 18, 16, 1, 1},
                               {1, 131, 36, 17, 2, 1}, {3, 66, 8, 3, 0, 2},   {2, 9, 40, 5, 1, 0},
                               {2, 65, 35, 27, 5, 7},  {1, 2, 100, 16, 1, 1}};
  for (const auto& [b, l, e, n, gb, gc] : shapes) {
    for (int options = 0; options < 8; options++) {
      // Decays from none to e^-600 in the last: the arithmetic for large and for small exponents.
      const double steepest = options == 7 ? -200 : -8;
      Scan o = {b, l, e, n, gb, gc, (options & 1) != 0, normal(b * l * e), {}, uniform(e * n, steepest, 0),
                normal(gb ? b * l * gb * n : e * n), normal(gc ? b * l * gc * n : e * n), {}, {}, {}, {}, {}, {}};
      o.delta = o.softplus ? normal(b * l * e, 1.5, -1) : uniform(b * l * e, 0, 1);
      if (options & 1) o.D = normal(e), o.bias = normal(e, 0.5), o.z = normal(b * l * e), o.state = normal(b * e * n);
      if (options & 2) o.ids = documents(b, l);
      if (options & 4)
        for (int64_t row = 0; row < b; row++) o.lengths.push_back((int32_t)(row == 0 ? l : row == 1 ? l / 2 : 0));
      backward(o, forward(o));
    }
  }
}
