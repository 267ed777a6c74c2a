// Depthwise causal convolution, W channels of one row at a time; see src/backend/reference/conv.ts for the equations.
// Inputs before token 0 come from the window; `input -1` is its last entry.

// Steps between two sums of the gradients of weight and bias: short sums keep float32 rounding small in long rows.
constexpr int64_t CONV_CHUNK = 64;
// Tokens to ask the memory for in advance: the rows of one column lie too far apart for the hardware to guess.
constexpr int64_t CONV_AHEAD = 16;
// Rows of fewer tokens are too short for a task of W channels: there it has this many.
constexpr int64_t CONV_SHORT = 16, CONV_CHANNELS = 256;

struct ConvColumn {
  const float* x;        // the first channel of token 0
  const vf* window;      // k inputs before token 0, oldest first
  const vf* weight;      // k taps
  const int32_t* ids;    // of the tokens of this row, or null
  int64_t e, k;
  int count;             // channels
  vf bias;

  MAMBA_INLINE int32_t id(int64_t t) const { return ids[t < 0 ? 0 : t]; }
  MAMBA_INLINE bool related(int64_t s, int64_t t) const { return !ids || id(s) == id(t); }
  MAMBA_INLINE vf input(int64_t s) const { return s < 0 ? window[k + s] : vload_some(x + s * e, count); }
};

// Whether inputs from s on are plain vectors of x: no window, no documents, no missing channels.
VEC_FN bool conv_plain(const ConvColumn& c, int64_t s) { return s >= 0 && !c.ids && c.count == W; }

// bias + sum_j weight[j] input(t - k + 1 + j). K > 0 is a compile-time k.
template <int K>
VEC_FN vf conv_at(const ConvColumn& c, int64_t t) {
  const int64_t k = K > 0 ? K : c.k;
  vf sum = c.bias;
  if (conv_plain(c, t - k + 1)) {
    const float* x = c.x + (t - k + 1) * c.e;
    for (int64_t j = 0; j < k; j++) sum = sum + c.weight[j] * vload(x + j * c.e);
  } else {
    for (int64_t j = 0; j < k; j++) {
      const int64_t s = t - k + 1 + j;
      if (c.related(s, t)) sum = sum + c.weight[j] * c.input(s);
    }
  }
  return sum;
}

// out[j] = the j-th of `size` numbers of each of `count` channels; p is (channels, size). Lanes without a channel are zero.
VEC_FN void conv_gather(vf* out, const float* p, int64_t size, int count) {
  if (!p || count < W) {
    for (int64_t j = 0; j < size; j++) out[j] = vzero();
  }
  if (p) transpose((float*)out, W, p, size, count, size, 1.0f);
}

template <int K>
static void conv_row(const ConvColumn& c, float* y, int64_t y_step, int64_t length, int64_t silu) {
  for (int64_t t = 0; t < length; t++) {
    prefetch_read(c.x + (t + CONV_AHEAD) * c.e), prefetch_write(y + (t + CONV_AHEAD) * y_step);
    const vf pre = conv_at<K>(c, t);
    vstore_some(y + t * y_step, silu ? vsilu(pre) : pre, c.count);
  }
}

#include "conv-step.cc"

static void conv_forward(const Args& args, const Ctx& ctx) {
  if (conv_step(args, ctx)) return;
  const float *x = args.f(0), *weight = args.f(1), *bias = args.f(2), *window = args.f(3);
  const int32_t *ids = args.ids(4), *lengths = args.ids(5);
  float *y = args.f(6), *window_out = args.f(7);
  const int64_t b = args.n(8), l = args.n(9), e = args.n(10), k = args.n(11), silu = args.n(12);
  const int64_t cut1 = args.n(13), cut2 = args.n(14);
  // A task is one vector of channels, or several where a row is short.
  const int64_t width = l < CONV_SHORT ? CONV_CHANNELS : W, parts = (e + width - 1) / width;

  ctx.parallel(b * parts, [=](int64_t task, char* scratch) {
    const int64_t row = task / parts, from = task % parts * width, to = from + width < e ? from + width : e;
    const int64_t length = lengths ? lengths[row] : l;
    for (int64_t c0 = from; c0 < to; c0 += W) {
      const int count = e - c0 < W ? (int)(e - c0) : W;
      vf *taps = (vf*)scratch, *before = taps + k, *after = before + k;
      conv_gather(taps, weight + c0 * k, k, count);
      conv_gather(before, window ? window + (row * e + c0) * k : nullptr, k, count);
      const vf shift = bias ? vload_some(bias + c0, count) : vzero();
      const ConvColumn column = {x + row * l * e + c0, before, taps, ids ? ids + row * l : nullptr, e, k, count, shift};

      // The part of y that these channels belong to; cuts are multiples of W.
      const int64_t part = c0 < cut1 ? 0 : c0 < cut2 ? cut1 : cut2, step = (c0 < cut1 ? cut1 : c0 < cut2 ? cut2 : e) - part;
      float* out = y + b * l * part + row * l * step + c0 - part;
      if (k == 4) {
        conv_row<4>(column, out, step, length, silu);
      } else {
        conv_row<0>(column, out, step, length, silu);
      }
      for (int64_t t = length; t < l; t++) vstore_some(out + t * step, vzero(), count);
      if (!window_out) continue;
      for (int64_t j = 0; j < k; j++) {
        const int64_t s = length - k + j;
        const bool same = length == 0 || column.related(s, length - 1);
        after[j] = same ? column.input(s) : vzero();
      }
      transpose(window_out + (row * e + c0) * k, k, (const float*)after, W, k, count, 1.0f);
    }
  });
}

// Gradients of one column. `pending` holds dpre of the last k - 1 tokens and of one chunk; dweight (k) and dbias are
// sums over the row; dwindow (k) may be null, as may dwindow_out.
template <int K>
static void conv_row_grad(const ConvColumn& c, const float* dy, const vf* dwindow_out, float* dx, vf* dwindow, vf* dweight,
                          vf* dbias, vf* pending, vf* sums, int64_t length, int64_t silu) {
  const int64_t k = K > 0 ? K : c.k;
  // The gradient of input s, whose readers s .. s + k - 1 are in `pending` from index s - first on.
  const auto input_grad = [&](int64_t s, int64_t first) VEC_LAMBDA {
    vf sum = vzero();
    for (int64_t j = 0; j < k; j++) {
      const int64_t t = s + k - 1 - j;
      if (t >= 0 && t < length && c.related(s, t)) sum = sum + c.weight[j] * pending[t - first];
    }
    if (dwindow_out && s >= length - k && (length == 0 || c.related(s, length - 1)))
      sum = sum + dwindow_out[s - (length - k)];
    if (s >= 0) {
      vstore_some(dx + s * c.e, sum, c.count);
    } else if (dwindow) {
      dwindow[k + s] = sum;
    }
  };

  for (int64_t j = 0; j < k; j++) dweight[j] = vzero();
  *dbias = vzero();
  int64_t next = -k;  // the first input whose gradient is not yet out
  for (int64_t start = 0; start < length; start += CONV_CHUNK) {
    const int64_t end = start + CONV_CHUNK < length ? start + CONV_CHUNK : length;
    const int64_t first = start - (k - 1);
    vf bias_sum = vzero();
    for (int64_t j = 0; j < k; j++) sums[j] = vzero();
    for (int64_t t = start; t < end; t++) {
      const int64_t ahead = (t + CONV_AHEAD) * c.e;
      prefetch_read(c.x + ahead), prefetch_read(dy + ahead), prefetch_write(dx + ahead);
      vf dpre = vload_some(dy + t * c.e, c.count);
      if (silu) {
        const vf pre = conv_at<K>(c, t), gate = vsigmoid(pre);
        dpre = dpre * (gate * (1.0f + pre * (1.0f - gate)));
      }
      pending[t - first] = dpre;
      bias_sum = bias_sum + dpre;
      if (conv_plain(c, t - k + 1)) {
        const float* x = c.x + (t - k + 1) * c.e;
        for (int64_t j = 0; j < k; j++) sums[j] = sums[j] + dpre * vload(x + j * c.e);
      } else {
        for (int64_t j = 0; j < k; j++) {
          const int64_t s = t - k + 1 + j;
          if (c.related(s, t)) sums[j] = sums[j] + dpre * c.input(s);
        }
      }
    }
    *dbias = *dbias + bias_sum;
    for (int64_t j = 0; j < k; j++) dweight[j] = dweight[j] + sums[j];

    // Inputs whose readers all exist and are of one document need no questions.
    const int64_t plain_end = dwindow_out && end == length ? end - k : end - (k - 1);
    for (; next < end - (k - 1); next++) {
      if (!conv_plain(c, next) || next >= plain_end) {
        input_grad(next, first);
        continue;
      }
      vf sum = vzero();
      for (int64_t j = 0; j < k; j++) sum = sum + c.weight[j] * pending[next - first + k - 1 - j];
      vstore(dx + next * c.e, sum);
    }
    for (int64_t j = 0; j < k - 1; j++) pending[j] = pending[end - start + j];
  }
  // What is left has its readers among the last k - 1 tokens, which now lie at the start of `pending`.
  for (; next < length; next++) input_grad(next, length - (k - 1));
}

static void conv_backward(const Args& args, const Ctx& ctx) {
  const float *x = args.f(0), *weight = args.f(1), *bias = args.f(2), *window = args.f(3);
  const int32_t *ids = args.ids(4), *lengths = args.ids(5);
  const float *dy = args.f(6), *dwindow_out = args.f(7);
  float *dx = args.f(8), *dweight = args.f(9), *dbias = args.f(10), *dwindow = args.f(11), *partial = args.f(12);
  const int64_t b = args.n(13), l = args.n(14), e = args.n(15), k = args.n(16), silu = args.n(17);
  const int64_t blocks = (e + W - 1) / W;

  // partial is (b, k + 1, e): the gradients of weight and bias of one row.
  ctx.parallel(b * blocks, [=](int64_t task, char* scratch) {
    const int64_t row = task / blocks, c0 = task % blocks * W;
    const int count = e - c0 < W ? (int)(e - c0) : W;
    const int64_t length = lengths ? lengths[row] : l;
    vf *taps = (vf*)scratch, *before = taps + k, *after = before + k, *dbefore = after + k, *dtaps = dbefore + k;
    vf *sums = dtaps + k, *pending = sums + k;
    conv_gather(taps, weight + c0 * k, k, count);
    conv_gather(before, window ? window + (row * e + c0) * k : nullptr, k, count);
    conv_gather(after, dwindow_out ? dwindow_out + (row * e + c0) * k : nullptr, k, count);
    const vf shift = bias ? vload_some(bias + c0, count) : vzero();
    const ConvColumn column = {x + row * l * e + c0, before, taps, ids ? ids + row * l : nullptr, e, k, count, shift};

    const float* up = dy + row * l * e + c0;
    float* down = dx + row * l * e + c0;
    vf bias_sum;
    const auto run = [&](auto grad) {
      grad(column, up, dwindow_out ? after : nullptr, down, dbefore, dtaps, &bias_sum, pending, sums, length, silu);
    };
    if (k == 4) {
      run(conv_row_grad<4>);
    } else {
      run(conv_row_grad<0>);
    }
    for (int64_t t = length; t < l; t++) vstore_some(down + t * e, vzero(), count);
    float* own = partial + row * (k + 1) * e + c0;
    for (int64_t j = 0; j < k; j++) vstore_some(own + j * e, dtaps[j], count);
    vstore_some(own + k * e, bias_sum, count);
    for (int64_t j = 0; j < k && dwindow; j++) {
      for (int i = 0; i < count; i++) dwindow[(row * e + c0 + i) * k + j] = dbefore[j][i];
    }
  });

  ctx.parallel(blocks, [=](int64_t task, char*) {
    const int64_t c0 = task * W;
    const int count = e - c0 < W ? (int)(e - c0) : W;
    for (int64_t j = 0; j <= k; j++) {
      vf sum = vzero();
      for (int64_t row = 0; row < b; row++) sum = sum + vload_some(partial + (row * (k + 1) + j) * e + c0, count);
      if (j == k && dbias) vstore_some(dbias + c0, sum, count);
      for (int i = 0; i < count && j < k; i++) dweight[(c0 + i) * k + j] = sum[i];
    }
  });
}

static const Entry conv_entries[] = {{"causalConv", 15, conv_forward}, {"causalConvGrad", 18, conv_backward}};
