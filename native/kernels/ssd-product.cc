// The small matrix products of ssd, from caches of one core; part of ssd.cc.
//
// One micro-kernel of R rows by V vectors does all of them, because each is of the form
//
//   c = weight (a1 b1) + init start + a2 b2
//
// with a1 read row by row, and a2 either row by row or transposed, whole or a triangle. Right operands are padded to whole
// vectors; left operands are read one number at a time, from wherever they are. What a triangle excludes is never read:
// an infinity in a later token does not reach an earlier one.

#if defined(__AVX512F__) || defined(__aarch64__)
constexpr int SSD_R = 6, SSD_V = 4;  // 24 accumulators of 32 registers
#elif defined(__AVX2__)
constexpr int SSD_R = 6, SSD_V = 2;  // 12 of 16
#else
constexpr int SSD_R = 4, SSD_V = 2;  // 8 of 16
#endif

// Widths of padded buffers: the same on every instruction set.
VEC_FN int64_t ssd_padded(int64_t n) { return (n + 15) / 16 * 16; }

struct SsdMatrix {
  const float* at = nullptr;
  int64_t step = 0;  // from row to row
};

enum SsdShape { SSD_WHOLE, SSD_LOWER, SSD_UPPER };

// `visible[row]` columns of a triangle are seen by the row: those up to its own token, whose `ranks` rows see each other.
struct SsdProduct {
  SsdMatrix a1 = {}, b1 = {};
  int64_t k1 = 0;
  const float* dot_with = nullptr;  // dots[row] += (a1 b1)[row] . dot_with[row], as wide as c
  int64_t dot_step = 0;
  float* dots = nullptr;
  const float* weight = nullptr;    // of each row; null = 1
  SsdMatrix init = {};
  const float* start = nullptr;     // of each column, padded; null = 1
  SsdMatrix a2 = {}, b2 = {};       // a2 (k2, m) when SSD_WHOLE and SSD_UPPER, (m, k2) when SSD_LOWER
  int64_t k2 = 0;
  SsdShape shape = SSD_WHOLE;
  float* c = nullptr;
  int64_t c_step = 0;
  bool lower = false;               // only the visible columns of c are wanted
  const int32_t* visible = nullptr;
  int64_t ranks = 1;
};

// What a tile does besides multiplying: R rows from i on, V vectors from column j on, the last with `tail` columns in c.
template <int R, int V>
VEC_FN void ssd_weigh(vf (&acc)[R][V], const SsdProduct& s, int64_t i) {
  if (!s.weight) return;
  MM_UNROLL for (int r = 0; r < R; r++) {
    const vf weight = vset1(s.weight[i + r]);
    MM_UNROLL for (int v = 0; v < V; v++) acc[r][v] *= weight;
  }
}

template <int R, int V>
VEC_FN void ssd_start(vf (&acc)[R][V], const SsdProduct& s, int64_t i, int64_t j) {
  if (!s.init.at) return;
  vf start[V];
  MM_UNROLL for (int v = 0; v < V; v++) start[v] = s.start ? vload(s.start + j + v * W) : vset1(1.0f);
  MM_UNROLL for (int r = 0; r < R; r++) {
    const float* init = s.init.at + (i + r) * s.init.step + j;
    MM_UNROLL for (int v = 0; v < V; v++) acc[r][v] = vfma(vload(init + v * W), start[v], acc[r][v]);
  }
}

template <int R, int V>
VEC_FN void ssd_store(const vf (&acc)[R][V], const SsdProduct& s, int64_t i, int64_t j, int tail) {
  MM_UNROLL for (int r = 0; r < R; r++) {
    float* row = s.c + (i + r) * s.c_step + j;
    MM_UNROLL for (int v = 0; v < V - 1; v++) vstore(row + v * W, acc[r][v]);
    vstore_some(row + (V - 1) * W, acc[r][V - 1], tail);
  }
}

struct SsdFloats {
  template <int R, int V>
  static void tile(const SsdProduct& s, int64_t i, int64_t j, int tail) {
    vf acc[R][V];
    MM_UNROLL for (int r = 0; r < R; r++) MM_UNROLL for (int v = 0; v < V; v++) acc[r][v] = vzero();
    vf bk[V];

    if (s.k1 > 0) {
      const float *a = s.a1.at + i * s.a1.step, *b = s.b1.at + j;
      for (int64_t k = 0; k < s.k1; k++, b += s.b1.step) {
        MM_UNROLL for (int v = 0; v < V; v++) bk[v] = vload(b + v * W);
        MM_UNROLL for (int r = 0; r < R; r++) {
          const vf ar = vset1(a[r * s.a1.step + k]);
          MM_UNROLL for (int v = 0; v < V; v++) acc[r][v] = vfma(ar, bk[v], acc[r][v]);
        }
      }
      if (s.dots) {
        MM_UNROLL for (int r = 0; r < R; r++) {
          vf sum = vzero();
          MM_UNROLL for (int v = 0; v < V; v++) sum += acc[r][v] * vload(s.dot_with + (i + r) * s.dot_step + j + v * W);
          s.dots[i + r] += hsum(sum);
        }
      }
      ssd_weigh<R, V>(acc, s, i);
    }
    ssd_start<R, V>(acc, s, i, j);
    if (s.k2 > 0) {
      const int32_t* visible = s.visible + i;
      const auto add = [&](int64_t k, auto left, auto sees) VEC_LAMBDA {
        MM_UNROLL for (int v = 0; v < V; v++) bk[v] = vload(s.b2.at + k * s.b2.step + j + v * W);
        MM_UNROLL for (int r = 0; r < R; r++) {
          if (!sees(k, r)) continue;
          const vf ar = vset1(left(k, r));
          MM_UNROLL for (int v = 0; v < V; v++) acc[r][v] = vfma(ar, bk[v], acc[r][v]);
        }
      };
      const auto all = [](int64_t, int) VEC_LAMBDA { return true; };
      if (s.shape == SSD_LOWER) {
        const float* a = s.a2.at + i * s.a2.step;
        const auto left = [&](int64_t k, int r) VEC_LAMBDA { return a[r * s.a2.step + k]; };
        const auto sees = [&](int64_t k, int r) VEC_LAMBDA { return k < visible[r]; };
        for (int64_t k = 0; k < visible[0]; k++) add(k, left, all);
        for (int64_t k = visible[0]; k < visible[R - 1]; k++) add(k, left, sees);
      } else {
        const float* a = s.a2.at + i;
        const auto left = [&](int64_t k, int r) VEC_LAMBDA { return a[k * s.a2.step + r]; };
        const auto sees = [&](int64_t k, int r) VEC_LAMBDA { return k >= visible[r] - s.ranks; };
        int64_t k = 0;
        if (s.shape == SSD_UPPER) {
          k = visible[0] - s.ranks;
          for (const int64_t end = visible[R - 1] - s.ranks; k < end; k++) add(k, left, sees);
        }
        for (; k < s.k2; k++) add(k, left, all);
      }
    }
    ssd_store<R, V>(acc, s, i, j, tail);
  }
};

using SsdTile = void (*)(const SsdProduct&, int64_t, int64_t, int);

// E's tile for `rows` and `vectors`, found by counting the template arguments down.
template <class E, int R = SSD_R, int V = SSD_V>
static SsdTile ssd_find(int rows, int vectors) {
  if (rows == R && vectors == V) return E::template tile<R, V>;
  if constexpr (V > 1) {
    if (vectors < V) return ssd_find<E, R, V - 1>(rows, vectors);
  }
  if constexpr (R > 1) return ssd_find<E, R - 1, V>(rows, vectors);
  return nullptr;
}

// With SsdPairs, operands are pairs of bfloat16 (ssd-bf16.cc).
template <class E = SsdFloats>
static void ssd_multiply(const SsdProduct& s, int64_t m, int64_t columns) {
  const MatmulCut rows(0, m, (m + SSD_R - 1) / SSD_R);
  for (int64_t j = 0; j < columns; j += SSD_V * W) {
    for (int64_t tile = 0; tile < rows.parts; tile++) {
      const int64_t i = rows.start(tile);
      const int size = rows.size(tile);
      int64_t left = (s.lower ? s.visible[i + size - 1] : columns) - j;
      if (left <= 0) continue;
      if (left > SSD_V * W) left = SSD_V * W;
      const int vectors = (int)((left + W - 1) / W);
      ssd_find<E>(size, vectors)(s, i, j, (int)(left - (vectors - 1) * W));
    }
  }
}

// Rows of a matrix in whole vectors, zeros behind them; copied to `space` only where they are not that already.
static __attribute__((noinline)) SsdMatrix ssd_whole(SsdMatrix from, int64_t rows, int64_t columns, float* space) {
  if (columns % W == 0) return from;
  const int64_t step = ssd_padded(columns);
  for (int64_t i = 0; i < rows; i++)
    for (int64_t j = 0; j < columns; j += W) {
      const int count = columns - j < W ? (int)(columns - j) : W;
      vstore(space + i * step + j, vload_some(from.at + i * from.step + j, count));
    }
  return {space, step};
}

// The same with a weight for every row (null = 1), always copied. Fetches what stands `ahead` of it: rows are too far apart for
// the hardware to guess.
static __attribute__((noinline)) SsdMatrix ssd_weighted(SsdMatrix from, const float* weight, int64_t rows, int64_t columns,
                                                        float* space, int64_t ahead = 0) {
  const int64_t step = ssd_padded(columns);
  for (int64_t i = 0; i < rows; i++) {
    const vf w = vset1(weight ? weight[i] : 1.0f);
    for (int64_t j = 0; j < columns; j += W) {
      const int count = columns - j < W ? (int)(columns - j) : W;
      if (ahead != 0) prefetch_read(from.at + ahead + i * from.step + j);
      vstore(space + i * step + j, vload_some(from.at + i * from.step + j, count) * w);
    }
  }
  return {space, step};
}

static __attribute__((noinline)) void ssd_transpose(float* out, int64_t out_step, const float* in, int64_t in_step,
                                                    int64_t rows, int64_t columns) {
  transpose(out, out_step, in, in_step, rows, columns, 1.0f);
}

// Transposed, (columns, rows) in rows of whole vectors; what stands behind the numbers is not looked at by anyone.
static SsdMatrix ssd_turned(SsdMatrix from, int64_t rows, int64_t columns, float* space) {
  const int64_t step = ssd_padded(rows);
  ssd_transpose(space, step, from.at, from.step, rows, columns);
  return {space, step};
}
