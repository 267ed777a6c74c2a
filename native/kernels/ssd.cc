// State space duality: a scan whose state decays as a whole, in pieces of SSD_ROWS rows that are matrix products; see
// src/backend/reference/ssd.ts for the equations and Dao and Gu (2024), section 6, for the idea.
//
// Within a piece, with a[t] the sum of its decays up to t, y = exp(a) C S + M x, M[t][j] = (C[t] . B[j]) exp(a[t] - a[j]) scale[j]
// for j <= t, and S becomes exp(a[end]) S + sum over j of exp(a[end] - a[j]) scale[j] x[j] B[j]^T. A piece never crosses a chunk,
// a document or the end of the row: nothing has to be masked but the triangle. C B^T is computed once for all heads of a group.
//
// Rows of a piece are its tokens times r ranks. The state is transposed (n, p) inside, so that channels are the lanes.

#include "ssd-product.cc"

// A step over a state of at most so many floats is one task: 256 KB stay in the nearer cache of one core.
constexpr int64_t SSD_ALONE = 1 << 16;

// Where a row can be cut. Pieces begin at multiples of `size` within a chunk, where documents begin, and nowhere else.
struct SsdWalk {
  int64_t q, size, length;
  const int32_t* ids;

  SsdWalk(int64_t ranks, int64_t chunk) : q(chunk), size(chunk), length(0), ids(nullptr) {
    const int64_t most = ranks < SSD_ROWS ? SSD_ROWS / ranks : 1, pieces = (q + most - 1) / most;
    size = (q + pieces - 1) / pieces;
  }
  // The same for one row of a batch.
  SsdWalk(const SsdWalk& of, int64_t row, int64_t l, const int32_t* all_ids, const int32_t* lengths)
      : q(of.q), size(of.size), length(lengths ? lengths[row] : l), ids(all_ids ? all_ids + row * l : nullptr) {}

  int64_t chunks(int64_t l) const { return (l + q - 1) / q; }
  // Pieces in the longest chunk, if no document cuts it further.
  int64_t cells(int64_t l) const { return ((q < l ? q : l) + size - 1) / size; }
  int64_t cell(int64_t t) const { return t % q / size; }
  bool fresh(int64_t t) const { return ids && t > 0 && ids[t] != ids[t - 1]; }
  // The end of the piece that begins at `start`.
  int64_t end(int64_t start) const {
    const int64_t chunk = start - start % q;
    int64_t end = chunk + (cell(start) + 1) * size;
    if (end > chunk + q) end = chunk + q;
    if (end > length) end = length;
    for (int64_t t = start + 1; t < end; t++)
      if (fresh(t)) return t;
    return end;
  }
  // The beginning of the piece that ends at `end`.
  int64_t start(int64_t end) const {
    int64_t t = end - 1;
    const int64_t least = t - t % q + cell(t) * size;
    while (t > least && !fresh(t)) t--;
    return t;
  }
};

// Consecutive pieces of memory, in whole cache lines.
struct SsdSpace {
  float* free;

  MAMBA_INLINE float* operator()(int64_t size) {
    float* at = free;
    free += ssd_padded(size);
    return at;
  }
};

// What the tokens of a piece weigh, each number repeated for every rank.
struct SsdWeights {
  float *hi, *lo;      // a = hi + lo: differences of a are good to the last bit, however large the sums
  float *scale, *own;
  float *in;           // exp(a[t]): of the state before, in token t
  float *out, *into;   // exp(a[end] - a[t]), and that times scale: of token t, in the state after
  float end;           // exp(a[end])
  float *far, *near;   // exp(a[pivot] - a[j]) of rows j before the pivot, exp(a[row] - a[pivot]) of rows from it on
  int64_t pivot, rows, period;  // pivots are multiples of whole vectors and whole tokens

  MAMBA_INLINE SsdWeights(SsdSpace& space, int64_t width, int64_t ranks) : period(16) {
    while (period % ranks != 0) period += 16;
    hi = space(width), lo = space(width), scale = space(width), own = space(width);
    in = space(width), out = space(width), into = space(width), far = space(width), near = space(width);
  }
  // Token i of the piece is i * step behind the pointers.
  __attribute__((noinline)) void read(const float* decays, const float* scales, const float* owns, int64_t step, int64_t tokens,
                                      int64_t ranks) {
    double a = 0;
    for (int64_t i = 0; i < tokens; i++) {
      // e^-128 is 0 already; -infinity would leave no difference to take.
      const float decay = decays[i * step];
      a += decay < -128.0f ? -128.0f : decay;
      for (int64_t k = i * ranks; k < (i + 1) * ranks; k++) {
        hi[k] = (float)a, lo[k] = (float)(a - (double)hi[k]);
        scale[k] = scales[i * step], own[k] = owns[i * step];
      }
    }
    rows = tokens * ranks, pivot = -1;
    const int64_t last = rows - 1;
    for (int64_t k = 0; k < rows; k += W) {
      const int count = rows - k < W ? (int)(rows - k) : W;
      const vf high = vload_some(hi + k, count), low = vload_some(lo + k, count);
      const vf after = vexp((hi[last] - high) + (lo[last] - low));
      vstore_some(in + k, vexp(high), count);
      vstore_some(out + k, after, count);
      vstore_some(into + k, after * vload_some(scale + k, count), count);
    }
    end = in[last];
  }
  // Call this for a token, whose first row is `first`, before asking for `between`: most exps become products.
  MAMBA_INLINE void aim(int64_t first) {
    if (pivot >= 0 && first >= pivot && first < pivot + period) return;
    pivot = first - first % period;
    for (int64_t j = 0; j < pivot; j += W) vstore(far + j, decay(pivot, j));
    for (int64_t j = pivot; j < rows; j += W) {
      vstore(near + j, vexp((vload(hi + j) - hi[pivot]) + (vload(lo + j) - lo[pivot])));
    }
  }
  // exp(a[row] - a[j]) for W rows j from `from` on.
  MAMBA_INLINE vf between(int64_t row, int64_t from) const {
    return from + W <= pivot ? vload(far + from) * near[row] : decay(row, from);
  }

 private:
  MAMBA_INLINE vf decay(int64_t row, int64_t from) const {
    return vexp((hi[row] - vload(hi + from)) + (lo[row] - vload(lo + from)));
  }
};

struct SsdShapes {
  int64_t b, l, r, h, p, g, n, width;

  MAMBA_INLINE int64_t group(int64_t head) const { return head / (h / g); }
  // The first rank of token t: in B and C, in x and y, in the products of a group with C B^T.
  MAMBA_INLINE int64_t at_group(int64_t row, int64_t t, int64_t i) const { return ((row * l + t) * r * g + i) * n; }
  MAMBA_INLINE int64_t at_head(int64_t row, int64_t t, int64_t i) const { return ((row * l + t) * r * h + i) * p; }
  MAMBA_INLINE int64_t at_products(int64_t row, int64_t t, int64_t i) const { return ((row * g + i) * l + t) * r * width; }
};

// visible[row]: the columns of a triangle that the row sees.
static const int32_t* ssd_visible(int32_t* visible, int64_t rows, int64_t ranks) {
  for (int64_t row = 0; row < rows; row++) visible[row] = (int32_t)((row / ranks + 1) * ranks);
  return visible;
}

// body(row, group, start, end, scratch) for every piece of every group.
template <class F>
static void ssd_pieces(const Ctx& ctx, const SsdShapes& s, const SsdWalk& cut, const int32_t* ids, const int32_t* lengths,
                       const F& body) {
  const int64_t cells = cut.cells(s.l), row_cells = cut.chunks(s.l) * cells;
  ctx.parallel(s.b * s.g * row_cells, [=](int64_t task, char* scratch) {
    const int64_t cell = task % row_cells, group = task / row_cells % s.g, row = task / row_cells / s.g;
    const SsdWalk walk(cut, row, s.l, ids, lengths);
    const int64_t chunk = cell / cells * walk.q, begin = chunk + cell % cells * walk.size;
    const int64_t stop = begin + walk.size < chunk + walk.q ? begin + walk.size : chunk + walk.q;
    for (int64_t start = begin, end; start < stop && start < walk.length; start = end) {
      end = walk.end(start);
      body(row, group, start, end, scratch);
    }
  });
}

// C B^T of all pieces, row by row of `width`; only what the triangle shows is written.
static void ssd_groups(const Ctx& ctx, const SsdShapes& s, const SsdWalk& cut, const float* B, const float* C,
                       const int32_t* ids, const int32_t* lengths, float* products) {
  ssd_pieces(ctx, s, cut, ids, lengths, [=](int64_t row, int64_t group, int64_t start, int64_t end, char* scratch) {
    const int64_t rows = (end - start) * s.r, at = s.at_group(row, start, group);
    SsdProduct product;
    product.visible = ssd_visible((int32_t*)scratch, s.width, s.r), product.ranks = s.r, product.lower = true;
    product.a1 = {C + at, s.g * s.n}, product.k1 = s.n;
    product.b1 = ssd_turned({B + at, s.g * s.n}, rows, s.n, (float*)scratch + s.width);
    product.c = products + s.at_products(row, start, group), product.c_step = s.width;
    ssd_multiply(product, rows, rows);
  });
}

// B and C of a piece in rows one behind the other: the groups of a token stand between them, often so that all rows fall into one
// set of the cache. With a single group they are that already.
static SsdMatrix ssd_gathered(const SsdShapes& s, SsdMatrix from, int64_t rows, float* space) {
  return s.g == 1 ? ssd_whole(from, rows, s.n, space) : ssd_weighted(from, nullptr, rows, s.n, space);
}

// C B^T of one head that shares its group with no other: made where it is used.
static SsdMatrix ssd_products(const SsdShapes& s, SsdMatrix rowsB, SsdMatrix rowsC, int64_t rows, const int32_t* visible,
                              float* turned, float* to) {
  SsdProduct product;
  product.visible = visible, product.ranks = s.r, product.lower = true;
  product.a1 = rowsC, product.k1 = s.n, product.b1 = ssd_turned(rowsB, rows, s.n, turned);
  product.c = to, product.c_step = s.width;
  ssd_multiply(product, rows, rows);
  return {to, s.width};
}

// M of one head, from its C B^T.
static __attribute__((noinline)) void ssd_mix(float* M, const float* products, int64_t width, SsdWeights& w,
                                              int64_t ranks) {
  for (int64_t first = 0; first < w.rows; first += ranks) {
    w.aim(first);
    for (int64_t j = 0; j < first; j += W) {
      const vf weight = w.between(first, j) * vload(w.scale + j);
      for (int64_t k = first; k < first + ranks; k++) {
        prefetch_read(products + (k + w.rows) * width + j);  // of the next piece
        vstore(M + k * width + j, vload(products + k * width + j) * weight);
      }
    }
    for (int64_t k = first; k < first + ranks; k++)
      for (int64_t j = first; j < first + ranks; j++) M[k * width + j] = products[k * width + j] * w.own[first];
  }
}

#include "ssd-step.cc"
#include "ssd-bf16.cc"

static void ssd_forward(const Args& args, const Ctx& ctx) {
  const float *x = args.f(0), *decay = args.f(1), *scale = args.f(2), *own = args.f(3) ? args.f(3) : scale;
  const float *B = args.f(4), *C = args.f(5), *D = args.f(6), *state = args.f(7);
  const float *last_x = args.f(8), *last_b = args.f(9), *last_weight = args.f(10);
  const int32_t *ids = args.ids(11), *lengths = args.ids(12);
  float *y = args.f(13), *state_out = args.f(14), *checkpoints = args.f(15), *partial = args.f(16);
  SsdShapes s = {args.n(17), args.n(18), args.n(19), args.n(20), args.n(21), args.n(22), args.n(23), 0};
  const SsdWalk cut(s.r, args.n(24));
  const int64_t d_width = args.n(25), chunks = cut.chunks(s.l);
#if defined(__AVX512F__)
  const bool narrow = args.n(26) == 1 && (ctx.features & FEATURE_BF16);
#endif
  s.width = ssd_padded(cut.size * s.r);
  const bool single = s.g == s.h;  // heads without company
  if (s.l > 1 && !single) ssd_groups(ctx, s, cut, B, C, ids, lengths, partial);

  // Channels do not depend on each other: as many tasks as that takes, and a state that fits the scratch.
  const int64_t columns = s.n <= 4096 ? 64 : 16, strips = (s.p + columns - 1) / columns;
  const auto head_strip = [=](int64_t task, char* scratch) {
    const int64_t row = task / strips / s.h, head = task / strips % s.h, p0 = task % strips * columns;
    const int64_t p = s.p - p0 < columns ? s.p - p0 : columns, pw = ssd_padded(p), n = s.n, r = s.r;
    const int64_t group = s.group(head), group_step = s.g * n, head_step = s.h * s.p;
    const SsdWalk walk(cut, row, s.l, ids, lengths);
    SsdSpace take = {(float*)scratch};
    const int32_t* visible = ssd_visible((int32_t*)take(s.width), s.width, r);
    SsdWeights w(take, s.width, r);
    float *M = take(s.width * s.width), *in = take(s.width * pw), *fed = take(s.width * pw);
    float *S = take(n * pw), *turned = take(p * n);
    float *rows_b = take(s.width * ssd_padded(n)), *rows_c = take(s.width * ssd_padded(n));
    float *own_turned = take(n * s.width), *own_products = take(s.width * s.width), *skip = take(pw), *fade = take(pw);
#if defined(__AVX512F__)
    float *pairs_a = take(s.width * ssd_padded(n)), *pairs_b = take((n > s.width ? n : s.width) * pw);
#endif
    for (int64_t i = 0; i < p; i++) skip[i] = D ? D[d_width == 1 ? head : head * s.p + p0 + i] : 0.0f;

    // The state is nothing, or `flat` (p, n) as outside, or else S.
    const int64_t place = (row * s.h + head) * s.p + p0;
    const float* flat = state ? state + place * n : nullptr;
    float* const last = state_out + place * n;
    bool empty = !state;
    if (last_weight && walk.length > 0) {
      ssd_follow(turned, flat, last_x + (row * s.r * s.h + head) * s.p + p0, head_step, last_b + (row * s.r * s.g + group) * n,
                 group_step, last_weight[row * s.h + head], p, n, r);
      flat = turned, empty = false;
    }
    const auto store = [&](float* to) {
      if (empty) memset(to, 0, (size_t)(p * n) * sizeof(float));
      else if (!flat) ssd_transpose(to, n, S, pw, n, p);
      else if (flat != to) memcpy(to, flat, (size_t)(p * n) * sizeof(float));
    };
    int64_t kept = 0;
    const auto keep = [&](int64_t end) {
      for (; checkpoints && kept < end; kept++) store(checkpoints + (((row * chunks + kept) * s.h + head) * s.p + p0) * n);
    };

    for (int64_t start = 0, end; start < walk.length; start = end) {
      keep(start / walk.q + 1);
      end = walk.end(start);
      if (walk.fresh(start)) empty = true;
      const int64_t tokens = end - start, rows = tokens * r, at_token = (row * s.l + start) * s.h + head;
      const int64_t at = s.at_head(row, start, head) + p0, at_group = s.at_group(row, start, group);
      if (tokens == 1) {
        if (!empty && !flat) store(turned), flat = turned;
        const SsdStep step = {x + at, B + at_group, C + at_group, D ? skip : nullptr, head_step, group_step, r, n,
                              exp1(decay[at_token]), scale[at_token], own[at_token], empty ? nullptr : flat, y + at, last};
        step.run(p);
        flat = last, empty = false;
        continue;
      }
      if (!empty && flat) ssd_transpose(S, pw, flat, n, p, n);
      flat = nullptr;
      w.read(decay + at_token, scale + at_token, own + at_token, s.h, tokens, r);
      const SsdMatrix rowsB = ssd_gathered(s, {B + at_group, group_step}, rows, rows_b);
      const SsdMatrix rowsC = ssd_gathered(s, {C + at_group, group_step}, rows, rows_c);
      const float* products = partial + s.at_products(row, start, group);
      if (single) products = ssd_products(s, rowsB, rowsC, rows, visible, own_turned, own_products).at;
      ssd_mix(M, products, s.width, w, r);
      const SsdMatrix inputs = ssd_weighted({x + at, head_step}, nullptr, rows, p, in, rows * head_step);
      SsdProduct reading, writing;
      reading.a1 = rowsC, reading.b1 = {S, pw}, reading.k1 = empty ? 0 : n, reading.weight = w.in;
      if (D) reading.init = inputs, reading.start = skip;
#if defined(__AVX512F__)
      if (narrow && !empty) {
        reading.a1 = ssd_pair_columns(rowsC, rows, n, pairs_a), reading.b1 = ssd_pair_rows({S, pw}, nullptr, n, p, pairs_b);
        reading.k1 = (n + 1) / 2, reading.c = fed, reading.c_step = pw;
        ssd_multiply<SsdPairs>(reading, rows, p);
        reading = SsdProduct(), reading.init = {fed, pw};
      }
#endif
      reading.a2 = {M, s.width}, reading.b2 = inputs, reading.k2 = rows;
      reading.shape = SSD_LOWER, reading.visible = visible, reading.ranks = r;
      reading.c = y + at, reading.c_step = head_step;
      ssd_multiply(reading, rows, p);  // y = exp(a) C S + D x + M x

      for (int64_t i = 0; i < pw; i++) fade[i] = w.end;
      if (!empty) writing.init = {S, pw}, writing.start = fade;
      writing.c = S, writing.c_step = pw;
      auto write = ssd_multiply<SsdFloats>;
#if defined(__AVX512F__)
      if (narrow) {
        writing.a2 = ssd_pair_rows(rowsB, nullptr, rows, n, pairs_a);
        writing.b2 = ssd_pair_rows(inputs, w.into, rows, p, pairs_b), writing.k2 = (rows + 1) / 2;
        write = ssd_multiply<SsdPairs>;
      }
#endif
      if (!writing.a2.at) writing.a2 = rowsB, writing.b2 = ssd_weighted(inputs, w.into, rows, p, fed), writing.k2 = rows;
      write(writing, n, p);  // S = exp(a[end]) S + B^T x
      empty = false;
    }
    keep(chunks);
    store(last);
    for (int64_t i = walk.length * r; i < s.l * r; i++)
      memset(y + s.at_head(row, 0, head) + p0 + i * head_step, 0, (size_t)p * sizeof(float));
  };
  // A step over a small state takes less time than moving that state from core to core.
  const int64_t tasks = s.b * s.h * strips, each = s.l == 1 && s.b * s.h * s.p * s.n <= SSD_ALONE ? tasks : 1;
  ctx.parallel(each > 0 ? tasks / each : 0, [&](int64_t some, char* scratch) {
    for (int64_t task = some * each; task < (some + 1) * each; task++) head_strip(task, scratch);
  });
}

#include "ssd-grad.cc"

static const Entry ssd_entries[] = {{"ssd", 27, ssd_forward}, {"ssdGrad", 30, ssd_backward}};
