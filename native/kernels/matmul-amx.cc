// Products of bfloat16 on the tile registers of AMX: slivers of 32 rows against the panels of matmul-bf16.cc, c in 2 x 2 tiles
// of 16 x 16 sums. A step of a tile product is 16 pairs along k; packed pieces are filled up to whole steps with zeros, in both
// operands, and rows that a sliver lacks are computed from whatever lies there and never stored.

// Pairs along k of one tile product, and rows or columns of a tile.
constexpr int64_t AMX_SIDE = 16;
constexpr int64_t AMX_ROWS = 2 * AMX_SIDE;
// From one packed row of a to the next: the odd cache line keeps the rows of a tile out of each other's sets.
constexpr int64_t AMX_ROW = MM_KC + 16;

template <class T>
struct MatmulAmx : MatmulFloats {
  static constexpr int64_t ROWS = AMX_ROWS, SLIVER = AMX_ROWS * AMX_ROW, STEP = 2;
  static_assert((MM_NC / MM_WIDTH * MM_PANEL + MM_MC * SLIVER) * 4 <= SCRATCH_BYTES, "packed operands fit");
  static_assert(MM_KC % AMX_SIDE == 0 && MM_WIDTH == 2 * AMX_SIDE, "whole tiles");

  static void begin() { T::configure(tiles_whole()); }
  static void end() { T::release(); }

  static int64_t whole_steps(int64_t kc) { return ((kc + 1) / 2 + AMX_SIDE - 1) / AMX_SIDE * AMX_SIDE; }

  static void pack_a(const MatmulShape& s, const float* a, int64_t i, int rows, int64_t p, int64_t kc, float* to) {
    matmul_pack_a_bf16(s, a, i, rows, p, kc, to, AMX_ROW);
    // The conversion fills up to 16 pairs, which is a whole step.
  }

  // a stored (k, m): pairs of its rows, turned 16 x 16.
  MM_BF16 static void pack_a_by_k(const MatmulShape& s, const float* a, const MatmulCut& slivers, int64_t p, int64_t kc,
                                  float* to) {
    for (int64_t sliver = 0; sliver < slivers.parts; sliver++, to += SLIVER) {
      for (int64_t r = 0; r < slivers.size(sliver); r += AMX_SIDE) {
        const int64_t i = slivers.start(sliver) + r;
        const int count = s.m - i < W ? (int)(s.m - i) : W;
        for (int64_t q = 0; q < kc; q += 2 * AMX_SIDE) {
          vi pairs[AMX_SIDE];
          for (int64_t t = 0; t < AMX_SIDE; t++) {
            const int64_t row = q + 2 * t;
            const float* from = a + (p + row) * s.lda + i;
            pairs[t] = matmul_pairs(row < kc ? vload_some(from, count) : vzero(),
                                    row + 1 < kc ? vload_some(from + s.lda, count) : vzero());
            matmul_ask(from + 2 * AMX_SIDE * s.lda);
            matmul_ask(from + (2 * AMX_SIDE + 1) * s.lda);
          }
          transpose_block(pairs);
          for (int64_t t = 0; t < AMX_SIDE; t++) vstore_i((int32_t*)to + (r + t) * AMX_ROW + q / 2, pairs[t]);
        }
      }
    }
  }

  static void pack_b(const MatmulShape& s, const MatmulRight& b, const char* data, int64_t j0, int64_t j1, int64_t p,
                     int64_t kc, float* to) {
    matmul_pack_b_bf16(s, b, data, j0, j1, p, kc, to);
    const int64_t pairs = (kc + 1) / 2, steps = whole_steps(kc);
    for (int64_t j = j0; j < j1; j += MM_WIDTH, to += MM_PANEL) {
      const int64_t width = (j1 - j < MM_WIDTH ? (j1 - j + W - 1) / W * W : MM_WIDTH);
      memset(to + pairs * width, 0, (steps - pairs) * width * 4);
    }
  }

  static void multiply(const MatmulShape& s, int64_t steps, int rows, int vectors, const float* a, const float* b, float* c,
                       int tail, MatmulStore store) {
    const int64_t width = vectors * W;
    const bool tall = rows > AMX_SIDE, wide = vectors > 1;
    T::template zero<0>(), T::template zero<1>(), T::template zero<2>(), T::template zero<3>();
    for (int64_t p = 0; p < steps; p += AMX_SIDE) {
      T::template load<4>(a + p, AMX_ROW * 4);
      T::template load<6>(b + p * width, width * 4);
      T::template dot<0, 4, 6>();
      if (wide) {
        T::template load<7>(b + p * width + AMX_SIDE, width * 4);
        T::template dot<1, 4, 7>();
      }
      if (!tall) continue;
      T::template load<5>(a + AMX_SIDE * AMX_ROW + p, AMX_ROW * 4);
      T::template dot<2, 5, 6>();
      if (wide) T::template dot<3, 5, 7>();
    }
    alignas(64) float sums[AMX_ROWS][MM_WIDTH];
    T::template store<0>(sums[0], sizeof sums[0]), T::template store<1>(sums[0] + AMX_SIDE, sizeof sums[0]);
    T::template store<2>(sums[AMX_SIDE], sizeof sums[0]), T::template store<3>(sums[AMX_SIDE] + AMX_SIDE, sizeof sums[0]);
    for (int r = 0; r < rows; r++) {
      const vf one[1][1] = {{vload(sums[r])}}, two[1][2] = {{vload(sums[r]), vload(sums[r] + W)}};
      if (wide) matmul_store<1, 2>(two, c + r * s.n, s.n, tail, store);
      else matmul_store<1, 1>(one, c + r * s.n, s.n, tail, store);
    }
  }
};
