// The product of a few rows with a stored-transposed matrix, c[m][n] = a[m] . b[n]: one token through a linear layer.
// The weights are read once, straight from memory: nothing is packed. Included by matmul.cc.

// Rows of a that share one reading of b, and rows of b that are read side by side for them.
#if defined(__AVX512F__) || defined(__aarch64__)
constexpr int MV_ROWS = 4, MV_SHARED_STREAMS = 6;  // 24 accumulators, 5 operands
#else
constexpr int MV_ROWS = 2, MV_SHARED_STREAMS = 4;  // 8 accumulators, 3 operands
#endif
// From this many rows of a on, packing pays.
constexpr int64_t MV_LIMIT = 16;
// Elements of b per task: streams want to be long, threads want many tasks.
constexpr int64_t MV_CHUNK = 1 << 16, MV_LONG_CHUNK = 1 << 18, MV_TASKS = 32;
// One row of a reads b from front to back, as fast as memory gives it: about so many bytes per task.
constexpr int64_t MV_TASK_BYTES = 1 << 18;
// Rows of b that are shorter are taken four at a time, for the sum over lanes weighs as much as the products.
constexpr int64_t MV_LONG_ROW = 256;

// Activations as they are, or rounded to bfloat16.
template <bool ROUND>
VEC_FN vf matvec_activation(vf x) {
  return ROUND ? vround_bf16(x) : x;
}

// c[R][S] = a[R][k] . b[S][k], the rows of b `spread` apart and in format F: one sum of W lanes for each element of c, in the
// same order whatever R, S and F.
template <class F, bool ROUND, int R, int S>
static void matvec_dots(const MatmulShape& s, const float* a, const char* b, float* c, const float* bias, int64_t spread) {
  const int64_t row = weight_bytes<F>(s.k) * spread, steps = s.k / F::STEP;
  vf acc[R][S];
  MM_UNROLL for (int r = 0; r < R; r++) MM_UNROLL for (int t = 0; t < S; t++) acc[r][t] = vset1(0.0f);
  const float* from = a;
  for (int64_t i = 0; i < steps; i++, from += F::STEP, b += F::BYTES) {
    if constexpr (F::STEP <= 2 * W) {
      MM_UNROLL for (int v = 0; v < F::STEP / W; v++) {
        vf ar[R];
        MM_UNROLL for (int r = 0; r < R; r++) ar[r] = matvec_activation<ROUND>(vload(from + r * s.k + v * W));
        MM_UNROLL for (int t = 0; t < S; t++) {
          const vf bt = F::load(b + t * row, v);
          MM_UNROLL for (int r = 0; r < R; r++) acc[r][t] = vfma(ar[r], bt, acc[r][t]);
        }
      }
    } else {
      // Short vectors, few registers: a block at once.
      MM_UNROLL for (int t = 0; t < S; t++) {
        MM_UNROLL for (int v = 0; v < F::STEP / W; v++) {
          const vf bt = F::load(b + t * row, v);
          MM_UNROLL for (int r = 0; r < R; r++)
            acc[r][t] = vfma(matvec_activation<ROUND>(vload(from + r * s.k + v * W)), bt, acc[r][t]);
        }
      }
    }
  }
  if constexpr (F::STEP == W) {
    const int rest = (int)(s.k % W);
    if (rest > 0) {
      vf ar[R];
      MM_UNROLL for (int r = 0; r < R; r++) ar[r] = matvec_activation<ROUND>(vload_part(from + r * s.k, rest));
      MM_UNROLL for (int t = 0; t < S; t++) {
        const vf bt = F::load_part(b + t * row, rest);
        MM_UNROLL for (int r = 0; r < R; r++) acc[r][t] = vfma(ar[r], bt, acc[r][t]);
      }
    }
  }
  for (int r = 0; r < R; r++) {
    for (int t = 0; t < S; t++) {
      float sum = hsum(acc[r][t]);
      if (bias) sum += bias[t * spread];
      float* to = c + r * s.n + t * spread;
      *to = s.accumulate ? *to + sum : sum;
    }
  }
}

// All rows of a, R at a time, with columns [j0, j1) of c. The S rows that are read side by side are far apart: a stream each
// for the prefetchers of the memory, where neighbours would be one.
template <class F, bool ROUND, int R, int S>
static void matvec_columns(const MatmulShape& s, const float* a, const char* b, float* c, const float* bias, int64_t j0,
                           int64_t j1) {
  const int64_t row = weight_bytes<F>(s.k), spread = (j1 - j0) / S;
  for (int64_t j = j0; j < j0 + spread; j++) {
    const float* from = bias ? bias + j : nullptr;
    int64_t i = 0;
    for (; i + R <= s.m; i += R) matvec_dots<F, ROUND, R, S>(s, a + i * s.k, b + j * row, c + i * s.n + j, from, spread);
    for (; i < s.m; i++) matvec_dots<F, ROUND, 1, S>(s, a + i * s.k, b + j * row, c + i * s.n + j, from, spread);
  }
  for (int64_t j = j0 + S * spread; j < j1; j++)
    for (int64_t i = 0; i < s.m; i++)
      matvec_dots<F, ROUND, 1, 1>(s, a + i * s.k, b + j * row, c + i * s.n + j, bias ? bias + j : nullptr, 1);
}

// One row of a, columns [j0, j1) of c: the rows of b one after the other, a single stream.
template <class F, bool ROUND>
static void matvec_one(const MatmulShape& s, const float* a, const char* b, float* c, const float* bias, int64_t j0, int64_t j1) {
  const int64_t row = weight_bytes<F>(s.k);
  const auto rest = [&](int64_t j) { return bias ? bias + j : nullptr; };
  int64_t j = j0;
  if (s.k < MV_LONG_ROW)
    for (; j + 4 <= j1; j += 4) matvec_dots<F, ROUND, 1, 4>(s, a, b + j * row, c + j, rest(j), 1);
  for (; j < j1; j++) matvec_dots<F, ROUND, 1, 1>(s, a, b + j * row, c + j, rest(j), 1);
}

template <class F, bool ROUND = false>
static void matvec_rows(const MatmulShape& s, const float* a, const char* b, float* c, const float* bias, int64_t j0,
                        int64_t j1) {
  if (s.m == 1) matvec_one<F, ROUND>(s, a, b, c, bias, j0, j1);
  else matvec_columns<F, ROUND, MV_ROWS, MV_SHARED_STREAMS>(s, a, b, c, bias, j0, j1);
}

// Reading `bytes` in at most `most` tasks of about `size`: one where that is little, else an even number.
static int64_t stream_tasks(int64_t bytes, int64_t size, int64_t most) {
  const int64_t wanted = (bytes + size - 1) / size;
  const int64_t even = bytes < MV_TASK_BYTES / 8 ? 1 : (wanted + 1) / 2 * 2;
  return even < most ? even : most;
}

// Into how many tasks the columns of c are cut, and where the i-th begins. Several rows of a: whole groups of columns.
struct MatvecCut {
  int64_t n, width, tasks;

  MatvecCut(const MatmulShape& s, int64_t row_bytes) : n(s.n), width(0), tasks(stream_tasks(s.n * row_bytes, MV_TASK_BYTES, s.n)) {
    if (s.m == 1) return;
    const int64_t share = s.n * s.k / MV_TASKS;
    const int64_t chunk = share < MV_CHUNK ? MV_CHUNK : share > MV_LONG_CHUNK ? MV_LONG_CHUNK : share;
    width = (chunk / (s.k + 1) + MV_SHARED_STREAMS) / MV_SHARED_STREAMS * MV_SHARED_STREAMS;
    tasks = (s.n + width - 1) / width;
  }
  int64_t start(int64_t i) const { return width == 0 ? n * i / tasks : i * width < n ? i * width : n; }
};

static bool matvec_fits(const MatmulShape& s) { return s.m <= MV_LIMIT && s.transB && (!s.transA || s.m == 1); }
