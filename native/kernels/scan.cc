// The selective scan, W channels of one row in the lanes; see src/backend/reference/scan.ts for the equations.
//
// Time runs in chunks of SCAN_CHUNK. Per chunk the step sizes are computed first (independent of each other), then the
// recurrence runs over blocks of up to 16 of the n states, which stay in registers for the whole chunk, then the skip
// connection and the gate. exp(dt A) is 2^(dt A2) with A2 = A log2(e), prepared once per channel.

constexpr float SCAN_LOG2E = 1.44269504f;
constexpr float SCAN_LN2 = 0.693147181f;
// Tokens before a line is written that it is asked for: rows of one column are far apart, and a missed line holds up all stores.
constexpr int64_t SCAN_AHEAD = 4;

// B or C as the recurrence reads it: state i of step t is at[t * step + i], one number for all channels, or, as
// `lanes`, vectors with one number per channel.
struct ScanInput {
  const float* at;
  int64_t step;
};

template <bool LANES>
VEC_FN vf scan_input(const float* at, int64_t i) {
  return LANES ? vload(at + i * W) : vset1(at[i]);
}

// The decay 2^(dt a2). SMALL: all |dt a2| of this chunk are within EXP2_SMALL, as computed from rounded factors.
constexpr float SCAN_SMALL = EXP2_SMALL * 0.96f;
template <bool SMALL>
VEC_FN vf scan_decay(vf dt, vf a2) {
  return SMALL ? vexp2_small(dt, a2) : vexp2(dt * a2);
}

// Calls body.template run<N>(first) for blocks of at most N states that cover n.
template <int MOST, class F>
VEC_FN void scan_blocks(int64_t n, const F& body) {
  int64_t i = 0;
  for (; i + MOST <= n; i += MOST) body.template run<MOST>(i);
  if constexpr (MOST > 8) {
    if (i + 8 <= n) body.template run<8>(i), i += 8;
  }
  for (; i + 2 <= n; i += 2) body.template run<2>(i);
  if (i < n) body.template run<1>(i);
}

// ---- layouts --------------------------------------------------------------------------------------------------------
// (channels, n) in memory <-> n vectors of channels. Lanes without a channel are zero.
VEC_FN void scan_read_states(vf* out, const float* p, int64_t n, int count, float scale = 1.0f) {
  if (!p || count < W) {
    for (int64_t i = 0; i < n; i++) out[i] = vzero();
  }
  if (p) transpose((float*)out, W, p, n, count, n, scale);
}

VEC_FN void scan_write_states(float* p, const vf* in, int64_t n, int count) {
  transpose(p, n, (const float*)in, W, n, count, 1.0f);
}

// One of B and C: where its numbers are, and how channels find them.
struct ScanSource {
  const float* p;        // (e, n), or (l, g, n) of this row
  int64_t groups, e, n;

  MAMBA_INLINE int64_t group(int64_t c) const { return c / (e / groups); }
  // Whether all channels of a block read the same numbers.
  MAMBA_INLINE bool shared(int64_t c0, int count) const { return groups > 0 && group(c0) == group(c0 + count - 1); }

  // States first .. first + size of `steps` tokens from t on, for channels c0 .. c0 + count. `lanes` asks for vectors, for which
  // `space` holds SCAN_CHUNK * size.
  MAMBA_INLINE ScanInput read(int64_t t, int64_t steps, int64_t c0, int count, int64_t first, int64_t size, bool lanes,
                              vf* space) const {
    if (!lanes) return {p + (t * groups + group(c0)) * n + first, groups * n};
    float* out = (float*)space;
    if (groups == 0) steps = 1;
    for (int64_t s = 0; s < steps; s++) {
      for (int i = 0; i < W; i++) {
        const int64_t c = c0 + (i < count ? i : count - 1);
        const float* from = p + (groups == 0 ? c * n : ((t + s) * groups + group(c)) * n) + first;
        for (int64_t j = 0; j < size; j++) out[(s * size + j) * W + i] = from[j];
      }
    }
    return {out, groups == 0 ? 0 : size * W};
  }
};

// restart[s] = 1 where token t + s begins another document than the token before it.
VEC_FN const uint8_t* scan_restarts(uint8_t* restart, const int32_t* ids, int64_t t, int64_t steps) {
  if (!ids) return nullptr;
  bool any = false;
  for (int64_t s = 0; s < steps; s++) {
    restart[s] = t + s > 0 && ids[t + s] != ids[t + s - 1];
    any |= restart[s] != 0;
  }
  return any ? restart : nullptr;
}

// Largest |a2| of every lane; false when one is NaN or infinite.
VEC_FN bool scan_largest(const vf* a2, int64_t n, vf* largest) {
  vi odd = vi{};
  vf most = vzero();
  for (int64_t i = 0; i < n; i++) {
    const vf a = vabs(a2[i]);
    odd |= ~(a <= 3e38f);
    most = vmax(most, a);
  }
  *largest = most;
  return !vany(odd);
}

// The rows that are needed next, asked for one token at a time while the recurrence runs: they are too far apart for the hardware
// to guess, and all at once they would fill its queue of missing lines, with nothing else to do meanwhile.
struct ScanAhead {
  const float* rows[7];
  int64_t step;
  int count = 0;

  explicit ScanAhead(int64_t channels) : step(channels) {}
  MAMBA_INLINE void add(const float* p, int64_t at) {
    if (p) rows[count++] = p + at;
  }
  MAMBA_INLINE void ask(int64_t t) const {
    for (int i = 0; i < count; i++) prefetch_read_far(rows[i] + t * step);
  }
};

// ---- forward --------------------------------------------------------------------------------------------------------
// Advances N states of W channels over `steps` tokens: h = 2^(dt a2) h + dtu B, read += C . h.
template <int N, bool LANES, bool SMALL>
static __attribute__((noinline)) void scan_run(vf* h, const vf* a2, const vf* dt, const vf* dtu, vf* read, ScanInput B, ScanInput C,
                     const uint8_t* restart, const ScanAhead& ahead, int64_t steps) {
  vf state[N];
  for (int i = 0; i < N; i++) state[i] = h[i];
  const float *bt = B.at, *ct = C.at;
  for (int64_t t = 0; t < steps; t++, bt += B.step, ct += C.step) {
    if (restart && restart[t]) {
      for (int i = 0; i < N; i++) state[i] = vzero();
    }
    ahead.ask(t);
    const vf step = dt[t], input = dtu[t];
    vf even = read[t], odd = vzero();
#pragma GCC unroll 16
    for (int i = 0; i < N; i++) {
      state[i] = scan_decay<SMALL>(step, a2[i]) * state[i] + vrounded(input * scan_input<LANES>(bt, i));
      (i & 1 ? odd : even) += state[i] * scan_input<LANES>(ct, i);
    }
    read[t] = even + odd;
  }
  for (int i = 0; i < N; i++) h[i] = state[i];
}

struct ScanForward {
  vf *h, *a2, *dt, *dtu, *read, *spaceB, *spaceC;
  const ScanSource *B, *C;
  const uint8_t* restart;
  int64_t t, steps, c0;
  int count;
  bool lanes, small;
  ScanAhead ahead = ScanAhead(0);

  template <int N>
  void run(int64_t i) const {
    const ScanInput b = B->read(t, steps, c0, count, i, N, lanes, spaceB);
    const ScanInput c = C->read(t, steps, c0, count, i, N, lanes, spaceC);
    const auto call = [&](auto kernel) { kernel(h + i, a2 + i, dt, dtu, read, b, c, restart, i == 0 ? ahead : ScanAhead(0), steps); };
    if (lanes) {
      small ? call(scan_run<N, true, true>) : call(scan_run<N, true, false>);
    } else {
      small ? call(scan_run<N, false, true>) : call(scan_run<N, false, false>);
    }
  }
};

#include "scan-step.cc"

static void scan_forward(const Args& args, const Ctx& ctx) {
  const float *u = args.f(0), *delta = args.f(1), *A = args.f(2), *B = args.f(3), *C = args.f(4), *D = args.f(5);
  const float *z = args.f(6), *delta_bias = args.f(7), *state = args.f(8);
  const int32_t *ids = args.ids(9), *lengths = args.ids(10);
  float *y = args.f(11), *state_out = args.f(12), *checkpoints = args.f(13);
  const int64_t b = args.n(14), l = args.n(15), e = args.n(16), n = args.n(17);
  const int64_t b_groups = args.n(18), c_groups = args.n(19), softplus = args.n(20);
  const int64_t blocks = (e + W - 1) / W, chunks = (l + SCAN_CHUNK - 1) / SCAN_CHUNK;
  if (l == 1 && scan_step(args, ctx)) return;

  ctx.parallel(b * blocks, [=](int64_t task, char* scratch) {
    const int64_t row = task / blocks, c0 = task % blocks * W;
    const int count = e - c0 < W ? (int)(e - c0) : W;
    const int64_t length = lengths ? lengths[row] : l;
    const ScanSource sourceB = {b_groups ? B + row * l * b_groups * n : B, b_groups, e, n};
    const ScanSource sourceC = {c_groups ? C + row * l * c_groups * n : C, c_groups, e, n};
    uint8_t restart[SCAN_CHUNK];
    vf* space = (vf*)scratch;
    ScanForward run;
    run.h = space, space += n;
    run.a2 = space, space += n;
    run.dt = space, space += SCAN_CHUNK;
    run.dtu = space, space += SCAN_CHUNK;
    run.read = space, space += SCAN_CHUNK;
    run.spaceB = space, space += SCAN_CHUNK * 16;
    run.spaceC = space;
    run.B = &sourceB, run.C = &sourceC, run.c0 = c0, run.count = count;
    run.lanes = !sourceB.shared(c0, count) || !sourceC.shared(c0, count);

    scan_read_states(run.h, state ? state + (row * e + c0) * n : nullptr, n, count);
    scan_read_states(run.a2, A + c0 * n, n, count, SCAN_LOG2E);
    vf largest;
    const bool regular = scan_largest(run.a2, n, &largest);
    const vf shift = delta_bias ? vload_some(delta_bias + c0, count) : vzero();
    const vf skip = D ? vload_some(D + c0, count) : vzero();

    for (int64_t chunk = 0; chunk < chunks; chunk++) {
      if (checkpoints) scan_write_states(checkpoints + ((row * chunks + chunk) * e + c0) * n, run.h, n, count);
      const int64_t start = chunk * SCAN_CHUNK, end = start + SCAN_CHUNK < l ? start + SCAN_CHUNK : l;
      const int64_t stop = length < end ? length : end;
      const int64_t at = (row * l + start) * e + c0;
      run.t = start, run.steps = stop > start ? stop - start : 0;

      vi large = vi{};
      for (int64_t s = 0; s < run.steps; s++) {
        const vf raw = vload_some(delta + at + s * e, count) + shift;
        const vf dt = softplus ? vsoftplus(raw) : raw;
        const vf in = vload_some(u + at + s * e, count);
        large |= ~(vabs(dt) * largest <= SCAN_SMALL);
        run.dt[s] = dt;
        run.dtu[s] = dt * in;
        run.read[s] = D ? in * skip : vzero();
      }
      run.small = regular && !vany(large);
      run.restart = scan_restarts(restart, ids ? ids + row * l : nullptr, start, run.steps);
      run.ahead = ScanAhead(e);
      const float* const rows[] = {u, delta, z, y};
      for (const float* p : rows) run.ahead.add(p, at + SCAN_CHUNK * e);
      if (run.steps > 0) scan_blocks<16>(n, run);

      for (int64_t s = 0; s < run.steps; s++) {
        vf out = run.read[s];
        if (z) out = out * vsilu(vload_some(z + at + s * e, count));
        vstore_some(y + at + s * e, out, count);
      }
      for (int64_t s = run.steps; s < end - start; s++) vstore_some(y + at + s * e, vzero(), count);
    }
    scan_write_states(state_out + (row * e + c0) * n, run.h, n, count);
  });
}

#include "scan-grad.cc"

static const Entry scan_entries[] = {{"selectiveScan", 21, scan_forward}, {"selectiveScanGrad", 30, scan_backward}};
