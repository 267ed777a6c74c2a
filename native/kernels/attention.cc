// Causal attention with an online softmax; see src/backend/reference/attention.ts for the equations.
//
// A task takes up to AT_ROWS query rows of one kv head: tokens, and within a token the query heads that share the kv head, so
// that decoding reads every key once. Keys come in blocks of ATTENTION_BLOCK, counted from the first one of the document. Per
// block K^T and V are packed once; then, sliver by sliver of AT_HIGH rows, scores, their softmax and the sums of V.
// All sums over d and over the keys of a block are single chains in order. So the bits of a row depend neither on the other
// rows of its task nor on where a text was cut; and what a row does not see is never multiplied, not even by zero.
// After Dao et al., "FlashAttention" (2022).

// Rows and vectors of the micro-kernel. Few rows take more vectors: chains enough to hide the latency of a sum.
constexpr int AT_HIGH = MM_ROWS;
constexpr int attention_vectors(int rows) { return rows == 1 ? 8 : rows == 2 ? 4 : 2; }
static_assert(ATTENTION_BLOCK % (8 * W) == 0);
// Matrices in scratch are slabs of up to ATTENTION_BLOCK columns, rows AT_STEP apart: an odd number of cache lines keeps rows
// out of each other's sets. A wider matrix is several slabs, one behind the other.
constexpr int64_t AT_STEP = ATTENTION_BLOCK + 16;
constexpr int64_t AT_ROWS = 96;

// c = a b, added to c if `add`: c (R, V * W) and a (R, k) or, TURNED, (k, R) in slabs; b (k, V * W), rows `b_step` apart.
template <int R, int V, bool TURNED>
static void attention_micro(int64_t k, const float* a, const float* b, int64_t b_step, float* c, bool add) {
  vf acc[R][V];
  MM_UNROLL for (int r = 0; r < R; r++) {
    MM_UNROLL for (int v = 0; v < V; v++) acc[r][v] = add ? vload(c + r * AT_STEP + v * W) : vzero();
  }
  for (int64_t p = 0; p < k; p++) {
    vf bp[V];
    MM_UNROLL for (int v = 0; v < V; v++) bp[v] = vload(b + v * W);
    MM_UNROLL for (int r = 0; r < R; r++) {
      const vf ar = vset1(TURNED ? a[r] : a[r * AT_STEP]);
      MM_UNROLL for (int v = 0; v < V; v++) acc[r][v] = vfma(ar, bp[v], acc[r][v]);
    }
    a += TURNED ? AT_STEP : 1;
    b += b_step;
  }
  MM_UNROLL for (int r = 0; r < R; r++) {
    MM_UNROLL for (int v = 0; v < V; v++) vstore(c + r * AT_STEP + v * W, acc[r][v]);
  }
}

using AttentionMicro = void (*)(int64_t, const float*, const float*, int64_t, float*, bool);

template <bool TURNED, int R = AT_HIGH, int V = attention_vectors(R)>
static AttentionMicro attention_find(int rows, int vectors) {
  if (rows == R && vectors == V) return attention_micro<R, V, TURNED>;
  if constexpr (V > 1) {
    if (rows == R) return attention_find<TURNED, R, V - 1>(rows, vectors);
  }
  if constexpr (R > 1 && V == attention_vectors(R)) return attention_find<TURNED, R - 1>(rows, vectors);
  return nullptr;
}

// A right operand, its rows `step` floats apart.
struct AttentionRight {
  const float* at;
  int64_t step;
};

// c (rows, columns) = a b, or c += a b; columns are computed up to a whole vector.
template <bool TURNED>
static void attention_product(int64_t rows, int64_t columns, int64_t k, const float* a, AttentionRight b, float* c, bool add) {
  if (rows <= 0 || (k <= 0 && add)) return;
  const MatmulCut slivers(0, rows, (rows + AT_HIGH - 1) / AT_HIGH);
  for (int64_t sliver = 0; sliver < slivers.parts; sliver++) {
    const int64_t i = slivers.start(sliver);
    const int height = slivers.size(sliver), most = attention_vectors(height);
    for (int64_t x = 0; x < columns; x += most * W) {
      const int64_t left = (columns - x + W - 1) / W;
      const AttentionMicro micro = attention_find<TURNED>(height, left < most ? (int)left : most);
      micro(k, a + (TURNED ? i : i * AT_STEP), b.at + x, b.step, c + i * AT_STEP + x, add);
    }
  }
}

// Calls body(slab, first, columns) for every slab of a matrix d wide.
template <class F>
VEC_FN void attention_slabs(int64_t d, const F& body) {
  for (int64_t i = 0; i < d; i += ATTENTION_BLOCK) body(i / ATTENTION_BLOCK, i, d - i < ATTENTION_BLOCK ? d - i : ATTENTION_BLOCK);
}
VEC_FN int64_t attention_slab_count(int64_t d) { return (d + ATTENTION_BLOCK - 1) / ATTENTION_BLOCK; }

// `rows` rows of d numbers, `step` apart -> slabs of `height` rows, times `scale`, filled up to a vector with zeros.
static void attention_pack(const float* from, int64_t step, int64_t rows, int64_t d, float scale, float* to, int64_t height) {
  for (int64_t r = 0; r < rows; r++, from += step) {
    attention_slabs(d, [&](int64_t slab, int64_t first, int64_t columns) VEC_LAMBDA {
      float* row = to + (slab * height + r) * AT_STEP;
      for (int64_t x = 0; x < columns; x += W) {
        vstore(row + x, vload_some(from + first + x, columns - x < W ? (int)(columns - x) : W) * scale);
      }
    });
  }
}

// The same turned: a slab of d rows and `rows` columns. 16 by 16, so that cache lines are read and written as a whole.
static void attention_pack_turned(const float* from, int64_t step, int64_t rows, int64_t d, float* to) {
  constexpr int64_t LINE = 16;
  for (int64_t r = 0; r < rows; r += LINE) {
    const int64_t count = rows - r < LINE ? rows - r : LINE, whole = (count + W - 1) / W * W;
    for (int64_t q = 0; q < d; q += LINE) {
      const int64_t deep = d - q < LINE ? d - q : LINE;
      for (int64_t i = 0; i < whole; i += 4) {
        const int64_t left = count - i < 0 ? 0 : count - i;
        const float* corner = from + (left ? r + i : 0) * step + q;
        // Rows are too far apart for the hardware to guess; many share a set of the first cache, so: into the second.
        for (int64_t j = 0; j < 4; j++) __builtin_prefetch(corner + (LINE + j) * step, 0, 2);
        matmul_turn(corner, step, left < 4 ? left : 4, deep, to + q * AT_STEP + r + i, AT_STEP);
      }
    }
  }
}

// What both directions know of their operands.
struct AttentionShape {
  const float *q, *k, *v;
  const int32_t *past, *ids, *lengths;
  int64_t b, l, c, hq, hk, d;
  float scale;

  MAMBA_INLINE int64_t group() const { return hq / hk; }
  MAMBA_INLINE int64_t length(int64_t row) const { return lengths ? lengths[row] : l; }
  MAMBA_INLINE bool starts(int64_t row, int64_t t) const { return t == 0 || (ids && ids[row * l + t] != ids[row * l + t - 1]); }
  // The document of token t: its tokens [begin, end) within the row, and its first key.
  MAMBA_INLINE int64_t begin(int64_t row, int64_t t) const {
    if (!ids) return 0;
    while (!starts(row, t)) t--;
    return t;
  }
  MAMBA_INLINE int64_t end(int64_t row, int64_t t, int64_t limit) const {
    if (!ids) return limit;
    for (t++; t < limit && !starts(row, t);) t++;
    return t;
  }
  MAMBA_INLINE int64_t first_key(int64_t row, int64_t begin) const { return begin == 0 ? 0 : past[row] + begin; }
};

VEC_FN AttentionShape attention_shape(const Args& args, int sizes) {
  return {args.f(0),         args.f(1),         args.f(2),         args.ids(3),       args.ids(4),
          args.ids(5),       args.n(sizes),     args.n(sizes + 1), args.n(sizes + 2), args.n(sizes + 3),
          args.n(sizes + 4), args.n(sizes + 5), args.num(sizes + 6)};
}

// One block of scores of one row: s[0 .. n) becomes exp(s - m) with m the largest so far. Returns what the sums of the blocks
// before are to be multiplied by.
static float attention_softmax(float* s, int64_t n, float* m, float* total) {
  const vf lowest = vset1(-__builtin_inff());
  vf largest = lowest;
  int64_t j = 0;
  for (; j + W <= n; j += W) largest = vmax(largest, vload(s + j));
  const int rest = (int)(n - j);
  const vi tail = vlanes(rest);
  if (rest) largest = vmax(largest, vselect(tail, vload(s + j), lowest));
  const float before = *m, block = hmax(largest), now = before > block ? before : block;
  // A NaN may get lost in the maximum; here it comes back.
  vf sum = vzero();
  for (j = 0; j + W <= n; j += W) {
    const vf p = vexp(vload(s + j) - now);
    vstore(s + j, p);
    sum += p;
  }
  if (rest) {
    const vf p = vselect(tail, vexp(vload(s + j) - now), vzero());
    vstore(s + j, p);
    sum += p;
  }
  const float scale = now == before ? 1.0f : exp1(before - now);
  *total = *total * scale + hsum(sum);
  *m = now;
  return scale;
}

// Query rows [from, to) of one kv head, all of one document whose first key is `first`.
static void attention_rows(const AttentionShape& o, float* y, float* lse, int64_t row, int64_t kv, int64_t from, int64_t to,
                           int64_t first, char* scratch) {
  const int64_t group = o.group(), d = o.d, n = to - from, slabs = attention_slab_count(d), key_step = o.hk * d;
  float* queries = (float*)scratch;
  float* sums = queries + slabs * AT_ROWS * AT_STEP;
  float* turned = sums + slabs * AT_ROWS * AT_STEP;
  float* values = turned + d * AT_STEP;
  float* scores = values + slabs * ATTENTION_BLOCK * AT_STEP;
  float largest[AT_ROWS], totals[AT_ROWS];
  // Row r of the task: where its q and y are, and how many keys it sees.
  const auto at = [&](int64_t r) {
    return ((row * o.l + (from + r) / group) * o.hq + kv * group + (from + r) % group);
  };
  const auto seen = [&](int64_t r) { return o.past[row] + (from + r) / group + 1 - first; };

  for (int64_t r = 0; r < n; r++) {
    attention_pack(o.q + at(r) * d, 0, 1, d, o.scale, queries + r * AT_STEP, AT_ROWS);
    largest[r] = -__builtin_inff(), totals[r] = 0.0f;
  }
  for (int64_t slab = 0; slab < slabs; slab++) {
    memset(sums + slab * AT_ROWS * AT_STEP, 0, (size_t)(n * AT_STEP) * sizeof(float));
  }
  const MatmulCut slivers(0, n, (n + AT_HIGH - 1) / AT_HIGH);
  const bool in_place = slivers.parts == 1 && d % W == 0;  // values are read once, as whole vectors
  for (int64_t block = 0; block < seen(n - 1); block += ATTENTION_BLOCK) {
    const auto in_block = [&](int64_t r) {
      const int64_t count = seen(r) - block;
      return count < 0 ? 0 : count < ATTENTION_BLOCK ? count : ATTENTION_BLOCK;
    };
    const int64_t key = ((row * o.c + first + block) * o.hk + kv) * d;
    attention_pack_turned(o.k + key, key_step, in_block(n - 1), d, turned);
    if (!in_place) attention_pack(o.v + key, key_step, in_block(n - 1), d, 1.0f, values, ATTENTION_BLOCK);
    for (int64_t sliver = 0; sliver < slivers.parts; sliver++) {
      const int64_t i = slivers.start(sliver), rows = slivers.size(sliver);
      const int64_t most = in_block(i + rows - 1), least = in_block(i);
      if (most == 0) continue;
      attention_slabs(d, [&](int64_t slab, int64_t x, int64_t columns) {
        attention_product<false>(rows, most, columns, queries + (slab * AT_ROWS + i) * AT_STEP, {turned + x * AT_STEP, AT_STEP},
                                 scores, slab > 0);
      });
      for (int64_t r = 0; r < rows; r++) {
        if (in_block(i + r) == 0) continue;
        const float scale = attention_softmax(scores + r * AT_STEP, in_block(i + r), largest + i + r, totals + i + r);
        if (scale == 1.0f) continue;
        attention_slabs(d, [&](int64_t slab, int64_t, int64_t columns) VEC_LAMBDA {
          float* sum = sums + (slab * AT_ROWS + i + r) * AT_STEP;
          for (int64_t x = 0; x < columns; x += W) vstore(sum + x, vload(sum + x) * scale);
        });
      }
      // The keys that all rows see together, the others row by row.
      attention_slabs(d, [&](int64_t slab, int64_t x, int64_t columns) {
        const AttentionRight value =
            in_place ? AttentionRight{o.v + key + x, key_step} : AttentionRight{values + slab * ATTENTION_BLOCK * AT_STEP, AT_STEP};
        float* sum = sums + (slab * AT_ROWS + i) * AT_STEP;
        attention_product<false>(rows, columns, least, scores, value, sum, true);
        for (int64_t r = 0; r < rows; r++) {
          attention_product<false>(1, columns, in_block(i + r) - least, scores + r * AT_STEP + least,
                                   {value.at + least * value.step, value.step}, sum + r * AT_STEP, true);
        }
      });
    }
  }
  for (int64_t r = 0; r < n; r++) {
    lse[at(r)] = largest[r] + log1(totals[r]);
    attention_slabs(d, [&](int64_t slab, int64_t i, int64_t columns) VEC_LAMBDA {
      const float* sum = sums + (slab * AT_ROWS + r) * AT_STEP;
      for (int64_t x = 0; x < columns; x += W) {
        vstore_some(y + at(r) * d + i + x, vload(sum + x) / totals[r], columns - x < W ? (int)(columns - x) : W);
      }
    });
  }
}

static void attention_forward(const Args& args, const Ctx& ctx) {
  const AttentionShape o = attention_shape(args, 8);
  float *y = args.f(6), *lse = args.f(7);
  const int64_t group = o.group(), blocks = (o.l * group + AT_ROWS - 1) / AT_ROWS;

  ctx.parallel(o.b * o.hk * blocks, [=](int64_t task, char* scratch) {
    // The last tokens first: they see most, and nobody should wait for them.
    const int64_t block = blocks - 1 - task / (o.b * o.hk), row = task / o.hk % o.b, kv = task % o.hk;
    const int64_t limit = o.length(row), end = (block + 1) * AT_ROWS < o.l * group ? (block + 1) * AT_ROWS : o.l * group;
    int64_t r = block * AT_ROWS;
    while (r < end && r < limit * group) {
      const int64_t t = r / group, stop = o.end(row, t, limit) * group, to = stop < end ? stop : end;
      attention_rows(o, y, lse, row, kv, r, to, o.first_key(row, o.begin(row, t)), scratch);
      r = to;
    }
    for (; r < end; r++) {
      const int64_t at = (row * o.l + r / group) * o.hq + kv * group + r % group;
      memset(y + at * o.d, 0, (size_t)o.d * sizeof(float));
      lse[at] = 0.0f;
    }
  });
}

#include "attention-grad.cc"

static const Entry attention_entries[] = {{"attention", 15, attention_forward}, {"attentionGrad", 20, attention_backward}};
