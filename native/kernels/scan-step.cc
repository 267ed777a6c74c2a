// One token of the selective scan, for decoding; part of scan.cc. The states of a channel lie side by side in memory and stay so:
// a vector is W states of one channel. Blocks of W channels are turned over only to read them out, so that the sums have the
// order, and the results the bits, of the scan over many tokens. Reads every state before it writes it: stateOut may be state.

// Channels that are one task, whatever the width of a vector.
constexpr int64_t SCAN_STEP_CHANNELS = 64;

struct ScanStep {
  const float *A, *B, *C, *before;  // A, before: from the first channel of the block on, n apart; before may be null
  float* after;
  int64_t n;
};

// h = 2^(dt A2) h + dtu B for the channels of a block; returns read + C . h. WHOLE: count is W.
template <bool SMALL, bool WHOLE>
static __attribute__((noinline)) vf scan_step_block(const ScanStep& s, const float* dt, const float* dtu, vf read, int count) {
  for (int64_t first = 0; first < s.n; first += 16) {  // the blocks of scan_blocks
    vf odd = vzero();
    for (int64_t i = first; i < first + 16; i += W) {
      vf rows[W];
      const vf b = vload(s.B + i);
#pragma GCC unroll 16
      for (int c = 0; c < W; c++) {
        if (!WHOLE && c >= count) {
          rows[c] = vzero();
          continue;
        }
        const int64_t at = c * s.n + i;
        const vf a = scan_decay<SMALL>(vset1(dt[c]), vload(s.A + at) * SCAN_LOG2E);
        const vf x = s.before ? vload(s.before + at) : vzero();
        rows[c] = a * x + vrounded(vset1(dtu[c]) * b);
        vstore(s.after + at, rows[c]);
      }
      transpose_block(rows);
#pragma GCC unroll 16
      for (int j = 0; j < W; j++) (j & 1 ? odd : read) += rows[j] * vset1(s.C[i + j]);
    }
    read = read + odd;
  }
  return read;
}

// Whether all |dt a2| of the block are within SCAN_SMALL, decided as in the scan over many tokens.
VEC_FN bool scan_step_small(const ScanStep& s, const float* dt, int count) {
#if defined(__AVX512F__)
  return false;  // there both versions give the same bits for all that is regular, and this is the one that needs no questions
#endif
  vi odd = vi{};
  for (int c = 0; c < count; c++) {
    const vf step = vset1(dt[c]);
    for (int64_t i = 0; i < s.n; i += W) {
      const vf a = vabs(vload(s.A + c * s.n + i) * SCAN_LOG2E);
      odd |= ~(a <= 3e38f) | ~(vabs(step) * a <= SCAN_SMALL);
    }
  }
  return !vany(odd);
}

// Does the call where it can: whole blocks of 16 states, B and C per token with all channels of a vector in one group, no
// checkpoints, no missing tokens.
static bool scan_step(const Args& args, const Ctx& ctx) {
  const float *u = args.f(0), *delta = args.f(1), *A = args.f(2), *B = args.f(3), *C = args.f(4), *D = args.f(5);
  const float *z = args.f(6), *delta_bias = args.f(7), *state = args.f(8);
  float *y = args.f(11), *state_out = args.f(12);
  const int64_t b = args.n(14), e = args.n(16), n = args.n(17);
  const int64_t b_groups = args.n(18), c_groups = args.n(19), softplus = args.n(20);
  const auto whole = [=](int64_t groups) { return groups == 1 || (groups > 1 && e / groups % W == 0); };
  if (n % 16 || !whole(b_groups) || !whole(c_groups) || args.ids(10) || args.f(13)) return false;

  const int64_t parts = (e + SCAN_STEP_CHANNELS - 1) / SCAN_STEP_CHANNELS;
  ctx.parallel(b * parts, [=](int64_t task, char*) {
    const int64_t row = task / parts, from = task % parts * SCAN_STEP_CHANNELS;
    const int64_t to = from + SCAN_STEP_CHANNELS < e ? from + SCAN_STEP_CHANNELS : e;
    // Numbers for all lanes are read from memory at no cost; and exponentials of several blocks overlap.
    alignas(64) float dt[SCAN_STEP_CHANNELS], dtu[SCAN_STEP_CHANNELS], read[SCAN_STEP_CHANNELS], gate[SCAN_STEP_CHANNELS];
    for (int64_t c0 = from; c0 < to; c0 += W) {
      const int count = e - c0 < W ? (int)(e - c0) : W;
      const int64_t at = row * e + c0, i = c0 - from;
      const vf shift = delta_bias ? vload_some(delta_bias + c0, count) : vzero();
      const vf raw = vload_some(delta + at, count) + shift, in = vload_some(u + at, count);
      const vf step = softplus ? vsoftplus(raw) : raw;
      vstore(dt + i, step), vstore(dtu + i, step * in);
      vstore(read + i, D ? in * vload_some(D + c0, count) : vzero());
      if (z) vstore(gate + i, vsilu(vload_some(z + at, count)));
    }
    for (int64_t c0 = from; c0 < to; c0 += W) {
      const int count = e - c0 < W ? (int)(e - c0) : W;
      const int64_t at = row * e + c0, i = c0 - from;
      const ScanStep s = {A + c0 * n, B + (row * b_groups + c0 / (e / b_groups)) * n,
                          C + (row * c_groups + c0 / (e / c_groups)) * n, state ? state + at * n : nullptr,
                          state_out + at * n, n};
      const auto block = [&](auto run) { return run(s, dt + i, dtu + i, vload(read + i), count); };
      vf out;
      if (scan_step_small(s, dt + i, count)) {
        out = count == W ? block(scan_step_block<true, true>) : block(scan_step_block<true, false>);
      } else {
        out = count == W ? block(scan_step_block<false, true>) : block(scan_step_block<false, false>);
      }
      vstore_some(y + at, z ? out * vload(gate + i) : out, count);
    }
  });
  return true;
}
