// Reductions along one axis of (outer, axis, inner), and the float64 sum of squares.

// Work of one task, in elements.
constexpr int64_t RD_CHUNK = 1 << 15;
// Elements that are added in float32 before the float64 sum takes over.
constexpr int64_t RD_BLOCK = 1024;
// A single long row is cut into this many pieces at most (fixed, so that the thread count changes nothing).
constexpr int64_t RD_PIECES = 64;
// Columns of one task when the axis is not the last one.
constexpr int64_t RD_COLUMNS = 4 * W;

struct RdSum {
  static inline vf start() { return vset1(0.0f); }
  static inline vf join(vf a, vf b) { return a + b; }
};
// NaN wins, as in Math.max.
struct RdMax {
  static inline vf start() { return vset1(-INFINITY); }
  static inline vf join(vf a, vf b) { return ((a > b) | (a != a)) ? a : b; }
};

static double rd_row_sum(const float* x, int64_t count) {
  double total = 0;
  for (int64_t begin = 0; begin < count; begin += RD_BLOCK) {
    const int64_t end = begin + RD_BLOCK < count ? begin + RD_BLOCK : count;
    vf s0 = vset1(0.0f), s1 = s0, s2 = s0, s3 = s0;
    int64_t i = begin;
    for (; i + 4 * W <= end; i += 4 * W) {
      s0 += vload(x + i), s1 += vload(x + i + W);
      s2 += vload(x + i + 2 * W), s3 += vload(x + i + 3 * W);
    }
    for (; i < end; i += W) s0 += vload_part(x + i, end - i < W ? (int)(end - i) : W);
    total += (double)hsum((s0 + s1) + (s2 + s3));
  }
  return total;
}

static float rd_row_max(const float* x, int64_t count) {
  vf best = RdMax::start();
  int64_t i = 0;
  for (; i + W <= count; i += W) best = RdMax::join(best, vload(x + i));
  float result = best[0];
  for (int lane = 1; lane < W; lane++) result = result > best[lane] || result != result ? result : best[lane];
  for (; i < count; i++) result = result > x[i] || result != result ? result : x[i];
  return result;
}

// NaN is never larger and nothing is larger than a NaN in front, as with plain comparisons.
static int32_t rd_row_argmax(const float* x, int64_t count) {
  vf lanes = vset1(x[0]);
  int64_t i = 0;
  for (; i + W <= count; i += W) lanes = vmax(vload(x + i), lanes);
  float best = lanes[0];
  for (int lane = 1; lane < W; lane++) best = lanes[lane] > best ? lanes[lane] : best;
  for (; i < count; i++) best = x[i] > best ? x[i] : best;
  for (i = 0; i < count; i++)
    if (x[i] == best) return (int32_t)i;
  return 0;
}

// y[rows] = row(x + row * axis), several rows a task.
template <class T, class F>
static void rd_rows(const Ctx& ctx, const float* x, T* y, int64_t rows, int64_t axis, const F& row) {
  const int64_t group = axis < RD_CHUNK ? RD_CHUNK / (axis > 0 ? axis : 1) : 1;
  ctx.parallel((rows + group - 1) / group, [&](int64_t task, char*) {
    const int64_t end = (task + 1) * group < rows ? (task + 1) * group : rows;
    for (int64_t r = task * group; r < end; r++) y[r] = row(x + r * axis, axis);
  });
}

// Reduces down the axis, RD_COLUMNS columns at a time; float32 sums are folded every RD_BLOCK rows.
template <class R>
static void rd_columns(const Ctx& ctx, const float* x, float* y, int64_t outer, int64_t axis, int64_t inner) {
  const int64_t blocks = (inner + RD_COLUMNS - 1) / RD_COLUMNS;
  const int64_t work = axis * (inner < RD_COLUMNS ? inner : RD_COLUMNS);
  const int64_t group = work < RD_CHUNK ? RD_CHUNK / (work > 0 ? work : 1) : 1;  // of small blocks
  ctx.parallel((outer * blocks + group - 1) / group, [&](int64_t task, char*) {
    const int64_t end = (task + 1) * group < outer * blocks ? (task + 1) * group : outer * blocks;
    for (int64_t item = task * group; item < end; item++) {
      const int64_t column = item % blocks * RD_COLUMNS, o = item / blocks;
      const float* from = x + o * axis * inner + column;
      float* to = y + o * inner + column;
      const int64_t columns = inner - column < RD_COLUMNS ? inner - column : RD_COLUMNS;
      for (int64_t j = 0; j < columns; j += 2 * W) {
        const int64_t left = columns - j;
        const int c0 = left < W ? (int)left : W, c1 = left <= W ? 0 : left < 2 * W ? (int)(left - W) : W;
        vf t0 = R::start(), t1 = R::start();
        for (int64_t begin = 0; begin < axis; begin += RD_BLOCK) {
          const int64_t stop = begin + RD_BLOCK < axis ? begin + RD_BLOCK : axis;
          vf s0 = R::start(), s1 = R::start();
          for (int64_t i = begin; i < stop; i++) {
            s0 = R::join(s0, vload_part(from + i * inner + j, c0));
            if (c1) s1 = R::join(s1, vload_part(from + i * inner + j + W, c1));
          }
          t0 = R::join(t0, s0), t1 = R::join(t1, s1);
        }
        vstore_part(to + j, t0, c0);
        if (c1) vstore_part(to + j + W, t1, c1);
      }
    }
  });
}

// piece(begin, end) -> double over a fixed cut of [0, count), added up in order.
template <class F>
static double rd_pieces(const Ctx& ctx, int64_t count, const F& piece) {
  double partial[RD_PIECES];
  int64_t pieces = (count + RD_CHUNK - 1) / RD_CHUNK;
  if (pieces > RD_PIECES) pieces = RD_PIECES;
  ctx.parallel(pieces, [&](int64_t i, char*) { partial[i] = piece(count * i / pieces, count * (i + 1) / pieces); });
  double total = 0;
  for (int64_t i = 0; i < pieces; i++) total += partial[i];
  return total;
}

static void sum_kernel(const Args& a, const Ctx& ctx) {
  const float* x = a.f(0);
  float* y = a.f(1);
  const int64_t outer = a.n(2), axis = a.n(3), inner = a.n(4);
  if (inner != 1) return rd_columns<RdSum>(ctx, x, y, outer, axis, inner);
  if (outer != 1) return rd_rows(ctx, x, y, outer, axis, [](const float* r, int64_t n) { return (float)rd_row_sum(r, n); });
  y[0] = (float)rd_pieces(ctx, axis, [=](int64_t begin, int64_t end) { return rd_row_sum(x + begin, end - begin); });
}

static void max_kernel(const Args& a, const Ctx& ctx) {
  const float* x = a.f(0);
  float* y = a.f(1);
  const int64_t outer = a.n(2), axis = a.n(3), inner = a.n(4);
  if (inner != 1) return rd_columns<RdMax>(ctx, x, y, outer, axis, inner);
  rd_rows(ctx, x, y, outer, axis, rd_row_max);
}

static void argmax_kernel(const Args& a, const Ctx& ctx) {
  const float* x = a.f(0);
  int32_t* y = a.ids(1);
  const int64_t outer = a.n(2), axis = a.n(3), inner = a.n(4);
  if (inner == 1) return rd_rows(ctx, x, y, outer, axis, rd_row_argmax);
  rd_rows(ctx, x, y, outer * inner, 1, [=](const float* at, int64_t) {
    const int64_t item = at - x;
    const float* r = x + item / inner * axis * inner + item % inner;
    int64_t best = 0;
    for (int64_t i = 1; i < axis; i++)
      if (r[i * inner] > r[best * inner]) best = i;
    return (int32_t)best;
  });
}

// Eight lanes on every instruction set, so that all of them add up in the same order.
typedef float rd_f8 __attribute__((vector_size(32), aligned(4), may_alias));
typedef double rd_d8 __attribute__((vector_size(64)));

static double rd_square_sum(const float* x, int64_t count) {
  rd_d8 s0 = {}, s1 = {};
  int64_t i = 0;
  for (; i + 16 <= count; i += 16) {
    const rd_d8 u = __builtin_convertvector(*(const rd_f8*)(x + i), rd_d8);
    const rd_d8 v = __builtin_convertvector(*(const rd_f8*)(x + i + 8), rd_d8);
    s0 += u * u, s1 += v * v;
  }
  s0 += s1;
  double total = 0;
  for (int lane = 0; lane < 8; lane++) total += s0[lane];
  for (; i < count; i++) total += (double)x[i] * x[i];
  return total;
}

static void sumSquares_kernel(const Args& a, const Ctx& ctx) {
  const float* x = a.f(0);
  float* y = a.f(1);
  const double total =
      rd_pieces(ctx, a.n(2), [=](int64_t begin, int64_t end) { return rd_square_sum(x + begin, end - begin); });
  y[0] = (float)(a.n(3) ? total + y[0] : total);
}

static const Entry reduce_entries[] = {
    {"sum", 5, sum_kernel}, {"max", 5, max_kernel}, {"argmax", 5, argmax_kernel}, {"sumSquares", 4, sumSquares_kernel},
};
