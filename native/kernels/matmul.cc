// c = op(a) op(b) + bias: packed, cache-blocked, one micro-kernel of R rows by V vectors over the vector type.
//
// The product is cut into tiles of c (a task each), k into blocks of at most MM_KC. Per block a task packs its columns of b
// once (L2), then sliver by sliver of R rows copies a (L1) and runs the micro-kernel over all columns. Tiles and blocks
// depend on the sizes only, so neither thread count nor timing changes a bit.
// After K. Goto, R. van de Geijn, "Anatomy of High-Performance Matrix Multiplication" (2008).

// The tiles of FEATURE_AMX; native/test/amx.cc takes those in software.
#if !defined(MM_TILES)
#define MM_TILES HardwareTiles
#endif

#if defined(__clang__)
#define MM_UNROLL _Pragma("unroll")
#else
#define MM_UNROLL _Pragma("GCC unroll 16")
#endif

// Accumulators of the micro-kernel: as many as the registers hold beside V vectors of b and one of a.
#if defined(__AVX512F__)
constexpr int MM_ROWS = 12, MM_VECTORS = 2;  // 24 of 32 registers
#elif defined(__AVX2__)
constexpr int MM_ROWS = 6, MM_VECTORS = 2;   // 12 of 16
#elif defined(__aarch64__)
constexpr int MM_ROWS = 8, MM_VECTORS = 3;   // 24 of 32
#else
constexpr int MM_ROWS = 4, MM_VECTORS = 2;   // 8 of 16: without FMA each product needs a register too
#endif
constexpr int MM_WIDTH = MM_VECTORS * W;
// Depth of a block: a sliver of a (24 KiB with AVX-512) stays in the first cache, the panels of b (1 MiB at most) stream
// from the second, and c is read and written once per block.
#if defined(__AVX512F__)
constexpr int64_t MM_KC = 512;
#else
constexpr int64_t MM_KC = 256;
#endif
constexpr int64_t MM_NC = 512;
constexpr int64_t MM_MC = 40;  // slivers
// Floats from one packed sliver of a, or panel of b, to the next; the odd cache line keeps them out of each other's sets.
constexpr int64_t MM_SLIVER = MM_ROWS * MM_KC + 16;
constexpr int64_t MM_PANEL = MM_WIDTH * MM_KC + 16;

struct MatmulShape {
  int64_t m, n, k;
  int64_t lda, ldb;
  bool transA, transB, accumulate;
  bool bf16;  // operands are rounded to bfloat16
};

// What happens to the tile of c besides adding the product.
struct MatmulStore {
  bool load;          // add to what c holds
  const float* bias;  // nullptr, or the bias of the first column of the micro-tile
};

// c[R][columns] = acc, and what `store` says. The last of the V vectors has `tail` columns in c.
template <int R, int V>
VEC_FN void matmul_store(const vf (&acc)[R][V], float* c, int64_t ldc, int tail, MatmulStore store) {
  MM_UNROLL for (int r = 0; r < R; r++) {
    float* row = c + r * ldc;
    MM_UNROLL for (int v = 0; v < V; v++) {
      const bool whole = v < V - 1 || tail == W;
      vf sum = acc[r][v];
      if (store.bias) sum += whole ? vload(store.bias + v * W) : vload_part(store.bias + v * W, tail);
      if (store.load) sum += whole ? vload(row + v * W) : vload_part(row + v * W, tail);
      if (whole) vstore(row + v * W, sum);
      else vstore_part(row + v * W, sum, tail);
    }
  }
}

// c[R][columns] = sum over p of a[., p] b[p, .]. `a` is a packed sliver: [R][MM_KC], or [k][MM_ROWS] when A_BY_K; `b` is
// [k][V * W].
template <int R, int V, bool A_BY_K>
static void matmul_micro(int64_t k, const float* a, const float* b, float* c, int64_t ldc, int tail, MatmulStore store) {
  vf acc[R][V];
  MM_UNROLL for (int r = 0; r < R; r++) MM_UNROLL for (int v = 0; v < V; v++) prefetch_write(c + r * ldc + v * W);
  MM_UNROLL for (int r = 0; r < R; r++) MM_UNROLL for (int v = 0; v < V; v++) acc[r][v] = vset1(0.0f);
  for (int64_t p = 0; p < k; p++) {
    vf bp[V];
    MM_UNROLL for (int v = 0; v < V; v++) bp[v] = vload(b + v * W);
    MM_UNROLL for (int r = 0; r < R; r++) {
      const vf ar = vset1(A_BY_K ? a[r] : a[r * MM_KC]);
      MM_UNROLL for (int v = 0; v < V; v++) acc[r][v] = vfma(ar, bp[v], acc[r][v]);
    }
    a += A_BY_K ? MM_ROWS : 1;
    b += V * W;
  }
  matmul_store<R, V>(acc, c, ldc, tail, store);
}

// A range cut into `parts` as even as can be: the first `longer` of them have one element more. No thin last part.
struct MatmulCut {
  int64_t begin, parts, shortest, longer;

  MatmulCut(int64_t from, int64_t to, int64_t count)
      : begin(from), parts(count), shortest((to - from) / count), longer((to - from) % count) {}
  int64_t start(int64_t i) const { return begin + i * shortest + (i < longer ? i : longer); }
  int size(int64_t i) const { return (int)(shortest + (i < longer)); }
};

#include "matmul-pack.cc"
#include "matvec.cc"

// The right operand: where it is, and how it is read. The same code multiplies by weights of any storage (narrow.cc).
struct MatmulRight {
  const char* data;
  int64_t stride;     // bytes from one product of a batch to the next
  int64_t row_bytes;  // of a stored row
  void (*pack)(const MatmulShape& s, const char* b, int64_t j0, int64_t j1, int64_t p, int64_t kc, float* to);
  void (*rows)(const MatmulShape& s, const float* a, const char* b, float* c, const float* bias, int64_t j0, int64_t j1);
};

using MatmulMicro = void (*)(int64_t, const float*, const float*, float*, int64_t, int, MatmulStore);

// E's micro-kernel for `rows` and `vectors`, found by counting the template arguments down.
template <class E, bool A_BY_K, int R = MM_ROWS, int V = MM_VECTORS>
static MatmulMicro matmul_find(int rows, int vectors) {
  if (rows == R && vectors == V) return E::template micro<R, V, A_BY_K>;
  if constexpr (V > 1) {
    if (vectors < V) return matmul_find<E, A_BY_K, R, V - 1>(rows, vectors);
  }
  if constexpr (R > 1) return matmul_find<E, A_BY_K, R - 1, V>(rows, vectors);
  return nullptr;
}

// How operands are packed and multiplied: here as float32. In a packed piece, STEP elements along k share four bytes.
struct MatmulFloats {
  static constexpr int64_t ROWS = MM_ROWS, SLIVER = MM_SLIVER, STEP = 1;
  // Around all work of a task.
  static void begin() {}
  static void end() {}
  static void pack_a(const MatmulShape& s, const float* a, int64_t i, int rows, int64_t p, int64_t kc, float* to) {
    matmul_pack_a(s, a, i, rows, p, kc, to);
  }
  static void pack_a_by_k(const MatmulShape& s, const float* a, const MatmulCut& slivers, int64_t p, int64_t kc, float* to) {
    matmul_pack_a_by_k(s, a, slivers, p, kc, to);
  }
  static void pack_b(const MatmulShape& s, const MatmulRight& b, const char* data, int64_t j0, int64_t j1, int64_t p,
                     int64_t kc, float* to) {
    b.pack(s, data, j0, j1, p, kc, to);
  }
  // One sliver times one panel, `steps` deep.
  static void multiply(const MatmulShape& s, int64_t steps, int rows, int vectors, const float* a, const float* b, float* c,
                       int tail, MatmulStore store) {
    const MatmulMicro micro =
        s.transA ? matmul_find<MatmulFloats, true>(rows, vectors) : matmul_find<MatmulFloats, false>(rows, vectors);
    micro(steps, a, b, c, s.n, tail, store);
  }
  template <int R, int V, bool A_BY_K>
  static void micro(int64_t k, const float* a, const float* b, float* c, int64_t ldc, int tail, MatmulStore store) {
    matmul_micro<R, V, A_BY_K>(k, a, b, c, ldc, tail, store);
  }
};

// The same with operands rounded to bfloat16, where the CPU has no products of them.
struct MatmulRounded : MatmulFloats {
  static void pack_a(const MatmulShape& s, const float* a, int64_t i, int rows, int64_t p, int64_t kc, float* to) {
    matmul_pack_a(s, a, i, rows, p, kc, to);
    matmul_round(to, rows * MM_KC);
  }
  static void pack_a_by_k(const MatmulShape& s, const float* a, const MatmulCut& slivers, int64_t p, int64_t kc, float* to) {
    matmul_pack_a_by_k(s, a, slivers, p, kc, to);
    matmul_round(to, slivers.parts * MM_SLIVER);
  }
  static void pack_b(const MatmulShape& s, const MatmulRight& b, const char* data, int64_t j0, int64_t j1, int64_t p,
                     int64_t kc, float* to) {
    b.pack(s, data, j0, j1, p, kc, to);
    matmul_round(to, (j1 - j0 + MM_WIDTH - 1) / MM_WIDTH * MM_PANEL);
  }
};

#if defined(__AVX512F__)
#include "matmul-bf16.cc"
#include "matmul-amx.cc"
#endif

// Pieces of memory that will be packed next, asked for a few lines at a time while the micro-kernel runs: into the second
// cache, because at strides of whole pages all of them share a few sets of the first.
struct MatmulAhead {
  static constexpr int64_t LINE = 64;
  const char* at = nullptr;
  int64_t rows = 0, bytes = 0, stride = 0;  // pieces, of so many bytes, so far apart

  // The i-th of `parts` equal parts.
  void ask(int64_t i, int64_t parts) const {
    const int64_t lines = (bytes + LINE - 1) / LINE, total = rows * lines, end = total * (i + 1) / parts;
    int64_t line = total * i / parts;
    for (int64_t row = line / (lines ? lines : 1), x = line - row * lines; line < end; line++) {
      __builtin_prefetch(at + row * stride + x * LINE, 0, 2);
      if (++x == lines) x = 0, row++;
    }
  }
};

// One tile of c: rows [i0, i1), columns [j0, j1), at most MM_NC of them.
template <class E>
static void matmul_tile(const MatmulShape& s, const float* a, const MatmulRight& b, int64_t item, float* c, const float* bias,
                        int64_t i0, int64_t i1, int64_t j0, int64_t j1, char* scratch) {
  constexpr int64_t DEEPEST = MM_KC * E::STEP;
  float* packed_b = (float*)scratch;
  float* packed_a = packed_b + MM_NC / MM_WIDTH * MM_PANEL;
  const char* data = b.data + item * b.stride;
  const MatmulCut depth(0, (s.k + E::STEP - 1) / E::STEP, s.k > 0 ? (s.k + DEEPEST - 1) / DEEPEST : 1);
  const int64_t panels = (j1 - j0 + MM_WIDTH - 1) / MM_WIDTH;
  for (int64_t block = 0; block < depth.parts; block++) {
    const int64_t steps = depth.size(block), p = depth.start(block) * E::STEP;
    const int64_t kc = p + steps * E::STEP < s.k ? steps * E::STEP : s.k - p;
    const int64_t next = p + kc, next_kc = block + 1 < depth.parts ? depth.size(block + 1) * E::STEP : 0;
    E::pack_b(s, b, data, j0, j1, p, kc, packed_b);
    MatmulAhead next_b;
    if (next_kc > 0 && s.transB)
      next_b = {data + j0 * b.row_bytes + next * b.row_bytes / s.k, j1 - j0, next_kc * b.row_bytes / s.k, b.row_bytes};
    else if (next_kc > 0)
      next_b = {data + next * b.row_bytes + j0 * b.row_bytes / s.n, next_kc, (j1 - j0) * b.row_bytes / s.n, b.row_bytes};
    for (int64_t begin = i0; begin < i1; begin += MM_MC * E::ROWS) {
      const int64_t end = begin + MM_MC * E::ROWS < i1 ? begin + MM_MC * E::ROWS : i1;
      const MatmulCut slivers(begin, end, (end - begin + E::ROWS - 1) / E::ROWS);
      MatmulAhead block_a;
      if (s.transA) E::pack_a_by_k(s, a, slivers, p, kc, packed_a);
      if (s.transA && next_kc > 0)
        block_a = {(const char*)(a + next * s.lda + begin), next_kc, (end - begin) * 4, s.lda * 4};
      for (int64_t sliver = 0; sliver < slivers.parts; sliver++) {
        const int64_t i = slivers.start(sliver);
        const int rows = slivers.size(sliver);
        if (!s.transA) E::pack_a(s, a, i, rows, p, kc, packed_a);
        const float* own = s.transA ? packed_a + sliver * E::SLIVER : packed_a;
        MatmulAhead next_a;
        if (!s.transA && i + rows < i1)
          next_a = {(const char*)(a + (i + rows) * s.lda + p), E::ROWS, kc * 4, s.lda * 4};
        block_a.ask(sliver, slivers.parts);
        next_b.ask(sliver, slivers.parts);
        for (int64_t panel = 0; panel < panels; panel++) {
          const int64_t j = j0 + panel * MM_WIDTH, columns = j1 - j < MM_WIDTH ? j1 - j : MM_WIDTH;
          const int vectors = (int)((columns + W - 1) / W);
          const MatmulStore store = {block > 0 || s.accumulate, block == 0 && bias ? bias + j : nullptr};
          next_a.ask(panel, panels);
          E::multiply(s, steps, rows, vectors, own, packed_b + panel * MM_PANEL, c + i * s.n + j,
                      (int)(columns - (vectors - 1) * W), store);
        }
      }
    }
  }
}

struct MatmulTiles {
  int64_t rows, columns;  // how many, along m and n
};

// A task is worth at least so many operations; so many tasks keep up to as many threads busy.
constexpr double MM_TASK = 4e6;
constexpr int64_t MM_TASKS = 8;
// Cycles that packing an element takes, where the micro-kernel multiplies W at a time for each element of a step.
constexpr double MM_PACKING = 1.2;

// The tiles with the least work for the busiest of MM_TASKS threads. Every tile packs its own pieces of both operands: a is
// packed once for each column of tiles, b once for each row of them.
static MatmulTiles matmul_tiles(const MatmulShape& s, int64_t batch, int64_t sliver, int64_t step) {
  const double most = 2.0 * s.m * s.n * s.k * batch / MM_TASK;
  const int64_t tasks = most < 1 ? 1 : most < MM_TASKS ? (int64_t)most : MM_TASKS, wanted = (tasks + batch - 1) / batch;
  const int64_t slivers = (s.m + sliver - 1) / sliver, panels = (s.n + MM_WIDTH - 1) / MM_WIDTH;
  const int64_t narrowest = (s.n + MM_NC - 1) / MM_NC;
  MatmulTiles best = {1, narrowest};
  double least = 0;
  for (int64_t rows = 1; rows <= 4 * wanted && rows <= slivers; rows++) {
    const int64_t enough = (wanted + rows - 1) / rows, from = enough > narrowest ? enough : narrowest;
    for (int64_t columns = from; columns <= panels && columns < 2 * from; columns++) {
      const int64_t all = rows * columns * batch, turns = (all + tasks - 1) / tasks;
      const double height = (double)((slivers + rows - 1) / rows * sliver);
      const double width = (double)((panels + columns - 1) / columns * MM_WIDTH);
      const double work = turns * (height * width / (W * step) + MM_PACKING * (height + width));
      if (least > 0 && work >= least) continue;
      best = {rows, columns};
      least = work;
    }
  }
  return best;
}

template <class E>
static void matmul_tiled(const Ctx& ctx, const MatmulShape& s, int64_t batch, const float* a, int64_t stride_a,
                         const MatmulRight& b, float* c, int64_t stride_c, const float* bias) {
  const MatmulTiles tiles = matmul_tiles(s, batch, E::ROWS, E::STEP);
  ctx.parallel(batch * tiles.rows * tiles.columns, [&](int64_t task, char* scratch) {
    // Neighbours in a row of c are not computed at the same time: prefetchers would take lines from each other's core.
    const int64_t row = task % tiles.rows, place = task / tiles.rows % tiles.columns;
    const int64_t column = place % 2 * ((tiles.columns + 1) / 2) + place / 2;
    const int64_t item = task / (tiles.columns * tiles.rows);
    const int64_t panels = (s.n + MM_WIDTH - 1) / MM_WIDTH, slivers = (s.m + E::ROWS - 1) / E::ROWS;
    const int64_t j0 = panels * column / tiles.columns * MM_WIDTH, i0 = slivers * row / tiles.rows * E::ROWS;
    int64_t j1 = panels * (column + 1) / tiles.columns * MM_WIDTH, i1 = slivers * (row + 1) / tiles.rows * E::ROWS;
    if (j1 > s.n) j1 = s.n;
    if (i1 > s.m) i1 = s.m;
    E::begin();
    matmul_tile<E>(s, a + item * stride_a, b, item, c + item * stride_c, bias, i0, i1, j0, j1, scratch);
    E::end();
  });
}

// `batch` products; strides of a and c in elements.
static void matmul_run(const Ctx& ctx, const MatmulShape& s, int64_t batch, const float* a, int64_t stride_a,
                       const MatmulRight& b, float* c, int64_t stride_c, const float* bias) {
  if (s.m == 0 || s.n == 0 || batch == 0) return;
  if (matvec_fits(s)) {
    const MatvecCut cut(s, b.row_bytes);
    return ctx.parallel(batch * cut.tasks, [&](int64_t task, char*) {
      const int64_t item = task / cut.tasks, part = task % cut.tasks;
      b.rows(s, a + item * stride_a, b.data + item * b.stride, c + item * stride_c, bias, cut.start(part), cut.start(part + 1));
    });
  }
  auto tiled = s.bf16 ? matmul_tiled<MatmulRounded> : matmul_tiled<MatmulFloats>;
#if defined(__AVX512F__)
  if (s.bf16 && (ctx.features & FEATURE_BF16)) tiled = matmul_tiled<MatmulBf16>;
  if (s.bf16 && (ctx.features & FEATURE_AMX)) tiled = matmul_tiled<MatmulAmx<MM_TILES>>;
#endif
  tiled(ctx, s, batch, a, stride_a, b, c, stride_c, bias);
}

static void matmul_kernel(const Args& args, const Ctx& ctx) {
  const float *a = args.f(0), *bias = args.f(3);
  const int64_t batch = args.n(4), stride_b = args.n(11) * (int64_t)sizeof(float);
  MatmulShape s;
  s.m = args.n(5), s.n = args.n(6), s.k = args.n(7);
  s.transA = args.n(8) != 0, s.transB = args.n(9) != 0, s.accumulate = args.n(13) != 0;
  s.lda = s.transA ? s.m : s.k;
  s.ldb = s.transB ? s.k : s.n;
  s.bf16 = args.n(14) == 1;
  const auto rows = s.bf16 ? matvec_rows<RoundedToBf16<WeightsF32>, true> : matvec_rows<WeightsF32>;
  const MatmulRight b = {(const char*)args.f(1), stride_b, s.ldb * (int64_t)sizeof(float),
                         s.transB ? matmul_pack_b_by_n : matmul_pack_b, rows};
  matmul_run(ctx, s, batch, a, args.n(10), b, args.f(2), args.n(12), bias);
}

static const Entry matmul_entries[] = {{"matmul", 15, matmul_kernel}};
