// Cases of the kernels that move elements.
#include "harness.h"

namespace {

void test_strided() {
  const int64_t layouts[][12] = {
      // extents, strides of the side that is not contiguous
      {1, 1, 1, 2, 3, 37, 222, 222, 222, 111, 37, 1}, {1, 1, 1, 1, 1, 40001, 0, 0, 0, 0, 0, 1},
      {1, 1, 1, 1, 65, 133, 0, 0, 0, 0, 1, 65},       {2, 3, 2, 3, 2, 3, 1, 2, 6, 12, 36, 72},
      {1, 1, 1, 3, 17, 5, 0, 0, 0, 85, 1, 17},        {1, 1, 1, 1, 9, 7, 0, 0, 0, 0, 20, 1},
      {1, 1, 2, 4, 7, 5, 0, 0, 140, 5, 20, 1},        {1, 1, 1, 1, 1, 50, 0, 0, 0, 0, 0, 3},
      {1, 1, 2, 0, 3, 1, 1, 1, 1, 1, 1, 1},           {1, 1, 1, 1, 6, 11, 0, 0, 0, 0, 0, 1},
  };
  for (const auto& s : layouts) {
    int64_t count = 1, reach = 1;
    bool overlap = false;
    for (int i = 0; i < 6; i++) count *= s[i], reach += (s[i] > 0 ? s[i] - 1 : 0) * s[6 + i], overlap |= s[i] > 1 && !s[6 + i];
    std::vector<int64_t> offsets;
    for (int64_t i = 0; i < count; i++) {
      int64_t offset = 0, rest = i;
      for (int axis = 5; axis >= 0; axis--) offset += rest % s[axis] * s[6 + axis], rest /= s[axis];
      offsets.push_back(offset);
    }
    const Floats wide = normal(reach), dense = normal(count);
    Floats copied;
    Balls stored(wide.begin(), wide.end()), added(wide.begin(), wide.end());
    for (int64_t i = 0; i < count; i++) {
      copied.push_back(wide[offsets[i]]);
      stored[offsets[i]] = dense[i];
      added[offsets[i]] = overlap ? added[offsets[i]] + dense[i] : exactly(added[offsets[i]].v + dense[i]);
    }
    const std::string label = std::to_string(count) + " of " + std::to_string(reach);
    const auto finish = [&](Call& call) -> Call& {
      call.label(label);
      for (const int64_t value : s) call.num((double)value);
      return call;
    };
    finish(Call("copy").in(wide).out_bits(copied)).check();
    if (!overlap) finish(Call("scatter").in(dense).io(wide, stored)).num(0).check();
    finish(Call("scatter").in(dense).io(wide, added)).num(1).check();
  }
}

void test_rows() {
  const int64_t shapes[][3] = {{1, 1, 1}, {7, 5, 3}, {40, 9, 129}, {300, 50, 257}};  // ids, rows, width
  for (const auto& [count, rows, d] : shapes) {
    const Floats table = normal(rows * d), x = normal(count * d);
    Ints ids;
    for (const float place : uniform(count, 0, (double)rows)) ids.push_back(place < rows ? (int32_t)place : 0);
    Floats gathered;
    std::vector<Sum> sums(rows * d);
    for (int64_t i = 0; i < rows * d; i++) sums[i] += table[i];
    for (int64_t i = 0; i < count; i++) {
      for (int64_t j = 0; j < d; j++) {
        gathered.push_back(table[ids[i] * d + j]);
        sums[ids[i] * d + j] += x[i * d + j];
      }
    }
    Balls added;
    for (const Sum& sum : sums) added.push_back(sum.total());
    const auto sizes = {(double)count, (double)rows, (double)d};
    const std::string label = std::to_string(count) + " of " + std::to_string(rows) + " by " + std::to_string(d);
    Call("gatherRows").label(label).in(table).ids(ids).out_bits(gathered).nums(sizes).check();
    Call("scatterAddRows").label(label).in(x).ids(ids).io(table, added).nums(sizes).check();
  }
}

}  // namespace

void test_moves() {
  test_strided();
  test_rows();
}
