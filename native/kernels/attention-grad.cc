// The gradients of attention, by recomputation from lse; included by attention.cc.
//
// A task takes one query head of one row, document by document, block of keys by block of keys: the gradients of a block's keys
// stay in scratch while the queries that see it pass by in chunks. Where several query heads share a kv head, each writes dk and
// dv of its own, which are added up in the end.

constexpr int64_t AT_QUERIES = 48;
static_assert((5 * ATTENTION_WIDTH + (2 * ATTENTION_WIDTH / ATTENTION_BLOCK + 3) * AT_QUERIES) * AT_STEP * sizeof(float) <=
              SCRATCH_BYTES);

// s (scores) becomes p = exp(s - lse) and dp becomes ds = p (dp - level) for the first n columns; 0 up to `columns`.
static void attention_row_grad(float* s, float* dp, int64_t n, int64_t columns, float lse, float level) {
  for (int64_t j = 0; j < columns; j += W) {
    const vi sees = viota() < (int32_t)(n - j);
    const vf p = vselect(sees, vexp(vload(s + j) - lse), vzero());
    vstore(s + j, p);
    vstore(dp + j, vselect(sees, p * (vload(dp + j) - level), vzero()));
  }
}

// The sum of a[i] b[i].
VEC_FN float attention_dot(const float* a, const float* b, int64_t d) {
  vf sum = vzero();
  for (int64_t i = 0; i < d; i += W) {
    const int count = d - i < W ? (int)(d - i) : W;
    sum += vload_some(a + i, count) * vload_some(b + i, count);
  }
  return hsum(sum);
}

struct AttentionGrad {
  const float *y, *lse, *dy;
  float *dq, *level;  // level: dy . y of every token of this head
  float *dk, *dv;     // of this row and head
  int64_t key_step;   // floats from one key to the next in them
};

// The tokens [begin, end) of one document, whose first key is `first`.
static void attention_document_grad(const AttentionShape& o, const AttentionGrad& g, int64_t row, int64_t head, int64_t begin,
                                    int64_t end, int64_t first, char* scratch) {
  const int64_t d = o.d, slabs = attention_slab_count(d), past = o.past[row];
  const int64_t token_step = o.hq * d, keys_step = o.hk * d, kv = head / o.group();
  float* space = (float*)scratch;
  const auto take = [&](int64_t rows) {
    float* at = space;
    space += rows * AT_STEP;
    return at;
  };
  float *keys = take(slabs * ATTENTION_BLOCK), *keys_turned = take(d), *values_turned = take(d);
  float *dk = take(slabs * ATTENTION_BLOCK), *dv = take(slabs * ATTENTION_BLOCK);
  float *q = take(slabs * AT_QUERIES), *dy = take(slabs * AT_QUERIES), *dq = take(AT_QUERIES);
  float *p = take(AT_QUERIES), *ds = take(AT_QUERIES);

  const int64_t seen = past + end - first;
  for (int64_t block = 0; block < seen; block += ATTENTION_BLOCK) {
    const int64_t n = seen - block < ATTENTION_BLOCK ? seen - block : ATTENTION_BLOCK;
    const int64_t key = ((row * o.c + first + block) * o.hk + kv) * d;
    attention_pack(o.k + key, keys_step, n, d, 1.0f, keys, ATTENTION_BLOCK);
    attention_pack_turned(o.k + key, keys_step, n, d, keys_turned);
    attention_pack_turned(o.v + key, keys_step, n, d, values_turned);
    memset(dk, 0, (size_t)(2 * slabs * ATTENTION_BLOCK * AT_STEP) * sizeof(float));

    const int64_t reaches = first + block - past;  // the first token that sees the block
    for (int64_t t = reaches < begin ? begin : reaches; t < end; t += AT_QUERIES) {
      const int64_t tokens = end - t < AT_QUERIES ? end - t : AT_QUERIES, at = ((row * o.l + t) * o.hq + head) * d;
      const auto in_block = [&](int64_t r) {
        const int64_t count = past + t + r + 1 - first - block;
        return count < n ? count : n;
      };
      const int64_t most = in_block(tokens - 1), whole = (most + W - 1) / W * W;
      attention_pack(o.q + at, token_step, tokens, d, o.scale, q, AT_QUERIES);
      attention_pack(g.dy + at, token_step, tokens, d, 1.0f, dy, AT_QUERIES);
      attention_slabs(d, [&](int64_t slab, int64_t x, int64_t columns) {
        const int64_t part = slab * AT_QUERIES * AT_STEP;
        attention_product<false>(tokens, most, columns, q + part, {keys_turned + x * AT_STEP, AT_STEP}, p, slab > 0);
        attention_product<false>(tokens, most, columns, dy + part, {values_turned + x * AT_STEP, AT_STEP}, ds, slab > 0);
      });
      for (int64_t r = 0; r < tokens; r++) {
        const float lse = g.lse[(row * o.l + t + r) * o.hq + head];
        attention_row_grad(p + r * AT_STEP, ds + r * AT_STEP, in_block(r), whole, lse, g.level[t + r]);
      }
      attention_slabs(d, [&](int64_t slab, int64_t x, int64_t columns) {
        const int64_t part = slab * AT_QUERIES * AT_STEP, block_part = slab * ATTENTION_BLOCK * AT_STEP;
        attention_product<true>(most, columns, tokens, p, {dy + part, AT_STEP}, dv + block_part, true);
        attention_product<true>(most, columns, tokens, ds, {q + part, AT_STEP}, dk + block_part, true);
        attention_product<false>(tokens, columns, most, ds, {keys + block_part, AT_STEP}, dq, false);
        for (int64_t r = 0; r < tokens; r++) {
          float* to = g.dq + at + r * token_step + x;
          for (int64_t i = 0; i < columns; i += W) {
            const int count = columns - i < W ? (int)(columns - i) : W;
            vstore_some(to + i, vload_some(to + i, count) + vload(dq + r * AT_STEP + i) * o.scale, count);
          }
        }
      });
    }
    for (int64_t j = 0; j < n; j++) {
      attention_slabs(d, [&](int64_t slab, int64_t x, int64_t columns) VEC_LAMBDA {
        const int64_t from = (slab * ATTENTION_BLOCK + j) * AT_STEP, to = (first + block + j) * g.key_step + x;
        for (int64_t i = 0; i < columns; i += W) {
          const int count = columns - i < W ? (int)(columns - i) : W;
          vstore_some(g.dk + to + i, vload(dk + from + i), count);
          vstore_some(g.dv + to + i, vload(dv + from + i), count);
        }
      });
    }
  }
}

static void attention_backward(const Args& args, const Ctx& ctx) {
  const AttentionShape o = attention_shape(args, 13);
  const float *y = args.f(6), *lse = args.f(7), *dy = args.f(8);
  float *dq = args.f(9), *dk = args.f(10), *dv = args.f(11), *levels = args.f(12);
  const int64_t d = o.d, group = o.group(), own_size = o.b * o.hq * o.c * d;
  float *own_dk = levels + o.b * o.hq * o.l, *own_dv = own_dk + own_size;

  ctx.parallel(o.b * o.hq, [=](int64_t task, char* scratch) {
    const int64_t row = task / o.hq, head = task % o.hq, length = o.length(row);
    AttentionGrad g = {y, lse, dy, dq, levels + task * o.l, own_dk + task * o.c * d, own_dv + task * o.c * d, d};
    if (group == 1) g.dk = dk + (row * o.c * o.hk + head) * d, g.dv = dv + (row * o.c * o.hk + head) * d, g.key_step = o.hk * d;
    for (int64_t j = 0; j < o.c; j++) {
      memset(g.dk + j * g.key_step, 0, (size_t)d * sizeof(float));
      memset(g.dv + j * g.key_step, 0, (size_t)d * sizeof(float));
    }
    for (int64_t t = 0; t < o.l; t++) {
      const int64_t at = ((row * o.l + t) * o.hq + head) * d;
      memset(dq + at, 0, (size_t)d * sizeof(float));
      if (t < length) g.level[t] = attention_dot(dy + at, y + at, d);
    }
    for (int64_t t = 0; t < length;) {
      const int64_t end = o.end(row, t, length);
      attention_document_grad(o, g, row, head, t, end, o.first_key(row, t), scratch);
      t = end;
    }
  });
  if (group == 1) return;

  constexpr int64_t STRIP = 64;
  const int64_t strips = (o.c + STRIP - 1) / STRIP;
  ctx.parallel(o.b * o.hk * strips, [=](int64_t task, char*) {
    const int64_t row = task / strips / o.hk, kv = task / strips % o.hk, begin = task % strips * STRIP;
    const int64_t end = begin + STRIP < o.c ? begin + STRIP : o.c, step = o.c * d;
    for (int64_t j = begin; j < end; j++) {
      const int64_t from = ((row * o.hq + kv * group) * o.c + j) * d, to = ((row * o.c + j) * o.hk + kv) * d;
      for (int64_t i = 0; i < d; i += W) {
        const int count = d - i < W ? (int)(d - i) : W;
        vf sum_k = vzero(), sum_v = vzero();
        for (int64_t h = 0; h < group; h++) {
          sum_k += vload_some(own_dk + from + h * step + i, count);
          sum_v += vload_some(own_dv + from + h * step + i, count);
        }
        vstore_some(dk + to + i, sum_k, count);
        vstore_some(dv + to + i, sum_v, count);
      }
    }
  });
}
