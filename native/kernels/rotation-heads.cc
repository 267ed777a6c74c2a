// B and C of Mamba-3 on their way to keys and queries, for all heads of a token at once: the norm per group, the bias of each
// head, and the turn; part of rotation.cc. Each vector is read where it was projected to and written where ssd reads it; what
// the heads of a group share is computed once for all of them, and so are the sine and cosine of an angle for B and C.

// The sizes of a call: `turn` as in rotate, with kinds 0 (B) and 1 (C), and g groups.
struct RotHeads {
  RotSizes turn;
  int64_t g;
  float eps;

  // Of x (tokens, 2, r, g, n); of a bias (h, r, n); of the results (tokens, r, h, n).
  MAMBA_INLINE int64_t source(int64_t token, int64_t kind, int64_t k, int64_t group) const {
    return (((token * 2 + kind) * turn.r + k) * g + group) * turn.n;
  }
  MAMBA_INLINE int64_t bias(int64_t head, int64_t k) const { return (head * turn.r + k) * turn.n; }
  MAMBA_INLINE int64_t result(int64_t token, int64_t k, int64_t head) const {
    return ((token * turn.r + k) * turn.h + head) * turn.n;
  }
  MAMBA_INLINE int64_t group(int64_t head) const { return head / (turn.h / g); }

  // scales[row] = 1 / rms of the rows of one token, all kinds, ranks and groups.
  MAMBA_INLINE void measure(const float* x, float* scales) const {
    for (int64_t row = 0; row < 2 * turn.r * g; row++, x += turn.n) {
      const float square = norm_row_sum(turn.n, [&](int64_t j, int count) VEC_LAMBDA {
        const vf v = vload_some(x + j, count);
        return v * v;
      });
      scales[row] = 1.0f / __builtin_sqrtf(square * (1.0f / (float)turn.n) + eps);
    }
  }
  // body(j, count) for the elements that belong to no pair.
  template <class F>
  MAMBA_INLINE void rest(const F& body) const {
    const bool apart = turn.step == 1;
    const int64_t from[2] = {apart ? turn.s : 2 * turn.s, apart ? turn.gap + turn.s : turn.n};
    const int64_t to[2] = {apart ? turn.gap : turn.n, turn.n};
    for (int part = 0; part < 2; part++)
      for (int64_t j = from[part]; j < to[part]; j += W) body(j, to[part] - j < W ? (int)(to[part] - j) : W);
  }
};

static void turnHeads_kernel(const Args& args, const Ctx& ctx) {
  const float *x = args.f(0), *theta = args.f(5);
  const float *weights[2] = {args.f(1), args.f(2)}, *biases[2] = {args.f(3), args.f(4)};
  float* to[2] = {args.f(6), args.f(7)};
  const RotHeads o = {{args.n(8), args.n(9), args.n(10), args.n(12), args.n(13), args.n(10), args.n(14), args.n(15)},
                      args.n(11),
                      args.num(16)};
  const RotSizes& turn = o.turn;
  const int64_t size = 2 * turn.r * turn.h * turn.n, each = size > ROT_CHUNK ? 1 : ROT_CHUNK / (size > 0 ? size : 1);

  ctx.parallel((turn.tokens + each - 1) / each, [=](int64_t task, char* scratch) {
    float* scales = (float*)scratch;
    const RotSizes& turn = o.turn;
    const int64_t end = (task + 1) * each < turn.tokens ? (task + 1) * each : turn.tokens;
    for (int64_t token = task * each; token < end; token++) {
      o.measure(x + o.source(token, 0, 0, 0), scales);
      for (int64_t head = 0; head < turn.h; head++) {
        const float* angles = theta + (token * turn.h + head) * turn.s;
        // visit(source, weight, bias, result, 1 / rms) for every kind and rank.
        const auto vectors = [&](const auto& visit) VEC_LAMBDA {
          for (int kind = 0; kind < 2; kind++)
            for (int64_t k = 0; k < turn.r; k++)
              visit(x + o.source(token, kind, k, o.group(head)), weights[kind], biases[kind] + o.bias(head, k),
                    to[kind] + o.result(token, k, head), vset1(scales[(kind * turn.r + k) * o.g + o.group(head)]));
        };
        for (int64_t i = 0; i < turn.s; i += W) {
          const int count = turn.s - i < W ? (int)(turn.s - i) : W;
          const vf angle = vload_some(angles + i, count), c = vcos(angle), w = vsin(angle);
          vectors([&](const float* from, const float* weight, const float* bias, float* y, vf scale) VEC_LAMBDA {
            const RotPairs v = rot_pairs(turn, from, i, count), m = rot_pairs(turn, weight, i, count);
            const RotPairs add = rot_pairs(turn, bias, i, count);
            const vf first = vfma(v.first * scale, m.first, add.first), second = vfma(v.second * scale, m.second, add.second);
            rot_put(turn, y, i, {first * c - second * w, first * w + second * c}, count);
          });
        }
        vectors([&](const float* from, const float* weight, const float* bias, float* y, vf scale) VEC_LAMBDA {
          o.rest([&](int64_t j, int count) VEC_LAMBDA {
            vstore_some(y + j, vfma(vload_some(from + j, count) * scale, vload_some(weight + j, count), vload_some(bias + j, count)),
                        count);
          });
        });
      }
    }
  });
}

// A task is one of NORM_BLOCKS fixed blocks of tokens, with sums of its own for what all tokens share: per kind the gradient of
// the bias, then per kind that of the weight. dx holds the sums over heads until a token is done.
static void turnHeads_grad(const Args& args, const Ctx& ctx) {
  const float *x = args.f(0), *theta = args.f(5);
  const float *weights[2] = {args.f(1), args.f(2)}, *biases[2] = {args.f(3), args.f(4)}, *ups[2] = {args.f(6), args.f(7)};
  float *dx = args.f(8), *dtheta = args.f(13), *partial = args.f(14);
  const RotHeads o = {{args.n(15), args.n(16), args.n(17), args.n(19), args.n(20), args.n(17), args.n(21), args.n(22)},
                      args.n(18),
                      args.num(23)};
  const int64_t n = o.turn.n, sizes[2] = {o.turn.h * o.turn.r * n, n}, whole = 2 * (sizes[0] + sizes[1]);
  const int64_t block = (o.turn.tokens + NORM_BLOCKS - 1) / NORM_BLOCKS;

  ctx.parallel(NORM_BLOCKS, [=](int64_t task, char* scratch) {
    const RotSizes& turn = o.turn;
    float *scales = (float*)scratch, *dbias = partial + task * whole, *dweight = dbias + 2 * sizes[0];
    memset(dbias, 0, (size_t)whole * sizeof(float));
    const int64_t end = (task + 1) * block < turn.tokens ? (task + 1) * block : turn.tokens;
    for (int64_t token = task * block; token < end; token++) {
      const int64_t at = o.source(token, 0, 0, 0), rows = 2 * turn.r * o.g;
      o.measure(x + at, scales);
      memset(dx + at, 0, (size_t)(rows * n) * sizeof(float));
      for (int64_t head = 0; head < turn.h; head++) {
        const int64_t angles = (token * turn.h + head) * turn.s, group = o.group(head);
        // visit(kind, source, bias, result, 1 / rms) for every kind and rank.
        const auto vectors = [&](const auto& visit) VEC_LAMBDA {
          for (int kind = 0; kind < 2; kind++)
            for (int64_t k = 0; k < turn.r; k++)
              visit(kind, o.source(token, kind, k, group), o.bias(head, k), o.result(token, k, head),
                    vset1(scales[(kind * turn.r + k) * o.g + group]));
        };
        for (int64_t i = 0; i < turn.s; i += W) {
          const int count = turn.s - i < W ? (int)(turn.s - i) : W;
          const vf angle = vload_some(theta + angles + i, count), c = vcos(angle), w = vsin(angle);
          vf turned = vzero();
          vectors([&](int kind, int64_t from, int64_t bias, int64_t result, vf scale) VEC_LAMBDA {
            const RotPairs v = rot_pairs(turn, x + from, i, count), m = rot_pairs(turn, weights[kind], i, count);
            const RotPairs add = rot_pairs(turn, biases[kind] + bias, i, count), up = rot_pairs(turn, ups[kind] + result, i, count);
            const RotPairs down = {up.first * c + up.second * w, up.second * c - up.first * w};
            turned += down.second * vfma(v.first * scale, m.first, add.first) -
                      down.first * vfma(v.second * scale, m.second, add.second);
            float* sums[2] = {dx + from, dbias + kind * sizes[0] + bias};
            for (float* sum : sums) {
              const RotPairs so_far = rot_pairs(turn, sum, i, count);
              rot_put(turn, sum, i, {so_far.first + down.first, so_far.second + down.second}, count);
            }
          });
          vstore_some(dtheta + angles + i, turned, count);
        }
        vectors([&](int kind, int64_t from, int64_t bias, int64_t result, vf) VEC_LAMBDA {
          o.rest([&](int64_t j, int count) VEC_LAMBDA {
            const vf up = vload_some(ups[kind] + result + j, count);
            float *sum = dx + from + j, *own = dbias + kind * sizes[0] + bias + j;
            vstore_some(sum, vload_some(sum, count) + up, count);
            vstore_some(own, vload_some(own, count) + up, count);
          });
        });
      }
      // Through the norm, as in norm.cc.
      for (int64_t row = 0; row < rows; row++) {
        const int kind = row >= turn.r * o.g;
        const float *from = x + at + row * n, *weight = weights[kind];
        float *down = dx + at + row * n, *dw = dweight + kind * n;
        const vf scale = vset1(scales[row]);
        const float along = norm_row_sum(n, [&](int64_t j, int count) VEC_LAMBDA {
          const vf xhat = vload_some(from + j, count) * scale, up = vload_some(down + j, count);
          vstore_some(dw + j, vload_some(dw + j, count) + up * xhat, count);
          return up * vload_some(weight + j, count) * xhat;
        }) * (1.0f / (float)n);
        norm_each(n, [&](int64_t j, int count) VEC_LAMBDA {
          const vf xhat = vload_some(from + j, count) * scale;
          vstore_some(down + j, (vload_some(down + j, count) * vload_some(weight + j, count) - xhat * along) * scale, count);
        });
      }
    }
  });
  for (int kind = 0; kind < 2; kind++) {
    norm_add_blocks(ctx, partial + kind * sizes[0], whole, args.f(11 + kind), sizes[0]);
    norm_add_blocks(ctx, partial + 2 * sizes[0] + kind * n, whole, args.f(9 + kind), n);
  }
}
