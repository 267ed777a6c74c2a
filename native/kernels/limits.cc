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

#endif

double peak(const Ctx& ctx, int64_t threads, PeakKind kind, int64_t iterations) {
  void (*chains)(int64_t, float*) = peak_floats;
  int products = 1;
#if defined(__AVX512F__)
  if (kind == PEAK_BF16 && (ctx.features & FEATURE_BF16)) {
    chains = peak_bf16;
    products = 2;
  }
  if (kind == PEAK_INT8 && (ctx.features & FEATURE_VNNI)) {
    chains = peak_int8;
    products = 4;
  }
#else
  (void)kind;
#endif
  ctx.parallel(threads, [=](int64_t, char* scratch) { chains(iterations, (float*)scratch); });
  return 2.0 * products * W * PEAK_CHAINS * (double)threads * (double)iterations;
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
