// The backward pass of ssd; part of ssd.cc.
//
// A task is one row, one group and one of SSD_PARTS fixed parts of the group's heads. It walks through the chunks from the last
// to the first; per chunk and head it computes the states between the pieces again from the checkpoint, then goes back piece by
// piece. What all heads of a group share, the gradients of B, C and C B^T, is added up per part and once more over the parts at
// the end, where the gradient of C B^T becomes those of B and C. Every sum has a fixed order, whatever the threads do.
//
// The gradient of the decay of token t is the sum of everything that passes from before t to t or later. No term of it is ever
// taken back by subtraction, so a strong decay has a gradient as good as any other.

// `partial`, in this order; see ssdGradPartialSize in src/backend/kernels.ts.
struct SsdPartial {
  float *products;                       // (b, g, l r, width)
  float *dproducts, *dB, *dC;            // (tasks, l r, width or n padded)
  float *states, *turned;                // (tasks, pieces of a chunk, p, n padded), (tasks, n, p padded)
  float *dstate, *dD;                    // (b, h, p, n padded), (b, h, p padded)

  SsdPartial(SsdSpace space, const SsdShapes& s, int64_t parts, int64_t cells) {
    const int64_t rows = s.l * s.r, tasks = s.b * s.g * parts, nw = ssd_padded(s.n), pw = ssd_padded(s.p);
    products = space(s.b * s.g * rows * s.width);
    dproducts = space(tasks * rows * s.width), dB = space(tasks * rows * nw), dC = space(tasks * rows * nw);
    states = space(tasks * cells * s.p * nw), turned = space(tasks * s.n * pw);
    dstate = space(s.b * s.h * s.p * nw), dD = space(s.b * s.h * pw);
  }
};

// What a triangle of products leaves for the tokens of a piece.
struct SsdShares {
  float *columns;    // per row: of dscale, through tokens behind it
  float *below;      // per row j: the sum of M dM of the rows from the present one on
  float *passing;    // per token t: the sum of M[i][j] dM[i][j] over j before t and i at t or later
  float *self;       // per token: of its own weight
};

// From dM and C B^T to M, to the gradient of C B^T (`add`ed or stored), and to the shares of the tokens.
static __attribute__((noinline)) void ssd_unmix(float* M, const float* dM, const float* products, float* dproducts, bool add,
                                                int64_t width, SsdWeights& w, int64_t ranks, const SsdShares& shares) {
  for (int64_t j = 0; j < width; j += W) vstore(shares.columns + j, vzero()), vstore(shares.below + j, vzero());
  for (int64_t t = w.rows / ranks - 1; t >= 0; t--) {
    const int64_t first = t * ranks, after = first + ranks;
    w.aim(first);
    vf passing = vzero();
    for (int64_t j = 0; j < first; j += W) {
      const vi seen = vlanes((int)(first - j));
      const vf decay = vselect(seen, w.between(first, j), vzero()), scale = vload(w.scale + j);
      vf share = vzero();
      for (int64_t k = first; k < after; k++) {
        const int64_t at = k * width + j;
        const vf product = vselect(seen, vload(products + at), vzero()), up = vselect(seen, vload(dM + at), vzero());
        const vf mixed = product * decay, down = up * (decay * scale);
        share += up * mixed;
        vstore(M + at, mixed * scale);
        vstore(dproducts + at, add ? vload(dproducts + at) + down : down);
      }
      const vf below = vload(shares.below + j) + share * scale;
      vstore(shares.columns + j, vload(shares.columns + j) + share);
      vstore(shares.below + j, below);
      passing += vselect(seen, below, vzero());
    }
    float self = 0;
    for (int64_t k = first; k < after; k++) {
      for (int64_t at = k * width + first; at < k * width + after; at++) {
        const float down = dM[at] * w.own[first];
        self += dM[at] * products[at];
        M[at] = products[at] * w.own[first];
        dproducts[at] = add ? dproducts[at] + down : down;
      }
    }
    shares.passing[t] = hsum(passing), shares.self[t] = self;
  }
}

// to (rows, columns) = the sum of `terms` matrices, `stride` apart. All have rows of whole vectors, `step` apart.
static SsdMatrix ssd_total(float* to, const float* from, int64_t stride, int64_t terms, int64_t rows, int64_t columns,
                           int64_t step) {
  for (int64_t i = 0; i < rows; i++) {
    for (int64_t j = 0; j < columns; j += W) {
      vf sum = vload(from + i * step + j);
      for (int64_t term = 1; term < terms; term++) sum += vload(from + term * stride + i * step + j);
      vstore(to + i * step + j, sum);
    }
  }
  return {to, step};
}

static __attribute__((noinline)) float ssd_dot(SsdMatrix a, SsdMatrix b, int64_t rows, int64_t columns) {
  vf sum = vzero();
  for (int64_t i = 0; i < rows; i++)
    for (int64_t j = 0; j < columns; j += W) sum += vload(a.at + i * a.step + j) * vload(b.at + i * b.step + j);
  return hsum(sum);
}

static void ssd_zero_rows(float* to, int64_t step, int64_t rows, int64_t columns) {
  for (int64_t i = 0; i < rows; i++) memset(to + i * step, 0, (size_t)columns * sizeof(float));
}

static void ssd_backward(const Args& args, const Ctx& ctx) {
  const float *x = args.f(0), *decay = args.f(1), *scale = args.f(2), *own = args.f(3) ? args.f(3) : scale;
  const float *B = args.f(4), *C = args.f(5), *D = args.f(6);
  const int32_t *ids = args.ids(7), *lengths = args.ids(8);
  const float *checkpoints = args.f(9), *dy = args.f(10), *dstate_out = args.f(11);
  float *dx = args.f(12), *ddecay = args.f(13), *dscale = args.f(14), *down = args.f(15);
  float *dB = args.f(16), *dC = args.f(17), *dD = args.f(18), *dstate = args.f(19);
  SsdShapes s = {args.n(21), args.n(22), args.n(23), args.n(24), args.n(25), args.n(26), args.n(27), 0};
  const SsdWalk cut(s.r, args.n(28));
  const int64_t d_width = args.n(29), chunks = cut.chunks(s.l), cells = cut.cells(s.l), heads = s.h / s.g;
  const int64_t parts = heads < SSD_PARTS ? heads : SSD_PARTS, nw = ssd_padded(s.n), pw = ssd_padded(s.p);
  s.width = ssd_padded(cut.size * s.r);
  const SsdPartial partial({args.f(20)}, s, parts, cells);
  const bool single = s.g == s.h;  // heads without company: nothing is added up over heads
  if (!single) ssd_groups(ctx, s, cut, B, C, ids, lengths, partial.products);

  ctx.parallel(s.b * s.g * parts, [=](int64_t task, char* scratch) {
    const int64_t part = task % parts, group = task / parts % s.g, row = task / parts / s.g;
    const int64_t p = s.p, n = s.n, r = s.r, width = s.width, group_step = s.g * n, head_step = s.h * p;
    const int64_t whole = (n + W - 1) / W * W, first_head = group * heads + part * heads / parts;
    const SsdWalk walk(cut, row, s.l, ids, lengths);
    SsdSpace take = {(float*)scratch};
    const int32_t* visible = ssd_visible((int32_t*)take(width), width, r);
    SsdWeights w(take, width, r);
    const SsdShares shares = {take(width), take(width), take(width), take(width)};
    float *M = take(width * width), *dM = take(width * width), *turned_x = take(p * width), *weighted = take(width * pw);
    float *space_x = take(width * pw), *space_dy = take(width * pw), *spaceB = take(width * nw), *spaceC = take(width * nw);
    float *own_turned = take(n * width), *own_products = take(width * width), *own_dproducts = take(width * width);
    float *skip = take(pw), *fade = take(nw), *written = take(width), *read = take(width);
    float* states = partial.states + task * cells * p * nw;

    for (int64_t chunk = (walk.length + walk.q - 1) / walk.q - 1; chunk >= 0; chunk--) {
      const int64_t begin = chunk * walk.q, stop = begin + walk.q < walk.length ? begin + walk.q : walk.length;
      for (int64_t head = first_head; head < group * heads + (part + 1) * heads / parts; head++) {
        const bool add = head > first_head;
        float *dS = partial.dstate + (row * s.h + head) * p * nw, *sumD = partial.dD + (row * s.h + head) * pw;
        for (int64_t i = 0; i < p; i++) skip[i] = D ? D[d_width == 1 ? head : head * p + i] : 0.0f;
        if (stop == walk.length) {
          memset(sumD, 0, (size_t)pw * sizeof(float));
          if (dstate_out) ssd_weighted({dstate_out + (row * s.h + head) * p * n, n}, nullptr, p, n, dS);
        }
        const auto weigh = [&](int64_t start, int64_t end) {
          const int64_t at = (row * s.l + start) * s.h + head;
          w.read(decay + at, scale + at, own + at, s.h, end - start, r);
          for (int64_t i = 0; i < nw; i++) fade[i] = w.end;
        };
        const SsdMatrix checkpoint = {checkpoints + ((row * chunks + chunk) * s.h + head) * p * n, n};
        const SsdMatrix initial = ssd_whole(checkpoint, p, n, states);
        const auto before = [&](int64_t t) -> SsdMatrix {
          return walk.cell(t) == 0 ? initial : SsdMatrix{states + walk.cell(t) * p * nw, nw};
        };

        // The states at the beginnings of pieces that go on with the piece before.
        for (int64_t start = begin, end; (end = walk.end(start)) < stop; start = end) {
          if (walk.fresh(end)) continue;
          weigh(start, end);
          const int64_t rows = (end - start) * r;
          SsdProduct product;
          if (!walk.fresh(start)) product.init = before(start), product.start = fade;
          product.a2 = ssd_weighted({x + s.at_head(row, start, head), head_step}, w.into, rows, p, weighted);
          product.b2 = ssd_gathered(s, {B + s.at_group(row, start, group), group_step}, rows, spaceB), product.k2 = rows;
          product.c = states + walk.cell(end) * p * nw, product.c_step = nw;
          ssd_multiply(product, p, whole);
        }

        for (int64_t end = stop, start; end > begin; end = start) {
          start = walk.start(end);
          const bool continues = !walk.fresh(start), continued = end == walk.length ? dstate_out != nullptr : !walk.fresh(end);
          const int64_t tokens = end - start, rows = tokens * r, at = s.at_head(row, start, head);
          const int64_t at_group = s.at_group(row, start, group), at_part = task * s.l * r + start * r;
          // Packed here, and fetched for the head that comes next.
          const SsdMatrix inputs = ssd_weighted({x + at, head_step}, nullptr, rows, p, space_x, p);
          const SsdMatrix ups = ssd_weighted({dy + at, head_step}, nullptr, rows, p, space_dy, p);
          const SsdMatrix rowsB = ssd_gathered(s, {B + at_group, group_step}, rows, spaceB);
          const SsdMatrix rowsC = ssd_gathered(s, {C + at_group, group_step}, rows, spaceC);
          const float* products = partial.products + s.at_products(row, start, group);
          float* dproducts = single ? own_dproducts : partial.dproducts + at_part * width;
          if (single) products = ssd_products(s, rowsB, rowsC, rows, visible, own_turned, own_products).at;
          weigh(start, end);

          SsdProduct product;  // dM = dy x^T
          product.visible = visible, product.lower = true, product.ranks = r;
          product.a1 = ups, product.b1 = ssd_turned(inputs, rows, p, turned_x), product.k1 = p;
          product.c = dM, product.c_step = width;
          ssd_multiply(product, rows, rows);
          ssd_unmix(M, dM, products, dproducts, add, width, w, r, shares);

          product = SsdProduct();  // dx = exp(a[end] - a) scale B dS + D dy + M^T dy
          if (continued) {
            product.a1 = rowsB, product.k1 = n, product.weight = w.into;
            product.b1 = ssd_turned({dS, nw}, p, n, partial.turned + task * n * pw);
          }
          if (D) product.init = ups, product.start = skip;
          product.a2 = {M, width}, product.b2 = ups, product.k2 = rows, product.shape = SSD_UPPER;
          product.visible = visible, product.ranks = r;
          product.c = dx + at, product.c_step = head_step;
          ssd_multiply(product, rows, p);

          for (int64_t k = 0; k < rows; k++) written[k] = read[k] = 0;
          product = SsdProduct();  // dB += exp(a[end] - a) scale x dS
          if (single) {  // and through C B^T at once
            product.c = dB + at_group, product.c_step = group_step;
            product.a2 = {dproducts, width}, product.b2 = rowsC, product.k2 = rows, product.shape = SSD_UPPER;
            product.visible = visible, product.ranks = r;
          } else {
            product.c = partial.dB + at_part * nw, product.c_step = nw;
            if (add) product.init = {product.c, nw};
          }
          if (continued) {
            product.a1 = inputs, product.b1 = {dS, nw}, product.k1 = p, product.weight = w.into;
            product.dots = written, product.dot_with = rowsB.at, product.dot_step = rowsB.step;
          }
          if (continued || !add) ssd_multiply(product, rows, single ? n : whole);

          product = SsdProduct();  // dC += exp(a) dy S
          if (single) {
            product.c = dC + at_group, product.c_step = group_step;
            product.a2 = {dproducts, width}, product.b2 = rowsB, product.k2 = rows, product.shape = SSD_LOWER;
            product.visible = visible, product.ranks = r;
          } else {
            product.c = partial.dC + at_part * nw, product.c_step = nw;
            if (add) product.init = {product.c, nw};
          }
          if (continues) {
            product.a1 = ups, product.b1 = before(start), product.k1 = p, product.weight = w.in;
            product.dots = read, product.dot_with = rowsC.at, product.dot_step = rowsC.step;
          }
          if (continues || !add) ssd_multiply(product, rows, single ? n : whole);

          float kept = 0;
          if (continues && continued) kept = w.end * ssd_dot(before(start), {dS, nw}, p, whole);
          if (continues) {  // dS = exp(a[end]) dS + (exp(a) dy)^T C
            product = SsdProduct();
            if (continued) product.init = {dS, nw}, product.start = fade;
            product.a2 = ssd_weighted(ups, w.in, rows, p, weighted), product.b2 = rowsC, product.k2 = rows;
            product.c = dS, product.c_step = nw;
            ssd_multiply(product, p, whole);
          }

          const int64_t weights_at = (row * s.l + start) * s.h + head;
          for (int64_t t = 0; t < tokens; t++) {
            float behind = 0, after = 0;
            for (int64_t k = t * r; k < (t + 1) * r; k++) behind += shares.columns[k], after += written[k] * w.out[k];
            if (!down) behind += shares.self[t];
            else down[weights_at + t * s.h] = shares.self[t];
            dscale[weights_at + t * s.h] = behind + after;
            ddecay[weights_at + t * s.h] = shares.passing[t] + kept;
            kept += after * w.scale[t * r];
          }
          float later = 0;
          for (int64_t t = tokens - 1; t >= 0; t--) {
            for (int64_t k = t * r; k < (t + 1) * r; k++) later += read[k] * w.in[k];
            ddecay[weights_at + t * s.h] += later;
          }
          for (int64_t k = 0; dD && k < rows; k++) {
            for (int64_t i = 0; i < p; i += W) {
              const vf sum = vload(sumD + i) + vload(ups.at + k * pw + i) * vload(inputs.at + k * pw + i);
              vstore(sumD + i, sum);
            }
          }
        }
      }
    }

    for (int64_t head = first_head; head < group * heads + (part + 1) * heads / parts; head++) {
      const int64_t place = (row * s.h + head) * p, after = row * s.l + walk.length, rest = s.l - walk.length;
      const float* dS = partial.dstate + place * nw;
      for (int64_t i = 0; dstate && i < p; i++) {
        float* to = dstate + (place + i) * n;
        if (walk.length > 0) memcpy(to, dS + i * nw, (size_t)n * sizeof(float));
        else if (dstate_out) memcpy(to, dstate_out + (place + i) * n, (size_t)n * sizeof(float));
        else memset(to, 0, (size_t)n * sizeof(float));
      }
      if (walk.length == 0) memset(partial.dD + (row * s.h + head) * pw, 0, (size_t)pw * sizeof(float));
      ssd_zero_rows(dx + s.at_head(row, walk.length, head), head_step, rest * r, p);
      ssd_zero_rows(ddecay + after * s.h + head, s.h, rest, 1);
      ssd_zero_rows(dscale + after * s.h + head, s.h, rest, 1);
      if (down) ssd_zero_rows(down + after * s.h + head, s.h, rest, 1);
    }
    if (part == 0) {
      ssd_zero_rows(dB + s.at_group(row, walk.length, group), group_step, (s.l - walk.length) * r, n);
      ssd_zero_rows(dC + s.at_group(row, walk.length, group), group_step, (s.l - walk.length) * r, n);
    }
  });

  // Over the parts, and through C B^T.
  if (!single) ssd_pieces(ctx, s, cut, ids, lengths, [=](int64_t row, int64_t group, int64_t start, int64_t end, char* scratch) {
    const int64_t rows = (end - start) * s.r, at = s.at_group(row, start, group), all = s.l * s.r, step = s.g * s.n;
    const int64_t from = (row * s.g + group) * parts * all + start * s.r, whole = (s.n + W - 1) / W * W;
    SsdSpace take = {(float*)scratch};
    float *sum = take(s.width * nw), *right = take(s.width * nw);
    SsdProduct product;
    product.visible = ssd_visible((int32_t*)take(s.width), s.width, s.r), product.ranks = s.r, product.k2 = rows;
    product.a2 = ssd_total(take(s.width * s.width), partial.dproducts + from * s.width, all * s.width, parts, rows, s.width,
                           s.width);
    product.c_step = step;
    product.init = ssd_total(sum, partial.dC + from * nw, all * nw, parts, rows, whole, nw);
    product.b2 = ssd_whole({B + at, step}, rows, s.n, right), product.shape = SSD_LOWER, product.c = dC + at;
    ssd_multiply(product, rows, s.n);
    product.init = ssd_total(sum, partial.dB + from * nw, all * nw, parts, rows, whole, nw);
    product.b2 = ssd_whole({C + at, step}, rows, s.n, right), product.shape = SSD_UPPER, product.c = dB + at;
    ssd_multiply(product, rows, s.n);
  });

  for (int64_t i = 0; dD && i < s.h * s.p; i++) {
    const int64_t head = i / s.p, to = d_width == 1 ? head : i;
    float sum = d_width == 1 && i % s.p > 0 ? dD[to] : 0.0f;
    for (int64_t row = 0; row < s.b; row++) sum += partial.dD[(row * s.h + head) * pw + i % s.p];
    dD[to] = sum;
  }
}
