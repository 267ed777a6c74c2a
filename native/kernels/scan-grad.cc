// The backward pass of the selective scan; part of scan.cc.
//
// A task is one row and one of SCAN_PARTS fixed parts of its channels. It walks through the chunks from the last to the
// first; per chunk and block of W channels it computes the states again from the checkpoint, keeps states and decays of the
// chunk in scratch, and sweeps back. dB and dC need sums over channels: token by token the lanes are summed across in registers,
// because W sums for every number would not fit the first cache beside the states. Every sum has a fixed order, whatever the
// threads do.
//
// `partial` is, per row, dA (e, n), dD (e), ddeltaBias (e), constant dB (e, n), constant dC (e, n); then, per part,
// token-wise dB (b, l, g, n) and dC (b, l, g, n).

// What a block of W channels carries from chunk to chunk: 5n + 2 vectors.
struct ScanCarry {
  vf *dh, *dA, *dB, *dC;  // n each: the gradient that enters the state from the right, and sums over tokens
  vf* a2;                 // n
  vf *dD, *dbias;
};

struct ScanBackward {
  vf *h, *decay;                        // states after each step (the one before the first in front); decays
  vf *dt, *dtu, *q;                     // q = dy silu(z)
  vf *read, *written, *pulled;          // C . h ; B . g ; sum over n of g a h[t-1] A2
  vf *before, *spaceB, *spaceC;
  float *sumB, *sumC;                   // token-wise gradients of B and C from this chunk on, of this part of the channels
  ScanCarry carry;
  ScanAhead ahead = ScanAhead(0);
  const ScanSource *B, *C;
  const uint8_t* restart;
  int64_t t, steps, c0, n;
  int count;
  bool lanes, small;

  template <int N>
  void run(int64_t i) const;
};

// N states of one block and chunk, forward from `before`: keeps every state and every decay.
template <int N, bool LANES, bool SMALL>
static __attribute__((noinline)) void scan_again(const ScanBackward& s, int64_t first, ScanInput B, ScanInput C,
                                                 const ScanAhead& ahead) {
  const vf* a2 = s.carry.a2 + first;
  vf x[N];
  for (int i = 0; i < N; i++) s.h[i] = x[i] = s.before[first + i];
  for (int64_t t = 0; t < s.steps; t++) {
    ahead.ask(t);
    const float *bt = B.at + t * B.step, *ct = C.at + t * C.step;
    const bool restart = s.restart && s.restart[t];
    const vf dt = s.dt[t], dtu = s.dtu[t];
    vf *h = s.h + (t + 1) * N, *decay = s.decay + t * N;
    vf even = s.read[t], odd = vzero();
    if (restart) {
      for (int i = 0; i < N; i++) x[i] = vzero();
    }
#pragma GCC unroll 16
    for (int i = 0; i < N; i++) {
      const vf a = scan_decay<SMALL>(dt, a2[i]);
      decay[i] = a;
      h[i] = x[i] = a * x[i] + vrounded(dtu * scan_input<LANES>(bt, i));
      (i & 1 ? odd : even) += x[i] * scan_input<LANES>(ct, i);
    }
    s.read[t] = even + odd;
  }
}

// Adds N states of one token to the gradient of B or C, where `out` is the first group of this token: over all channels of the
// block, or, where they belong to several groups, channel by channel. Without tokens a channel keeps its own sum.
template <int N, bool LANES>
VEC_FN void scan_add(const ScanBackward& s, const ScanSource& source, float* out, vf* constant, int64_t first, const vf* x) {
  if (LANES && source.groups == 0) {
    for (int i = 0; i < N; i++) constant[first + i] += x[i];
  } else if (LANES) {
    for (int j = 0; j < s.count; j++) {
      float* to = out + source.group(s.c0 + j) * s.n + first;
      for (int i = 0; i < N; i++) to[i] += x[i][j];
    }
  } else {
    int i = 0;
    for (; i + 4 <= N; i += 4) {
      vec4_unaligned* const to = (vec4_unaligned*)(out + first + i);
      *to = *to + hsum4(fold(x[i]), fold(x[i + 1]), fold(x[i + 2]), fold(x[i + 3]));
    }
    for (; i < N; i++) out[first + i] += hsum(x[i]);
  }
}

// States first .. first + N back through the chunk.
template <int N, bool LANES>
static __attribute__((noinline)) void scan_back(const ScanBackward& s, int64_t first, ScanInput B, ScanInput C) {
  const vf* a2 = s.carry.a2 + first;
  // Channels of one group add to its numbers, wherever the group is.
  const int64_t tokenB = s.B->groups * s.n, tokenC = s.C->groups * s.n;
  float* const sumB = s.sumB + (LANES ? 0 : s.B->group(s.c0) * s.n);
  float* const sumC = s.sumC + (LANES ? 0 : s.C->group(s.c0) * s.n);
  vf dA[N], x[N];
  for (int i = 0; i < N; i++) dA[i] = vzero(), x[i] = s.carry.dh[first + i];
  for (int64_t t = s.steps - 1; t >= 0; t--) {
    const float *bt = B.at + t * B.step, *ct = C.at + t * C.step;
    const vf *after = s.h + (t + 1) * N, *before = s.h + t * N, *a = s.decay + t * N;
    const vf dt = s.dt[t], dtu = s.dtu[t], q = s.q[t];
    vf dB[N], dC[N], written = s.written[t], pulled = s.pulled[t];
    if (s.restart && s.restart[t]) {  // nothing comes from, and nothing goes to, the state before
      for (int i = 0; i < N; i++) {
        const vf g = q * scan_input<LANES>(ct, i) + x[i];
        dC[i] = q * after[i];
        dB[i] = g * dtu;
        written += g * scan_input<LANES>(bt, i);
        x[i] = vzero();
      }
    } else {
#pragma GCC unroll 16
      for (int i = 0; i < N; i++) {
        const vf g = q * scan_input<LANES>(ct, i) + x[i];
        dC[i] = q * after[i];
        dB[i] = g * dtu;
        written += g * scan_input<LANES>(bt, i);
        x[i] = g * a[i];
        const vf pull = x[i] * before[i];
        pulled += pull * a2[i];
        dA[i] += pull * dt;
      }
    }
    s.written[t] = written, s.pulled[t] = pulled;
    scan_add<N, LANES>(s, *s.B, sumB + t * tokenB, s.carry.dB, first, dB);
    scan_add<N, LANES>(s, *s.C, sumC + t * tokenC, s.carry.dC, first, dC);
  }
  for (int i = 0; i < N; i++) s.carry.dh[first + i] = x[i], s.carry.dA[first + i] += dA[i];
}

// How many states go through a chunk at once: on the way back two vectors of each stay in registers.
#if defined(__AVX512F__)
constexpr int SCAN_BACK = 8;
#else
constexpr int SCAN_BACK = 4;
#endif

template <int N>
void ScanBackward::run(int64_t i) const {
  const ScanInput b = B->read(t, steps, c0, count, i, N, lanes, spaceB);
  const ScanInput c = C->read(t, steps, c0, count, i, N, lanes, spaceC);
  const auto again = [&](auto kernel) { kernel(*this, i, b, c, i == 0 ? ahead : ScanAhead(0)); };
  if (lanes) {
    small ? again(scan_again<N, true, true>) : again(scan_again<N, true, false>);
    scan_back<N, true>(*this, i, b, c);
  } else {
    small ? again(scan_again<N, false, true>) : again(scan_again<N, false, false>);
    scan_back<N, false>(*this, i, b, c);
  }
}

// out[i] = sum over j < terms of parts[j * stride + i], in this order.
VEC_FN void scan_reduce(const Ctx& ctx, float* out, const float* parts, int64_t stride, int64_t terms, int64_t count) {
  constexpr int64_t STRIP = 4096;
  ctx.parallel((count + STRIP - 1) / STRIP, [=](int64_t task, char*) {
    const int64_t end = (task + 1) * STRIP < count ? (task + 1) * STRIP : count;
    for (int64_t i = task * STRIP; i < end; i += W) {
      const int lanes = end - i < W ? (int)(end - i) : W;
      vf sum = vzero();
      for (int64_t j = 0; j < terms; j++) sum += vload_some(parts + j * stride + i, lanes);
      vstore_some(out + i, sum, lanes);
    }
  });
}

static void scan_backward(const Args& args, const Ctx& ctx) {
  const float *u = args.f(0), *delta = args.f(1), *A = args.f(2), *B = args.f(3), *C = args.f(4), *D = args.f(5);
  const float *z = args.f(6), *delta_bias = args.f(7);
  const int32_t *ids = args.ids(8), *lengths = args.ids(9);
  const float *checkpoints = args.f(10), *dy = args.f(11), *dstate_out = args.f(12);
  float *du = args.f(13), *ddelta = args.f(14), *dA = args.f(15), *dB = args.f(16), *dC = args.f(17), *dD = args.f(18);
  float *dz = args.f(19), *ddelta_bias = args.f(20), *dstate = args.f(21), *partial = args.f(22);
  const int64_t b = args.n(23), l = args.n(24), e = args.n(25), n = args.n(26);
  const int64_t b_groups = args.n(27), c_groups = args.n(28), softplus = args.n(29);
  const int64_t blocks = (e + W - 1) / W, chunks = (l + SCAN_CHUNK - 1) / SCAN_CHUNK;

  const int64_t const_b = b_groups ? 0 : e * n, const_c = c_groups ? 0 : e * n;
  const int64_t row_size = e * (n + 2) + const_b + const_c;
  const int64_t size_b = b * l * b_groups * n, size_c = b * l * c_groups * n;
  float* tokens = partial + b * row_size;

  ctx.parallel(b * SCAN_PARTS, [=](int64_t task, char* scratch) {
    const int64_t row = task / SCAN_PARTS, part = task % SCAN_PARTS;
    const int64_t length = lengths ? lengths[row] : l;
    const ScanSource sourceB = {b_groups ? B + row * l * b_groups * n : B, b_groups, e, n};
    const ScanSource sourceC = {c_groups ? C + row * l * c_groups * n : C, c_groups, e, n};
    float* own = partial + row * row_size;
    float* ownB = tokens + part * (size_b + size_c) + row * l * b_groups * n;
    float* ownC = tokens + part * (size_b + size_c) + size_b + row * l * c_groups * n;
    memset(ownB, 0, (size_t)(l * b_groups * n) * sizeof(float));
    memset(ownC, 0, (size_t)(l * c_groups * n) * sizeof(float));

    uint8_t restart[SCAN_CHUNK];
    vf *space = (vf*)scratch, *const space_end = space + SCRATCH_BYTES / sizeof(vf);
    const auto take = [&](int64_t size) {
      vf* at = space;
      space += size;
      return at;
    };
    ScanBackward run;
    run.h = take((SCAN_CHUNK + 1) * SCAN_BACK), run.decay = take(SCAN_CHUNK * SCAN_BACK);
    run.dt = take(SCAN_CHUNK), run.dtu = take(SCAN_CHUNK), run.q = take(SCAN_CHUNK);
    run.read = take(SCAN_CHUNK), run.written = take(SCAN_CHUNK), run.pulled = take(SCAN_CHUNK);
    run.before = take(n), run.spaceB = take(SCAN_CHUNK * SCAN_BACK), run.spaceC = take(SCAN_CHUNK * SCAN_BACK);
    run.B = &sourceB, run.C = &sourceC, run.n = n;
    vf *in = take(SCAN_CHUNK), *slope = take(SCAN_CHUNK), *opened = take(SCAN_CHUNK);  // u, softplus'(raw), dy silu'(z)

    // As many blocks at a time as there is room for what they carry.
    const int64_t carry_size = 5 * n + 2, room = (space_end - space) / carry_size;
    const int64_t part_end = (part + 1) * blocks / SCAN_PARTS;
    for (int64_t from = part * blocks / SCAN_PARTS; from < part_end; from += room) {
      const int64_t to = from + room < part_end ? from + room : part_end;
      const auto carry_of = [&](int64_t block) -> ScanCarry {
        vf* at = space + (block - from) * carry_size;
        return {at, at + n, at + 2 * n, at + 3 * n, at + 4 * n, at + 5 * n, at + 5 * n + 1};
      };
      for (int64_t block = from; block < to; block++) {
        const int64_t c0 = block * W;
        const int count = e - c0 < W ? (int)(e - c0) : W;
        const ScanCarry carry = carry_of(block);
        for (int64_t i = 0; i < carry_size; i++) carry.dh[i] = vzero();
        scan_read_states(carry.dh, dstate_out ? dstate_out + (row * e + c0) * n : nullptr, n, count);
        scan_read_states(carry.a2, A + c0 * n, n, count, SCAN_LOG2E);
        for (int64_t t = length; t < l; t++) {
          const int64_t at = (row * l + t) * e + c0;
          vstore_some(du + at, vzero(), count);
          vstore_some(ddelta + at, vzero(), count);
          if (dz) vstore_some(dz + at, vzero(), count);
        }
      }

      for (int64_t chunk = (length + SCAN_CHUNK - 1) / SCAN_CHUNK - 1; chunk >= 0; chunk--) {
        const int64_t start = chunk * SCAN_CHUNK;
        run.t = start, run.steps = length - start < SCAN_CHUNK ? length - start : SCAN_CHUNK;
        run.restart = scan_restarts(restart, ids ? ids + row * l : nullptr, start, run.steps);
        run.sumB = ownB + start * b_groups * n, run.sumC = ownC + start * c_groups * n;
        for (int64_t block = from; block < to; block++) {
          const int64_t c0 = block * W, at = (row * l + start) * e + c0;
          const int count = e - c0 < W ? (int)(e - c0) : W;
          run.c0 = c0, run.count = count, run.carry = carry_of(block);
          run.lanes = !sourceB.shared(c0, count) || !sourceC.shared(c0, count);
          run.ahead = ScanAhead(e);
          const float* const rows[] = {delta, u, dy, z, ddelta, du, dz};
          for (const float* p : rows) run.ahead.add(p, at + W);  // the next block
          scan_read_states(run.before, checkpoints + ((row * chunks + chunk) * e + c0) * n, n, count);
          vf largest;
          const bool regular = scan_largest(run.carry.a2, n, &largest);
          const vf shift = delta_bias ? vload_some(delta_bias + c0, count) : vzero();
          const vf skip = D ? vload_some(D + c0, count) : vzero();

          vi large = vi{};
          for (int64_t s = 0; s < run.steps; s++) {
            const vf raw = vload_some(delta + at + s * e, count) + shift;
            const vf up = vload_some(dy + at + s * e, count);
            in[s] = vload_some(u + at + s * e, count);
            slope[s] = vset1(1.0f);
            const vf dt = softplus ? vsoftplus(raw, slope + s) : raw;
            large |= ~(vabs(dt) * largest <= SCAN_SMALL);
            run.dt[s] = dt;
            run.dtu[s] = dt * in[s];
            run.read[s] = D ? in[s] * skip : vzero();
            run.written[s] = run.pulled[s] = vzero();
            run.q[s] = up;
            if (z) {
              const vf v = vload_some(z + at + s * e, count), gate = vsigmoid(v);
              run.q[s] = up * (v * gate);
              opened[s] = up * (gate * (1.0f + v * (1.0f - gate)));
            }
          }
          run.small = regular && !vany(large);
          scan_blocks<SCAN_BACK>(n, run);

          vf sumD = vzero(), sum_bias = vzero();
          for (int64_t s = 0; s < run.steps; s++) {
            const int64_t to_write = at + s * e, ahead = to_write + SCAN_AHEAD * e;
            prefetch_write(du + ahead), prefetch_write(ddelta + ahead);
            if (dz) prefetch_write(dz + ahead);
            const vf q = run.q[s];
            const vf draw = (run.pulled[s] * SCAN_LN2 + run.written[s] * in[s]) * slope[s];
            sumD += q * in[s];
            sum_bias += draw;
            if (dz && z) vstore_some(dz + to_write, opened[s] * run.read[s], count);
            vstore_some(ddelta + to_write, draw, count);
            vstore_some(du + to_write, q * skip + run.dt[s] * run.written[s], count);
          }
          *run.carry.dD += sumD, *run.carry.dbias += sum_bias;
        }
      }

      for (int64_t block = from; block < to; block++) {
        const int64_t c0 = block * W;
        const int count = e - c0 < W ? (int)(e - c0) : W;
        const ScanCarry carry = carry_of(block);
        float* at = own;
        scan_write_states(at + c0 * n, carry.dA, n, count), at += e * n;
        vstore_some(at + c0, *carry.dD, count), at += e;
        vstore_some(at + c0, *carry.dbias, count), at += e;
        if (const_b) scan_write_states(at + c0 * n, carry.dB, n, count), at += const_b;
        if (const_c) scan_write_states(at + c0 * n, carry.dC, n, count);
        if (dstate) scan_write_states(dstate + (row * e + c0) * n, carry.dh, n, count);
      }
    }
  });

  const float* rows = partial;
  scan_reduce(ctx, dA, rows, row_size, b, e * n), rows += e * n;
  if (dD) scan_reduce(ctx, dD, rows, row_size, b, e);
  rows += e;
  if (ddelta_bias) scan_reduce(ctx, ddelta_bias, rows, row_size, b, e);
  rows += e;
  if (const_b) scan_reduce(ctx, dB, rows, row_size, b, const_b), rows += const_b;
  if (const_c) scan_reduce(ctx, dC, rows, row_size, b, const_c);
  if (size_b) scan_reduce(ctx, dB, tokens, size_b + size_c, SCAN_PARTS, size_b);
  if (size_c) scan_reduce(ctx, dC, tokens + size_b, size_b + size_c, SCAN_PARTS, size_c);
}
