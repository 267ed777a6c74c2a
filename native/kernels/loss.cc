// Cross-entropy of next-token prediction, one row of logits at a time; the softmax is never stored.

static void loss_forward(const Args& args, const Ctx& ctx) {
  const float* logits = args.f(0);
  const int32_t* targets = args.ids(1);
  float *loss = args.f(2), *lse_out = args.f(3), *valid = args.f(4);
  const int64_t rows = args.n(5), v = args.n(6), ignore = args.n(7);
  const int64_t block = v >= 16384 ? 1 : 16384 / (v > 0 ? v : 1);

  ctx.parallel((rows + block - 1) / block, [=](int64_t task, char*) {
    const int64_t end = (task + 1) * block < rows ? (task + 1) * block : rows;
    const vf lowest = vset1(-__builtin_inff());
    const int rest = (int)(v % W);
    const vi tail = vlanes(rest);
    for (int64_t row = task * block; row < end; row++) {
      const float* x = logits + row * v;
      vf m0 = lowest, m1 = lowest;
      int64_t j = 0;
      for (; j + 2 * W <= v; j += 2 * W) {
        m0 = vmax(m0, vload(x + j));
        m1 = vmax(m1, vload(x + j + W));
      }
      for (; j + W <= v; j += W) m0 = vmax(m0, vload(x + j));
      if (rest) m1 = vmax(m1, vselect(tail, vload_part(x + j, rest), lowest));
      const float largest = hmax(vmax(m0, m1));

      // A NaN may get lost in the maximum; here it comes back.
      vf s0 = vzero(), s1 = vzero();
      for (j = 0; j + 2 * W <= v; j += 2 * W) {
        s0 += vexp(vload(x + j) - largest);
        s1 += vexp(vload(x + j + W) - largest);
      }
      for (; j + W <= v; j += W) s0 += vexp(vload(x + j) - largest);
      if (rest) s1 += vselect(tail, vexp(vload_part(x + j, rest) - largest), vzero());
      const float lse = largest + log1(hsum(s0 + s1));

      const bool counts = targets[row] != ignore;
      lse_out[row] = lse;
      loss[row] = counts ? lse - x[targets[row]] : 0.0f;
      valid[row] = counts ? 1.0f : 0.0f;
    }
  });
}

static void loss_backward(const Args& args, const Ctx& ctx) {
  const float* logits = args.f(0);
  const int32_t* targets = args.ids(1);
  const float *lse = args.f(2), *dloss = args.f(3);
  float* dlogits = args.f(4);
  const int64_t rows = args.n(5), v = args.n(6), ignore = args.n(7);
  const int64_t block = v >= 16384 ? 1 : 16384 / (v > 0 ? v : 1);

  ctx.parallel((rows + block - 1) / block, [=](int64_t task, char*) {
    const int64_t end = (task + 1) * block < rows ? (task + 1) * block : rows;
    for (int64_t row = task * block; row < end; row++) {
      const float* x = logits + row * v;
      float* dx = dlogits + row * v;
      if (targets[row] == ignore) {
        memset(dx, 0, (size_t)v * sizeof(float));
        continue;
      }
      const float scale = dloss[row], shift = lse[row];
      const float hit = scale * (exp1(x[targets[row]] - shift) - 1.0f);
      int64_t j = 0;
      for (; j + W <= v; j += W) vstore(dx + j, vexp(vload(x + j) - shift) * scale);
      const int rest = (int)(v - j);
      if (rest) vstore_part(dx + j, vexp(vload_part(x + j, rest) - shift) * scale, rest);
      dx[targets[row]] = hit;
    }
  });
}

static const Entry loss_entries[] = {{"crossEntropy", 8, loss_forward}, {"crossEntropyGrad", 8, loss_backward}};
