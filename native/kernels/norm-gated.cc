// The gated norm of Mamba-2 and its gradient, one group of one row at a time; included by norm.cc. See
// src/backend/reference/norm.ts for the equations. Memory is read and written once: what the second pass over a group needs waits in
// the group's outputs.

struct GatedNorm {
  const float *x, *z, *weight;
  int64_t rows, d, size;  // channels per group; without a weight, and so without a norm, the row is one group
  bool before;            // the gate is in front of the norm, or there is no norm
  float eps;

  GatedNorm(const Args& args, int at) : x(args.f(0)), z(args.f(1)), weight(args.f(2)) {
    rows = args.n(at), d = args.n(at + 1), eps = args.num(at + 4);
    size = weight ? args.n(at + 2) : d;
    before = !weight || !args.n(at + 3);
  }
};

static void norm_gated(const Args& args, const Ctx& ctx) {
  const GatedNorm o(args, 4);
  float* const y = args.f(3);
  const int64_t d = o.d, block = d >= 16384 ? 1 : 16384 / (d > 0 ? d : 1);

  ctx.parallel((o.rows + block - 1) / block, [=](int64_t task, char*) {
    const int64_t end = (task + 1) * block < o.rows ? (task + 1) * block : o.rows;
    for (int64_t at = task * block * d; at < end * d; at += o.size) {
      const float *x = o.x + at, *z = o.z ? o.z + at : nullptr;
      const float* weight = o.weight ? o.weight + at % d : nullptr;
      float* out = y + at;
      if (!weight) {
        norm_each(o.size, [&](int64_t j, int count) VEC_LAMBDA {
          const vf v = vload_some(x + j, count);
          vstore_some(out + j, z ? v * vsilu(vload_some(z + j, count)) : v, count);
        });
        continue;
      }
      const bool first = z && o.before, last = z && !o.before;
      const float square = norm_row_sum(o.size, [&](int64_t j, int count) VEC_LAMBDA {
        vf v = vload_some(x + j, count);
        if (first) {
          v = v * vsilu(vload_some(z + j, count));
          vstore_some(out + j, v, count);
        }
        return v * v;
      });
      const float rstd = 1.0f / __builtin_sqrtf(square * (1.0f / (float)o.size) + o.eps);
      const float* s = first ? out : x;
      norm_each(o.size, [&](int64_t j, int count) VEC_LAMBDA {
        vf v = vload_some(s + j, count) * rstd * vload_some(weight + j, count);
        if (last) v = v * vsilu(vload_some(z + j, count));
        vstore_some(out + j, v, count);
      });
    }
  });
}

// silu'(z) of z and sigmoid(z).
VEC_FN vf norm_gate_slope(vf z, vf s) { return s * (z * (1.0f - s) + 1.0f); }

static void norm_gated_backward(const Args& args, const Ctx& ctx) {
  const GatedNorm o(args, 8);
  const float* const dy_in = args.f(3);
  float *const dx_out = args.f(4), *const dz_out = args.f(5), *const dweight = args.f(6), *const partial = args.f(7);
  const int64_t d = o.d, block = (o.rows + NORM_BLOCKS - 1) / NORM_BLOCKS;
  const float scale = 1.0f / (float)o.size;

  ctx.parallel(NORM_BLOCKS, [=](int64_t task, char*) {
    float* dw = partial + task * d;
    if (dweight) memset(dw, 0, (size_t)d * sizeof(float));
    const int64_t end = (task + 1) * block < o.rows ? (task + 1) * block : o.rows;
    for (int64_t at = task * block * d; at < end * d; at += o.size) {
      const float *x = o.x + at, *z = o.z ? o.z + at : nullptr, *dy = dy_in + at;
      float *dx = dx_out + at, *dz = dz_out ? dz_out + at : nullptr;
      if (!o.weight) {
        norm_each(o.size, [&](int64_t j, int count) VEC_LAMBDA {
          const vf up = vload_some(dy + j, count);
          if (!z) return vstore_some(dx + j, up, count);
          const vf gate = vload_some(z + j, count), s = vsigmoid(gate);
          vstore_some(dx + j, up * (gate * s), count);
          vstore_some(dz + j, up * vload_some(x + j, count) * norm_gate_slope(gate, s), count);
        });
        continue;
      }
      const float* weight = o.weight + at % d;
      float* dw_group = dw + at % d;
      // The gate in front scales what is normalised, the gate behind what comes back. dz keeps the sigmoid between the passes.
      vf squares = vzero(), products = vzero();
      norm_each(o.size, [&](int64_t j, int count) VEC_LAMBDA {
        const vf in = vload_some(x + j, count);
        vf u = vset1(1.0f);
        if (z) {
          const vf gate = vload_some(z + j, count), s = vsigmoid(gate);
          vstore_some(dz + j, s, count);
          u = gate * s;
        }
        const vf scaled = in * u;
        squares += o.before ? scaled * scaled : in * in;
        products += scaled * (vload_some(dy + j, count) * vload_some(weight + j, count));
      });
      const float rstd = 1.0f / __builtin_sqrtf(hsum(squares) * scale + o.eps);
      const float along = hsum(products) * scale * rstd;  // the mean of g xhat
      norm_each(o.size, [&](int64_t j, int count) VEC_LAMBDA {
        const vf in = vload_some(x + j, count), up = vload_some(dy + j, count), w = vload_some(weight + j, count);
        const vf gate = z ? vload_some(z + j, count) : vset1(1.0f), s = z ? vload_some(dz + j, count) : vset1(1.0f);
        const vf u = gate * s;
        const vf xhat = (o.before ? in * u : in) * rstd;
        const vf behind = o.before ? up : up * u;
        const vf ds = (behind * w - xhat * along) * rstd;
        if (dweight) vstore_some(dw_group + j, vload_some(dw_group + j, count) + behind * xhat, count);
        vstore_some(dx + j, o.before ? ds * u : ds, count);
        if (z) vstore_some(dz + j, (o.before ? ds * in : up * w * xhat) * norm_gate_slope(gate, s), count);
      });
    }
  });
  if (dweight) norm_add_blocks(ctx, partial, d, dweight, d);
}
