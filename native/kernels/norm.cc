// RMSNorm and LayerNorm of x + residual, one row at a time; see src/backend/reference/norm.ts for the equations.

// Sum over one row of term(j, count), which gives `count` (1..W) terms that start at column j, and anything in the
// lanes behind them. Four accumulators: the additions of neighbouring vectors do not wait for each other.
template <class F>
VEC_FN float norm_row_sum(int64_t d, const F& term) {
  vf s0 = vzero(), s1 = vzero(), s2 = vzero(), s3 = vzero();
  int64_t j = 0;
  for (; j + 4 * W <= d; j += 4 * W) {
    s0 += term(j, W);
    s1 += term(j + W, W);
    s2 += term(j + 2 * W, W);
    s3 += term(j + 3 * W, W);
  }
  for (; j + W <= d; j += W) s0 += term(j, W);
  if (j < d) s1 += vselect(vlanes((int)(d - j)), term(j, (int)(d - j)), vzero());
  return hsum((s0 + s1) + (s2 + s3));
}

// Calls body(j, count) for every vector of a row.
template <class F>
VEC_FN void norm_each(int64_t d, const F& body) {
  int64_t j = 0;
  for (; j + W <= d; j += W) body(j, W);
  if (j < d) body(j, (int)(d - j));
}

static void norm_forward(const Args& args, const Ctx& ctx) {
  const float *x = args.f(0), *residual = args.f(1), *weight = args.f(2), *bias = args.f(3);
  float *y = args.f(4), *sum = args.f(5), *mean_out = args.f(6), *rstd_out = args.f(7);
  const int64_t rows = args.n(8), d = args.n(9), center = args.n(11);
  const float eps = args.num(10), scale = 1.0f / (float)d;
  const int64_t block = d >= 16384 ? 1 : 16384 / (d > 0 ? d : 1);

  ctx.parallel((rows + block - 1) / block, [=](int64_t task, char*) {
    const int64_t end = (task + 1) * block < rows ? (task + 1) * block : rows;
    for (int64_t row = task * block; row < end; row++) {
      const int64_t at = row * d;
      float* out = y + at;
      const float* s = x + at;
      if (residual) {  // y holds the sum until the second pass
        norm_each(d, [&](int64_t j, int count) VEC_LAMBDA {
          vstore_some(out + j, vload_some(x + at + j, count) + vload_some(residual + at + j, count), count);
        });
        s = out;
      }
      if (sum && sum + at != s) {
        norm_each(d, [&](int64_t j, int count) VEC_LAMBDA { vstore_some(sum + at + j, vload_some(s + j, count), count); });
      }
      float mean = 0.0f;
      if (center) mean = norm_row_sum(d, [&](int64_t j, int count) VEC_LAMBDA { return vload_some(s + j, count); }) * scale;
      const float square = norm_row_sum(d, [&](int64_t j, int count) VEC_LAMBDA {
        const vf v = vload_some(s + j, count) - mean;
        return v * v;
      });
      const float rstd = 1.0f / __builtin_sqrtf(square * scale + eps);
      norm_each(d, [&](int64_t j, int count) VEC_LAMBDA {
        vf v = (vload_some(s + j, count) - mean) * rstd;
        if (weight) v = v * vload_some(weight + j, count);
        if (bias) v = v + vload_some(bias + j, count);
        vstore_some(out + j, v, count);
      });
      rstd_out[row] = rstd;
      if (center && mean_out) mean_out[row] = mean;
    }
  });
}

// out (d) = the NORM_BLOCKS partial sums, `stride` elements apart, in order.
static void norm_add_blocks(const Ctx& ctx, const float* partial, int64_t stride, float* out, int64_t d) {
  constexpr int64_t STRIP = 256;
  ctx.parallel((d + STRIP - 1) / STRIP, [=](int64_t task, char*) {
    const int64_t end = (task + 1) * STRIP < d ? (task + 1) * STRIP : d;
    for (int64_t j = task * STRIP; j < end; j += W) {
      const int count = end - j < W ? (int)(end - j) : W;
      vf sum = vzero();
      for (int64_t i = 0; i < NORM_BLOCKS; i++) sum += vload_some(partial + i * stride + j, count);
      vstore_some(out + j, sum, count);
    }
  });
}

static void norm_backward(const Args& args, const Ctx& ctx) {
  const float *s = args.f(0), *weight = args.f(1), *mean_in = args.f(2), *rstd_in = args.f(3);
  const float *dy = args.f(4), *dsum = args.f(5);
  float *ds = args.f(6), *dweight = args.f(7), *dbias = args.f(8), *partial = args.f(9);
  const int64_t rows = args.n(10), d = args.n(11), center = args.n(12);
  const int64_t block = (rows + NORM_BLOCKS - 1) / NORM_BLOCKS;
  const float scale = 1.0f / (float)d;

  ctx.parallel(NORM_BLOCKS, [=](int64_t task, char*) {
    float *dw = partial + task * 2 * d, *db = dw + d;
    if (dweight) memset(dw, 0, (size_t)d * sizeof(float));
    if (dbias) memset(db, 0, (size_t)d * sizeof(float));
    const int64_t end = (task + 1) * block < rows ? (task + 1) * block : rows;
    for (int64_t row = task * block; row < end; row++) {
      const int64_t at = row * d;
      const float rstd = rstd_in[row], mean = center && mean_in ? mean_in[row] : 0.0f;
      const auto normalized = [&](int64_t j, int count) VEC_LAMBDA { return (vload_some(s + at + j, count) - mean) * rstd; };
      const auto gradient = [&](int64_t j, int count) VEC_LAMBDA {
        const vf g = vload_some(dy + at + j, count);
        return weight ? g * vload_some(weight + j, count) : g;
      };
      const float along = norm_row_sum(d, [&](int64_t j, int count) VEC_LAMBDA {
        return gradient(j, count) * normalized(j, count);
      }) * scale;
      const float level = center ? norm_row_sum(d, gradient) * scale : 0.0f;
      norm_each(d, [&](int64_t j, int count) VEC_LAMBDA {
        const vf xhat = normalized(j, count), g = vload_some(dy + at + j, count);
        vf v = (gradient(j, count) - xhat * along - level) * rstd;
        if (dsum) v = v + vload_some(dsum + at + j, count);
        vstore_some(ds + at + j, v, count);
        if (dweight) vstore_some(dw + j, vload_some(dw + j, count) + g * xhat, count);
        if (dbias) vstore_some(db + j, vload_some(db + j, count) + g, count);
      });
    }
  });

  if (dweight) norm_add_blocks(ctx, partial, 2 * d, dweight, d);
  if (dbias) norm_add_blocks(ctx, partial + d, 2 * d, dbias, d);
}

#include "norm-gated.cc"

static const Entry norm_entries[] = {
    {"norm", 12, norm_forward},
    {"normGrad", 13, norm_backward},
    {"gatedNorm", 9, norm_gated},
    {"gatedNormGrad", 13, norm_gated_backward},
};
