// Maps over elements, the broadcasting binary operations, and the AdamW step.

// Elements per task: small arrays stay on the calling thread, where a hand-over would cost more than the work.
constexpr int64_t EW_CHUNK = 1 << 14;

// body(i, count) for pieces of at most EW_CHUNK elements that cover [0, count).
template <class F>
static void ew_chunks(const Ctx& ctx, int64_t count, const F& body) {
  ctx.parallel((count + EW_CHUNK - 1) / EW_CHUNK, [&](int64_t task, char*) {
    const int64_t begin = task * EW_CHUNK;
    body(begin, count - begin < EW_CHUNK ? count - begin : EW_CHUNK);
  });
}

// y[i] = f(x[i]).
template <class F>
static void ew_map(const Ctx& ctx, int64_t count, const float* x, float* y, const F& f) {
  ew_chunks(ctx, count, [&](int64_t begin, int64_t length) {
    int64_t i = begin;
    const int64_t end = begin + length;
    for (; i + W <= end; i += W) vstore(y + i, f(vload(x + i)));
    if (i < end) vstore_part(y + i, f(vload_part(x + i, (int)(end - i))), (int)(end - i));
  });
}

// dx[i] = f(x[i], y[i], dy[i]).
template <class F>
static void ew_map3(const Ctx& ctx, int64_t count, const float* x, const float* y, const float* dy, float* dx, const F& f) {
  ew_chunks(ctx, count, [&](int64_t begin, int64_t length) {
    int64_t i = begin;
    const int64_t end = begin + length;
    for (; i + W <= end; i += W) vstore(dx + i, f(vload(x + i), vload(y + i), vload(dy + i)));
    const int rest = (int)(end - i);
    if (rest > 0) vstore_part(dx + i, f(vload_part(x + i, rest), vload_part(y + i, rest), vload_part(dy + i, rest)), rest);
  });
}

// The order is that of UNARY in src/backend/kernels.ts.
enum EwUnary { EW_NEG, EW_EXP, EW_LOG, EW_SQRT, EW_RSQRT, EW_SQUARE, EW_ABS, EW_RECIPROCAL, EW_SIGMOID, EW_SILU,
               EW_SOFTPLUS, EW_TANH, EW_RELU, EW_GELU, EW_SIN, EW_COS };

static void unary_kernel(const Args& a, const Ctx& ctx) {
  const float* x = a.f(1);
  float* y = a.f(2);
  const int64_t count = a.n(3);
  switch (a.n(0)) {
    case EW_NEG: return ew_map(ctx, count, x, y, [](vf v) { return -v; });
    case EW_EXP: return ew_map(ctx, count, x, y, [](vf v) { return vexp(v); });
    case EW_LOG: return ew_map(ctx, count, x, y, [](vf v) { return vlog(v); });
    case EW_SQRT: return ew_map(ctx, count, x, y, [](vf v) { return vsqrt(v); });
    case EW_RSQRT: return ew_map(ctx, count, x, y, [](vf v) { return 1.0f / vsqrt(v); });
    case EW_SQUARE: return ew_map(ctx, count, x, y, [](vf v) { return v * v; });
    case EW_ABS: return ew_map(ctx, count, x, y, [](vf v) { return vabs(v); });
    case EW_RECIPROCAL: return ew_map(ctx, count, x, y, [](vf v) { return 1.0f / v; });
    case EW_SIGMOID: return ew_map(ctx, count, x, y, [](vf v) { return vsigmoid(v); });
    case EW_SILU: return ew_map(ctx, count, x, y, [](vf v) { return vsilu(v); });
    case EW_SOFTPLUS: return ew_map(ctx, count, x, y, [](vf v) { return vsoftplus(v); });
    case EW_TANH: return ew_map(ctx, count, x, y, [](vf v) { return vtanh(v); });
    case EW_RELU: return ew_map(ctx, count, x, y, [](vf v) { return v < 0.0f ? vzero() : v; });
    case EW_GELU: return ew_map(ctx, count, x, y, [](vf v) { return vgelu(v); });
    case EW_SIN: return ew_map(ctx, count, x, y, [](vf v) { return vsin(v); });
    case EW_COS: return ew_map(ctx, count, x, y, [](vf v) { return vcos(v); });
  }
}

static void unaryGrad_kernel(const Args& a, const Ctx& ctx) {
  const float *x = a.f(1), *y = a.f(2), *dy = a.f(3);
  float* dx = a.f(4);
  const int64_t count = a.n(5);
  const auto map = [&](auto f) { ew_map3(ctx, count, x, y, dy, dx, f); };
  switch (a.n(0)) {
    case EW_NEG: return map([](vf, vf, vf g) { return -g; });
    case EW_EXP: return map([](vf, vf v, vf g) { return g * v; });
    case EW_LOG: return map([](vf u, vf, vf g) { return g / u; });
    case EW_SQRT: return map([](vf, vf v, vf g) { return 0.5f * g / v; });
    case EW_RSQRT: return map([](vf, vf v, vf g) { return -0.5f * g * v * v * v; });
    case EW_SQUARE: return map([](vf u, vf, vf g) { return 2.0f * u * g; });
    case EW_ABS:
      return map([](vf u, vf, vf g) { return u > 0.0f ? g : u < 0.0f ? -g : g * u; });
    case EW_RECIPROCAL: return map([](vf, vf v, vf g) { return -g * v * v; });
    case EW_SIGMOID: return map([](vf, vf v, vf g) { return g * v * (1.0f - v); });
    case EW_SILU:
      return map([](vf u, vf v, vf g) {
        const vf s = vsigmoid(u);
        return g * (s + v * (1.0f - s));
      });
    case EW_SOFTPLUS:
      return map([](vf u, vf, vf g) { return u > 20.0f ? g : g * vsigmoid(u); });
    case EW_TANH: return map([](vf, vf v, vf g) { return g * (1.0f - v * v); });
    case EW_RELU: return map([](vf u, vf, vf g) { return u > 0.0f ? g : vzero(); });
    case EW_GELU:
      return map([](vf u, vf, vf g) {
        const vf density = 0.39894228040143268f * vexp(-0.5f * u * u);
        return g * (vnormal_cdf(u) + u * density);
      });
    case EW_SIN: return map([](vf u, vf, vf g) { return g * vcos(u); });
    case EW_COS: return map([](vf u, vf, vf g) { return -g * vsin(u); });
  }
}

struct EwBroadcast {
  int64_t d[4], a[4], b[4];  // extents, element strides
};

// Merges neighbouring axes that both operands walk without a jump, so that the inner axis is as long as it can be.
static EwBroadcast ew_merge(const EwBroadcast& from) {
  EwBroadcast to = {{1, 1, 1, 1}, {0, 0, 0, 0}, {0, 0, 0, 0}};
  int top = 3;
  bool empty = true;
  for (int i = 3; i >= 0; i--) {
    if (from.d[i] == 1) continue;
    if (!empty && from.a[i] == to.a[top] * to.d[top] && from.b[i] == to.b[top] * to.d[top]) {
      to.d[top] *= from.d[i];
      continue;
    }
    if (!empty) top--;
    to.d[top] = from.d[i], to.a[top] = from.a[i], to.b[top] = from.b[i];
    empty = false;
  }
  return to;
}

// One row; the strides are 0, 1 or anything.
template <class F>
static void ew_row(const float* a, int64_t sa, const float* b, int64_t sb, float* y, int64_t count, const F& f) {
  if ((sa != 0 && sa != 1) || (sb != 0 && sb != 1)) {
    for (int64_t i = 0; i < count; i++) y[i] = f(vset1(a[i * sa]), vset1(b[i * sb]))[0];
    return;
  }
  const vf a0 = vset1(a[0]), b0 = vset1(b[0]);
  int64_t i = 0;
  for (; i + W <= count; i += W) vstore(y + i, f(sa ? vload(a + i) : a0, sb ? vload(b + i) : b0));
  const int rest = (int)(count - i);
  if (rest > 0) vstore_part(y + i, f(sa ? vload_part(a + i, rest) : a0, sb ? vload_part(b + i, rest) : b0), rest);
}

template <class F>
static void ew_binary(const Ctx& ctx, const EwBroadcast& s, const float* a, const float* b, float* y, const F& f) {
  const int64_t rows = s.d[0] * s.d[1] * s.d[2], length = s.d[3];
  if (rows == 0 || length == 0) return;
  const int64_t pieces = (length + EW_CHUNK - 1) / EW_CHUNK;         // of a long row
  const int64_t group = length < EW_CHUNK ? EW_CHUNK / length : 1;   // of short rows
  ctx.parallel((rows + group - 1) / group * pieces, [&](int64_t task, char*) {
    const int64_t piece = task % pieces * EW_CHUNK, first = task / pieces * group;
    const int64_t count = length - piece < EW_CHUNK ? length - piece : EW_CHUNK;
    const int64_t last = first + group < rows ? first + group : rows;
    for (int64_t row = first; row < last; row++) {
      const int64_t i2 = row % s.d[2], i1 = row / s.d[2] % s.d[1], i0 = row / (s.d[2] * s.d[1]);
      const float* ra = a + i0 * s.a[0] + i1 * s.a[1] + i2 * s.a[2] + piece * s.a[3];
      const float* rb = b + i0 * s.b[0] + i1 * s.b[1] + i2 * s.b[2] + piece * s.b[3];
      ew_row(ra, s.a[3], rb, s.b[3], y + row * length + piece, count, f);
    }
  });
}

static void binary_kernel(const Args& args, const Ctx& ctx) {
  EwBroadcast s;
  for (int i = 0; i < 4; i++) s.d[i] = args.n(4 + i), s.a[i] = args.n(8 + i), s.b[i] = args.n(12 + i);
  s = ew_merge(s);
  const float *a = args.f(1), *b = args.f(2);
  float* y = args.f(3);
  // The order is that of BINARY in src/backend/kernels.ts. max and min pass NaN on.
  switch (args.n(0)) {
    case 0: return ew_binary(ctx, s, a, b, y, [](vf u, vf v) { return u + v; });
    case 1: return ew_binary(ctx, s, a, b, y, [](vf u, vf v) { return u - v; });
    case 2: return ew_binary(ctx, s, a, b, y, [](vf u, vf v) { return u * v; });
    case 3: return ew_binary(ctx, s, a, b, y, [](vf u, vf v) { return u / v; });
    case 4: return ew_binary(ctx, s, a, b, y, [](vf u, vf v) { return ((u > v) | (u != u)) ? u : v; });
    case 5: return ew_binary(ctx, s, a, b, y, [](vf u, vf v) { return ((u < v) | (u != u)) ? u : v; });
  }
}

static void affine_kernel(const Args& a, const Ctx& ctx) {
  const vf scale = vset1(a.num(2)), shift = vset1(a.num(3));
  ew_map(ctx, a.n(4), a.f(0), a.f(1), [=](vf x) { return vfma(x, scale, shift); });
}

static void axpy_kernel(const Args& a, const Ctx& ctx) {
  const vf alpha = vset1(a.num(2));
  float* y = a.f(1);
  ew_map3(ctx, a.n(3), a.f(0), y, y, y, [=](vf x, vf sum, vf) { return vfma(alpha, x, sum); });
}

static void fill_kernel(const Args& a, const Ctx& ctx) {
  float* y = a.f(0);
  const float value = a.num(1);
  ew_chunks(ctx, a.n(2), [=](int64_t begin, int64_t length) {
    for (int64_t i = begin; i < begin + length; i++) y[i] = value;
  });
}

static void adamw_kernel(const Args& a, const Ctx& ctx) {
  float *param = a.f(0), *m = a.f(2), *v = a.f(3);
  const float *grad = a.f(1), *sumSquares = a.f(4);
  const double lr = a.num64(6), beta1 = a.num64(7), beta2 = a.num64(8);
  double clip = 1;
  if (sumSquares) {
    // A NaN norm fails the comparison the other way round and reaches the parameters, where it is seen.
    clip = a.num64(13) / (sqrt((double)sumSquares[0]) + 1e-6);
    if (clip > 1) clip = 1;
  }
  const vf scale = vset1((float)clip), decay = vset1((float)(1 - lr * a.num64(10)));
  const vf keep1 = vset1((float)(1 - beta1)), keep2 = vset1((float)beta2), add2 = vset1((float)(1 - beta2));
  const vf rate = vset1((float)(lr / a.num64(11))), root = vset1((float)(1 / sqrt(a.num64(12))));
  const vf eps = vset1(a.num(9));
  ew_chunks(ctx, a.n(5), [&](int64_t begin, int64_t length) {
    for (int64_t i = begin; i < begin + length; i += W) {
      const int64_t left = begin + length - i;
      const int count = left < W ? (int)left : W;
      const vf g = vload_part(grad + i, count) * scale, m0 = vload_part(m + i, count);
      const vf m1 = vfma(keep1, g - m0, m0);
      const vf v1 = vfma(keep2, vload_part(v + i, count), add2 * g * g);
      const vf step = rate * m1 / vfma(vsqrt(v1), root, eps);
      vstore_part(param + i, vload_part(param + i, count) * decay - step, count);
      vstore_part(m + i, m1, count);
      vstore_part(v + i, v1, count);
    }
  });
}

static const Entry elementwise_entries[] = {
    {"unary", 4, unary_kernel},   {"unaryGrad", 6, unaryGrad_kernel}, {"binary", 16, binary_kernel},
    {"affine", 5, affine_kernel}, {"axpy", 4, axpy_kernel},           {"fill", 3, fill_kernel},
    {"adamw", 14, adamw_kernel},
};
