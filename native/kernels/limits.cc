// What this machine can do at most, for benches to compare with: multiply-adds that never leave the registers, and a pass over
// memory that only adds up what it reads. No kernels: a host calls them through the variant.

// Chains that hide the latency of a multiply-add on two ports.
constexpr int PEAK_CHAINS = 10;

static void peak_floats(int64_t iterations, float* out) {
  vf sums[PEAK_CHAINS];
  for (int i = 0; i < PEAK_CHAINS; i++) sums[i] = vset1((float)i);
  const vf factor = vset1(0.999f), term = vset1(1e-3f);
  for (int64_t i = 0; i < iterations; i++)
    for (int j = 0; j < PEAK_CHAINS; j++) sums[j] = vfma(sums[j], factor, term);
  for (int i = 1; i < PEAK_CHAINS; i++) sums[0] += sums[i];
  vstore(out, sums[0]);
}

#if defined(__AVX512F__)

// vdpbf16ps: two products per float32 sum.
__attribute__((target("avx512bf16"), noinline)) static void peak_bf16(int64_t iterations, float* out) {
  __m512 sums[PEAK_CHAINS];
  for (int i = 0; i < PEAK_CHAINS; i++) sums[i] = _mm512_set1_ps((float)i);
  const __m512bh ones = (__m512bh)_mm512_set1_epi16(0x3f80);
  for (int64_t i = 0; i < iterations; i++)
    for (int j = 0; j < PEAK_CHAINS; j++) sums[j] = _mm512_dpbf16_ps(sums[j], ones, ones);
  for (int i = 1; i < PEAK_CHAINS; i++) sums[0] += sums[i];
  vstore(out, (vf)sums[0]);
}

// vpdpbusd: four products per int32 sum.
__attribute__((target("avx512vnni"), noinline)) static void peak_int8(int64_t iterations, float* out) {
  __m512i sums[PEAK_CHAINS];
  for (int i = 0; i < PEAK_CHAINS; i++) sums[i] = _mm512_set1_epi32(i);
  const __m512i ones = _mm512_set1_epi8(1);
  for (int64_t i = 0; i < iterations; i++)
    for (int j = 0; j < PEAK_CHAINS; j++) sums[j] = _mm512_dpbusd_epi32(sums[j], ones, ones);
  for (int i = 1; i < PEAK_CHAINS; i++) sums[0] = _mm512_add_epi32(sums[0], sums[i]);
  vstore_i((int32_t*)out, (vi)sums[0]);
}

// Tiles of 16 by 16 sums, 64 bytes along k: four of them from two of each operand.
constexpr int PEAK_TILE_BYTES = 4 * 16 * 16 * 64;
template <bool BYTES>
static void peak_tiles(int64_t iterations, float* out) {
  using T = HardwareTiles;
  T::configure(tiles_whole());
  T::zero<0>(), T::zero<1>(), T::zero<2>(), T::zero<3>(), T::zero<4>(), T::zero<5>(), T::zero<6>(), T::zero<7>();
  for (int64_t i = 0; i < iterations; i++) {
    if (BYTES) T::dot_bytes<0, 4, 6>(), T::dot_bytes<1, 4, 7>(), T::dot_bytes<2, 5, 6>(), T::dot_bytes<3, 5, 7>();
    else T::dot<0, 4, 6>(), T::dot<1, 4, 7>(), T::dot<2, 5, 6>(), T::dot<3, 5, 7>();
  }
  T::store<0>(out, 64);
  T::release();
}

#endif

struct PeakLoop {
  void (*run)(int64_t iterations, float* out);
  double products;  // of one iteration
};

static PeakLoop peak_loop(int features, PeakKind kind) {
  constexpr double LANES = W * PEAK_CHAINS;
#if defined(__AVX512F__)
  if (kind == PEAK_BF16 && (features & FEATURE_AMX)) return {peak_tiles<false>, PEAK_TILE_BYTES / 2};
  if (kind == PEAK_INT8 && (features & FEATURE_AMX)) return {peak_tiles<true>, PEAK_TILE_BYTES};
  if (kind == PEAK_BF16 && (features & FEATURE_BF16)) return {peak_bf16, 2 * LANES};
  if (kind == PEAK_INT8 && (features & FEATURE_VNNI)) return {peak_int8, 4 * LANES};
#else
  (void)features, (void)kind;
#endif
  return {peak_floats, LANES};
}

double peak(const Ctx& ctx, int64_t threads, PeakKind kind, int64_t iterations) {
  const PeakLoop loop = peak_loop(ctx.features, kind);
  ctx.parallel(threads, [=](int64_t, char* scratch) { loop.run(iterations, (float*)scratch); });
  return 2.0 * loop.products * (double)threads * (double)iterations;
}

// Streams of one thread: rows in several pages keep several prefetchers of a core busy.
constexpr int64_t READ_STREAMS = 8;
// A cache line of one stream, then the next stream's turn.
constexpr int64_t READ_FLOATS = 16;

int64_t read_all(const Ctx& ctx, int64_t threads, const float* data, int64_t count) {
  const int64_t each = count / (threads * READ_STREAMS) / READ_FLOATS * READ_FLOATS;
  ctx.parallel(threads, [=](int64_t task, char* scratch) {
    const float* own = data + task * READ_STREAMS * each;
    vf sums[READ_STREAMS];
    for (int s = 0; s < READ_STREAMS; s++) sums[s] = vzero();
    for (int64_t i = 0; i < each; i += READ_FLOATS)
      for (int s = 0; s < READ_STREAMS; s++) {
        const float* from = own + s * each + i;
        for (int64_t j = 0; j < READ_FLOATS; j += W) sums[s] += vload(from + j);
      }
    for (int s = 1; s < READ_STREAMS; s++) sums[0] += sums[s];
    vstore((float*)scratch, sums[0]);
  });
  return each * READ_STREAMS * threads;
}
