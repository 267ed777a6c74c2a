// Measures the error of every function of vec.h against the double-precision C library, over every n-th of all floats,
// in units in the last place (denormal results in steps of 2^-149), or absolutely where a function promises that.
// Exit code 1 when a bound is broken. Compiled and run by test/backend/vec-math.test.ts.
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../include/vec.h"

using namespace MAMBA_ISA;

static int failures = 0;

static double ulp(double y) {
  int e;
  frexp(y, &e);
  return ldexp(1.0, e < -125 ? -149 : e - 24);
}

struct Case {
  const char* name;
  vf (*fn)(vf);
  double (*truth)(double);
  float lo, hi;
  double bound;   // what docs/numerics.md promises: ulp, or absolute when `absolute`
  bool absolute;
};

static bool same_special(float got, double want) {
  if (isnan(want)) return isnan(got);
  if (isinf(want)) return got == (float)want;
  return isfinite(got);
}

static void run(const Case& c, uint32_t stride) {
  double worst = 0;
  float where = 0;
  const uint32_t special[] = {0, 0x80000000u, 0x7f800000u, 0xff800000u, 0x7fc00000u, 0x3f800000u, 0xbf800000u, 1, 0x80000001u};
  uint64_t specials = sizeof(special) / 4, at = 0;
  uint64_t total = (1ull << 32) / stride;
  float in[W], out[W];
  for (uint64_t i = 0; i < specials + total; i += W) {
    for (int j = 0; j < W; j++, at++) {
      const uint32_t bits = at < specials ? special[at] : (uint32_t)((at - specials) * stride);
      memcpy(&in[j], &bits, 4);
    }
    vstore(out, c.fn(vload(in)));
    for (int j = 0; j < W; j++) {
      const bool inside = in[j] >= c.lo && in[j] <= c.hi;
      if (!inside && isfinite(in[j])) continue;
      if (!isfinite(in[j]) && isfinite(c.hi)) continue;
      const double want = c.truth((double)in[j]);
      const double rounded = fabs(want) > 3.4028235677973366e38 ? copysign(INFINITY, want) : want;
      if (!same_special(out[j], rounded)) {
        printf("%s(%.9g): got %g, want %g\n", c.name, in[j], out[j], want);
        if (++failures > 20) exit(1);
        continue;
      }
      if (!isfinite(rounded)) continue;
      const double error = fabs((double)out[j] - want) / (c.absolute ? 1.0 : ulp(want));
      if (error > worst) worst = error, where = in[j];
    }
  }
  const bool ok = worst <= c.bound;
  if (!ok) failures++;
  printf("%-12s %-10s %.3g at %.9g (bound %.3g)%s\n", c.name, c.absolute ? "absolute" : "ulp", worst, where, c.bound,
         ok ? "" : " BROKEN");
}

static double softplus(double x) { return x > 20 ? x : log1p(exp(x)); }
static double sigmoid(double x) { return 1 / (1 + exp(-x)); }
static double silu(double x) { return x / (1 + exp(-x)); }
static double cdf(double x) { return 0.5 * erfc(-x * 0.70710678118654752440); }

int main(int argc, char** argv) {
  const uint32_t stride = argc > 1 ? (uint32_t)atoi(argv[1]) : 997;
  const float inf = INFINITY;
  const Case cases[] = {
      {"exp", [](vf x) { return vexp(x); }, exp, -inf, inf, 2.5, false},
      {"exp2", [](vf x) { return vexp2(x); }, exp2, -inf, inf, 2.5, false},
      {"exp2_small", [](vf x) { return vexp2_small(x, vset1(1.0f)); }, exp2, -EXP2_SMALL, EXP2_SMALL, 2.5, false},
      {"log", [](vf x) { return vlog(x); }, log, -inf, inf, 2.0, false},
      {"log1p", [](vf x) { return vlog1p(x); }, log1p, -inf, inf, 3.0, false},
      {"softplus", [](vf x) { return vsoftplus(x); }, softplus, -87, inf, 4.0, false},
      {"slope", [](vf x) { vf y; return vsoftplus(x, &y), y; }, sigmoid, -87, inf, 3.0, false},
      {"sigmoid", [](vf x) { return vsigmoid(x); }, sigmoid, -87, inf, 3.0, false},
      {"silu", [](vf x) { return vsilu(x); }, silu, -87, 3e38f, 4.0, false},
      {"tanh", [](vf x) { return vtanh(x); }, tanh, -inf, inf, 4.0, false},
      {"erf", [](vf x) { return verf(x); }, erf, -inf, inf, 4.0, false},
      {"normal_cdf", [](vf x) { return vnormal_cdf(x); }, cdf, -inf, inf, 2.4e-7, true},
      {"sin", [](vf x) { return vsin(x); }, sin, -1e4f, 1e4f, 2.4e-7, true},
      {"cos", [](vf x) { return vcos(x); }, cos, -1e4f, 1e4f, 2.4e-7, true},
  };
  printf("W = %d, every %u-th float\n", W, stride);
  for (const Case& c : cases) run(c, stride);
  return failures ? 1 : 0;
}
