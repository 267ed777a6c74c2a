// A single token of ssd, and what the token before the first one adds to a state; part of ssd.cc.

// One token: every row of the state (p, n) is read once, used, decayed and written, one row after the other, because the memory
// delivers one stream of rows faster than several side by side. state_out may be state.
struct SsdStep {
  const float *x, *B, *C, *D;  // of this head; D for each channel, or null
  int64_t x_step, group_step, ranks, n;
  float decay, scale, own;
  const float* state;          // null = zeros
  float *y, *state_out;

  // body(j, count) for all columns of a row.
  template <class F>
  MAMBA_INLINE void columns(const F& body) const {
    int64_t j = 0;
    for (; j + W <= n; j += W) body(j, W);
    if (j < n) body(j, (int)(n - j));
  }

  // What row i of the state gives to rank k.
  MAMBA_INLINE float dot(int64_t i, int64_t k) const {
    const float *from = state + i * n, *c = C + k * group_step;
    vf sum = vzero();
    columns([&](int64_t j, int count) VEC_LAMBDA { sum = vfma(vload_some(from + j, count), vload_some(c + j, count), sum); });
    return hsum(sum);
  }

  // The first rank of rows i .. i + R: reads them for the last time and writes them. Rows are V whole vectors, B and C wait in
  // registers; or of any width when V is 0.
  template <int R, int V>
  MAMBA_INLINE void pass(int64_t i, const vf* b, const vf* c) const {
    const vf kept = vset1(decay);
    vf sums[R];
    for (int r = 0; r < R; r++) {
      const float* from = state + (i + r) * n;
      float* to = state_out + (i + r) * n;
      const vf input = vset1(scale * x[i + r]);
      sums[r] = vzero();
      const auto some = [&](int64_t j, int count, vf bj, vf cj) VEC_LAMBDA {
        const vf before = state ? vload_some(from + j, count) : vzero();
        sums[r] = vfma(before, cj, sums[r]);
        vstore_some(to + j, vfma(input, bj, before * kept), count);
      };
      if constexpr (V > 0) {
        MM_UNROLL for (int v = 0; v < V; v++) some(v * W, W, b[v], c[v]);
      } else {
        columns([&](int64_t j, int count) VEC_LAMBDA { some(j, count, vload_some(B + j, count), vload_some(C + j, count)); });
      }
    }
    for (int r = 0; r < R; r++) y[i + r] = hsum(sums[r]) * decay;
  }

  template <int V>
  void rows(int64_t p) const {
    vf b[V > 0 ? V : 1], c[V > 0 ? V : 1];
    for (int v = 0; v < V; v++) b[v] = vload(B + v * W), c[v] = vload(C + v * W);
    int64_t i = 0;
    for (; i + 4 <= p; i += 4) pass<4, V>(i, b, c);
    for (; i < p; i++) pass<1, V>(i, b, c);
  }

  // The other ranks read before the first one writes, and write behind it.
  void read_others(int64_t p) const {
    for (int64_t k = 1; k < ranks; k++)
      for (int64_t i = 0; i < p; i++) y[k * x_step + i] = state ? dot(i, k) * decay : 0.0f;
  }
  void write_others(int64_t p) const {
    for (int64_t k = 1; k < ranks; k++) {
      const float* b = B + k * group_step;
      for (int64_t i = 0; i < p; i++) {
        const vf input = vset1(scale * x[k * x_step + i]);
        float* to = state_out + i * n;
        columns([&](int64_t j, int count) VEC_LAMBDA {
          vstore_some(to + j, vfma(input, vload_some(b + j, count), vload_some(to + j, count)), count);
        });
      }
    }
  }

  // What the token itself adds to y.
  void self(int64_t p) const {
    for (int64_t k = 0; k < ranks; k++) {
      float* to = y + k * x_step;
      for (int64_t m = 0; m < ranks; m++) {
        const float *b = B + m * group_step, *c = C + k * group_step, *from = x + m * x_step;
        vf sum = vzero();
        columns([&](int64_t j, int count) VEC_LAMBDA { sum = vfma(vload_some(b + j, count), vload_some(c + j, count), sum); });
        const float weight = own * hsum(sum);
        for (int64_t i = 0; i < p; i++) to[i] += weight * from[i];
      }
      for (int64_t i = 0; D && i < p; i++) to[i] += D[i] * x[k * x_step + i];
    }
  }

  void run(int64_t p) const {
    read_others(p);
    if (n == 8 * W) rows<8>(p);  // 128 states with AVX-512
    else if (n == 4 * W) rows<4>(p);
    else rows<0>(p);
    write_others(p);
    self(p);
  }
};

// to (p, n) = state (null = zeros) + weight sum over ranks of x b^T.
static __attribute__((noinline)) void ssd_follow(float* to, const float* state, const float* x, int64_t x_step, const float* b,
                                                 int64_t b_step, float weight, int64_t p, int64_t n, int64_t ranks) {
  for (int64_t i = 0; i < p; i++, to += n) {
    for (int64_t k = 0; k < ranks; k++) {
      const float* from = k > 0 ? to : state ? state + i * n : nullptr;
      const vf input = vset1(weight * x[k * x_step + i]);
      for (int64_t j = 0; j < n; j += W) {
        const int count = n - j < W ? (int)(n - j) : W;
        vstore_some(to + j, vfma(input, vload_some(b + k * b_step + j, count), from ? vload_some(from + j, count) : vzero()), count);
      }
    }
  }
}
