// Cases of narrow storage: conversion, packing, table rows and products. A product with 16-bit weights must have the bits of the
// product with the widened ones, on every instruction set: the wanted values are those that `matmul` gives. With q8 and q4 it must
// lie as near to the exact one as rounded activations allow, and a row must have the same bits alone.
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
  Call("widen").label("bf16").bits(all).out_bits(from_bf16).nums({0, 2, 32768}).check();
  Call("widen").label("f16").bits(all).out(from_f16).nums({1, 1, 65536}).check();

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

using Halves = std::vector<uint16_t>;
constexpr int BF16 = 0, F16 = 1, Q8 = 2, Q4 = 3;
const char* const NAMES[] = {"bf16", "f16", "q8", "q4"};

// 16-bit units of a block of 32, the scale in front.
int64_t units_of(int format) { return format == Q8 ? 17 : 9; }
int64_t block_of(int format) { return format < Q8 ? 1 : 32; }

// Storage of any bits, with scales (or elements) of moderate size, or of any size at all.
Halves weights(int format, int64_t count, bool any) {
  Halves x;
  for (const float place : uniform(format < Q8 ? count : count / 32 * units_of(format), 0, 65536))
    x.push_back((uint16_t)(place < 65536 ? place : 0));
  const int64_t stride = format < Q8 ? 1 : units_of(format);
  for (int64_t i = 0; i < (int64_t)x.size() && !any; i += stride)
    x[i] = format == BF16 ? (x[i] & 0x81ff) | 0x3c00 : (x[i] & 0x83ff) | 0x2c00;
  return x;
}

// Their values, from the definition of the formats.
Floats values_of(int format, const Halves& x) {
  Floats y;
  if (format == BF16)
    for (const uint16_t h : x) y.push_back(float_of((uint32_t)h << 16));
  if (format == F16)
    for (const uint16_t h : x) y.push_back(widened(h));
  const int64_t units = units_of(format);
  for (int64_t block = 0; format >= Q8 && block < (int64_t)x.size() / units; block++) {
    const float d = widened(x[block * units]);
    const uint8_t* q = (const uint8_t*)&x[block * units + 1];
    for (int i = 0; i < 32; i++)
      y.push_back(d * (float)(format == Q8 ? (int8_t)q[i] : (i < 16 ? q[i] % 16 : q[i - 16] / 16) - 8));
  }
  return y;
}

// Blocks of rows of d elements in panels of 16 rows: words of four bytes side by side, the scales behind them. 16-bit
// elements stay where they are.
Halves stored(int format, const Halves& x, int64_t rows, int64_t d) {
  if (format < Q8) return x;
  const int64_t bytes = 2 * units_of(format), width = d / 32;
  Halves y((rows + 15) / 16 * 16 * width * units_of(format), 0x7e7e);
  for (int64_t i = 0; i < rows * width; i++) {
    const char* from = (const char*)x.data() + i * bytes;
    const int64_t row = i / width, lane = row % 16;
    char* to = (char*)y.data() + (row / 16 * width + i % width) * 16 * bytes;
    for (int64_t at = 0; at < bytes - 2; at++) to[at / 4 * 64 + lane * 4 + at % 4] = from[2 + at];
    memcpy(to + (bytes - 2) * 16 + 2 * lane, from, 2);
  }
  return y;
}

void test_blocks() {
  for (const int format : {Q8, Q4}) {
    const int64_t shapes[][2] = {{0, 1}, {1, 1}, {17, 3}, {48, 2}, {1000, 20}};  // rows, blocks of a row
    for (const auto& [rows, width] : shapes) {
      const double d = 32 * (double)width, count = (double)(rows * width);
      const Halves x = weights(format, 32 * rows * width, true), panels = stored(format, x, rows, 32 * width);
      const Floats y = values_of(format, x);
      Call("widen").label(NAMES[format]).bits(panels).out(Balls(y.begin(), y.end())).nums({(double)format, (double)rows, d}).check();
      Call("unpack").label(NAMES[format]).bits(panels).out_bits(x).nums({(double)format, d, 0, count}).check();
      if (rows % 16 == 0) Call("pack").label(NAMES[format]).bits(x).out_bits(panels).nums({(double)format, d, 0, count}).check();
      if (rows < 2) continue;
      // From the middle of a row on.
      const int64_t units = units_of(format), first = rows * width / 2 + 1;
      const Halves part(x.begin() + first * units, x.end());
      Call("unpack").label(NAMES[format]).bits(panels).out_bits(part).nums({(double)format, d, (double)first, count - first}).check();
    }
  }
}

void test_table(int format) {
  const int64_t shapes[][3] = {{1, 1, 1}, {7, 5, 3}, {40, 9, 33}, {300, 50, 257}};  // ids, rows, width
  for (const auto& [count, rows, width] : shapes) {
    const int64_t d = (width + block_of(format) - 1) / block_of(format) * block_of(format);
    const Halves table = weights(format, rows * d, false);
    const Floats wide = values_of(format, table);
    Ints ids;
    for (const float place : uniform(count, 0, (double)rows)) ids.push_back(place < rows ? (int32_t)place : 0);
    Floats gathered;
    for (const int32_t id : ids) gathered.insert(gathered.end(), wide.begin() + id * d, wide.begin() + (id + 1) * d);
    Call("gatherRowsNarrow").label(NAMES[format]).bits(stored(format, table, rows, d)).ids(ids).out(Balls(gathered.begin(), gathered.end()))
        .nums({(double)count, (double)rows, (double)d, (double)format}).check();
  }
}

void test_product(int format, int64_t m, int64_t n, int64_t k, int64_t row, bool with_bias) {
  const Floats a = normal(m * k), bias = normal(with_bias ? n : 0);
  const Halves w = weights(format, (row + n) * k, false), held = stored(format, w, row + n, k);
  const Floats all = values_of(format, w), wide(all.begin() + row * k, all.end());
  const double sizes[] = {(double)m, (double)n, (double)k};
  const std::string label = NAMES[format] + (' ' + std::to_string(m)) + ' ' + std::to_string(n) + ' ' + std::to_string(k);
  for (const int precision : {0, format < Q8 ? 1 : 2}) {
    Balls c;
    const double share = format < Q8 ? 0 : 0.5 / (precision == 2 ? 127 : 32512) + 3.01 * EPS;
    for (int64_t i = 0; i < m * n; i++) {
      Sum sum;
      double top = 0, size = 0, rounding = 0;
      for (int64_t p = 0; p < k; p++) {
        const float x = a[i / n * k + p], y = wide[i % n * k + p];
        const bool bf16 = precision == 1;
        sum += Ball(bf16 ? float_of((uint32_t)to_bf16(x) << 16) : x) * (bf16 ? float_of((uint32_t)to_bf16(y) << 16) : y);
        top = p % 32 == 0 ? fabs(x) : fmax(top, fabs(x));
        size = p % 32 == 0 ? fabs(y) : size + fabs(y);
        if (p % 32 == 31) rounding += top * share * size;
      }
      if (with_bias) sum += bias[i % n];
      const Ball total = sum.total();
      c.push_back({total.v, total.r + (format < Q8 ? 0 : rounding)});
    }
    const double last[] = {(double)format, (double)row, (double)precision};
    Floats want;
    if (format < Q8) {
      Call plain("matmul");
      plain.label(label).in(a).in(wide).out(c).maybe(bias).nums({1, sizes[0], sizes[1], sizes[2], 0, 1, 0, 0, 0, 0, last[2]});
      want = plain.check();
    } else {
      Call rounded("linearNarrow");
      rounded.label(label).in(a).bits(held).out(c).maybe(bias).nums({sizes[0], sizes[1], sizes[2], last[0], last[1], last[2]});
      want = rounded.check();
    }
    // All rows with 16 bits, the last one alone with blocks.
    const int64_t rows = format < Q8 || m == 0 ? m : 1;
    Call narrow("linearNarrow");
    narrow.label(label).in(Floats(a.end() - rows * k, a.end())).bits(held).out_bits(Floats(want.end() - rows * n, want.end()));
    narrow.maybe(bias).nums({(double)rows, sizes[1], sizes[2], last[0], last[1], last[2]}).check();
  }
}

}  // namespace

void test_narrow() {
  test_formats();
  test_blocks();
  for (const int format : {BF16, F16, Q8, Q4}) {
    test_table(format);
    const int64_t block = block_of(format);
    // Around the widths of vectors and tiles; the depths of blocks are cut between their ends in the last two.
    const int64_t shapes[][3] = {{1, 1, 1}, {1, 37, 3}, {3, 5, 2}, {5, 43, 3}, {16, 19, 4}, {17, 33, 5}, {29, 51, 4}, {4, 3, 0}, {500, 17, 1}};
    for (const auto& [m, n, depth] : shapes)
      test_product(format, m, n, block == 1 ? 17 * depth + depth % 2 : 32 * depth, m % 3, n % 2);
    test_product(format, 33, 263, 160, 3, true);
    test_product(format, 20, 40, 288, 0, false);
    test_product(format, 1, 3001, 128, 1, true);
  }
}
