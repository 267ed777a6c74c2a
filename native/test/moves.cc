// Cases of the kernels that move and convert elements.
#include <string.h>

#include "harness.h"

namespace {

uint32_t bits_of(float x) {
  uint32_t u;
  memcpy(&u, &x, 4);
  return u;
}
float float_of(uint32_t u) {
  float x;
  memcpy(&x, &u, 4);
  return x;
}

void test_strided() {
  const int64_t layouts[][12] = {
      // extents, strides of the side that is not contiguous
      {1, 1, 1, 2, 3, 37, 222, 222, 222, 111, 37, 1}, {1, 1, 1, 1, 1, 40001, 0, 0, 0, 0, 0, 1},
      {1, 1, 1, 1, 65, 133, 0, 0, 0, 0, 1, 65},       {2, 3, 2, 3, 2, 3, 1, 2, 6, 12, 36, 72},
      {1, 1, 1, 3, 17, 5, 0, 0, 0, 85, 1, 17},        {1, 1, 1, 1, 9, 7, 0, 0, 0, 0, 20, 1},
      {1, 1, 2, 4, 7, 5, 0, 0, 140, 5, 20, 1},        {1, 1, 1, 1, 1, 50, 0, 0, 0, 0, 0, 3},
      {1, 1, 2, 0, 3, 1, 1, 1, 1, 1, 1, 1},           {1, 1, 1, 1, 6, 11, 0, 0, 0, 0, 0, 1},
  };
  for (const auto& s : layouts) {
    int64_t count = 1, reach = 1;
    bool overlap = false;
    for (int i = 0; i < 6; i++) count *= s[i], reach += (s[i] > 0 ? s[i] - 1 : 0) * s[6 + i], overlap |= s[i] > 1 && !s[6 + i];
    std::vector<int64_t> offsets;
    for (int64_t i = 0; i < count; i++) {
      int64_t offset = 0, rest = i;
      for (int axis = 5; axis >= 0; axis--) offset += rest % s[axis] * s[6 + axis], rest /= s[axis];
      offsets.push_back(offset);
    }
    const Floats wide = normal(reach), dense = normal(count);
    Floats copied;
    Balls stored(wide.begin(), wide.end()), added(wide.begin(), wide.end());
    for (int64_t i = 0; i < count; i++) {
      copied.push_back(wide[offsets[i]]);
      stored[offsets[i]] = dense[i];
      added[offsets[i]] = overlap ? added[offsets[i]] + dense[i] : exactly(added[offsets[i]].v + dense[i]);
    }
    const std::string label = std::to_string(count) + " of " + std::to_string(reach);
    const auto finish = [&](Call& call) -> Call& {
      call.label(label);
      for (const int64_t value : s) call.num((double)value);
      return call;
    };
    finish(Call("copy").in(wide).out_bits(copied)).check();
    if (!overlap) finish(Call("scatter").in(dense).io(wide, stored)).num(0).check();
    finish(Call("scatter").in(dense).io(wide, added)).num(1).check();
  }
}

void test_rows() {
  const int64_t shapes[][3] = {{1, 1, 1}, {7, 5, 3}, {40, 9, 129}, {300, 50, 257}};  // ids, rows, width
  for (const auto& [count, rows, d] : shapes) {
    const Floats table = normal(rows * d), x = normal(count * d);
    Ints ids;
    for (const float place : uniform(count, 0, (double)rows)) ids.push_back(place < rows ? (int32_t)place : 0);
    Floats gathered;
    std::vector<Sum> sums(rows * d);
    for (int64_t i = 0; i < rows * d; i++) sums[i] += table[i];
    for (int64_t i = 0; i < count; i++) {
      for (int64_t j = 0; j < d; j++) {
        gathered.push_back(table[ids[i] * d + j]);
        sums[ids[i] * d + j] += x[i * d + j];
      }
    }
    Balls added;
    for (const Sum& sum : sums) added.push_back(sum.total());
    const auto sizes = {(double)count, (double)rows, (double)d};
    const std::string label = std::to_string(count) + " of " + std::to_string(rows) + " by " + std::to_string(d);
    Call("gatherRows").label(label).in(table).ids(ids).out_bits(gathered).nums(sizes).check();
    Call("scatterAddRows").label(label).in(x).ids(ids).io(table, added).nums(sizes).check();
  }
}

// The value of a half; NaN stays one.
float widened(uint16_t h) {
  const int exponent = h >> 10 & 31, mantissa = h & 1023;
  const double magnitude = exponent == 31 ? (mantissa ? NAN : INFINITY)
                           : exponent     ? ldexp(1024 + mantissa, exponent - 25)
                                          : ldexp(mantissa, -24);
  return (float)(h & 0x8000 ? -magnitude : magnitude);
}

// The nearest multiple of 2^(exponent of x, at least `least` - digits), ties to even.
double nearest(double x, int digits, int least) {
  if (x == 0 || !isfinite(x)) return x;
  const int exponent = ilogb(x) < least ? least : ilogb(x);
  return ldexp(nearbyint(ldexp(x, digits - exponent)), exponent - digits);
}

uint16_t to_f16(float x) {
  const uint16_t sign = (uint16_t)(bits_of(x) >> 16 & 0x8000);
  if (isnan(x)) return sign | 0x7e00;
  const double y = fabs(nearest(x, 10, -14));
  if (y >= 65536) return sign | 0x7c00;
  if (y < 0x1p-14) return sign | (uint16_t)ldexp(y, 24);
  const int exponent = ilogb(y);
  return sign | (uint16_t)((exponent + 15) << 10 | ((int)ldexp(y, 10 - exponent) & 1023));
}

uint16_t to_bf16(float x) {
  if (isnan(x)) return (uint16_t)(bits_of(x) >> 16 | 0x40);
  return (uint16_t)(bits_of((float)nearest(x, 7, -126)) >> 16);
}

void test_formats() {
  std::vector<uint16_t> all(65536);
  Floats from_bf16;
  Balls from_f16;
  for (int i = 0; i < 65536; i++) {
    all[i] = (uint16_t)i;
    from_bf16.push_back(float_of((uint32_t)i << 16));
    from_f16.push_back(widened((uint16_t)i));
  }
  Call("widen").label("bf16").bits(all).out_bits(from_bf16).nums({0, 65536}).check();
  Call("widen").label("f16").bits(all).out(from_f16).nums({1, 65536}).check();

  // Ties and the ends of the range, then floats of any exponent, then those that halves can hold.
  Floats x = {0.0f, -0.0f, 1.0f, 1 + 0x1p-8f, 1 + 3 * 0x1p-8f, 1 + 0x1p-11f, 1 + 3 * 0x1p-11f, 65504, 65519.99f, 65520, -65520,
              3.4e38f, 3.39e38f, 0x1p-14f, 0x1p-15f, 0x1p-24f, 0x1p-25f, 3 * 0x1p-25f, 0x1p-26f, -0x1p-24f, 0x1p-126f, 1e-40f,
              INFINITY, -INFINITY, NAN, -NAN};
  for (uint32_t u = 0; u < 40000; u++) x.push_back(float_of(u * 107374u));
  for (const float value : normal(20001, 1e-3)) x.push_back(value);
  std::vector<uint16_t> bf16, f16;
  for (const float value : x) bf16.push_back(to_bf16(value)), f16.push_back(to_f16(value));
  Call("narrow").label("bf16").in(x).out_bits(bf16).nums({0, (double)x.size()}).check();
  Call("narrow").label("f16").in(x).out_bits(f16).nums({1, (double)x.size()}).check();
}

}  // namespace

void test_moves() {
  test_strided();
  test_rows();
  test_formats();
}
