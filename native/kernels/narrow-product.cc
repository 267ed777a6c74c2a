// linearNarrow for panels: which way to compute, and how the work is cut.

template <class F>
static PanelsMethod product_method(const Ctx& ctx, int64_t m, bool int8) {
#if defined(__AVX512BW__)
  if ((ctx.features & FEATURE_AMX) && m >= PA_FROM) return amx_method<F, MM_TILES>(int8);
  if (ctx.features & FEATURE_VNNI) return vnni_method<F>(int8);
#endif
  (void)ctx, (void)m, (void)int8;
  return panels_method<F>();
}

struct ProductShape {
  int64_t m, n, k, row;  // row: of the weight, where column 0 of c comes from
  bool int8;
};

// Columns of c that panel p gives: lanes [from, to) of it are columns j.. of c.
struct ProductLanes {
  int64_t from, to, j;

  ProductLanes(const ProductShape& s, int64_t p)
      : from(s.row > p * NP_ROWS ? s.row - p * NP_ROWS : 0),
        to(s.row + s.n < (p + 1) * NP_ROWS ? s.row + s.n - p * NP_ROWS : NP_ROWS),
        j(p * NP_ROWS + from - s.row) {}
};

static void product_store(const ProductShape& s, const ProductLanes& lanes, const float* tile, int64_t rows, const float* bias,
                          float* c) {
  for (int64_t r = 0; r < rows; r++, tile += NP_ROWS) {
    float* to = c + r * s.n + lanes.j;
    if (lanes.to - lanes.from == NP_ROWS) {
      for (int64_t x = 0; x < NP_ROWS; x += W) vstore(to + x, bias ? vload(tile + x) + vload(bias + lanes.j + x) : vload(tile + x));
    } else {
      for (int64_t x = lanes.from; x < lanes.to; x++) to[x - lanes.from] = bias ? tile[x] + bias[lanes.j + x - lanes.from] : tile[x];
    }
  }
}

// Asks for the lines of c that a tile is about to be stored to: its rows are far apart, and a missed line holds up all stores.
static void product_ask(const ProductShape& s, int64_t p, int64_t panels, float* c, int64_t rows) {
  const float* to = c + ProductLanes(s, p).j;
  for (int64_t r = 0; r < rows; r++)
    for (int64_t v = 0; v < panels; v++) prefetch_write(to + r * s.n + v * NP_ROWS);
}

// Rows [0, m) of a, which are packed in tiles, times panels [p0, p1).
template <class F>
static void product_panels(const ProductShape& s, const PanelsMethod& method, int64_t m, const char* packed, const char* w,
                           int64_t p0, int64_t p1, const float* bias, float* c) {
  const int64_t blocks = s.k / NP_BLOCK;
  const MatmulCut tiles(0, m, (m + method.rows - 1) / method.rows);
  alignas(64) float sums[2 * NP_MOST_ROWS * NP_ROWS];
  for (int64_t p = p0; p < p1;) {
    const bool pair = p + 1 < p1 && tiles.parts > 1 && method.pair_dots[tiles.size(tiles.parts - 1)];
    const int64_t bytes = blocks * NP_BYTES<F> * (1 + pair), share = (NP_BYTES<F> * (1 + pair) / tiles.parts + 63) / 64 * 64;
    const char* next = w + p * blocks * NP_BYTES<F> + bytes;
    for (int64_t t = 0; t < tiles.parts; t++) {
      const int64_t i = tiles.start(t), rows = tiles.size(t);
      const auto dots = pair ? method.pair_dots[rows] : method.dots[rows];
      if (tiles.parts > 1) product_ask(s, p, 1 + pair, c + i * s.n, rows);
      dots(rows, blocks, packed + i * blocks * method.unit, w + p * blocks * NP_BYTES<F>, sums, {next + t * blocks * share, share});
      for (int64_t v = 0; v <= pair; v++)
        product_store(s, ProductLanes(s, p + v), sums + v * rows * NP_ROWS, rows, bias, c + i * s.n);
    }
    p += 1 + pair;
  }
}

static void product_pack(const PanelsMethod& method, const ProductShape& s, const float* a, int64_t m, char* to) {
  const int64_t blocks = s.k / NP_BLOCK;
  const MatmulCut tiles(0, m, (m + method.rows - 1) / method.rows);
  for (int64_t t = 0; t < tiles.parts; t++) {
    const int64_t i = tiles.start(t);
    method.pack(a + i * s.k, s.k, tiles.size(t), blocks, s.int8, to + i * blocks * method.unit);
  }
}

template <class F>
static void product_run(const Ctx& ctx, const ProductShape& s, const float* a, const char* w, float* c, const float* bias) {
  if (s.m == 0 || s.n == 0) return;
  const PanelsMethod method = product_method<F>(ctx, s.m, s.int8);
  const int64_t row_bytes = s.k / NP_BLOCK * method.unit, panel_bytes = s.k / NP_BLOCK * NP_BYTES<F>;
  const int64_t first = s.row / NP_ROWS, panels = (s.row + s.n + NP_ROWS - 1) / NP_ROWS - first;
  if (s.m * row_bytes <= NP_SHARED_BYTES) {
    // One long stretch of weights per task: a stream that the memory's prefetchers follow. A single row is quantised by each task
    // for itself: that takes less time than memory that one core writes and another reads, again and again.
    alignas(64) char shared[NP_SHARED_BYTES];
    const bool own = s.m == 1;
    if (!own) product_pack(method, s, a, s.m, shared);
    const int64_t bytes = panels * panel_bytes, size = bytes / NP_STREAMS > NP_TASK_BYTES ? bytes / NP_STREAMS : NP_TASK_BYTES;
    const int64_t tasks = stream_tasks(bytes, own ? size : MV_TASK_BYTES, panels);
    return ctx.parallel(tasks, [&](int64_t task, char* scratch) {
      if (own) product_pack(method, s, a, 1, scratch);
      product_panels<F>(s, method, s.m, own ? scratch : shared, w, first + panels * task / tasks,
                        first + panels * (task + 1) / tasks, bias, c);
    });
  }
  // Tasks are rows times the whole matrix while there are enough of them, for nothing is quantised twice then.
  const int64_t down = (s.m + 2 * NP_TASK_ROWS - 1) / (2 * NP_TASK_ROWS) * 2, most_across = (panels + NP_TASK_PANELS - 1) / NP_TASK_PANELS;
  const int64_t wanted = (NP_TASKS + down - 1) / down, across = wanted < most_across ? wanted : most_across;
  ctx.parallel(down * across, [&](int64_t task, char* scratch) {
    const int64_t i0 = s.m * (task / across) / down, i1 = s.m * (task / across + 1) / down, part = task % across;
    // Rows that are too long for the scratch memory, a few at a time.
    const int64_t most = SCRATCH_BYTES / row_bytes;
    for (int64_t i = i0; i < i1; i += most) {
      const int64_t rows = i1 - i < most ? i1 - i : most;
      product_pack(method, s, a + i * s.k, rows, scratch);
      product_panels<F>(s, method, rows, scratch, w, first + panels * part / across, first + panels * (part + 1) / across, bias,
                        c + i * s.n);
    }
  });
}
