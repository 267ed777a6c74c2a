// One token of the causal convolution with four taps, for decoding; part of conv.cc. The taps and the window of a channel lie side
// by side, so that a vector is those of W / 4 channels: they are turned over in registers to be multiplied, and the window moves on
// by one permutation. The sums have the order, and the results the bits, of conv_row. Every window is read before it is written:
// windowOut may be window.

constexpr int64_t CONV_STEP_TAPS = 4;
// Channels of a task, about.
constexpr int64_t CONV_STEP_CHANNELS = 1024;

using ConvLanes = typename MakeLanes<W>::Type;

// Four numbers of each of W channels, or of the first `count`: as they lie in memory.
template <bool WHOLE>
VEC_FN void conv_step_load(const float* p, int count, vf* out) {
  MM_UNROLL for (int v = 0; v < 4; v++) {
    const int left = 4 * count - v * W;
    out[v] = WHOLE ? vload(p + v * W) : vload_part(p + v * W, left < 0 ? 0 : left < W ? left : W);
  }
}
template <bool WHOLE>
VEC_FN void conv_step_store(float* p, int count, const vf* x) {
  MM_UNROLL for (int v = 0; v < 4; v++) {
    const int left = 4 * count - v * W;
    if (WHOLE) vstore(p + v * W, x[v]);
    else vstore_part(p + v * W, x[v], left < 0 ? 0 : left < W ? left : W);
  }
}

// out[j] = the j-th number of each channel: every second lane, twice.
template <int... L>
VEC_FN void conv_step_turn(const vf* x, vf* out, Lanes<L...>) {
  const vf even[2] = {__builtin_shufflevector(x[0], x[1], (2 * L)...), __builtin_shufflevector(x[2], x[3], (2 * L)...)};
  const vf odd[2] = {__builtin_shufflevector(x[0], x[1], (2 * L + 1)...), __builtin_shufflevector(x[2], x[3], (2 * L + 1)...)};
  out[0] = __builtin_shufflevector(even[0], even[1], (2 * L)...);
  out[1] = __builtin_shufflevector(odd[0], odd[1], (2 * L)...);
  out[2] = __builtin_shufflevector(even[0], even[1], (2 * L + 1)...);
  out[3] = __builtin_shufflevector(odd[0], odd[1], (2 * L + 1)...);
}

// Vector V of a window without the oldest input of each channel, and with the newest.
template <int V, int... L>
VEC_FN vf conv_step_move(const vf* window, vf newest, Lanes<L...>) {
  return __builtin_shufflevector(window[V], newest, (L % 4 < 3 ? L + 1 : W + V * (W / 4) + L / 4)...);
}

struct ConvStep {
  const float *x, *weight, *bias, *window;  // of the first channel; bias and window may be null
  float *y, *window_out;                    // window_out may be null
  bool silu;
};

// Channels c .. c + count; WHOLE: count is W.
template <bool WHOLE>
VEC_FN void conv_step_block(const ConvStep& s, int64_t c, int count) {
  vf taps[4], window[4] = {vzero(), vzero(), vzero(), vzero()}, lying[4];
  conv_step_load<WHOLE>(s.weight + 4 * c, count, lying);
  conv_step_turn(lying, taps, ConvLanes());
  if (s.window) conv_step_load<WHOLE>(s.window + 4 * c, count, window);
  conv_step_turn(window, lying, ConvLanes());
  const vf x = WHOLE ? vload(s.x + c) : vload_part(s.x + c, count);
  vf sum = s.bias ? (WHOLE ? vload(s.bias + c) : vload_part(s.bias + c, count)) : vzero();
  MM_UNROLL for (int j = 0; j < 4; j++) sum = sum + taps[j] * (j < 3 ? lying[j + 1] : x);
  const vf y = s.silu ? vsilu(sum) : sum;
  if (WHOLE) vstore(s.y + c, y);
  else vstore_part(s.y + c, y, count);
  if (!s.window_out) return;
  const vf after[4] = {conv_step_move<0>(window, x, ConvLanes()), conv_step_move<1>(window, x, ConvLanes()),
                       conv_step_move<2>(window, x, ConvLanes()), conv_step_move<3>(window, x, ConvLanes())};
  conv_step_store<WHOLE>(s.window_out + 4 * c, count, after);
}

// Does the call where it can: one token that is there, four taps. Documents do not matter, the window is of the token's.
static bool conv_step(const Args& args, const Ctx& ctx) {
  const float *x = args.f(0), *weight = args.f(1), *bias = args.f(2), *window = args.f(3);
  float *y = args.f(6), *window_out = args.f(7);
  const int64_t b = args.n(8), e = args.n(10), silu = args.n(12);
  if (args.n(9) != 1 || args.n(11) != CONV_STEP_TAPS || args.ids(5)) return false;
  const bool cut = (args.n(13) > 0 && args.n(13) < e) || (args.n(14) > 0 && args.n(14) < e);
  if (cut && b > 1) return false;  // the parts of y are not rows then
  const int64_t blocks = (e + W - 1) / W, parts = (e + CONV_STEP_CHANNELS - 1) / CONV_STEP_CHANNELS;
  ctx.parallel(b * parts, [=](int64_t task, char*) {
    const int64_t row = task / parts, part = task % parts;
    const ConvStep s = {x + row * e,
                        weight,
                        bias,
                        window ? window + row * e * CONV_STEP_TAPS : nullptr,
                        y + row * e,
                        window_out ? window_out + row * e * CONV_STEP_TAPS : nullptr,
                        silu != 0};
    const int64_t end = blocks * (part + 1) / parts;
    for (int64_t block = blocks * part / parts; block < end; block++) {
      const int64_t c = block * W, count = e - c < W ? e - c : W;
      if (count == W) conv_step_block<true>(s, c, W);
      else conv_step_block<false>(s, c, (int)count);
    }
  });
  return true;
}
