// Arithmetic with error bounds, as in test/kernels/ball.ts: a ball (v, r) is a float64 value and the distance at which any
// float32 implementation must stay. Kernels are written down in it once more, as plain loops. See docs/numerics.md.
#pragma once

#include <math.h>

constexpr double EPS = 0x1p-24;    // of one correctly rounded float32 operation
constexpr double TINY = 0x1p-126;  // results below may be flushed to zero

struct Ball {
  double v, r;
  double period = 0;  // of an angle: distances count modulo this
  Ball(double value = 0, double radius = 0) : v(value), r(radius) {}
};

inline Ball rounded(Ball x, int roundings = 1) {
  if (x.v == 0 && x.r == 0) return x;
  return {x.v, x.r + roundings * EPS * (fabs(x.v) + x.r) + TINY};
}
inline Ball operator+(Ball a, Ball b) { return rounded({a.v + b.v, a.r + b.r}); }
inline Ball operator-(Ball a, Ball b) { return rounded({a.v - b.v, a.r + b.r}); }
inline Ball operator*(Ball a, Ball b) {
  return rounded({a.v * b.v, fabs(a.v) * b.r + fabs(b.v) * a.r + a.r * b.r});
}
inline Ball operator/(Ball a, Ball b) {
  const double v = a.v / b.v;
  return rounded({v, (a.r + fabs(v) * b.r) / (fabs(b.v) - b.r)});
}

// One correctly rounded operation: nothing but this float.
inline Ball exactly(double v) { return {(double)(float)v, 0}; }
// A float64 coefficient, rounded once.
inline Ball constant(double v) { return {v, (double)(float)v == v ? 0 : EPS * fabs(v)}; }

// A sum in any order: gamma(terms - 1) times the sum of absolute values (Higham, 4.2).
struct Sum {
  double v = 0, r = 0, size = 0;
  int terms = 0;

  void operator+=(Ball x) { v += x.v, r += x.r, size += fabs(x.v) + x.r, terms++; }
  Ball total() const {
    const double n = terms > 1 ? (terms - 1) * EPS : 0;
    return {v, r + n / (1 - n) * size};
  }
};

// A function good to `ulps` units in the last place, of `size(x)` where that is not |f(x)|.
template <class F, class S>
Ball apply(F f, double ulps, Ball x, S size) {
  const double v = f(x.v);
  if (!isfinite(v)) return v;
  const double carried = x.r == 0 ? 0 : fmax(fabs(f(x.v + x.r) - v), fabs(f(x.v - x.r) - v));
  return {v, carried + 2 * EPS * ulps * fabs(size(x.v)) + TINY};
}
template <class F>
Ball apply(F f, double ulps, Ball x) {
  return apply(f, ulps, x, f);
}

// The mathematics of the kernels in float64, and what float32 promises of it (the table ULPS of ball.ts).
namespace truth {
inline double sigmoid(double x) { return 1 / (1 + exp(-x)); }
inline double silu(double x) { return x * sigmoid(x); }
inline double silu_grad(double x) { return sigmoid(x) * (1 + x * (1 - sigmoid(x))); }
inline double softplus(double x) { return x > 20 ? x : log1p(exp(x)); }
inline double cdf(double x) { return 0.5 * erfc(-x * M_SQRT1_2); }
inline double pdf(double x) { return exp(-0.5 * x * x) * 0.39894228040143267794; }
inline double gelu(double x) { return x * cdf(x); }
inline double gelu_grad(double x) { return cdf(x) + x * pdf(x); }
inline double rsqrt(double x) { return 1 / sqrt(x); }
inline double root(double x) { return sqrt(fmax(0, x)); }
inline double minus_sin(double x) { return -sin(x); }
}  // namespace truth

inline Ball exp_of(Ball x) { return apply([](double a) { return exp(a); }, 2.5, x); }
inline Ball log_of(Ball x) { return apply([](double a) { return log(a); }, 2, x); }
inline Ball rsqrt_of(Ball x) { return apply(truth::rsqrt, 2, x); }
inline Ball sqrt_of(Ball x) { return apply(truth::root, 0.5, x); }
inline Ball sigmoid_of(Ball x) { return apply(truth::sigmoid, 3, x); }
inline Ball silu_of(Ball x) { return apply(truth::silu, 4, x); }
inline Ball softplus_of(Ball x) { return apply(truth::softplus, 4, x); }
inline Ball tanh_of(Ball x) { return apply([](double a) { return tanh(a); }, 4, x); }
inline Ball gelu_of(Ball x) {
  return apply(truth::gelu, 4, x, [](double a) { return truth::gelu(a) * (1 + a * a / 4); });
}
inline Ball sin_of(Ball x) {
  return apply([](double a) { return sin(a); }, 2, x, [](double a) { return fmin(1, fabs(a)); });
}
inline Ball cos_of(Ball x) {
  return apply([](double a) { return cos(a); }, 2, x, [](double) { return 1.0; });
}
inline Ball silu_grad_of(Ball x) {
  return apply(truth::silu_grad, 4, x, [](double a) { return truth::sigmoid(a) * (1 + fabs(a)); });
}
inline Ball gelu_grad_of(Ball x) {
  return apply(truth::gelu_grad, 4, x,
               [](double a) { return (truth::cdf(a) + fabs(a) * truth::pdf(a)) * (1 + a * a / 4); });
}
