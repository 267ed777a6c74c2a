// Moving elements: strided copies, embedding rows.

// Elements per task.
constexpr int64_t CP_CHUNK = 1 << 14;
// Edge of the square blocks in which a transposing copy works, so that both sides stay in cache lines.
constexpr int64_t CP_BLOCK = 16;

struct CopyShape {
  int64_t d[6], s[6];  // extents of the contiguous side, element strides of the other
};

// Merges neighbouring axes without a jump between them; the result is padded with extents of 1 in front.
static CopyShape copy_merge(const CopyShape& from) {
  CopyShape to = {{1, 1, 1, 1, 1, 1}, {0, 0, 0, 0, 0, 0}};
  int top = 5;
  bool empty = true;
  for (int i = 5; i >= 0; i--) {
    if (from.d[i] == 1) continue;
    if (!empty && from.s[i] == to.s[top] * to.d[top]) {
      to.d[top] *= from.d[i];
      continue;
    }
    if (!empty) top--;
    to.d[top] = from.d[i], to.s[top] = from.s[i];
    empty = false;
  }
  return to;
}

// Where element (row, 0) of the last axis starts on the strided side; `row` counts through the first five axes.
static int64_t copy_offset(const CopyShape& s, int64_t row) {
  int64_t offset = 0;
  for (int i = 4; i >= 0; i--) offset += row % s.d[i] * s.s[i], row /= s.d[i];
  return offset;
}

static void copy_kernel(const Args& a, const Ctx& ctx) {
  const int32_t* x = a.ids(0);
  int32_t* y = a.ids(1);
  CopyShape s;
  for (int i = 0; i < 6; i++) s.d[i] = a.n(2 + i), s.s[i] = a.n(8 + i);
  s = copy_merge(s);
  const int64_t rows = s.d[0] * s.d[1] * s.d[2] * s.d[3] * s.d[4], length = s.d[5];
  if (rows == 0 || length == 0) return;
  const int64_t stride = s.s[5], height = s.d[4], step = s.s[4];
  if (stride != 1 && step == 1) {
    // A transposition of the last two axes: bands of CP_BLOCK rows, in blocks.
    const int64_t planes = rows / height, bands = (height + CP_BLOCK - 1) / CP_BLOCK;
    ctx.parallel(planes * bands, [&](int64_t task, char*) {
      const int64_t first = task % bands * CP_BLOCK, plane = task / bands * height;
      const int64_t last = first + CP_BLOCK < height ? first + CP_BLOCK : height;
      const int32_t* from = x + copy_offset(s, plane);
      for (int64_t j0 = 0; j0 < length; j0 += CP_BLOCK) {
        const int64_t j1 = j0 + CP_BLOCK < length ? j0 + CP_BLOCK : length;
        for (int64_t i = first; i < last; i++)
          for (int64_t j = j0; j < j1; j++) y[(plane + i) * length + j] = from[j * stride + i];
      }
    });
    return;
  }
  const int64_t pieces = (length + CP_CHUNK - 1) / CP_CHUNK;
  const int64_t group = length < CP_CHUNK ? CP_CHUNK / length : 1;
  ctx.parallel((rows + group - 1) / group * pieces, [&](int64_t task, char*) {
    const int64_t piece = task % pieces * CP_CHUNK, first = task / pieces * group;
    const int64_t count = length - piece < CP_CHUNK ? length - piece : CP_CHUNK;
    const int64_t last = first + group < rows ? first + group : rows;
    for (int64_t row = first; row < last; row++) {
      const int32_t* from = x + copy_offset(s, row) + piece * stride;
      int32_t* to = y + row * length + piece;
      if (stride == 1) memcpy(to, from, count * sizeof(int32_t));
      else
        for (int64_t i = 0; i < count; i++) to[i] = from[i * stride];
    }
  });
}

static void scatter_kernel(const Args& a, const Ctx& ctx) {
  const float* x = a.f(0);
  float* y = a.f(1);
  CopyShape s;
  bool overlap = false;
  for (int i = 0; i < 6; i++) {
    s.d[i] = a.n(2 + i), s.s[i] = a.n(8 + i);
    overlap |= s.s[i] == 0 && s.d[i] > 1;
  }
  const bool accumulate = a.n(14) != 0;
  s = copy_merge(s);
  const int64_t rows = s.d[0] * s.d[1] * s.d[2] * s.d[3] * s.d[4], length = s.d[5], stride = s.s[5];
  if (rows == 0 || length == 0) return;
  // Several rows that write one place are added in order, by one task.
  const int64_t group = overlap ? rows : length < CP_CHUNK ? CP_CHUNK / length : 1;
  ctx.parallel((rows + group - 1) / group, [&](int64_t task, char*) {
    const int64_t first = task * group, last = first + group < rows ? first + group : rows;
    for (int64_t row = first; row < last; row++) {
      const float* from = x + row * length;
      float* to = y + copy_offset(s, row);
      if (accumulate && stride == 1)
        for (int64_t i = 0; i < length; i++) to[i] += from[i];
      else if (accumulate)
        for (int64_t i = 0; i < length; i++) to[i * stride] += from[i];
      else if (stride == 1) memcpy(to, from, length * sizeof(float));
      else
        for (int64_t i = 0; i < length; i++) memcpy(to + i * stride, from + i, sizeof(float));
    }
  });
}

static void gatherRows_kernel(const Args& a, const Ctx& ctx) {
  const float* table = a.f(0);
  const int32_t* ids = a.ids(1);
  float* y = a.f(2);
  const int64_t count = a.n(3), d = a.n(5);
  if (d == 0) return;
  const int64_t group = d < CP_CHUNK ? CP_CHUNK / d : 1;
  ctx.parallel((count + group - 1) / group, [&](int64_t task, char*) {
    const int64_t last = (task + 1) * group < count ? (task + 1) * group : count;
    for (int64_t i = task * group; i < last; i++) memcpy(y + i * d, table + ids[i] * d, d * sizeof(float));
  });
}

// Split by columns: every task adds all rows in the order of ids, so no two tasks meet and the order is fixed.
static void scatterAddRows_kernel(const Args& a, const Ctx& ctx) {
  const float* x = a.f(0);
  const int32_t* ids = a.ids(1);
  float* table = a.f(2);
  const int64_t count = a.n(3), d = a.n(5);
  const int64_t columns = count * d < CP_CHUNK ? d : 64;  // 64 floats are four cache lines
  if (columns == 0) return;
  ctx.parallel((d + columns - 1) / columns, [&](int64_t task, char*) {
    const int64_t begin = task * columns, end = begin + columns < d ? begin + columns : d;
    for (int64_t i = 0; i < count; i++) {
      const float* from = x + i * d;
      float* to = table + ids[i] * d;
      for (int64_t j = begin; j < end; j++) to[j] += from[j];
    }
  });
}

static const Entry copy_entries[] = {
    {"copy", 14, copy_kernel},
    {"scatter", 15, scatter_kernel},
    {"gatherRows", 6, gatherRows_kernel},
    {"scatterAddRows", 6, scatterAddRows_kernel},
};
