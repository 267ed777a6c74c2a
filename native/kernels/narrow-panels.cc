// Products with q8 and q4 weights in panels (src/base/panels.ts): 16 rows of the matrix side by side, so that a vector holds four
// elements of each, and no sum ever runs across lanes.
//
// Activations are rounded to integers too, block by block of 32: a = s q with s = max |a| / levels. The products and sums of a
// block are exact integers, and c = sum over blocks, in order, of s (d S) in float32. Whatever the number of rows, however they
// are split, and whether by dot products of bytes (narrow-vnni.cc) or of halves (here): the same integers in the same order.
// See docs/numerics.md.

constexpr int64_t NP_ROWS = 16;   // of a panel
constexpr int64_t NP_BLOCK = 32;  // elements of a row that share a scale
// Quantised activations of up to this many bytes are made once, on the stack; of more, by each task for itself.
constexpr int64_t NP_SHARED_BYTES = 1 << 16;
// Weights per task where each quantises its activations: at least so many bytes, at most so many tasks.
constexpr int64_t NP_TASK_BYTES = 1 << 19, NP_STREAMS = 64;
// Where activations are many: rows per task, panels at least, so that quantising them hardly shows, and tasks at least.
constexpr int64_t NP_TASK_ROWS = 36, NP_TASK_PANELS = 24, NP_TASKS = 8;
// The largest value of an activation with 16 bits: 127 * 256, so that q = 256 hi + lo with signed bytes.
constexpr float NP_LEVELS = 32512, NP_LEVELS_INT8 = 127;

// Bytes of 16 rows by 32 elements: the quants, then the 16 scales.
template <class F>
constexpr int64_t NP_BYTES = NP_ROWS * F::BYTES;
template <class F>
constexpr int64_t NP_WORDS = (F::BYTES - 2) / 4;

// ---- panels and blocks ------------------------------------------------------------------------------------------------
// Block `index` of rows of `width` blocks, counted row by row: where its first word and its scale are.
struct PanelPlace {
  int64_t word, scale;  // bytes

  PanelPlace(int64_t index, int64_t width, int64_t bytes)
      : word((index / width / NP_ROWS * width + index % width) * bytes * NP_ROWS + index / width % NP_ROWS * 4),
        scale(word - index / width % NP_ROWS * 2 + NP_ROWS * (bytes - 2)) {}
};

// Blocks [first, first + count) to their places in panels, or back.
template <class F, bool TO_PANELS>
static void panels_move(char* panels, char* blocks, int64_t width, int64_t first, int64_t count) {
  for (int64_t i = 0; i < count; i++, blocks += F::BYTES) {
    const PanelPlace place(first + i, width, F::BYTES);
    for (int64_t word = 0; word < NP_WORDS<F>; word++) {
      char *one = panels + place.word + 64 * word, *other = blocks + 2 + 4 * word;
      memcpy(TO_PANELS ? one : other, TO_PANELS ? other : one, 4);
    }
    char* scale = panels + place.scale;
    memcpy(TO_PANELS ? scale : blocks, TO_PANELS ? blocks : scale, 2);
  }
}

// ---- activations ------------------------------------------------------------------------------------------------------
// 32 activations as integers. Blocks whose largest magnitude lies below 2^-110 are rounded as if it were that: an error below
// 2^-126. A block that is not finite makes its scale, and so every sum with it, NaN.
VEC_FN float panels_quantise(const float* a, float levels, vi* q) {
  vi top = as_int(vabs(vload(a)));
  MM_UNROLL for (int v = 1; v < NP_BLOCK / W; v++) {
    const vi size = as_int(vabs(vload(a + v * W)));
    top = size > top ? size : top;
  }
  const int32_t bits = hmax_i(top);
  float largest;
  memcpy(&largest, &bits, 4);
  if (bits >= 0x7f800000) {
    MM_UNROLL for (int v = 0; v < NP_BLOCK / W; v++) q[v] = vi{};
    return __builtin_nanf("");
  }
  largest = largest > 0x1p-110f ? largest : 0x1p-110f;
  const vf inverse = vset1(levels / largest);
  MM_UNROLL for (int v = 0; v < NP_BLOCK / W; v++) q[v] = vround_i(vload(a + v * W) * inverse);
  return largest / levels;
}

// How a tile of R rows of activations is laid out: block by block R times 32 integers, here of 16 bits, then R scales.
constexpr int64_t NP_UNIT = NP_BLOCK * 2 + 4;
typedef int16_t panels_row __attribute__((vector_size(2 * W)));

static void panels_pack(const float* a, int64_t lda, int64_t rows, int64_t blocks, bool int8, char* to) {
  for (int64_t b = 0; b < blocks; b++, a += NP_BLOCK, to += rows * NP_UNIT) {
    for (int64_t r = 0; r < rows; r++) {
      vi q[NP_BLOCK / W];
      const float scale = panels_quantise(a + r * lda, int8 ? NP_LEVELS_INT8 : NP_LEVELS, q);
      memcpy(to + rows * NP_BLOCK * 2 + r * 4, &scale, 4);
      for (int v = 0; v < NP_BLOCK / W; v++) {
        const auto halves = __builtin_convertvector(q[v], panels_row);
        memcpy(to + (r * NP_BLOCK + v * W) * 2, &halves, sizeof halves);
      }
    }
  }
}

// ---- the product of a tile and a panel --------------------------------------------------------------------------------
// The g-th four elements of W / 2 rows, `at` bytes into a block.
VEC_FN vh panels_halves(WeightsQ8, const char* block, int g, int64_t at) { return to_halves(vload_bytes(block + 64 * g + at)); }
VEC_FN vh panels_halves(WeightsQ4, const char* block, int g, int64_t at) {
  const vub pairs = (vub)vload_bytes(block + 64 * (g % 4) + at);
  return to_halves((vb)(g < 4 ? pairs & 15 : pairs >> 4) - 8);
}

// What is asked for from memory meanwhile: `step` bytes per block. Much work on each line hides the next ones from the
// hardware's prefetchers.
struct PanelsAhead {
  const char* from;
  int64_t step;
};

// Vectors of a panel's rows that R rows of activations meet at once: more for few of them, as registers allow.
template <int R>
constexpr int NP_VECTORS = R == 1 ? NP_ROWS / W : 1;

// c[R][16] = the tile of R rows times a panel.
template <class F, int R>
static void panels_dots(int64_t, int64_t blocks, const char* tile, const char* panel, float* c, PanelsAhead) {
  constexpr int V = NP_VECTORS<R>;
  for (int64_t row = 0; row < NP_ROWS; row += V * W) {
    vf sum[V][R];
    MM_UNROLL for (int v = 0; v < V; v++) MM_UNROLL for (int r = 0; r < R; r++) sum[v][r] = vzero();
    const char *a = tile, *w = panel;
    for (int64_t b = 0; b < blocks; b++, a += R * NP_UNIT, w += NP_BYTES<F>) {
      vi first[V][R], second[V][R];
      MM_UNROLL for (int v = 0; v < V; v++) MM_UNROLL for (int r = 0; r < R; r++) first[v][r] = second[v][r] = vi{};
      MM_UNROLL for (int g = 0; g < NP_BLOCK / 4; g++) {
        MM_UNROLL for (int r = 0; r < R; r++) {
          const vh ar = vset4_h((const int16_t*)a + r * NP_BLOCK + g * 4);
          MM_UNROLL for (int v = 0; v < V; v++) {
            const int64_t at = 4 * (row + v * W);
            const vh one = panels_halves(F{}, w, g, at), two = panels_halves(F{}, w, g, at + 2 * W);
            first[v][r] += vdot_pairs(one, ar);
            second[v][r] += vdot_pairs(two, ar);
          }
        }
      }
      const float* scales = (const float*)(a + R * NP_BLOCK * 2);
      MM_UNROLL for (int v = 0; v < V; v++) {
        const vf d = vload_f16(w + 64 * NP_WORDS<F> + 2 * (row + v * W));
        MM_UNROLL for (int r = 0; r < R; r++)
          sum[v][r] = vfma(vset1(scales[r]), d * to_float(vsum_pairs(first[v][r], second[v][r])), sum[v][r]);
      }
    }
    MM_UNROLL for (int v = 0; v < V; v++)
      MM_UNROLL for (int r = 0; r < R; r++) vstore(c + r * NP_ROWS + row + v * W, sum[v][r]);
  }
}

constexpr int NP_MOST_ROWS = 16;
// Tiles of so many rows take two panels at a time, where there is code for it.
constexpr int NP_PAIRS_FROM = 3;

// A way to compute: tiles of at most `rows` rows, `unit` bytes for each block of a row.
struct PanelsMethod {
  using Dots = void (*)(int64_t rows, int64_t blocks, const char* tile, const char* panel, float* c, PanelsAhead ahead);
  int64_t rows, unit;
  void (*pack)(const float* a, int64_t lda, int64_t rows, int64_t blocks, bool int8, char* to);
  Dots dots[NP_MOST_ROWS + 1], pair_dots[NP_MOST_ROWS + 1];  // by rows
};

#if defined(__AVX512F__) || defined(__aarch64__)
constexpr int NP_TILE = 8;  // 16 sums of integers, 8 of floats
#elif defined(__AVX2__)
constexpr int NP_TILE = 4;
#else
constexpr int NP_TILE = 2;
#endif

template <class F, int R = NP_TILE>
static void panels_fill(PanelsMethod& method) {
  method.dots[R] = panels_dots<F, R>;
  if constexpr (R > 1) panels_fill<F, R - 1>(method);
}

template <class F>
static PanelsMethod panels_method() {
  PanelsMethod method = {NP_TILE, NP_UNIT, panels_pack, {}, {}};
  panels_fill<F>(method);
  return method;
}
