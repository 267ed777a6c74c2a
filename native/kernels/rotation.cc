// The angles of Mamba-3 and turning by them; see src/backend/reference/rotation.ts for the equations.
//
// Angles are carried in float64, half a vector at a time: in float32, steps of 1e-3 near 2 pi would lose four of their digits
// in every token. A task takes ANGLE_HEADS heads, which share one tanh.

constexpr double ROT_PI = 3.141592653589793, ROT_TURN = 2 * ROT_PI;

typedef double rot_vd __attribute__((vector_size(W * 4)));  // H lanes
typedef float rot_vh __attribute__((vector_size(W * 2)));
typedef float rot_vh_unaligned __attribute__((vector_size(W * 2), aligned(4), may_alias));
constexpr int ROT_H = W / 2;

// The first `count` of H floats; zeros behind them, and nothing is read or written there. count may be anything.
VEC_FN rot_vd rot_load(const float* p, int64_t count) {
  if (count >= ROT_H) return __builtin_convertvector(*(const rot_vh_unaligned*)p, rot_vd);
  rot_vd x = rot_vd{};
  for (int i = 0; i < count; i++) x[i] = p[i];
  return x;
}
VEC_FN void rot_store(float* p, rot_vd x, int64_t count) {
  const rot_vh y = __builtin_convertvector(x, rot_vh);
  if (count >= ROT_H) {
    *(rot_vh_unaligned*)p = y;
  } else {
    for (int i = 0; i < count; i++) p[i] = y[i];
  }
}
VEC_FN double rot_sum(rot_vd x) {
  double sum = 0;
  for (int i = 0; i < ROT_H; i++) sum += x[i];
  return sum;
}

// x modulo 2 pi in [0, 2 pi]: the nearest multiple is taken off, and negative rests are turned once more.
VEC_FN rot_vd rot_wrap(rot_vd x) {
  constexpr double round = 6755399441055744.0;  // 1.5 * 2^52
  const rot_vd k = (x * (1 / ROT_TURN) + round) - round;
  const rot_vd rest = x - k * ROT_TURN;
  return rest < 0.0 ? rest + ROT_TURN : rest;
}

// Angles just below a whole turn round up to it, which is 0.
VEC_FN void rot_store_angle(float* p, rot_vd x, int64_t count) {
  const rot_vd stored = __builtin_convertvector(__builtin_convertvector(x, rot_vh), rot_vd);
  rot_store(p, stored >= ROT_TURN ? stored - stored : stored, count);
}

// What angleScan and its gradient know of one row, a block of heads and W pairs.
struct RotBlock {
  int64_t row, length, head0, heads, pair0, pairs;
};

// body(block) for all of them, in any order.
template <class F>
static void rot_blocks(const Ctx& ctx, int64_t b, int64_t l, int64_t h, int64_t s, const int32_t* lengths, const F& body) {
  const int64_t head_blocks = (h + ANGLE_HEADS - 1) / ANGLE_HEADS, pair_blocks = (s + W - 1) / W;
  ctx.parallel(b * head_blocks * pair_blocks, [=](int64_t task, char*) {
    const int64_t row = task / (head_blocks * pair_blocks);
    const int64_t head0 = task / pair_blocks % head_blocks * ANGLE_HEADS, pair0 = task % pair_blocks * W;
    body(RotBlock{row, lengths ? lengths[row] : l, head0, h - head0 < ANGLE_HEADS ? h - head0 : ANGLE_HEADS, pair0,
                  s - pair0 < W ? s - pair0 : W});
  });
}

static void angleScan_kernel(const Args& args, const Ctx& ctx) {
  const float *angle = args.f(0), *dt = args.f(1), *state = args.f(2);
  const int32_t *ids = args.ids(3), *lengths = args.ids(4);
  float *theta = args.f(5), *state_out = args.f(6);
  const int64_t b = args.n(7), l = args.n(8), h = args.n(9), s = args.n(10);

  rot_blocks(ctx, b, l, h, s, lengths, [=](const RotBlock& o) {
    rot_vd carried[ANGLE_HEADS][2];
    const int64_t first = (o.row * h + o.head0) * s + o.pair0;  // in the states
    for (int64_t i = 0; i < o.heads; i++)
      for (int half = 0; half < 2; half++)
        carried[i][half] = state ? rot_load(state + first + i * s + half * ROT_H, o.pairs - half * ROT_H) : rot_vd{};
    for (int64_t t = 0; t < l; t++) {
      const int64_t token = o.row * l + t;
      float* out = theta + (token * h + o.head0) * s + o.pair0;
      if (t >= o.length) {
        for (int64_t i = 0; i < o.heads; i++) vstore_some(out + i * s, vzero(), (int)o.pairs);
        continue;
      }
      const bool fresh = ids && t > 0 && ids[token] != ids[token - 1];
      float bent[W];
      vstore(bent, vtanh(vload_some(angle + token * s + o.pair0, (int)o.pairs)));
      for (int64_t i = 0; i < o.heads; i++) {
        const double step = ROT_PI * dt[token * h + o.head0 + i];
        for (int half = 0; half < 2; half++) {
          const rot_vd before = fresh ? rot_vd{} : carried[i][half];
          carried[i][half] = rot_wrap(before + rot_load(bent + half * ROT_H, ROT_H) * step);
          rot_store_angle(out + i * s + half * ROT_H, carried[i][half], o.pairs - half * ROT_H);
        }
      }
    }
    for (int64_t i = 0; i < o.heads; i++)
      for (int half = 0; half < 2; half++)
        rot_store_angle(state_out + first + i * s + half * ROT_H, carried[i][half], o.pairs - half * ROT_H);
  });
}

// partial is (head blocks, b, l, s): the sums of g dt over one block of heads. A task takes all pairs of these heads, since
// ddt is a sum over pairs.
static void angleScan_grad(const Args& args, const Ctx& ctx) {
  const float *angle = args.f(0), *dt = args.f(1);
  const int32_t *ids = args.ids(2), *lengths = args.ids(3);
  const float *dtheta = args.f(4), *dstate_out = args.f(5);
  float *dangle = args.f(6), *ddt = args.f(7), *dstate = args.f(8), *partial = args.f(9);
  const int64_t b = args.n(10), l = args.n(11), h = args.n(12), s = args.n(13);
  const int64_t head_blocks = (h + ANGLE_HEADS - 1) / ANGLE_HEADS;

  ctx.parallel(b * head_blocks, [=](int64_t task, char*) {
    const int64_t row = task / head_blocks, block = task % head_blocks, head0 = block * ANGLE_HEADS;
    const int64_t heads = h - head0 < ANGLE_HEADS ? h - head0 : ANGLE_HEADS, length = lengths ? lengths[row] : l;
    for (int64_t t = 0; t < l; t++)
      for (int64_t i = 0; i < heads; i++) ddt[(row * l + t) * h + head0 + i] = 0;

    for (int64_t pair = 0; pair < s; pair += ROT_H) {
      const int64_t first = (row * h + head0) * s + pair, count = s - pair;
      rot_vd g[ANGLE_HEADS];
      for (int64_t i = 0; i < heads; i++) g[i] = dstate_out ? rot_load(dstate_out + first + i * s, count) : rot_vd{};
      for (int64_t t = length - 1; t >= 0; t--) {
        const int64_t token = row * l + t;
        const bool fresh = ids && t > 0 && ids[token] != ids[token - 1];
        float bent_lanes[W];
        vstore(bent_lanes, vtanh(vload_part(angle + token * s + pair, (int)(count < ROT_H ? count : ROT_H))));
        const rot_vd bent = rot_load(bent_lanes, ROT_H);
        rot_vd share = rot_vd{};
        for (int64_t i = 0; i < heads; i++) {
          const int64_t at = token * h + head0 + i;
          g[i] += rot_load(dtheta + at * s + pair, count);
          share += g[i] * (double)dt[at];
          ddt[at] += (float)(ROT_PI * rot_sum(g[i] * bent));
          if (fresh) g[i] = rot_vd{};
        }
        rot_store(partial + ((block * b + row) * l + t) * s + pair, share, count);
      }
      for (int64_t i = 0; i < heads && dstate; i++) rot_store(dstate + first + i * s, g[i], count);
    }
  });

  ctx.parallel(b * l, [=](int64_t token, char*) {
    const bool real = !lengths || token % l < lengths[token / l];
    for (int64_t pair = 0; pair < s; pair += W) {
      const int count = s - pair < W ? (int)(s - pair) : W;
      vf sum = vzero();
      for (int64_t block = 0; block < head_blocks && real; block++)
        sum = sum + vload_some(partial + (block * b * l + token) * s + pair, count);
      const vf bent = vtanh(vload_some(angle + token * s + pair, count));
      vstore_some(dangle + token * s + pair, real ? sum * (float)ROT_PI * (1.0f - bent * bent) : vzero(), count);
    }
  });
}

// ---- turning --------------------------------------------------------------------------------------------------------
// Elements per task.
constexpr int64_t ROT_CHUNK = 1 << 14;

#if defined(__AVX512F__)
#define ROT_EVEN 0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30
#define ROT_ODD 1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31
#define ROT_LOW 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23
#define ROT_HIGH 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31
#elif defined(__AVX2__)
#define ROT_EVEN 0, 2, 4, 6, 8, 10, 12, 14
#define ROT_ODD 1, 3, 5, 7, 9, 11, 13, 15
#define ROT_LOW 0, 8, 1, 9, 2, 10, 3, 11
#define ROT_HIGH 4, 12, 5, 13, 6, 14, 7, 15
#else
#define ROT_EVEN 0, 2, 4, 6
#define ROT_ODD 1, 3, 5, 7
#define ROT_LOW 0, 4, 1, 5
#define ROT_HIGH 2, 6, 3, 7
#endif

// The sizes of a call, as in kernels.ts.
struct RotSizes {
  int64_t tokens, r, h, n, s, heads, step, gap;
};

struct RotPairs {
  vf first, second;
};

// `count` pairs from pair i on, zeros behind.
VEC_FN RotPairs rot_pairs(const RotSizes& o, const float* x, int64_t i, int count) {
  if (o.step == 1) return {vload_some(x + i, count), vload_some(x + i + o.gap, count)};
  const int low = 2 * count < W ? 2 * count : W;
  const vf a = vload_some(x + 2 * i, low), b = low < W ? vzero() : vload_some(x + 2 * i + W, 2 * count - W);
  return {__builtin_shufflevector(a, b, ROT_EVEN), __builtin_shufflevector(a, b, ROT_ODD)};
}

VEC_FN void rot_put(const RotSizes& o, float* y, int64_t i, RotPairs p, int count) {
  if (o.step == 1) {
    vstore_some(y + i, p.first, count);
    vstore_some(y + i + o.gap, p.second, count);
    return;
  }
  const int low = 2 * count < W ? 2 * count : W;
  vstore_some(y + 2 * i, __builtin_shufflevector(p.first, p.second, ROT_LOW), low);
  if (low == W) vstore_some(y + 2 * i + W, __builtin_shufflevector(p.first, p.second, ROT_HIGH), 2 * count - W);
}

// The elements of one vector that belong to no pair.
VEC_FN void rot_rest(const RotSizes& o, const float* x, float* y) {
  const int64_t paired = o.step == 1 ? o.s : 2 * o.s;
  const int64_t middle = o.step == 1 ? o.gap : o.n, last = o.step == 1 ? o.gap + o.s : o.n;
  memcpy(y + paired, x + paired, (size_t)(middle - paired) * sizeof(float));
  memcpy(y + last, x + last, (size_t)(o.n - last) * sizeof(float));
}

// body(token, first head, heads that share these angles, their offset in theta) for the tokens of one task after the other.
template <class F>
static void rot_angles(const Ctx& ctx, const RotSizes& o, const F& body) {
  const int64_t size = o.r * o.h * o.n, each = size > ROT_CHUNK ? 1 : ROT_CHUNK / (size > 0 ? size : 1);
  const int64_t shared = o.heads == 1 ? o.h : 1;
  ctx.parallel((o.tokens + each - 1) / each, [=](int64_t task, char*) {
    const int64_t end = (task + 1) * each < o.tokens ? (task + 1) * each : o.tokens;
    for (int64_t token = task * each; token < end; token++)
      for (int64_t a = 0; a < o.heads; a++) body(token, a, shared, (token * o.heads + a) * o.s);
  });
}

static void rotate_kernel(const Args& args, const Ctx& ctx) {
  const float *x = args.f(0), *theta = args.f(1);
  float* y = args.f(2);
  const RotSizes o = {args.n(3), args.n(4), args.n(5), args.n(6), args.n(7), args.n(8), args.n(9), args.n(10)};

  rot_angles(ctx, o, [=](int64_t token, int64_t head0, int64_t heads, int64_t angles) {
    for (int64_t i = 0; i < o.s; i += W) {
      const int count = o.s - i < W ? (int)(o.s - i) : W;
      const vf turn = vload_some(theta + angles + i, count), c = vcos(turn), w = vsin(turn);
      for (int64_t v = 0; v < o.r * heads; v++) {
        const int64_t at = ((token * o.r + v / heads) * o.h + head0 + v % heads) * o.n;
        const RotPairs p = rot_pairs(o, x + at, i, count);
        rot_put(o, y + at, i, {p.first * c - p.second * w, p.first * w + p.second * c}, count);
      }
    }
    for (int64_t v = 0; v < o.r * heads; v++) {
      const int64_t at = ((token * o.r + v / heads) * o.h + head0 + v % heads) * o.n;
      rot_rest(o, x + at, y + at);
    }
  });
}

static void rotate_grad(const Args& args, const Ctx& ctx) {
  const float *y = args.f(0), *theta = args.f(1), *dy = args.f(2);
  float *dx = args.f(3), *dtheta = args.f(4);
  const RotSizes o = {args.n(5), args.n(6), args.n(7), args.n(8), args.n(9), args.n(10), args.n(11), args.n(12)};

  rot_angles(ctx, o, [=](int64_t token, int64_t head0, int64_t heads, int64_t angles) {
    for (int64_t i = 0; i < o.s; i += W) {
      const int count = o.s - i < W ? (int)(o.s - i) : W;
      const vf turn = vload_some(theta + angles + i, count), c = vcos(turn), w = vsin(turn);
      vf sum = vzero();
      for (int64_t v = 0; v < o.r * heads; v++) {
        const int64_t at = ((token * o.r + v / heads) * o.h + head0 + v % heads) * o.n;
        const RotPairs p = rot_pairs(o, y + at, i, count), d = rot_pairs(o, dy + at, i, count);
        rot_put(o, dx + at, i, {d.first * c + d.second * w, d.second * c - d.first * w}, count);
        sum = sum + (d.second * p.first - d.first * p.second);
      }
      if (dtheta) vstore_some(dtheta + angles + i, sum, count);
    }
    for (int64_t v = 0; v < o.r * heads; v++) {
      const int64_t at = ((token * o.r + v / heads) * o.h + head0 + v % heads) * o.n;
      rot_rest(o, dy + at, dx + at);
    }
  });
}

#include "rotation-heads.cc"

static const Entry rotation_entries[] = {{"angleScan", 11, angleScan_kernel},
                                         {"angleScanGrad", 14, angleScan_grad},
                                         {"rotate", 11, rotate_kernel},
                                         {"rotateGrad", 13, rotate_grad},
                                         {"turnHeads", 17, turnHeads_kernel},
                                         {"turnHeadsGrad", 24, turnHeads_grad}};
