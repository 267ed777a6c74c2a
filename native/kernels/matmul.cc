// c = op(a) op(b) + bias: packed, cache-blocked, one micro-kernel of R rows by V vectors over the vector type.
//
// The product is cut into tiles of c (a task each), k into blocks of at most MM_KC. Per block a task packs its columns of b
// once (L2), then sliver by sliver of R rows copies a (L1) and runs the micro-kernel over all columns. Tiles and blocks
// depend on the sizes only, so neither thread count nor timing changes a bit.
// After K. Goto, R. van de Geijn, "Anatomy of High-Performance Matrix Multiplication" (2008).

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
// A sliver of a (6 KiB with AVX-512) and one of b (16 KiB) share the first cache.
constexpr int64_t MM_KC = 128;
constexpr int64_t MM_NC = 512;
constexpr int64_t MM_MC = 40 * MM_ROWS;
// Floats from one packed sliver of a, or panel of b, to the next; the odd cache line keeps them out of each other's sets.
constexpr int64_t MM_SLIVER = MM_ROWS * MM_KC + 16;
constexpr int64_t MM_PANEL = MM_WIDTH * MM_KC + 16;

// Rows ahead that packing prefetches: short pieces at long strides are invisible to the hardware's prefetchers.
constexpr int64_t MM_AHEAD = 8;

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

// c[R][columns] = sum over p of a[., p] b[p, .]. `a` is a packed sliver: [R][MM_KC], or [k][R] when A_BY_K; `b` is [k][V * W].
// The last of the V vectors has `tail` columns in c.
template <int R, int V, bool A_BY_K>
static void matmul_micro(int64_t k, const float* a, const float* b, float* c, int64_t ldc, int tail, MatmulStore store) {
  vf acc[R][V];
  MM_UNROLL for (int r = 0; r < R; r++) MM_UNROLL for (int v = 0; v < V; v++) acc[r][v] = vset1(0.0f);
  for (int64_t p = 0; p < k; p++) {
    vf bp[V];
    MM_UNROLL for (int v = 0; v < V; v++) bp[v] = vload(b + v * W);
    MM_UNROLL for (int r = 0; r < R; r++) {
      const vf ar = vset1(A_BY_K ? a[r] : a[r * MM_KC]);
      MM_UNROLL for (int v = 0; v < V; v++) acc[r][v] = vfma(ar, bp[v], acc[r][v]);
    }
    a += A_BY_K ? R : 1;
    b += V * W;
  }
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

using MatmulMicro = void (*)(int64_t, const float*, const float*, float*, int64_t, int, MatmulStore);

// The micro-kernel for `rows` and `vectors`, found by counting the template arguments down.
template <bool A_BY_K, int R = MM_ROWS, int V = MM_VECTORS>
static MatmulMicro matmul_find(int rows, int vectors) {
  if (rows == R && vectors == V) return matmul_micro<R, V, A_BY_K>;
  if constexpr (V > 1) {
    if (vectors < V) return matmul_find<A_BY_K, R, V - 1>(rows, vectors);
  }
  if constexpr (R > 1) return matmul_find<A_BY_K, R - 1, V>(rows, vectors);
  return nullptr;
}

// A range cut into `parts` as even as can be: the first `longer` of them have one element more. No thin last part.
struct MatmulCut {
  int64_t begin, parts, shortest, longer;

  MatmulCut(int64_t from, int64_t to, int64_t count)
      : begin(from), parts(count), shortest((to - from) / count), longer((to - from) % count) {}
  int64_t start(int64_t i) const { return begin + i * shortest + (i < longer ? i : longer); }
  int size(int64_t i) const { return (int)(shortest + (i < longer)); }
};

// Packed operands rounded to bfloat16 where they lie; `count` floats, and what whole vectors take beyond.
static void matmul_round(float* x, int64_t count) {
  for (int64_t i = 0; i < count; i += W) vstore(x + i, vround_bf16(vload(x + i)));
}

// Rows i.. of a, columns p.. -> [rows][MM_KC].
static void matmul_pack_a(const MatmulShape& s, const float* a, int64_t i, int rows, int64_t p, int64_t kc, float* to) {
  for (int r = 0; r < rows; r++) memcpy(to + r * MM_KC, a + (i + r) * s.lda + p, kc * sizeof(float));
}

// The same for a stored (k, m), all slivers at once because its rows run across them: each -> [kc][rows], MM_SLIVER apart.
static void matmul_pack_a_by_k(const MatmulShape& s, const float* a, const MatmulCut& slivers, int64_t p, int64_t kc,
                               float* to) {
  for (int64_t q = 0; q < kc; q++) {
    int64_t i = slivers.begin;
    const float* from = a + (p + q) * s.lda;
    for (int64_t sliver = 0; sliver < slivers.parts; sliver++) {
      const int rows = slivers.size(sliver);
      float* row = to + sliver * MM_SLIVER + q * rows;
      __builtin_prefetch(from + i + MM_AHEAD * s.lda);
      for (int x = 0; x < rows; x += W) {
        // Whole vectors wherever the row of a has them; what is written too much is overwritten by the next row.
        const int64_t left = s.m - i - x;
        vstore(row + x, left >= W ? vload(from + i + x) : vload_part(from + i + x, (int)left));
      }
      i += rows;
    }
  }
}

// 4 x 4 transposition: the same instructions on every set, and all the speed that packing needs.
typedef float matmul_quad __attribute__((vector_size(16), aligned(4), may_alias));

static inline void matmul_transpose4(const float* from, int64_t ld, float* to, int64_t to_ld) {
  const matmul_quad a = *(const matmul_quad*)from, b = *(const matmul_quad*)(from + ld);
  const matmul_quad c = *(const matmul_quad*)(from + 2 * ld), d = *(const matmul_quad*)(from + 3 * ld);
  const matmul_quad ab0 = __builtin_shufflevector(a, b, 0, 4, 1, 5), ab1 = __builtin_shufflevector(a, b, 2, 6, 3, 7);
  const matmul_quad cd0 = __builtin_shufflevector(c, d, 0, 4, 1, 5), cd1 = __builtin_shufflevector(c, d, 2, 6, 3, 7);
  *(matmul_quad*)to = __builtin_shufflevector(ab0, cd0, 0, 1, 4, 5);
  *(matmul_quad*)(to + to_ld) = __builtin_shufflevector(ab0, cd0, 2, 3, 6, 7);
  *(matmul_quad*)(to + 2 * to_ld) = __builtin_shufflevector(ab1, cd1, 0, 1, 4, 5);
  *(matmul_quad*)(to + 3 * to_ld) = __builtin_shufflevector(ab1, cd1, 2, 3, 6, 7);
}

// Four rows at `from` (or fewer, with zeros below them), ld apart -> four columns of a panel of [kc][width].
static void matmul_turn(const float* from, int64_t ld, int64_t rows, int64_t kc, float* to, int64_t width) {
  int64_t q = 0;
  if (rows == 4)
    for (; q + 4 <= kc; q += 4) matmul_transpose4(from + q, ld, to + q * width, width);
  for (; q < kc; q++)
    for (int x = 0; x < 4; x++) to[q * width + x] = x < rows ? from[x * ld + q] : 0.0f;
}

// Rows p.. of op(b), columns [j0, j1) -> panels of [kc][width], MM_PANEL apart; width is MM_WIDTH, in the last panel what
// covers the rest in whole vectors, filled up with zeros.
static void matmul_pack_b(const MatmulShape& s, const char* b, int64_t j0, int64_t j1, int64_t p, int64_t kc, float* to) {
  // Row by row across the panels: long pieces.
  const float* from = (const float*)b + p * s.ldb;
  for (int64_t q = 0; q < kc; q++, from += s.ldb) {
    float* panel = to;
    for (int64_t j = j0; j < j1; j += MM_WIDTH, panel += MM_PANEL) {
      const int64_t columns = j1 - j < MM_WIDTH ? j1 - j : MM_WIDTH, width = (columns + W - 1) / W * W;
      for (int64_t x = 0; x < width; x += 16) __builtin_prefetch(from + j + x + MM_AHEAD * s.ldb);
      for (int64_t x = 0; x < width; x += W) {
        const int64_t left = columns - x;
        vstore(panel + q * width + x, left >= W ? vload(from + j + x) : vload_part(from + j + x, (int)left));
      }
    }
  }
}

// The same for b stored (n, k), panel by panel.
static void matmul_pack_b_by_n(const MatmulShape& s, const char* b, int64_t j0, int64_t j1, int64_t p, int64_t kc,
                               float* to) {
  for (int64_t j = j0; j < j1; j += MM_WIDTH, to += MM_PANEL) {
    const int64_t columns = j1 - j < MM_WIDTH ? j1 - j : MM_WIDTH, width = (columns + W - 1) / W * W;
    const float* from = (const float*)b + j * s.ldb + p;
    for (int64_t x = 0; x < width; x += 4) matmul_turn(from + x * s.ldb, s.ldb, columns - x < 4 ? columns - x : 4, kc, to + x, width);
  }
}

#include "matvec.cc"

// The right operand: where it is, and how it is read. The same code multiplies by weights of any storage (narrow.cc).
struct MatmulRight {
  const char* data;
  int64_t stride;  // bytes from one product of a batch to the next
  void (*pack)(const MatmulShape& s, const char* b, int64_t j0, int64_t j1, int64_t p, int64_t kc, float* to);
  void (*rows)(const MatmulShape& s, const float* a, const char* b, float* c, const float* bias, int64_t j0, int64_t j1);
};

// One tile of c: rows [i0, i1), columns [j0, j1), at most MM_NC of them.
static void matmul_tile(const MatmulShape& s, const float* a, const MatmulRight& b, int64_t item, float* c, const float* bias,
                        int64_t i0, int64_t i1, int64_t j0, int64_t j1, char* scratch) {
  float* packed_a = (float*)scratch;
  float* packed_b = packed_a + MM_MC / MM_ROWS * MM_SLIVER;
  const MatmulCut depth(0, s.k, s.k > 0 ? (s.k + MM_KC - 1) / MM_KC : 1);
  for (int64_t block = 0; block < depth.parts; block++) {
    const int64_t p = depth.start(block), kc = depth.size(block);
    b.pack(s, b.data + item * b.stride, j0, j1, p, kc, packed_b);
    if (s.bf16) matmul_round(packed_b, (j1 - j0 + MM_WIDTH - 1) / MM_WIDTH * MM_PANEL);
    for (int64_t begin = i0; begin < i1; begin += MM_MC) {
      const int64_t end = begin + MM_MC < i1 ? begin + MM_MC : i1;
      const MatmulCut slivers(begin, end, (end - begin + MM_ROWS - 1) / MM_ROWS);
      if (s.transA) matmul_pack_a_by_k(s, a, slivers, p, kc, packed_a);
      if (s.transA && s.bf16) matmul_round(packed_a, slivers.parts * MM_SLIVER);
      for (int64_t sliver = 0; sliver < slivers.parts; sliver++) {
        const int64_t i = slivers.start(sliver);
        const int rows = slivers.size(sliver);
        if (!s.transA) matmul_pack_a(s, a, i, rows, p, kc, packed_a);
        if (!s.transA && s.bf16) matmul_round(packed_a, rows * MM_KC);
        const float* own = s.transA ? packed_a + sliver * MM_SLIVER : packed_a;
        const float* panel = packed_b;
        for (int64_t j = j0; j < j1; j += MM_WIDTH, panel += MM_PANEL) {
          const int64_t columns = j1 - j < MM_WIDTH ? j1 - j : MM_WIDTH;
          const int vectors = (int)((columns + W - 1) / W);
          const MatmulStore store = {block > 0 || s.accumulate, block == 0 && bias ? bias + j : nullptr};
          const MatmulMicro micro = s.transA ? matmul_find<true>(rows, vectors) : matmul_find<false>(rows, vectors);
          micro(kc, own, panel, c + i * s.n + j, s.n, (int)(columns - (vectors - 1) * W), store);
        }
      }
    }
  }
}

struct MatmulTiles {
  int64_t rows, columns;  // how many, along m and n
};

// Enough tiles for many threads where the work is worth it, but none so small that packing its operands shows.
static MatmulTiles matmul_tiles(const MatmulShape& s, int64_t batch) {
  const double wanted = 2.0 * s.m * s.n * s.k * batch / 4e6;
  const int64_t tasks = wanted > 32 ? 32 : (int64_t)wanted;
  const int64_t least_height = s.transB ? 256 : 96, least_width = s.m < 64 ? 64 : 128;
  MatmulTiles tiles = {1, (s.n + MM_NC - 1) / MM_NC};
  while (tiles.rows * tiles.columns * batch < tasks) {
    const int64_t height = s.m / tiles.rows, width = s.n / tiles.columns;
    const bool tall = height >= 2 * least_height, wide = width >= 2 * least_width;
    if (tall && (height >= width / 2 || !wide)) tiles.rows *= 2;
    else if (wide) tiles.columns *= 2;
    else break;
  }
  return tiles;
}

// `batch` products; strides of a and c in elements.
static void matmul_run(const Ctx& ctx, const MatmulShape& s, int64_t batch, const float* a, int64_t stride_a,
                       const MatmulRight& b, float* c, int64_t stride_c, const float* bias) {
  if (s.m == 0 || s.n == 0) return;
  if (matvec_fits(s)) {
    const int64_t columns = matvec_width(s), pieces = (s.n + columns - 1) / columns;
    return ctx.parallel(batch * pieces, [&](int64_t task, char*) {
      const int64_t item = task / pieces, j0 = task % pieces * columns, j1 = j0 + columns < s.n ? j0 + columns : s.n;
      b.rows(s, a + item * stride_a, b.data + item * b.stride, c + item * stride_c, bias, j0, j1);
    });
  }
  const MatmulTiles tiles = matmul_tiles(s, batch);
  ctx.parallel(batch * tiles.rows * tiles.columns, [&](int64_t task, char* scratch) {
    const int64_t column = task % tiles.columns, row = task / tiles.columns % tiles.rows;
    const int64_t item = task / (tiles.columns * tiles.rows);
    // Column tiles start at whole micro-tiles, row tiles anywhere.
    const int64_t micro = (s.n + MM_WIDTH - 1) / MM_WIDTH;
    const int64_t j0 = micro * column / tiles.columns * MM_WIDTH;
    int64_t j1 = micro * (column + 1) / tiles.columns * MM_WIDTH;
    if (j1 > s.n) j1 = s.n;
    const int64_t i0 = s.m * row / tiles.rows, i1 = s.m * (row + 1) / tiles.rows;
    matmul_tile(s, a + item * stride_a, b, item, c + item * stride_c, bias, i0, i1, j0, j1, scratch);
  });
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
  const MatmulRight b = {(const char*)args.f(1), stride_b, s.transB ? matmul_pack_b_by_n : matmul_pack_b,
                         s.bf16 ? matvec_rows<RoundedToBf16<WeightsF32>, true> : matvec_rows<WeightsF32>};
  matmul_run(ctx, s, batch, a, args.n(10), b, args.f(2), args.n(12), bias);
}

static const Entry matmul_entries[] = {{"matmul", 15, matmul_kernel}};
