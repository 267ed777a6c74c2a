// Cases of ssd and its gradients by the recurrence of src/backend/reference/ssd.ts, token by token. Every output is a sum of
// plain products, so numbers carry the sum of absolute values along, and the bound of any order of computation, chunks of any
// length included, is that times the roundings that a product can meet; test/kernels/ssd-bounds.ts has them pair by pair.
#include "../include/kernels.h"
#include "harness.h"

namespace {

struct Term {
  double v = 0, size = 0;
};
Term term(double x) { return {x, fabs(x)}; }
Term operator*(Term a, Term b) { return {a.v * b.v, a.size * b.size}; }
void operator+=(Term& a, Term b) { a.v += b.v, a.size += b.size; }
// What underflows is known to TINY only.
Term exp_term(double x) { return {exp(x), exp(x) + TINY / EPS}; }
using Terms = std::vector<Term>;

Terms terms(const Floats& x, int64_t at, int64_t count) {
  Terms result;
  for (int64_t i = 0; i < count; i++) result.push_back(x.empty() ? Term() : term(x[at + i]));
  return result;
}

struct Ssd {
  int64_t b, l, r, h, p, g, n, q, d_width;
  Floats x, decay, scale, own, B, C, D, state, last_x, last_b, last_weight;
  Ints ids, lengths;
  int64_t precision = PRECISION_F32;

  int64_t length(int64_t row) const { return lengths.empty() ? l : lengths[row]; }
  int64_t chunks() const { return (l + q - 1) / q; }
  bool fresh(int64_t row, int64_t t) const { return !ids.empty() && t > 0 && ids[row * l + t] != ids[row * l + t - 1]; }
  int64_t x_at(int64_t token, int64_t k, int64_t head) const { return ((token * r + k) * h + head) * p; }
  int64_t b_at(int64_t token, int64_t k, int64_t head) const { return ((token * r + k) * g + head / (h / g)) * n; }
  Term skip(int64_t head, int64_t c) const { return term(D[d_width == 1 ? head : head * p + c]); }

  // The sum over ranks of u v^T for a token.
  Terms outer(const Floats& u, const Floats& v, int64_t token, int64_t head) const {
    Terms sum(p * n);
    for (int64_t k = 0; k < r; k++)
      for (int64_t i = 0; i < p * n; i++)
        sum[i] += term(u[x_at(token, k, head) + i / n]) * term(v[b_at(token, k, head) + i % n]);
    return sum;
  }
  // The state that enters, with what the token before still gives.
  Terms start(int64_t row, int64_t head) const {
    Terms S = terms(state, (row * h + head) * p * n, p * n);
    for (int64_t k = 0; k < r && !last_x.empty() && length(row) > 0; k++)
      for (int64_t i = 0; i < p * n; i++)
        S[i] += term(last_weight[row * h + head]) * term(last_x[x_at(row, k, head) + i / n]) * term(last_b[b_at(row, k, head) + i % n]);
    return S;
  }
  // Replaces the state before a token by `read`, what it reads, and the state after it.
  void advance(Terms& S, Terms& read, int64_t row, int64_t t, int64_t head) const {
    const int64_t token = row * l + t, at = token * h + head;
    const Terms fed = outer(x, B, token, head);
    for (int64_t i = 0; i < p * n; i++) {
      const Term kept = fresh(row, t) ? Term() : exp_term(decay[at]) * S[i];
      S[i] = read[i] = kept;
      S[i] += term(scale[at]) * fed[i];
      read[i] += term(own.empty() ? scale[at] : own[at]) * fed[i];
    }
  }
  // Where every float must be: no product meets more roundings than additions (tokens times ranks, inner products, and so many
  // terms), decays (exp and a product each, and an argument whose size counts up to 128, where exp is 0) and its factors.
  Balls balls(const Terms& x, int64_t additions) const {
    // At most four factors on the way of a product through the state are rounded to 8 bits.
    const double rounded = precision == PRECISION_BF16 ? 4 * 65536 : 0;
    const double k = EPS * (double)(r * (l + 2) + n + p + additions + 6 * l + 2 * 128 + 16 + rounded);
    Balls result;
    for (const Term& t : x) result.push_back({t.v, k / (1 - k) * t.size + 16 * TINY * (double)(l + n + p)});
    return result;
  }
  Call& operands(Call& call) const {
    std::string label;
    for (const int64_t size : {b, l, r, h, p, g, n, q, d_width}) label += std::to_string(size) + ' ';
    if (!own.empty()) label += " own";
    if (!ids.empty()) label += " documents";
    if (!lengths.empty()) label += " lengths";
    if (precision == PRECISION_BF16) label += " bf16";
    return call.label(label).in(x).in(decay).in(scale).maybe(own).in(B).in(C).maybe(D);
  }
  Call& sizes(Call& call) const {
    for (const int64_t size : {b, l, r, h, p, g, n, q, d_width}) call.num((double)size);
    return call;
  }
  // Sizes of the scratch, as in kernels.ts.
  static int64_t padded(int64_t size) { return (size + 15) / 16 * 16; }
  int64_t piece() const {
    const int64_t most = r < SSD_ROWS ? SSD_ROWS / r : 1, pieces = (q + most - 1) / most;
    return (q + pieces - 1) / pieces;
  }
  int64_t scratch() const { return b * g * l * r * padded(piece() * r); }
  int64_t grad_scratch() const {
    const int64_t pieces = ((q < l ? q : l) + piece() - 1) / piece(), heads = h / g;
    const int64_t per_part = l * r * (padded(piece() * r) + 2 * padded(n)) + pieces * p * padded(n) + n * padded(p);
    return scratch() + b * g * (heads < SSD_PARTS ? heads : SSD_PARTS) * per_part + b * h * (p * padded(n) + padded(p));
  }
};

// Returns the checkpoints, (b, chunks, h, p, n).
Floats forward(const Ssd& o) {
  const int64_t size = o.p * o.n;
  Terms y(o.x.size()), last, checkpoints(o.b * o.chunks() * o.h * size);
  for (int64_t row = 0; row < o.b; row++) {
    for (int64_t head = 0; head < o.h; head++) {
      Terms S = o.start(row, head), read(size);
      for (int64_t t = 0; t < o.l; t++) {
        for (int64_t i = 0; i < size && t % o.q == 0; i++)
          checkpoints[((row * o.chunks() + t / o.q) * o.h + head) * size + i] = S[i];
        if (t >= o.length(row)) continue;
        o.advance(S, read, row, t, head);
        for (int64_t k = 0; k < o.r; k++) {
          const int64_t to = o.x_at(row * o.l + t, k, head), c = o.b_at(row * o.l + t, k, head);
          for (int64_t i = 0; i < size; i++) y[to + i / o.n] += read[i] * term(o.C[c + i % o.n]);
          for (int64_t i = 0; i < o.p && !o.D.empty(); i++) y[to + i] += o.skip(head, i) * term(o.x[to + i]);
        }
      }
      last.insert(last.end(), S.begin(), S.end());
    }
  }
  Call call("ssd");
  o.operands(call).maybe(o.state).maybe(o.last_x).maybe(o.last_b).maybe(o.last_weight).maybe(o.ids).maybe(o.lengths);
  call.out(o.balls(y, 0)).out(o.balls(last, 0));
  o.sizes((o.own.empty() ? call.null() : call.out(o.balls(checkpoints, 0))).scratch(o.scratch()));
  call.num((double)o.precision).check();
  Floats saved;
  for (const Term& value : checkpoints) saved.push_back((float)value.v);
  return saved;
}

void backward(const Ssd& o, const Floats& checkpoints) {
  const int64_t size = o.p * o.n;
  Floats dy = normal(o.x.size());
  const Floats dlast = normal(o.state.empty() ? 0 : o.b * o.h * size);
  Terms dx(o.x.size()), ddecay(o.decay.size()), dscale(o.decay.size()), down(o.decay.size());
  Terms dB(o.B.size()), dC(o.C.size()), dD(o.D.size()), dstate;
  for (int64_t row = 0; row < o.b; row++) {
    for (int64_t head = 0; head < o.h; head++) {
      Terms G = terms(dlast, (row * o.h + head) * size, size), S, R(size);
      std::vector<Terms> before, read;  // of each token, from the checkpoint of its chunk
      for (int64_t t = 0; t < o.length(row); t++) {
        if (t % o.q == 0) S = terms(checkpoints, ((row * o.chunks() + t / o.q) * o.h + head) * size, size);
        before.push_back(S);
        o.advance(S, R, row, t, head);
        read.push_back(R);
      }
      for (int64_t t = o.length(row) - 1; t >= 0; t--) {
        const int64_t token = row * o.l + t, at = token * o.h + head;
        const Terms fed = o.outer(o.x, o.B, token, head), dR = o.outer(dy, o.C, token, head);
        const Term scale = term(o.scale[at]), own = o.own.empty() ? scale : term(o.own[at]), a = exp_term(o.decay[at]);
        for (int64_t i = 0; i < size; i++) {
          Term dfed = scale * G[i], through = G[i];
          dfed += own * dR[i], through += dR[i];
          dscale[at] += G[i] * fed[i];
          (o.own.empty() ? dscale : down)[at] += dR[i] * fed[i];
          for (int64_t k = 0; k < o.r; k++) {
            const int64_t c = o.x_at(token, k, head) + i / o.n, s = o.b_at(token, k, head) + i % o.n;
            dC[s] += read[t][i] * term(dy[c]);
            dB[s] += dfed * term(o.x[c]);
            dx[c] += dfed * term(o.B[s]);
          }
          if (!o.fresh(row, t)) ddecay[at] += through * a * before[t][i];
          G[i] = o.fresh(row, t) ? Term() : a * through;
        }
        for (int64_t k = 0; k < o.r && !o.D.empty(); k++) {
          for (int64_t i = 0; i < o.p; i++) {
            const int64_t c = o.x_at(token, k, head) + i;
            dx[c] += o.skip(head, i) * term(dy[c]);
            dD[o.d_width == 1 ? head : head * o.p + i] += term(dy[c]) * term(o.x[c]);
          }
        }
      }
      dstate.insert(dstate.end(), G.begin(), G.end());
    }
  }
  const int64_t inside = size, heads = o.h, all = o.b * (o.l + 1) * o.r * o.p;
  Call call("ssdGrad");
  o.operands(call).maybe(o.ids).maybe(o.lengths).in(checkpoints).in(dy).maybe(dlast);
  call.out(o.balls(dx, 0)).out(o.balls(ddecay, inside + o.l * o.l)).out(o.balls(dscale, inside));
  o.own.empty() ? call.null() : call.out(o.balls(down, inside));
  call.out(o.balls(dB, heads)).out(o.balls(dC, heads));
  o.D.empty() ? call.null() : call.out(o.balls(dD, all));
  o.state.empty() ? call.null() : call.out(o.balls(dstate, 0));
  o.sizes(call.scratch(o.grad_scratch())).check();
}

}  // namespace

void test_ssd() {
  // b, l, r, h, p, g, n, q: pieces of one row and of many, shorter than a vector, and of more ranks than SSD_ROWS.
  const int64_t shapes[][8] = {{1, 1, 1, 1, 1, 1, 1, 64},   {2, 1, 3, 4, 8, 2, 17, 64},  {2, 9, 2, 6, 5, 3, 4, 4},
                               {1, 70, 1, 2, 17, 1, 20, 64}, {3, 33, 1, 9, 3, 1, 16, 100}, {1, 40, 4, 2, 16, 2, 5, 40},
                               {1, 3, 70, 1, 4, 1, 3, 2},    {1, 130, 1, 1, 66, 1, 3, 128}, {2, 0, 1, 2, 3, 1, 2, 8}};
  for (const auto& [b, l, r, h, p, g, n, q] : shapes) {
    for (int options = 0; options < 8; options++) {
      // Decays from none to e^-600 in the last.
      Ssd o = {b, l, r, h, p, g, n, q, options & 2 ? p : 1, normal(b * l * r * h * p), uniform(b * l * h, options == 7 ? -600 : -2, 0),
               normal(b * l * h), {}, normal(b * l * r * g * n), normal(b * l * r * g * n), {}, {}, {}, {}, {}, {}, {}};
      if (options & 1) o.own = normal(b * l * h), o.D = normal(h * o.d_width), o.state = normal(b * h * p * n);
      if (options == 3 || options == 4) o.last_x = normal(b * r * h * p), o.last_b = normal(b * r * g * n), o.last_weight = normal(b * h);
      if (options & 2) o.ids = documents(b, l);
      if (options & 4)
        for (int64_t row = 0; row < b; row++) o.lengths.push_back((int32_t)(row == 0 ? l : row == 1 ? l / 2 : 0));
      // Tokens that do not exist may be anything.
      for (int64_t token = 0; token < b * l; token++) {
        if (token % l < o.length(token / l)) continue;
        for (int64_t i = 0; i < r * h * p; i++) o.x[token * r * h * p + i] = NAN;
        for (int64_t i = 0; i < r * g * n; i++) o.B[token * r * g * n + i] = o.C[token * r * g * n + i] = NAN;
        for (int64_t i = 0; i < h; i++) o.decay[token * h + i] = o.scale[token * h + i] = NAN;
      }
      backward(o, forward(o));
      o.precision = PRECISION_BF16;
      forward(o);
    }
  }
}
